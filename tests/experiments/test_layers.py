"""Layers of a network through conventional codecs: rows, tables and figures of both experiments."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments import feature_coding, harness, image_vs_feature
from experiments.image_vs_feature import TiledJpeg

pytest.importorskip("av", reason="needs the extra [codecs]")
EXPERIMENTS = {"feature_coding": feature_coding, "image_vs_feature": image_vs_feature}


@pytest.fixture(scope="module", params=EXPERIMENTS)
def finished(request, tmp_path_factory):
    """(experiment, its config, folder, results)."""
    module = EXPERIMENTS[request.param]
    config = module.Config(**module.QUICK)
    out = tmp_path_factory.mktemp(request.param)
    return module, config, out, module.run(config, out)


def test_more_bytes_agree_more_with_the_uncompressed_output(finished):
    *_, results = finished
    curves: dict = {}
    for row in results["rows"]:
        key = [row.get(k) for k in ("task", "layer", "packing", "split", "codec")]
        curves.setdefault(str(key), []).append((row["bytes"], row["fidelity"]))
    assert len(curves) >= 8
    for points in curves.values():
        (_, low), (_, high) = sorted(points)
        assert 0 <= low <= high <= 1
    assert np.mean([max(points)[1] for points in curves.values()]) > 0.9


def test_results_hold_what_the_figures_and_tables_need(finished):
    module, _, out, results = finished
    read = json.loads((out / "results.json").read_text())
    assert read == json.loads(json.dumps(results))
    assert {"config", "seeds", "versions", "revision", "rows"} <= read.keys()
    for row in read["rows"]:
        assert row["bytes_alone"] >= row["bytes"]
        assert np.mean(row["per_image"]["bytes"]) == pytest.approx(row["bytes"])
        assert row["ci"]["bytes"][0] <= row["bytes"] <= row["ci"]["bytes"][1]
    module.draw(read, out / "figure.png")
    assert np.asarray(Image.open(out / "figure.png").convert("L")).std() > 5


def test_the_same_run_again_measures_nothing(finished, monkeypatch):
    module, config, out, results = finished

    def measured(*_):
        raise AssertionError("a point was measured twice")

    monkeypatch.setattr("experiments.layers.point", measured)
    assert module.run(config, out)["rows"] == results["rows"]


def test_tables_have_a_line_per_layer(finished):
    module, _, _, results = finished
    if module is feature_coding:
        assert feature_coding.table_1(results).count("| encoder/Conv_2 | 16×16×8 |") == 2
        assert feature_coding.table_2(results).count("| head/Conv_0 |") == 2
    else:
        assert "| image |" in image_vs_feature.table(results)


def test_a_tiled_jpeg_errs_by_its_quantisation_and_little_more():
    feature = np.linspace(-2, 3, 16 * 16 * 8, dtype=np.float32).reshape(1, 16, 16, 8)
    codec = TiledJpeg(feature.shape[1:])
    assert np.abs(codec.decode(codec.encode(feature, 100)) - feature).max() < 0.1


def test_an_unknown_layer_is_refused_with_the_list(tmp_path, capsys):
    arguments = ["--layers", "conv9", "--images", "2", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        harness.main(lambda: feature_coding.main(arguments))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "--layers conv9: expected some of encoder/Conv_0" in error and "Traceback" not in error


def test_a_run_of_other_settings_is_not_mixed_in(finished, capsys):
    module, _, out, _ = finished
    with pytest.raises(SystemExit):
        harness.main(lambda: module.main(["--images", "3", "--out", str(out)]))
    assert "holds a run with other settings" in capsys.readouterr().err


def test_a_task_of_values_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        harness.main(
            lambda: image_vs_feature.main(["--task", "normal", "--out", str(tmp_path / "out")])
        )
    assert "--task normal: expected a task of a class" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
