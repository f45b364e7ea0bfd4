"""A codec saved, read back, and damaged."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vcmjax
from vcmjax import arrays
from vcmjax.codecs import stored
from vcmjax.codecs.feature import FeatureCodec
from vcmjax.codecs.frozen import FrozenCodec
from vcmjax.errors import DataError, VcmError
from vcmjax.io import atomic
from vcmjax.nets import pretrained
from vcmjax.tasks import ROOMS

SIZE = 16
LAMS = (0.01, 1.0)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def frozen(images):
    network = pretrained.shipped(ROOMS["segment_semantic"])
    features = network.network.encode(network.params, images)
    codec = FeatureCodec(features.shape[1:], "codebook", LAMS, 4, 2, hidden=16, side=3)
    params = jax.jit(codec.init)(jax.random.key(0), features)
    return FrozenCodec(codec, params, codec.tables(params), 0.1, network)


@pytest.fixture
def saved(frozen, tmp_path):
    frozen.save(tmp_path / "codec")
    return tmp_path / "codec"


def test_a_loaded_codec_is_the_saved_one(frozen, saved, images):
    loaded = vcmjax.load(saved)
    assert loaded.fingerprint == frozen.fingerprint
    streams = frozen.compress_images(images)
    assert loaded.compress_images(images) == streams
    features = loaded.decompress(streams)
    np.testing.assert_array_equal(features, frozen.decompress(streams))
    np.testing.assert_array_equal(loaded.predict(features), frozen.predict(features))


def test_one_of_several_tasks_takes_and_gives_dictionaries(images, tmp_path):
    networks = {name: pretrained.shipped(ROOMS[name]) for name in ("normal", "class_scene")}
    features = {n: np.asarray(x.network.encode(x.params, images)) for n, x in networks.items()}
    shapes = {name: feature.shape[1:] for name, feature in features.items()}
    codec = FeatureCodec(shapes, "codebook", LAMS, 4, 2, hidden=16, side=3)
    params = jax.jit(codec.init)(jax.random.key(0), features)
    FrozenCodec(codec, params, codec.tables(params), 0.1, networks).save(tmp_path / "joint")
    loaded = vcmjax.load(tmp_path / "joint")
    streams = loaded.compress_images(images)
    assert streams == loaded.compress(features)
    back = loaded.decompress(streams, only=("class_scene",))
    output = loaded.predict(back)
    assert output.keys() == back.keys() == {"class_scene"}
    head = networks["class_scene"]
    expected = head.network.decode(head.params, back["class_scene"])
    np.testing.assert_allclose(output["class_scene"], expected, rtol=1e-5)
    (tmp_path / "joint" / "network-normal.msgpack").unlink()
    with pytest.raises(DataError, match="network-normal"):
        vcmjax.load(tmp_path / "joint")


def test_decompressed_is_the_evaluation_mode_reconstruction(frozen, images):
    features = frozen.features(images)
    level = np.full(len(images), frozen.codec.level_of(frozen.lam))
    expected = frozen.codec.quantise(frozen.params, features, level).output.feature
    got = frozen.decompress(frozen.compress(features))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_what_the_tables_ask_for_is_the_length_but_for_termination(frozen, images):
    streams = frozen.compress_images(images)
    side, latent = frozen.spent(streams)
    termination = 8 * np.array([len(s) for s in streams]) - side - latent
    assert np.all(side > 0) and np.all(latent > 0)
    # Dropped zero bytes may take a stream below its ideal length.
    assert np.all(np.abs(termination) <= 16) and termination.mean() <= 8


def test_saving_again_replaces_and_saving_elsewhere_refuses(frozen, saved, tmp_path):
    dataclasses.replace(frozen, lam=0.5).save(saved)
    assert vcmjax.load(saved).lam == 0.5
    (tmp_path / "thesis").mkdir()
    with pytest.raises(DataError, match="thesis: exists and is not a codec"):
        frozen.save(tmp_path / "thesis")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codec", "thesis"]


def test_the_fingerprint_tells_what_the_decoder_depends_on(frozen):
    def changed(part):
        moved = jax.tree.map(lambda leaf: leaf + 1e-3, frozen.params[part])
        return dataclasses.replace(frozen, params=frozen.params | {part: moved}).fingerprint

    assert len(frozen.fingerprint) == 8
    assert changed("synthesis") != frozen.fingerprint
    assert changed("prior") != frozen.fingerprint
    assert changed("analysis") == frozen.fingerprint  # the encoder's own affair


def test_a_codec_without_task_network_takes_features_alone(frozen, tmp_path, images):
    dataclasses.replace(frozen, network=None).save(tmp_path / "plain")
    loaded = vcmjax.load(tmp_path / "plain")
    features = frozen.features(images)
    assert loaded.compress(features) == frozen.compress(features)
    with pytest.raises(VcmError, match="no task network"):
        loaded.compress_images(images)


def test_images_of_another_form_are_refused(frozen, images):
    with pytest.raises(VcmError, match="expected uint8"):
        frozen.compress_images(images.astype(np.float32))


def test_what_is_not_a_codec_or_damaged_is_refused_in_one_line(saved, tmp_path):
    with pytest.raises(DataError, match="no codec here"):
        vcmjax.load(tmp_path / "nothing")
    config = (saved / "codec.json").read_text()
    for broken, message in [
        ("{", "not readable"),
        ("[]", "codec of format"),
        (config.replace('"format": 1', '"format": 9'), "format 9"),
        (config.replace('"stride": 2', '"stride": 3'), "damaged codec"),
        (config.replace('"side": 3', '"side": 4'), "copy it again"),
    ]:
        (saved / "codec.json").write_text(broken)
        with pytest.raises(DataError, match=message):
            vcmjax.load(saved)
    (saved / "codec.json").write_text(config)
    tables = (saved / "tables.npz").read_bytes()
    (saved / "tables.npz").write_bytes(tables[: len(tables) // 2])
    with pytest.raises(DataError, match="damaged codec"):
        vcmjax.load(saved)


def test_parameters_that_were_exchanged_are_noticed(frozen, saved):
    fields = json.loads((saved / "codec.json").read_text())
    fields["fingerprint"] = "0" * 64
    (saved / "codec.json").write_text(json.dumps(fields))
    with pytest.raises(DataError, match="do not match its fingerprint"):
        vcmjax.load(saved)


# Saving


@pytest.fixture(scope="module")
def plain():
    """The smallest codec there is, of vectors and without network."""
    codec = FeatureCodec((4,), "codebook", (0.1, 0.1), 2, hidden=4, side=2)
    params = jax.jit(codec.init)(jax.random.key(0))
    return FrozenCodec(codec, params, codec.tables(params), 0.1)


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_same_codec_saved_twice_has_the_same_digest(frozen, tmp_path):
    for name in ("one", "two"):
        frozen.save(tmp_path / name)
    digests = {vcmjax.load(tmp_path / name).digest for name in ("one", "two")}
    assert digests == {frozen.digest}


def test_the_digest_tells_everything_apart(frozen):
    network = frozen.network
    nudged = jax.tree.map(lambda leaf: leaf + 0.25, network.params)
    moved = jax.tree.map(lambda leaf: leaf + 1e-3, frozen.params["analysis"])
    renamed = network.task._replace(classes=network.task.classes[::-1])
    others = [
        dataclasses.replace(frozen, lam=0.11),
        dataclasses.replace(frozen, network=None),
        dataclasses.replace(frozen, params=frozen.params | {"analysis": moved}),
        dataclasses.replace(frozen, network=network._replace(params=nudged)),
        dataclasses.replace(frozen, network=network._replace(task=renamed)),
        dataclasses.replace(frozen, network=network._replace(scores={"test": {"miou": 1.0}})),
    ]
    digests = {other.digest for other in [frozen, *others]}
    assert len(digests) == 1 + len(others)
    assert {other.fingerprint for other in others} == {frozen.fingerprint}
    assert len(frozen.digest) == 64 and int(frozen.digest, 16)


def test_whatever_was_in_the_way_stays(plain, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "codec.json").write_text('{"other": "tool"}')
    plain.save(tmp_path / "annotated")
    (tmp_path / "annotated" / "notes.txt").write_text("mine")
    (tmp_path / "annotated" / "params" / "more").write_text("mine")
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "codec.json").write_text('{"format": 2}')
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for name, message in [
        ("file", "exists and is not a codec"),
        ("folder", "codec of format None"),
        ("annotated", "holds 'notes.txt', which is no part of a codec; move it away"),
        ("newer", "codec of format 2"),
        ("file/inside", "cannot be written: (Not a directory|File exists)"),
        ("\0", "expected the name of a directory"),
        ("", "expected the name of a directory"),
        ("x" * 300, "cannot be written: File name too long"),
    ]:
        with pytest.raises(DataError, match=message):
            plain.save(tmp_path / name if name else "")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_current_directory_is_not_pulled_from_under_the_process(plain, tmp_path, monkeypatch):
    plain.save(tmp_path / "codec")
    monkeypatch.chdir(tmp_path / "codec")
    for here in (".", tmp_path / "codec"):
        with pytest.raises(DataError, match="is the current directory, or holds it"):
            plain.save(here)
    assert vcmjax.load(".").digest == plain.digest
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="exists and is not a codec"):
        plain.save(".")
    plain.save("relative")
    assert vcmjax.load(tmp_path / "relative").digest == plain.digest


def test_the_users_own_folder_may_be_written_short(plain, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    plain.save("~/models/codec")
    assert vcmjax.load("~/models/codec").digest == plain.digest
    assert listing(tmp_path) == ["models"]


def test_a_link_to_a_codec_is_followed_and_kept(plain, tmp_path):
    plain.save(tmp_path / "real")
    (tmp_path / "link").symlink_to("real", target_is_directory=True)
    dataclasses.replace(plain, network=None).save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and listing(tmp_path) == ["link", "real"]
    assert vcmjax.load(tmp_path / "link").digest == plain.digest


def full_disk(*arguments, **options):
    raise OSError(28, "No space left on device")


def failing_orbax(*arguments, **options):
    raise ValueError("RESOURCE_EXHAUSTED: no space\nmore lines")


@pytest.mark.parametrize(
    ("place", "name", "fail"),
    [
        (np, "savez", full_disk),
        (arrays.ocp.StandardCheckpointer, "save", failing_orbax),
        (stored, "write_config", full_disk),
        (atomic, "_sync", full_disk),
        (atomic.os, "rename", full_disk),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_a_disk_that_is_full_loses_nothing(plain, tmp_path, monkeypatch, place, name, fail, before):
    path = tmp_path / "codec"
    if before:
        plain.save(path)
        monkeypatch.setattr(atomic, "_exchanged", lambda one, other: False)
    with monkeypatch.context() as patch:
        patch.setattr(place, name, fail)
        with pytest.raises(DataError, match=r"cannot be written.*space"):
            dataclasses.replace(plain, params=jax.tree.map(lambda x: x + 1, plain.params)).save(
                path
            )
    assert listing(tmp_path) == (["codec"] if before else [])
    if before:
        assert vcmjax.load(path).digest == plain.digest


FILLS_THE_DISK = """
import resource, signal, sys
import vcmjax
from vcmjax.errors import DataError
codec = vcmjax.load(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    codec.save(sys.argv[2])
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("bytes_left", [0, 100_000])
def test_a_file_that_cannot_grow_is_one_error(plain, tmp_path, bytes_left):
    plain.save(tmp_path / "codec")
    command = [sys.executable, "-c", FILLS_THE_DISK, tmp_path / "codec", tmp_path / "codec"]
    done = subprocess.run([*command, str(bytes_left)], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout and done.stdout.count("\n") == 1
    assert listing(tmp_path) == ["codec"]
    assert vcmjax.load(tmp_path / "codec").digest == plain.digest


KILLED = """
import os, signal, sys
import vcmjax
from vcmjax.io import atomic
codec = vcmjax.load(sys.argv[1])
die = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "between two renames":
    rename = os.rename
    atomic._exchanged = lambda one, other: False
    atomic._sync = lambda part: setattr(os, "rename", lambda old, new: (rename(old, new), die()))
else:
    atomic._sync = die
codec.save(sys.argv[1])
"""


@pytest.mark.parametrize("when", ["between two renames", "while writing"])
def test_a_killed_save_leaves_the_codec_that_was_there(plain, tmp_path, when):
    path = tmp_path / "codec"
    plain.save(path)
    command = [sys.executable, "-c", KILLED, str(path), when]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(listing(tmp_path)) == 2 and ("codec" in listing(tmp_path)) == (when[0] == "w")
    assert vcmjax.load(path).digest == plain.digest  # which puts it back where it belongs
    plain.save(path)
    assert listing(tmp_path) == ["codec"]


def test_parameters_of_any_type_are_kept_as_float32(plain, tmp_path):
    for kind in (np.float64, np.float32, jnp.bfloat16):
        params = jax.tree.map(lambda leaf, kind=kind: np.asarray(leaf).astype(kind), plain.params)
        codec = dataclasses.replace(plain, params=params)
        codec.save(tmp_path / "codec")
        loaded = vcmjax.load(tmp_path / "codec")
        assert loaded.digest == codec.digest
        assert (loaded.digest == plain.digest) == (kind != jnp.bfloat16)
        assert {leaf.dtype for leaf in jax.tree.leaves(loaded.params)} == {np.dtype(np.float32)}


def test_what_could_not_be_loaded_again_is_not_saved(frozen, plain, tmp_path):
    params, network = plain.params, frozen.network
    broken = jax.tree.map(lambda leaf: leaf * np.nan, params["analysis"])
    odd = network._replace(task=network.task._replace(kind="depth"))
    nan = network._replace(params=jax.tree.map(lambda leaf: leaf * np.nan, network.params))
    other = network._replace(task=ROOMS["normal"])
    for codec, message in [
        (dataclasses.replace(plain, params=params | {"analysis": broken}), "holds NaN or infinity"),
        (dataclasses.replace(plain, params=params | {"more": params["prior"]}), "another codec"),
        (dataclasses.replace(frozen, network=odd), "kind is 'depth'"),
        (dataclasses.replace(frozen, network=other), "cannot be stored; save the codec with"),
        (dataclasses.replace(frozen, network=nan), "weights that are not finite in float16"),
    ]:
        with pytest.raises(VcmError, match=message):
            codec.save(tmp_path / "codec")
    assert listing(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lam": None}, "lam: found object"),
        ({"lam": float("nan")}, "lam is nan"),
        ({"lam": 2.0}, "covers 0.01 to 1"),
        ({"lam": np.array([0.1, 0.2])}, "expected one number"),
        ({"network": {"normal": None}}, "network is of one task and codec of several, or the"),
    ],
)
def test_a_codec_that_could_not_code_is_not_made(frozen, change, message):
    with pytest.raises(VcmError, match=message):
        dataclasses.replace(frozen, **change)


# Arguments


def test_lams_streams_and_sizes_are_checked_by_all_that_take_them(frozen, images):
    streams = frozen.compress_images(images)
    for call in (frozen.decompress, frozen.spent):
        for arguments, message in [
            ((streams[0],), "streams are one bytes"),
            (("abc",), "streams are one str"),
            ((["abc"],), r"streams\[0\] is of type str"),
            ((streams, [0.1, 0.2]), r"lam has shape \(2,\); expected a number, or \(5,\)"),
            ((streams, float("nan")), "lam is nan"),
            ((streams, "0.1"), "lam: found"),
            ((streams, None, (2,)), "expected .H, W., two integers"),
            ((streams, None, (0, 2)), "at least 1 position"),
            ((streams, None, (1 << 30, 1 << 30)), "at most"),
        ]:
            with pytest.raises(VcmError, match=message):
                call(*arguments)
    for lam in ([0.1, 0.2], float("nan"), "0.1", 7):
        with pytest.raises(VcmError, match="lam"):
            frozen.compress_images(images, lam)
    assert frozen.compress_images(images, None) == frozen.compress_images(images, 0.1) == streams


@pytest.mark.parametrize(
    "given",
    [
        None,
        "street.png",
        np.zeros((16, 16, 3), np.uint8),
        np.zeros((1, 3, 16, 16), np.uint8),
        np.zeros((1, 16, 16, 4), np.uint8),
        np.zeros((1, 16, 16, 3), np.float32),
        np.zeros((1, 16, 15, 3), np.uint8),
        np.zeros((1, 0, 16, 3), np.uint8),
        [np.zeros((16, 16, 3), np.uint8), np.zeros((8, 16, 3), np.uint8)],
    ],
)
def test_what_are_no_images_is_refused(frozen, given):
    for call in (frozen.features, frozen.compress_images):
        with pytest.raises(VcmError, match="images"):
            call(given)


def test_a_list_of_images_is_as_good_as_an_array_and_none_are_none(frozen, images):
    assert frozen.compress_images(list(images)) == frozen.compress_images(images)
    assert frozen.compress_images(images[:0]) == []
    assert frozen.predict(frozen.decompress([])).shape[0] == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "found object"),
        (np.zeros((1, 2, 2, 7)), r"expected \(N, 2, 2, 8\)"),
        (np.zeros((2, 2, 8)), "expected"),
        (np.full((1, 2, 2, 8), "a"), "real numbers"),
        ({"normal": np.zeros((1, 2, 2, 8))}, "expected an array"),
    ],
)
def test_features_of_another_form_are_not_finished(frozen, given, message):
    with pytest.raises(VcmError, match=message):
        frozen.predict(given)


