import json
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vcmjax.errors import DataError
from vcmjax.evaluate import plots


@pytest.fixture
def drawn(monkeypatch):
    """The figures saved, kept for inspection instead of being written."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: figures.append(figure))
    return figures


def labelled(axes):
    return dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))


def test_a_panel_for_every_task_and_split_with_every_method(results, drawn):
    plots.rate_performance(results, "unused.png")
    panels = drawn[0].axes
    grid = sorted({row["bpp_real"] for row in results["rows"] if row["bpp_real"]})
    assert len(panels) == 8
    for axes in panels:
        assert {"Original", "Control Group", "Hyperprior", "Ours"} <= set(labelled(axes))
        np.testing.assert_allclose(labelled(axes)["Ours"].lines[0].get_xdata(), grid)
        assert axes.get_xscale() == "log"
    assert "lower is better" in panels[-1].get_ylabel()
    assert "lower is better" not in panels[0].get_ylabel()


def test_curve_of_fractions_is_drawn_in_percent_with_its_control(drawn, make_results):
    plots.rate_performance(make_results(("segment_semantic",)), "unused.png")
    lines = labelled(drawn[0].axes[0])
    assert lines["Control Group"].get_ydata()[0] == pytest.approx(35.0)
    assert lines["Control Group, 2 % tolerance"].get_ydata()[0] == pytest.approx(34.3)
    assert lines["Ours"].lines[0].get_ydata()[-1] == pytest.approx(35.0, abs=0.1)


def test_only_reached_plateaus_are_ringed(results, drawn):
    plots.rate_performance(results, "unused.png")
    rings = [sum(line.get_markersize() == 13 for line in axes.lines) for axes in drawn[0].axes[:4]]
    assert rings == [2, 2, 2, 1]


def test_narrow_range_is_linear_and_bytes_are_bits_over_eight(results, drawn):
    results["rows"] = [row for row in results["rows"] if not row["bpp_real"] or row["lam"] < 13]
    plots.rate_performance(results, "unused.png")
    axes = drawn[0].axes[0]
    assert axes.get_xscale() == "linear"
    drawn[0].draw_without_rendering()
    top = axes.child_axes[0]
    np.testing.assert_allclose(top.get_xlim(), np.array(axes.get_xlim()) * 128 * 128 / 8)


def test_diverged_rows_and_absent_intervals_are_no_obstacle(results, drawn):
    before = len({row["bpp_real"] for row in results["rows"] if row["bpp_real"]})
    for row in results["rows"]:
        row["ci"] = None
        if row["lam"] == 12.0:
            row.update(status="diverged", bpp_real=None, metrics={})
    plots.rate_performance(results, "unused.png")
    assert len(labelled(drawn[0].axes[0])["Ours"].lines[0].get_xdata()) == before - 1


def test_two_recipes_of_a_method_are_two_lines(drawn, make_results):
    results = make_results(("normal",))
    results["rows"] += [row | {"recipe": "separate/labels"} for row in results["rows"]]
    plots.rate_performance(results, "unused.png")
    assert {"Ours (separate/labels)", "Ours (conditioned/network)"} <= set(
        labelled(drawn[0].axes[0])
    )


def test_bars_have_the_plateau_bits_and_the_missed_one_is_hatched(results, drawn):
    plots.plateau_bars(results, "unused.png")
    axes = drawn[0].axes[0]
    heights = sorted(patch.get_height() for patch in axes.patches)
    expected = sorted(entry["val"]["bpp_real"] for entry in results["plateau"])
    np.testing.assert_allclose(heights, expected)
    assert sum(bool(patch.get_hatch()) for patch in axes.patches) == 1
    texts = [text.get_text() for text in axes.texts]
    assert "49.2\nbytes" in texts and sum("not\nreached" in text for text in texts) == 1


def test_results_without_bits_are_refused(results):
    results["rows"] = [row for row in results["rows"] if row["bpp_real"] is None]
    with pytest.raises(DataError, match="no pooled row with real bits"):
        plots.rate_performance(results, "unused.png")
    with pytest.raises(DataError, match="no pooled plateau of split test"):
        plots.plateau_bars(results | {"plateau": []}, "unused.png", split="test")


def test_command_redraws_every_figure_from_json(tmp_path, make_results):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(make_results(("segment_semantic",))))
    assert plots.main([str(path), "--out", str(tmp_path / "figures")]) == 0
    for name in ("rate_performance.png", "plateau_bars.png"):
        with Image.open(tmp_path / "figures" / name) as picture:
            assert picture.size[0] > 600


def test_command_refuses_a_missing_file_with_status_2(tmp_path, capsys):
    assert plots.main([str(tmp_path / "absent.json")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_importing_the_module_does_not_import_matplotlib():
    code = "import sys, vcmjax.evaluate.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
