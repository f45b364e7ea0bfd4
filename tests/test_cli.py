"""The command line: what it writes, and what it says of bad input."""

import contextlib
import csv
import errno
import os
import signal
import threading

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
    assert [path.name for path in pictures] == sorted(path.name for path in folder.iterdir())
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
    whole = sum(size[name] for name in ("header", "framing", "names", "payload", "checksums"))
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
    given = (files * 15)[:512]
    assert run("encode", *given, "-o", coded, "--model", model, "--no-names") == 0
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


def image(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((SIZE, SIZE, 3), shade, np.uint8)).save(path)
    return path


def listing(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def message(capsys):
    """What was said since it was last asked, on one line."""
    return " ".join("".join(capsys.readouterr()).split())


def test_results_have_the_names_and_folders_of_their_images(models, tmp_path, capsys):
    model, coded = models["segment_semantic"], tmp_path / "a.vcm"
    inputs = [image(tmp_path / "in" / name, 40 * k) for k, name in enumerate(
        ["a/x.png", "b/x.png", "b/x.jpg", "b/ü.png", "img2.png", "img10.png"])]  # fmt: skip
    assert run("encode", *inputs, "-o", coded, "--model", model) == 0
    assert run("decode", coded, "-o", tmp_path / "out", "--model", model) == 0
    assert listing(tmp_path / "out") == sorted(
        ["a/x.png", "b/x.png", "b/x-2.png", "b/ü.png", "img2.png", "img10.png"]
    )
    assert run("info", coded, "--names") == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["000004 img2.png", "000005 img10.png"]
    # A folder's images are taken in natural order, with those of the folders in it.
    assert run("encode", tmp_path / "in", "-o", coded, "--model", model) == 0
    names = [entry.name for entry in container.Reader(coded).entries()]
    assert names == ["a/x.png", "b/x.jpg", "b/x.png", "b/ü.png", "img2.png", "img10.png"]


def test_classes_are_listed_with_the_names_of_their_images(models, tmp_path, capsys):
    model, coded = models["class_scene"], tmp_path / "a.vcm"
    image(tmp_path / "in" / "a,b.png"), image(tmp_path / "in" / "c" / "d.png")
    assert run("encode", tmp_path / "in", "-o", coded, "--model", model) == 0
    assert run("decode", coded, "-o", tmp_path / "out", "--model", model) == 0
    with open(tmp_path / "out" / "classes.csv", encoding="utf-8", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["a,b.png", "c/d.png"]


def test_without_names_a_file_is_smaller_and_results_are_numbered(models, tmp_path, capsys):
    model = models["segment_semantic"]
    inputs = [image(tmp_path / "in" / f"{k}.png", 40 * k) for k in range(3)]
    named, coded = tmp_path / "named.vcm", tmp_path / "bare.vcm"
    assert run("encode", *inputs, "-o", named, "--model", model) == 0
    parts = container.Reader(named).parts()
    assert f"3 images, {sum(parts) - parts.names} bytes" in message(capsys)
    assert run("encode", *inputs, "-o", coded, "--model", model, "--no-names") == 0
    assert f"3 images, {coded.stat().st_size} bytes" in message(capsys)
    assert 0 < parts.names < named.stat().st_size - coded.stat().st_size < parts.names + 4
    assert run("decode", coded, "-o", tmp_path / "out", "--model", model) == 0
    assert listing(tmp_path / "out") == ["000000.png", "000001.png", "000002.png"]
    run("info", coded, "--names")
    assert "names: none were kept" in message(capsys)


@pytest.mark.parametrize(
    "name", ["../../esc.png", "/etc/esc.png", "..\\esc.png", "a/../../../esc.png", "~/esc.png"]
)
def test_no_name_in_a_coded_file_leads_out_of_the_folder(name, models, folder, tmp_path, capsys):
    model, good = models["segment_semantic"], tmp_path / "good.vcm"
    run("encode", sorted(folder.iterdir())[0], "-o", good, "--model", model)
    reader = container.Reader(good)
    about, (image,) = reader.info, reader
    evil = tmp_path / "deep" / "deeper" / "evil.vcm"
    evil.parent.mkdir(parents=True)
    evil.write_bytes(container.pack([image.payload], about.fingerprint, image.level, names=[name]))
    out = evil.parent / "out"
    before = set(listing(tmp_path))
    assert run("decode", evil, "-o", out, "--model", model) == 0
    (new,) = set(listing(tmp_path)) - before
    assert new.startswith("deep/deeper/out/") and new.endswith("esc.png")


def test_names_cannot_command_the_terminal(tmp_path, capsys):
    coded = tmp_path / "a.vcm"
    coded.write_bytes(container.pack([b""], b"8 bytes!", 0, names=["\x1b[2Ja\nb\u202e"]))
    assert run("info", coded, "--names") == 0
    assert capsys.readouterr().out.endswith("000000 \\x1b[2Ja\\nb\\u202e\n")


def test_an_output_that_is_no_coded_file_is_not_replaced(models, tmp_path, capsys):
    model = models["segment_semantic"]
    inputs = [image(tmp_path / "st" / f"{k}.png", 40 * k) for k in range(3)]
    before = [path.read_bytes() for path in inputs]
    link, pipe, text = tmp_path / "link.vcm", tmp_path / "pipe.vcm", tmp_path / "notes.vcm"
    link.symlink_to(inputs[0]), os.mkfifo(pipe), text.write_text("notes")
    hard = tmp_path / "hard.vcm"
    hard.hardlink_to(inputs[1])
    encode = ("encode", "--model", model)
    for words, said in [
        ((*encode, *inputs, "-o", inputs[0]), "is one of the images"),
        ((*encode, "-o", *inputs), "exists and is no .vcm file"),
        ((*encode, *inputs, "-o", link), "is one of the images"),
        ((*encode, *inputs, "-o", hard, "--force"), "is one of the images"),
        ((*encode, *inputs[1:], "-o", link), "exists and is no .vcm file"),
        ((*encode, *inputs, "-o", text), "exists and is no .vcm file"),
        ((*encode, *inputs, "-o", pipe, "--force"), "no regular file"),
        ((*encode, *inputs, "-o", "/dev/null"), "no regular file"),
        ((*encode, *inputs, "-o", tmp_path / "st"), "no regular file"),
    ]:
        capsys.readouterr()
        assert run(*words) == 2, words
        assert said in message(capsys)
    assert [path.read_bytes() for path in inputs] == before and text.read_text() == "notes"
    assert run(*encode, *inputs, "-o", text, "--force") == 0
    assert run(*encode, *inputs, "-o", text) == 0  # a coded file now
    assert len(container.Reader(text)) == 3
    link.unlink()
    link.symlink_to(tmp_path / "real.vcm")
    assert run(*encode, *inputs, "-o", link) == 0
    assert link.is_symlink() and len(container.Reader(tmp_path / "real.vcm")) == 3
    assert not list(tmp_path.glob("*.part-*"))


def test_a_folder_in_use_is_written_to_by_force_alone(models, tmp_path, capsys):
    model, coded, out = models["segment_semantic"], tmp_path / "a.vcm", tmp_path / "out"
    run("encode", image(tmp_path / "in" / "a.png"), "-o", coded, "--model", model)
    decode = ("decode", coded, "-o", out, "--model", model)
    out.mkdir()
    assert run(*decode) == 0 and listing(out) == ["a.png"]
    (out / "a.png").write_text("old")
    (out / "b.png").write_text("mine")
    capsys.readouterr()
    assert run(*decode) == 2
    assert "holds something already" in message(capsys)
    assert (out / "a.png").read_text() == "old"
    assert run(*decode, "--force") == 0
    assert Image.open(out / "a.png").size == (SIZE, SIZE)
    assert (out / "b.png").read_text() == "mine" and listing(out) == ["a.png", "b.png"]


def test_a_full_disk_names_the_result_and_leaves_none(
    models, folder, tmp_path, capsys, monkeypatch
):
    model, coded, out = models["segment_semantic"], tmp_path / "a.vcm", tmp_path / "out"
    run("encode", folder, "-o", coded, "--model", model)

    def full(self, file, *rest, **options):
        if "07.png" in str(file):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return save(self, file, *rest, **options)

    save = Image.Image.save
    monkeypatch.setattr(Image.Image, "save", full)
    capsys.readouterr()
    assert run("decode", coded, "-o", out, "--model", model) == 2
    said = message(capsys)
    assert "out/07.png: cannot be written: No space left on device" in said
    assert not out.exists() and not list(tmp_path.glob("*.part-*"))


def test_files_that_are_no_images_are_counted_and_named(models, tmp_path, capsys):
    model, coded = models["segment_semantic"], tmp_path / "a.vcm"
    inside = tmp_path / "in"
    image(inside / "a.png"), image(inside / "._b.png"), image(inside / ".cache" / "c.png")
    (inside / "notes.txt").touch(), (inside / "Thumbs.db").touch()
    (inside / "again").symlink_to(inside)
    assert run("encode", inside, "-o", coded, "--model", model) == 0
    assert "left out as no image: 3 (._b.png, Thumbs.db, notes.txt)" in message(capsys)
    assert [entry.name for entry in container.Reader(coded).entries()] == ["a.png"]


def test_unreadable_images_are_left_out_if_asked_and_named(models, tmp_path, capsys):
    model, coded = models["segment_semantic"], tmp_path / "a.vcm"
    for k in range(70):  # more than two batches
        image(tmp_path / "in" / f"{k}.png", k)
    for k in (0, 40, *range(64, 70)):  # the last batch has none that is good
        (tmp_path / "in" / f"{k}.png").write_bytes(b"\x89PNG")
    assert run("encode", tmp_path / "in", "-o", coded, "--model", model) == 2
    assert not coded.exists()
    capsys.readouterr()
    assert run("encode", tmp_path / "in", "-o", coded, "--model", model, "--skip-bad") == 0
    said = message(capsys)
    assert "62 images" in said and "8 of 70 images left out" in said and "40.png" in said
    names = [entry.name for entry in container.Reader(coded).entries()]
    assert names == [f"{k}.png" for k in range(64) if k not in (0, 40)]
    (tmp_path / "bad.png").write_bytes(b"\x89PNG")
    bad = ("encode", tmp_path / "bad.png", "-o", tmp_path / "b.vcm", "--model", model)
    assert run(*bad, "--skip-bad") == 2
    assert "no image could be read" in message(capsys)
    assert not (tmp_path / "b.vcm").exists()


def test_a_few_bytes_that_ask_for_much_work_are_refused_until_told(models, tmp_path, capsys):
    model, coded = models["segment_semantic"], tmp_path / "a.vcm"
    run("encode", image(tmp_path / "a.png"), "-o", coded, "--model", model)
    fingerprint = container.Reader(coded).info.fingerprint
    for name, bomb in (
        ("positions", container.pack([b""], fingerprint, 0, (256, 256))),
        ("images", container.pack([b""] * 10_000, fingerprint, 0)),
    ):
        coded.write_bytes(bomb)
        for words in (("decode", coded, "-o", tmp_path / "out"), ("info", coded)):
            for extra in ((), ("--salvage",)) if words[0] == "decode" else ((),):
                capsys.readouterr()
                assert run(*words, "--model", model, *extra) == 2
                assert f"raise max_{name}" in message(capsys)
        assert run("info", coded, f"--max-{name}", 65536) == 0
    assert not (tmp_path / "out").exists()


def test_the_command_line_works_off_the_main_thread(tmp_path):
    found = []
    words = ("info", tmp_path / "none.vcm")
    thread = threading.Thread(target=lambda: found.append(run(*words)))
    thread.start(), thread.join()
    assert found == [2]


def test_brackets_in_a_path_are_shown(tmp_path, capsys):
    assert run("info", tmp_path / "a[bold]b.vcm") == 2
    assert "a[bold]b.vcm" in capsys.readouterr().err


def test_help_shows_examples(capsys):
    assert run("--help") == 0
    assert "vcmjax decode street.vcm" in capsys.readouterr().out