# Other processes

FORKED = """
import multiprocessing, os, sys
import numpy as np
import vcmjax

def work(codec, name):
    try:
        codec = codec or vcmjax.load(sys.argv[1])
        images = np.zeros((1, 16, 16, 3), np.uint8)
        features = np.zeros((1, 2, 2, 8), np.float32)
        calls = {
            "load": lambda: vcmjax.load(sys.argv[1]),
            "compress": lambda: codec.compress(features),
            "compress_images": lambda: codec.compress_images(images),
            "decompress": lambda: codec.decompress([b""]),
            "features": lambda: codec.features(images),
            "predict": lambda: codec.predict(features),
        }
        calls[name]()
        print(name, "done", flush=True)
    except Exception as error:
        print(name, type(error).__name__, error, flush=True)

used = vcmjax.load(sys.argv[1]) if sys.argv[2] == "used" else None
for name in ("load", "compress", "compress_images", "decompress", "features", "predict"):
    child = multiprocessing.get_context("fork").Process(target=work, args=(used, name))
    child.start()
    child.join(100)
    child.kill()
if used:
    work(used, "compress")
"""


@pytest.mark.parametrize("parent", ["used", "fresh"])
def test_a_fork_of_a_process_that_has_used_jax_is_refused_at_once(saved, parent):
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(saved), parent]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=590)
    lines = done.stdout.splitlines()
    if parent == "fresh":
        assert [line.split()[1] for line in lines] == ["done"] * 6
        return
    assert lines.pop() == "compress done"  # in the parent itself
    assert len(lines) == 6
    for line in lines:
        assert "VcmError this process was forked" in line and "'spawn' or 'forkserver'" in line


