"""Table 6: one task's feature sent, another task finished from it."""

import re

import numpy as np
import pytest

from experiments import transferability

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


def test_a_second_run_trains_and_measures_nothing(finished, again):
    *_, results = finished
    assert again["cells"] == results["cells"]


def test_the_table_and_the_heat_map_show_every_pair(finished, drawn):
    *_, results = finished
    text = transferability.table(results)
    assert len(re.findall(r" at [\d.]+ \[", text)) == 4 and "| Original |" in text
    drawn(transferability.draw, results)


def test_an_unknown_task_is_refused(tmp_path, refused):
    given = ["--task", "pose", "--out", str(tmp_path / "out")]
    assert "pose" in refused(transferability.main, given) and not (tmp_path / "out").exists()
