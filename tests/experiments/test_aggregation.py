"""Table 4: groups of tasks in one stream each, trained for a moment."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import vcmjax
from experiments import aggregation, grouping

EXPERIMENT = aggregation


def test_a_partition_costs_the_sum_of_its_groups_streams(finished):
    config, _, results = finished
    groups = {tuple(group["tasks"]): group for group in results["groups"]}
    assert groups.keys() == {("class_scene",), ("reshading",), ("class_scene", "reshading")}
    for entry in results["partitions"]:
        chosen = [
            row
            for group in entry["groups"]
            for row in groups[tuple(group)]["rows"]
            if row["lam"] is None
        ]
        assert entry["bytes"] == pytest.approx(sum(row["bytes"] for row in chosen))
        assert entry["bpp"] == pytest.approx(8 * entry["bytes"] / config.size**2)
        for row in chosen:
            for name, scores in row["metrics"].items():
                metric = results["tasks"][name]["metric"]
                assert entry[f"score/{name}"] == pytest.approx(scores[metric])


def test_the_first_partition_is_its_own_anchor(finished):
    *_, results = finished
    assert results["partitions"][0]["bd_rate"] in (None, pytest.approx(0, abs=1e-6))


def test_the_control_group_is_each_tasks_codec_without_rate(finished):
    """Both tasks' scores come from models of their own, measured on disk, which send nothing."""
    _, out, results = finished
    control, original = results["control"], results["original"]
    right, distance = (control[f"score/{name}"] for name in ("class_scene", "reshading"))
    for name in results["tasks"]:
        (path,) = (out / "models" / "control" / name).rglob(f"test_0_{name}.npz")
        with np.load(path) as measured:
            assert not measured["bytes"].any() and not measured["estimated_bits"].any()
            if name == "class_scene":
                assert right == pytest.approx(measured["statistics/correct"].mean())
    shares = right / original["class_scene"], 2 - distance / original["reshading"]
    assert control["kept"] == pytest.approx(np.mean(shares))
    assert control["ci"]["kept"][0] <= control["kept"] <= control["ci"]["kept"][1]


def test_the_plateau_is_relative_to_the_control_group_on_validation_images(finished):
    """Scene class alone: its accuracies there are counts, read from disk."""
    config, out, results = finished

    def accuracy(folder: str, level: int) -> float:
        (path,) = (out / "models" / folder).rglob(f"val_{level}_class_scene.npz")
        with np.load(path) as measured:
            return measured["statistics/correct"].mean()

    reference = results["reference"]["class_scene"]
    assert reference == pytest.approx(accuracy("control/class_scene", 0))
    (entry,) = [group for group in results["groups"] if group["tasks"] == ["class_scene"]]
    reached = accuracy("class_scene", entry["level"]["0"]) >= (1 - config.tolerance) * reference
    assert entry["reached"]["0"] == reached


def test_a_groups_codec_takes_images_and_gives_every_task(finished):
    *_, out, results = finished
    codec = vcmjax.load(out / "codecs" / "class_scene+reshading")
    images = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    streams = codec.compress_images(images)
    output = codec.predict(codec.decompress(streams))
    assert {name: len(each) for name, each in output.items()} == {"class_scene": 2, "reshading": 2}
    (entry,) = [group for group in results["groups"] if len(group["tasks"]) == 2]
    assert codec.codec.level_of(codec.lam) == entry["level"]["0"]


def test_a_second_run_trains_and_measures_nothing(finished, again):
    _, out, results = finished
    assert again["partitions"] == results["partitions"]
    assert json.loads((out / "results.json").read_text())["groups"] == again["groups"]


def test_a_search_finds_a_partition_and_says_what_it_predicted(finished, tmp_path, drawn):
    """Of two tasks there are two partitions: the pair, where it saves anything, is the best."""
    config, out, _ = finished
    shutil.copytree(out / "models", tmp_path / "models")
    apart = (("class_scene",), ("reshading",))
    config = dataclasses.replace(config, partitions=(("Customized", apart),), search=2)
    results = aggregation.run(config, tmp_path)
    customized, found = results["partitions"]
    assert customized["name"] == "Customized" and found["groups"] == [["class_scene", "reshading"]]
    (pair,), alone = results["search"]["pairs"], results["search"]["alone"]
    assert results["search"]["predicted"] == pytest.approx(
        {
            "Customized": sum(alone.values()),
            found["name"]: sum(alone.values()) - pair["saved"],
        }
    )
    assert "The same, predicted from pairs, %" in aggregation.table(results)
    drawn(grouping.draw, results)


def test_the_table_and_the_figure_show_every_partition(finished, drawn):
    *_, results = finished
    text = aggregation.table(results)
    assert "| Customized | Pair |" in text and "| Reshading (L1 distance ↓) |" in text
    drawn(aggregation.draw, results)


def test_a_partition_alone_is_shown_too(finished, drawn):
    *_, results = finished
    alone = results | {"partitions": results["partitions"][:1]}
    assert "| Original | Control Group | Customized |\n" in aggregation.table(alone)
    drawn(aggregation.draw, alone)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--partition", "A=normal", "B=reshading"], "--partition A: expected each of normal, re"),
        (["--partition", "A"], "expected NAME=TASK+TASK,TASK"),
        (["--partition", "A=pose"], "pose"),
        (["--search", "-1"], "--search -1: expected 0 or more"),
        (["--seeds", "0"], "--seeds 0: expected 1 or more"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(tmp_path, refused, given, message):
    assert message in refused(aggregation.main, [*given, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
