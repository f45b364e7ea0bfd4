"""Table 6: one task's feature sent, another task finished from it."""

import re

import numpy as np
import pytest
from PIL import Image

from experiments import harness, transferability

EXPERIMENT = transferability


def test_every_pair_has_its_score_and_bytes(finished):
    config, _, results = finished
    pairs = [(cell["source"], cell["target"]) for cell in results["cells"]]
    assert pairs == [(s, t) for s in config.tasks for t in config.tasks]
    for cell in results["cells"]:
        assert cell["bytes"] == pytest.approx(np.mean(cell["per_image"]["0"]["bytes"]), abs=0.01)
        assert cell["ci"]["bytes"][0] <= cell["bytes"] <= cell["ci"]["bytes"][1]
        original = results["original"][cell["target"]]
        higher = results["tasks"][cell["target"]]["metric"] != "l1"
        expected = cell["score"] / original if higher else 2 - cell["score"] / original
        assert cell["kept"] == pytest.approx(expected)


def test_a_second_run_trains_and_measures_nothing(finished, monkeypatch):
    config, out, results = finished

    def measured(*_):
        raise AssertionError("measured twice")

    monkeypatch.setattr("vcmjax.evaluate.measure.reconstruction", measured)
    assert transferability.run(config, out)["cells"] == results["cells"]


def test_the_table_and_the_heat_map_show_every_pair(finished, tmp_path):
    *_, results = finished
    text = transferability.table(results)
    assert len(re.findall(r" at [\d.]+ \[", text)) == 4 and "| Original |" in text
    transferability.draw(results, tmp_path / "map.png")
    assert np.asarray(Image.open(tmp_path / "map.png").convert("L")).std() > 5


def test_an_unknown_task_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        harness.main(
            lambda: transferability.main(["--task", "pose", "--out", str(tmp_path / "out")])
        )
    assert stop.value.code == 2
    assert "pose" in capsys.readouterr().err and not (tmp_path / "out").exists()