SWITCHED = """
import hashlib, sys
import jax, numpy as np
import vcmjax
from vcmjax.codecs.feature import FeatureCodec
from vcmjax.codecs.frozen import FrozenCodec
from vcmjax.nets import pretrained
from vcmjax.tasks import ROOMS

network = pretrained.shipped(ROOMS["class_scene"])
form = FeatureCodec((2, 2, 8), sys.argv[2], (0.01, 1.0), 4, 2, hidden=16, side=3, context=True)
images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
features = network.network.encode(network.params, images)
params = jax.jit(form.init)(jax.random.key(0), np.asarray(features, np.float64))
found = FrozenCodec(form, params, form.tables(params), 0.1, network)
found.save(sys.argv[1])
loaded = vcmjax.load(sys.argv[1])
lam = np.array([0.01, 0.1, 1.0])
streams = loaded.compress_images(images, lam)
assert streams == loaded.compress(np.asarray(features, np.float64), lam)
back = loaded.decompress(streams, lam)
output = loaded.predict(np.asarray(back, np.float64))
side, latent = loaded.spent(streams, lam)
assert back.dtype == output.dtype == np.float32
print(loaded.fingerprint.hex(), loaded.digest)
for array in (back, output, side, latent, np.frombuffer(b"".join(streams), np.uint8)):
    print(hashlib.sha256(array.tobytes()).hexdigest())
"""
SWITCHES = {
    "JAX_ENABLE_X64": "1",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
}


@pytest.mark.parametrize("prior", ["codebook", "spatial"])
def test_no_switch_of_jax_changes_a_codec_or_a_byte(tmp_path, prior):
    def run(place, switches):
        command = [sys.executable, "-c", SWITCHED, str(tmp_path / place), prior]
        environment = {k: v for k, v in os.environ.items() if k not in SWITCHES} | switches
        environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("without", {}) == run("with", SWITCHES)
    assert vcmjax.load(tmp_path / "with").digest == vcmjax.load(tmp_path / "without").digest
