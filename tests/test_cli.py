"""The command line: what it writes, and what it says of bad input."""

import contextlib
import csv
import os
import signal

import jax
import numpy as np
import pytest
from PIL import Image

from vcmjax import cli
from vcmjax.codecs.feature import FeatureCodec
from vcmjax.codecs.frozen import FrozenCodec
from vcmjax.coding import container
from vcmjax.nets import pretrained
from vcmjax.tasks import ROOMS

SIZE = 16
COUNT = 35  # more than a batch


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Directories of untrained codecs, by task."""
    found = {}
    for name in ("segment_semantic", "class_scene", "normal"):
        network = pretrained.shipped(ROOMS[name])
        sample = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
        features = network.network.encode(network.params, sample)
        codec = FeatureCodec(features.shape[1:], "codebook", (0.01, 1.0), 4, 2, hidden=16, side=3)
        params = jax.jit(codec.init)(jax.random.key(0), features)
        found[name] = tmp_path_factory.mktemp("models") / name
        FrozenCodec(codec, params, codec.tables(params), 0.1, network).save(found[name])
    networks = {name: pretrained.shipped(ROOMS[name]) for name in ("normal", "class_scene")}
    joint = {n: np.asarray(x.network.encode(x.params, sample)) for n, x in networks.items()}
    shapes = {name: feature.shape[1:] for name, feature in joint.items()}
    codec = FeatureCodec(shapes, "codebook", (0.01, 1.0), 4, 2, hidden=16, side=3)
    params = jax.jit(codec.init)(jax.random.key(0), joint)
    found["joint"] = tmp_path_factory.mktemp("models") / "joint"
    FrozenCodec(codec, params, codec.tables(params), 0.1, networks).save(found["joint"])
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(1)
    for k in range(COUNT):
        Image.fromarray(rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)).save(
            path / f"{k:02}.png"
        )
    return path


def run(*arguments):
    """Exit status of a command line."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.mark.parametrize("task", ["segment_semantic", "class_scene", "normal"])
def test_images_are_coded_and_their_task_is_finished(task, models, folder, tmp_path, capsys):
    coded, out = tmp_path / "a.vcm", tmp_path / "out"
    assert run("encode", folder, "-o", coded, "--model", models[task]) == 0
    assert run("decode", coded, "-o", out, "--model", models[task]) == 0
    assert len(container.Reader(coded)) == COUNT
    if task == "class_scene":
        rows = list(csv.DictReader((out / "classes.csv").read_text().splitlines()))
        assert [int(row["image"]) for row in rows] == list(range(COUNT))
        names = ROOMS[task].classes
        assert all(row["class"] == names[int(row["index"])] for row in rows)
        return
    pictures = sorted(out.glob("*.png"))
    assert len(pictures) == COUNT
    picture = np.asarray(Image.open(pictures[-1]))
    assert picture.shape == ((SIZE, SIZE) if task == "segment_semantic" else (SIZE, SIZE, 3))
    assert task == "normal" or picture.max() < ROOMS[task].channels


