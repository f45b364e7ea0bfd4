"""The main job end to end, on a folder of small images made here; and what it refuses."""

import dataclasses
import functools
import json
import os
import shutil
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import harness, plateau
from experiments.kept import kept
from experiments.rows import Row
from vcmjax.errors import DataError, UsageError
from vcmjax.evaluate.measure import Measurement
from vcmjax.tasks import Task
from vcmjax.train import loop

SIZE = 32
COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])
COUNTS = {"train": 16, "val": 7, "test": 6}


def write_folder(root, counts=COUNTS):
    """Images of two coloured halves, whose colours are their classes."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for i in range(count):
            ids = rng.integers(0, 3, 2, np.uint8) if i else np.array([0, 2])  # two classes occur
            label = np.repeat(ids, SIZE // 2)[:, None].repeat(SIZE, 1)
            image = COLOURS[label] + rng.integers(-30, 30, (SIZE, SIZE, 3))
            for folder, array in ((split, image), (f"{split}annot", label)):
                path = root / folder / f"{i:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array.astype(np.uint8)).save(path)
    return root


@pytest.fixture(scope="module", autouse=True)
def without_extras():
    """The main job runs in a plain install."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("av", "imagecodecs", "torch", "tensorflow", "tensorflow_compression"):
            patch.setitem(sys.modules, name, None)
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = write_folder(tmp_path_factory.mktemp("data") / "halves")
    return plateau.Config(
        str(folder),
        methods=("control", "hyperprior", "ours"),
        size=SIZE,
        lams=(0.01, 1.0),
        steps=100,
        network_steps=100,
        views=16,
        latent=(4, 8),
    )


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """(config, folder of results, what `run` returned)."""
    out = tmp_path_factory.mktemp("out")
    jax.config.update("jax_disable_most_optimizations", False)  # as users run it
    results = plateau.run(config, out)
    jax.config.update("jax_disable_most_optimizations", True)
    plateau.draw(out)
    return config, out, results


def refuse_constant(name):
    raise AssertionError(f"{name} is not JSON")


# The run


def test_results_are_strict_json_and_what_run_returned(finished):
    _, out, results = finished
    text = (out / "results.json").read_text()
    read = json.loads(text, parse_constant=refuse_constant)
    assert read == json.loads(json.dumps(results))


def test_results_have_a_row_per_method_lam_split_and_seed_with_every_number(finished):
    config, _, results = finished
    rows = results["rows"]
    for split in ("val", "test"):
        for seed in (0, None):
            chosen = [r for r in rows if (r["split"], r["seed"]) == (split, seed)]
            assert [(r["method"], r["lam"]) for r in chosen] == [
                ("original", None), ("control", None),
                ("hyperprior", 0.01), ("hyperprior", 1.0), ("ours", 0.01), ("ours", 1.0),
            ]  # fmt: skip
    for row in rows:
        assert row["images"] == COUNTS[row["split"]]
        assert (row["height"], row["width"], row["status"]) == (SIZE, SIZE, "ok")
        assert 0 <= row["metrics"]["miou"] <= 1
        low, high = row["ci"]["miou"]
        assert low <= row["metrics"]["miou"] <= high or len({low, high}) == 1
        if row["method"] in ("original", "control"):
            assert row["bytes_total"] is None
        else:
            assert row["bytes_total"] > 0 and row["side_bits_estimated"] > 0
            assert row["bpp_real"] == pytest.approx(8 * row["bytes_total"] / SIZE**2)
            assert abs(8 * row["bytes_payload"] - row["bpp_estimated"] * SIZE**2) < 8
            # One file of the split: header, framing and checksums, and a number or two per image.
            around = (row["bytes_total"] - row["bytes_payload"]) * row["images"]
            assert 12 <= around <= 40 + 2 * row["images"]
            if row["seed"] is not None:
                assert np.mean(row["per_image"]["bytes"]) == pytest.approx(row["bytes_payload"])
    assert {"schema", "config", "seeds", "versions", "revision", "seconds"} <= results.keys()
    assert results["tasks"]["segment_semantic"]["reference"] == "control"
    assert results["config"]["steps"] == config.steps


def test_each_coded_method_has_one_plateau_on_both_splits(finished):
    *_, results = finished
    assert [(p["task"], p["method"]) for p in results["plateau"]] == [
        ("segment_semantic", "hyperprior"),
        ("segment_semantic", "ours"),
    ]
    (control,) = (
        r for r in results["rows"]
        if (r["method"], r["split"], r["seed"]) == ("control", "val", None)
    )  # fmt: skip
    for entry in results["plateau"]:
        assert 0.01 <= entry["lam"] <= 1.0 and 0 <= entry["level"] <= 255
        if entry["reached"]:
            assert entry["val"]["score"] >= 0.98 * control["metrics"]["miou"]
        for split in ("val", "test"):
            assert entry[split]["bpp_real"] == pytest.approx(8 * entry[f"bytes_{split}"] / SIZE**2)


def test_the_task_network_has_learned_the_colours(finished):
    *_, results = finished
    originals = [r["metrics"]["miou"] for r in results["rows"] if r["method"] == "original"]
    assert min(originals) > 0.6


def test_figures_are_drawn_and_not_empty(finished):
    _, out, _ = finished
    for name in ("rate_performance.png", "plateau.png", "examples_segment_semantic.png"):
        image = np.asarray(Image.open(out / name).convert("L"))
        assert min(image.shape) > 100 and image.std() > 5, name


def test_the_same_command_again_trains_and_measures_nothing(finished, monkeypatch):
    config, out, results = finished
    before = {p: p.stat().st_mtime_ns for p in (out / "models").rglob("*.npz")}

    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(loop, "_program", lambda *_: loop._Program(never, never))
    again = plateau.run(config, out)
    assert {k: again[k] for k in ("rows", "plateau", "tasks", "config")} == {
        k: results[k] for k in ("rows", "plateau", "tasks", "config")
    }
    assert {p: p.stat().st_mtime_ns for p in (out / "models").rglob("*.npz")} == before


@pytest.mark.parametrize("changed", [{"steps": 200}, {"lams": (0.1,)}, {"seeds": (1,)}])
def test_another_configuration_in_the_same_folder_is_refused_by_name(finished, changed):
    config, out, _ = finished
    content = (out / "results.json").read_bytes()
    (name,) = changed
    with pytest.raises(UsageError, match=rf"holds a run with other settings \({name}\)"):
        plateau.run(dataclasses.replace(config, **changed), out)
    assert (out / "results.json").read_bytes() == content


# Refusals


def refused(arguments, capsys):
    """The one line that ends `python -m experiments.plateau ARGUMENTS` with status 2."""
    with pytest.raises(SystemExit) as stop:
        harness.main(functools.partial(plateau.main, [str(a) for a in arguments]))
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    (line,) = (line for line in shown.splitlines() if "error" in line)
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "magic"], "--task magic: halves has no such task; expected segment_semantic"),
        (["--lams", "0.1", "0"], "--lams 0: expected every λ finite and above 0"),
        (["--lams", "-1"], "--lams -1: expected"),
        (["--lams", "nan"], "--lams nan: expected"),
        (["--lams", "inf"], "--lams inf: expected"),
        (["--steps", "150"], "--steps 150: expected a positive multiple of 100"),
        (["--steps", "0"], "--steps 0: expected"),
        (["--seeds", "0"], "expected 0 or more, and 1 or more"),
        (["--seed", "-3"], "--seed -3"),
        (["--tolerance", "1"], "expected a share from 0 to below 1"),
        (["--void", "300"], "void is 300; expected a label index in 0..255"),
        (["--methods", "control"], "--methods control: expected a method that sends bytes"),
    ],
)
def test_options_that_cannot_be_honoured_end_in_one_line(arguments, message, tmp_path, capsys):
    folder = write_folder(tmp_path / "halves", {"train": 1, "val": 1, "test": 1})
    out = tmp_path / "out"
    assert message in refused(["--data", folder, "--out", out, *arguments], capsys)
    assert not out.exists()


def test_a_task_unknown_to_the_rooms_is_refused_with_the_list(tmp_path, capsys):
    line = refused(["--task", "magic", "--out", tmp_path / "out"], capsys)
    assert "--task magic: rooms has no such task; expected class_scene, class_object" in line