def test_one_stream_finishes_any_of_its_tasks(models, folder, tmp_path, capsys):
    coded = tmp_path / "coded.vcm"
    assert run("encode", folder, "-o", coded, "--model", models["joint"]) == 0
    assert run("decode", coded, "-o", tmp_path / "all", "--model", models["joint"]) == 0
    pictures = sorted((tmp_path / "all" / "normal").glob("*.png"))
    assert len(pictures) == COUNT
    with open(tmp_path / "all" / "class_scene" / "classes.csv") as file:
        assert len(list(csv.DictReader(file))) == COUNT
    few = ("--model", models["joint"], "--task", "normal")
    assert run("decode", coded, "-o", tmp_path / "few", *few) == 0
    assert [path.name for path in (tmp_path / "few").iterdir()] == ["normal"]
    for path in pictures:
        other = tmp_path / "few" / "normal" / path.name
        assert path.read_bytes() == other.read_bytes()
    capsys.readouterr()
    assert run("decode", coded, "-o", tmp_path / "x", *few[:3], "depth") == 2
    assert "--task depth: this model finishes normal, class_scene" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_info_accounts_for_every_byte(models, folder, tmp_path, capsys):
    coded, model = tmp_path / "a.vcm", models["segment_semantic"]
    run("encode", folder, "-o", coded, "--model", model, "--lam", 0.5)
    capsys.readouterr()
    assert run("info", coded, "--model", model) == 0
    title, _, *lines = capsys.readouterr().out.splitlines()
    assert f"{COUNT} images, {coded.stat().st_size} bytes" in title
    size = {line.split()[0]: float(line.split()[1]) for line in lines}
    whole = sum(size[name] for name in ("header", "framing", "payload", "checksums"))
    assert whole == coded.stat().st_size
    assert size["v"] + size["z"] + size["termination"] == pytest.approx(size["payload"], abs=0.2)
    # Trailing zero bytes are dropped, so a short stream may even fall below its ideal length.
    assert abs(size["termination"]) <= COUNT


def test_bad_input_ends_in_one_line_and_status_2(models, folder, tmp_path, capsys):
    model, coded = models["segment_semantic"], tmp_path / "a.vcm"
    run("encode", folder, "-o", coded, "--model", model)
    (tmp_path / "not.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    data = bytearray(coded.read_bytes())
    data[40] ^= 1
    (tmp_path / "flipped.vcm").write_bytes(data)
    out = tmp_path / "out"
    for words, message in [
        (("encode", tmp_path / "none.png", "-o", out, "--model", model), "no file"),
        (("encode", tmp_path / "not.png", "-o", out, "--model", model), "do not decode"),
        (("encode", tmp_path / "empty", "-o", out, "--model", model), "no images"),
        (("encode", folder, "-o", out, "--model", tmp_path), "no codec here"),
        (("encode", folder, "-o", out, "--model", model, "--lam", 7), "covers 0.01 to 1"),
        (("decode", tmp_path / "flipped.vcm", "-o", out, "--model", model), "flipped.vcm"),
        (("decode", coded, "-o", out, "--model", models["normal"]), "a.vcm"),
        (("info", tmp_path / "nothing.vcm"), "nothing.vcm"),
    ]:
        capsys.readouterr()
        assert run(*words) == 2, words
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error
        assert not out.is_file()


def test_images_in_intact_blocks_are_decoded_although_another_is_damaged(
    models, folder, tmp_path, capsys
):
    # 512 images are two blocks; a bit of the first is flipped.
    model, coded, out = models["normal"], tmp_path / "a.vcm", tmp_path / "out"
    files = sorted(folder.iterdir())
    assert run("encode", *(files * 15)[:512], "-o", coded, "--model", model) == 0
    data = bytearray(coded.read_bytes())
    data[300] ^= 4
    coded.write_bytes(data)
    assert run("decode", coded, "-o", out, "--model", model) == 2
    assert not list(out.glob("*.png"))
    capsys.readouterr()
    assert run("decode", coded, "-o", out, "--model", model, "--salvage") == 0
    assert "lost: images 0 to 255" in " ".join(capsys.readouterr().err.split())
    assert [path.stem for path in sorted(out.glob("*.png"))] == [
        f"{k:06d}" for k in range(256, 512)
    ]


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_that_a_callback_swallows_still_stops_the_work(
    number, expected, monkeypatch, capsys
):
    # Python ignores what is raised in a garbage collector's callback, and JAX has one.
    def work():
        with cli.steps("working", 3) as progress:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(number)
            progress(1)
            pytest.fail("went on")

    status = []
    monkeypatch.setattr(os, "_exit", status.append)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
    try:
        cli.guarded(work, "stopped")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert status == [expected] and "stopped" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_help_shows_examples(capsys):
    assert run("--help") == 0
    assert "vcmjax decode street.vcm" in capsys.readouterr().out