def test_a_missing_folder_is_named(tmp_path, capsys):
    line = refused(["--data", tmp_path / "absent", "--out", tmp_path / "out"], capsys)
    assert "absent: no such folder; expected 'rooms' or a folder of images" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_empty_split_is_named_before_anything_is_trained(split, tmp_path, capsys):
    folder = write_folder(tmp_path / "halves", {"train": 1, "val": 1, "test": 1})
    shutil.rmtree(folder / split)
    (folder / split).mkdir()
    line = refused(["--data", folder, "--out", tmp_path / "out"], capsys)
    assert str(folder / split) in line and "no image" in line
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_label_of_another_size_is_named_with_both_sizes(tmp_path, capsys):
    folder = write_folder(tmp_path / "halves", {"train": 16, "val": 1, "test": 1})
    wrong = folder / "trainannot" / "15.png"
    Image.new("L", (9, 8)).save(wrong)
    line = refused(["--data", folder, "--out", tmp_path / "out"], capsys)
    assert str(wrong) in line and "32" in line and "9" in line
    assert not (tmp_path / "out" / "results.json").exists()


def test_an_output_folder_that_is_a_file_is_refused(tmp_path, capsys):
    folder = write_folder(tmp_path / "halves", {"train": 1, "val": 1, "test": 1})
    (tmp_path / "out").write_text("in the way")
    line = refused(["--data", folder, "--out", tmp_path / "out"], capsys)
    assert str(tmp_path / "out") in line


def test_a_disk_without_room_is_refused_before_anything_is_trained(tmp_path, capsys, monkeypatch):
    folder = write_folder(tmp_path / "halves", {"train": 1, "val": 1, "test": 1})
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    line = refused(["--data", folder, "--out", tmp_path / "out"], capsys)
    assert "less than 1 GiB free" in line


def test_ctrl_c_ends_with_status_130_and_says_how_to_go_on(monkeypatch, capsys):
    class Left(Exception):
        pass

    def leave(status):
        raise Left(status)

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(Left, match="130"):
        harness.main(interrupted)
    assert "the same command goes on from there" in capsys.readouterr().err


# Rows


def measurement(confusion, lengths):
    statistics = {
        "confusion": np.asarray(confusion, float),
        "cross_entropy": np.ones(len(confusion)),
    }
    lengths = np.asarray(lengths)
    container, side = np.full(len(lengths), 0.25), np.full(len(lengths), 0.1)
    return Measurement(lengths, container, 8.0 * lengths + 0.1, side, statistics)


TASK = Task("segment_semantic", "segment", 2, ("background", "thing"))


def test_a_score_that_is_undefined_is_null_in_the_results(tmp_path):
    # No pixel of the foreground: its accuracy is 0 / 0.
    m = measurement([[[4, 0], [0, 0]], [[3, 1], [0, 0]]], [5, 7])
    rows = Row(TASK, "conditioned/network", "val", (2, 2)).of("ours", 0.1, 3, {0: m})
    harness.write_json(tmp_path / "rows.json", rows)
    read = json.loads((tmp_path / "rows.json").read_text(), parse_constant=refuse_constant)
    assert read[-1]["metrics"]["non_background_accuracy"] is None
    assert read[-1]["metrics"]["accuracy"] == pytest.approx(7 / 8)


def test_streams_of_no_bytes_are_a_rate_of_zero_not_a_method_without_rate():
    m = measurement([[[4, 0], [0, 1]]] * 2, [0, 0])
    row = Row(TASK, "conditioned/network", "val", (2, 2)).of("ours", 0.1, 3, {0: m})[-1]
    assert row["bytes_payload"] == 0
    assert row["bytes_total"] == 0.25  # the container's share
    assert row["bpp_real"] == 8 * 0.25 / 4
    assert row["ci"]["bpp_real"] == [0.5, 0.5]


def test_measurements_are_kept_and_a_damaged_file_is_named(tmp_path):
    m = measurement([[[4, 0], [0, 1]]] * 2, [5, 7])
    path = tmp_path / "val_3.npz"
    for compute in (lambda: m, lambda: pytest.fail("measured twice")):
        found = kept(path, compute)
        np.testing.assert_array_equal(found.total, m.total)
        np.testing.assert_array_equal(found.statistics["confusion"], m.statistics["confusion"])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        DataError, match=r"val_3\.npz: not a measurement .* delete it and run again"
    ):
        kept(path, lambda: m)
