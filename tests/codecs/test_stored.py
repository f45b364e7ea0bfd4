"""The directory of a codec: every change of it is noticed, and no hostile one does any harm."""

import hashlib
import io
import json
import os
import re
import shutil
import struct
import tracemalloc
import zipfile
from pathlib import Path

import flax.serialization
import jax
import msgpack
import numpy as np
import pytest
import tensorstore

import vcmjax
from vcmjax.codecs import stored
from vcmjax.codecs.feature import FeatureCodec
from vcmjax.codecs.frozen import FrozenCodec
from vcmjax.errors import DataError
from vcmjax.nets import pretrained
from vcmjax.tasks import ROOMS

TASK = ROOMS["class_scene"]


@pytest.fixture(scope="module")
def codec():
    network = pretrained.shipped(TASK)
    form = FeatureCodec((2, 2, 8), "codebook", (0.1, 0.1), 2, 2, hidden=8, side=2)
    params = jax.jit(form.init)(jax.random.key(0))
    return FrozenCodec(form, params, form.tables(params), 0.1, network)


@pytest.fixture(scope="module")
def original(codec, tmp_path_factory):
    path = tmp_path_factory.mktemp("codecs") / "codec"
    codec.save(path)
    return path


@pytest.fixture
def saved(original, tmp_path):
    return shutil.copytree(original, tmp_path / "codec")


def edited(path, change):
    """``codec.json`` with `change` made to it."""
    file = path / "codec.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))


def signed(path):
    """The digests of files made anew, as by whoever means harm."""

    def change(config):
        names = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()]
        config["files"] = {
            name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names
        } | {"codec.json": stored.config_digest(config)}

    edited(path, change)


def before_digests(path):
    """As an earlier release saved it."""
    edited(path, lambda config: [config.pop(name) for name in ("digest", "files")])


# What is noticed


def files_of(path):
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())


def test_every_file_is_covered_by_a_digest(original):
    listed = json.loads((original / "codec.json").read_text())["files"]
    assert sorted(listed) == files_of(original)
    for name, digest in listed.items():
        if name != "codec.json":
            assert digest == hashlib.sha256((original / name).read_bytes()).hexdigest()


def test_every_changed_missing_or_additional_file_is_named(saved):
    for name in files_of(saved):
        file = saved / name
        content = file.read_bytes()
        if name != "codec.json":
            damages = (content[:-1], content + b"\0", content[:9] + b"!" + content[10:], b"")
            for damaged in damages:
                file.write_bytes(damaged)
                with pytest.raises(DataError, match=re.escape(f"'{name}' is not as it was saved")):
                    vcmjax.load(saved)
            file.unlink()
            with pytest.raises(DataError, match=re.escape(f"'{name}' is missing")):
                vcmjax.load(saved)
        file.write_bytes(content)
    for name in ("notes.txt", "params/d/0123", "network-normal.msgpack", "network/network.json"):
        (saved / name).parent.mkdir(exist_ok=True)
        (saved / name).write_bytes(b"")
        with pytest.raises(DataError, match=re.escape(f"holds '{name}', which is no part")):
            vcmjax.load(saved)
        (saved / name).unlink()
    vcmjax.load(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["task"].update(classes=c["task"]["classes"][::-1]),
        lambda c: c["task"].update(name="class_object"),
        lambda c: c.update(lam=0.1000000001),
        lambda c: c.update(fingerprint="0" * 64),
        lambda c: c.update(digest="0" * 64),
        lambda c: c.update(note="mine"),
        lambda c: c["files"].update({"codec.json": "0" * 64}),
        lambda c: c["files"].update({"tables.npz": None}),
    ],
)
def test_every_change_of_what_is_said_is_noticed(saved, change):
    edited(saved, change)
    with pytest.raises(DataError, match="damaged codec"):
        vcmjax.load(saved)


def test_another_layout_of_the_same_words_is_no_change(saved, codec):
    edited(saved, lambda config: None)  # which writes it in one line
    assert vcmjax.load(saved).digest == codec.digest


def test_a_network_of_the_same_form_from_elsewhere_is_noticed(saved, codec):
    other = codec.network
    shifted = jax.tree.map(lambda leaf: leaf + 0.25, other.params)
    pretrained.save(saved / "network.msgpack", other.network, shifted, other.scores)
    with pytest.raises(DataError, match=r"'network.msgpack' is not as it was saved"):
        vcmjax.load(saved)
    signed(saved)
    with pytest.raises(DataError, match="do not match its digest"):
        vcmjax.load(saved)


@pytest.mark.parametrize("name", [".DS_Store", "._codec.json", "Thumbs.db", "desktop.ini"])
@pytest.mark.parametrize("folder", ["", "params", "params/d"])
def test_what_file_managers_leave_behind_changes_nothing(saved, codec, name, folder):
    (saved / folder / name).write_bytes(b"\0\5\x16\7")
    assert vcmjax.load(saved).digest == codec.digest


def test_folders_of_systems_and_tools_change_nothing(saved, codec):
    for name in (".git", "__MACOSX", "@eaDir", ".cache"):
        (saved / name / "inside").mkdir(parents=True)
        (saved / name / "inside" / "file").touch()
    assert vcmjax.load(saved).digest == codec.digest


def test_files_may_be_links_to_files(saved, codec, tmp_path):
    # As a cache of downloads lays them out.
    store = tmp_path / "blobs"
    store.mkdir()
    for i, name in enumerate(files_of(saved)):
        os.rename(saved / name, store / str(i))
        (saved / name).symlink_to(store / str(i))
    assert vcmjax.load(saved).digest == codec.digest


# Codecs of earlier releases


def test_a_codec_saved_before_is_loaded_with_a_word_of_warning(saved, codec, caplog):
    before_digests(saved)
    loaded = vcmjax.load(saved)
    assert (loaded.fingerprint, loaded.digest) == (codec.fingerprint, codec.digest)
    assert "no digest covers its encoder, task network and names" in caplog.text
    caplog.clear()
    loaded.save(saved)
    vcmjax.load(saved)
    assert not caplog.records


def test_a_codec_of_the_first_release_still_codes_as_it_did(tmp_path):
    # Saved, and all that is expected, by the release that knew no digests.
    with zipfile.ZipFile(Path(__file__).parent / "codec_before_digests.zip") as archive:
        archive.extractall(tmp_path)
    with np.load(tmp_path / "expected.npz") as expected:
        lengths, data = expected["lengths"], expected["streams"].tobytes()
        streams = [data[end - n : end] for end, n in zip(np.cumsum(lengths), lengths, strict=True)]
        loaded = vcmjax.load(tmp_path / "codec")
        assert loaded.fingerprint.hex().startswith(str(expected["fingerprint"]))
        close = {"rtol": 1e-3, "atol": 1e-5}
        features = loaded.decompress(streams)
        np.testing.assert_allclose(features, expected["features"], **close)
        np.testing.assert_allclose(loaded.predict(features), expected["output"], **close)
        again = loaded.decompress(loaded.compress_images(expected["images"]))
        np.testing.assert_allclose(again, features, **close)


@pytest.mark.parametrize("name", ["digest", "files"])
def test_a_codec_that_has_lost_one_of_its_two_digests_is_none_of_them(saved, name):
    edited(saved, lambda config: config.pop(name))
    with pytest.raises(DataError, match=f"damaged codec .*lacks '{name}'"):
        vcmjax.load(saved)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused_without_a_digest_too(saved, codec, value):
    before_digests(saved)
    content = flax.serialization.msgpack_restore((saved / "network.msgpack").read_bytes())
    content.pop("digest")
    head = content["params"]["head"]["params"]
    head["Dense_0"]["bias"] = np.full_like(head["Dense_0"]["bias"], value)
    (saved / "network.msgpack").write_bytes(flax.serialization.msgpack_serialize(content))
    with pytest.raises(DataError, match="weights that are not finite"):
        vcmjax.load(saved)


# Descriptions that no `save` writes


def wrong(**fields):
    return lambda config: config.update(fields)


def form(**fields):
    return lambda config: config["codec"].update(fields)


def task(**fields):
    return lambda config: config["task"].update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wrong(lam=float("nan")), "not readable .*NaN"),
        (wrong(lam=float("inf")), "not readable .*Infinity"),
        (wrong(lam=0.2), r"lam is 0.2; this model covers 0.1 to 0.1"),
        (wrong(lam="0.1"), "lam is '0.1'"),
        (wrong(lam=True), "lam is True"),
        (wrong(lam=None), "lam is None"),
        (wrong(lam=10**400), "lam"),
        (wrong(codec=[]), r"codec is \[\]"),
        (wrong(codec={}), "hyper-parameter 'hidden' is missing"),
        (wrong(fingerprint=7), "fingerprint is 7"),
        (wrong(task=[]), r"task is \[\]"),
        (wrong(task={}), "task is {}; expected name, kind, channels, classes"),
        (wrong(format=2), "codec of format 2; this release reads 1: update vcmjax"),
        (wrong(format=True), "codec of format True"),
        (wrong(format=None), "codec of format None"),
        (lambda c: c.pop("lam"), "lacks 'lam'"),
        (lambda c: c.pop("task"), "lacks 'task'"),
        (lambda c: c.pop("codec"), "lacks 'codec'"),
        (lambda c: c.pop("fingerprint"), "lacks 'fingerprint'"),
        (lambda c: c["codec"].pop("side"), "hyper-parameter 'side' is missing"),
        (form(later=3), "hyper-parameter 'later' is unknown to this release"),
        (form(prior="temporal"), "prior is 'temporal'"),
        (form(prior=None), "prior is None"),
        (form(shape=[10**6] * 3), "expected 4194304 at most"),
        (form(shape=[2, 2, 10**9]), "cannot|bytes|shape|expected"),
        (form(shape=[[["a"]]]), "shape"),
        (form(shape={"a": [2]}), "shape"),
        (form(shape="228"), "shape"),
        (form(shape=[["../../esc", [2, 2, 8]]]), "task is named '../../esc'"),
        (form(latent_channels=10**9), "tables.npz: scales are"),
        (form(latent_channels=10**30), "damaged codec"),
        (form(hidden=10**9), "params"),
        (form(side=10**9), "expected|params"),
        (form(stride=2**20), "positions"),
        (form(stride=2**4000), "stride is beyond"),
        (form(lams=[0.1]), "lams"),
        (form(lams=[None, None]), "lams"),
        (form(context=1), "context is 1"),
        (task(kind="regression"), "kind is 'regression'; expected one of class, segment, dense"),
        (task(kind=["class"]), "kind is"),
        (task(name="../../esc"), "task is named '../../esc'; expected a word"),
        (task(channels=10**12), "channels is"),
        (task(channels=3), "classes are"),
        (task(classes="abc"), "classes are"),
        (task(classes=["a\x1b[2J"] * 10), "a class is named"),
        (task(weight=1), "task is .*expected name, kind, channels, classes"),
    ],
)
@pytest.mark.parametrize("age", ["new", "old"])
def test_a_description_that_cannot_be_is_refused(saved, change, message, age):
    edited(saved, change)
    before_digests(saved) if age == "old" else signed(saved)
    with pytest.raises(DataError, match=message):
        vcmjax.load(saved)


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "3", '"codec"', "[" * 100_000, '{"a":' * 100_000, "{" * 5, "\0" * 50,
        '{"format": 1, "codec": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"format": 1e999}', '{"format": ' + "9" * 5000 + "}", " " * (2 << 20), "\ud800",
    ],
)  # fmt: skip
def test_a_description_that_is_none_is_refused(saved, text):
    (saved / "codec.json").write_text(text, errors="surrogatepass")
    with pytest.raises(DataError, match=r"not readable|codec of format|lacks 'codec'"):
        vcmjax.load(saved)


# Files that no `save` writes


def bomb(header, data=b""):
    """The bytes of an array whose header says what it likes."""
    text = header.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def npz(**members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return out.getvalue()


def with_tables(path, **arrays):
    with np.load(path / "tables.npz") as found:
        kept = dict(found)
    out = io.BytesIO()
    np.savez(out, **kept | arrays)
    return out.getvalue()


HUGE = "{'descr': '<i4', 'fortran_order': False, 'shape': (1000000, 1000000), }"
OBJECT = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
DEEP = "{'descr': " + "(" * 4000 + ", 'fortran_order': False, 'shape': (1,), }"
TABLES = {
    "nothing": lambda path: b"",
    "another format": lambda path: b"\x89PNG\r\n\x1a\n" * 9,
    "a pickle": lambda path: b"cos\nsystem\n(S'true'\ntR.",
    "no arrays": lambda path: npz(),
    "huge": lambda path: npz(rows=bomb(HUGE)),
    "an object": lambda path: npz(rows=bomb(OBJECT, b"cos\nsystem\n(S'true'\ntR.")),
    "a deep header": lambda path: npz(rows=bomb(DEEP)),
    "a zip bomb": lambda path: npz(rows=bytes(1 << 28)),
    "many members": lambda path: b"PK\x01\x02" * 5000,
    "floats": lambda path: with_tables(path, rows=np.zeros(9)),
    "no rows": lambda path: with_tables(path, rows=np.zeros(0, np.int32)),
    "lengths below zero": lambda path: with_tables(path, lengths=np.array([-5, 70], np.int32)),
    "one table": lambda path: with_tables(
        path, rows=np.array([16, 0, 65536], np.int32), lengths=np.array([3], np.int32)
    ),
    "tables out of order": lambda path: with_tables(path, side_index=np.array([[0, 64]], np.int32)),
    "side of another shape": lambda path: with_tables(path, side_index=np.zeros((2, 2), np.int32)),
    "offsets far off": lambda path: with_tables(path, offsets=np.full(64, -(2**31), np.int32)),
    "thresholds that fall": lambda path: with_tables(
        path, **{"scales.thresholds": np.arange(63)[::-1].copy()}
    ),
    "no thresholds": lambda path: with_tables(path, **{"scales.thresholds": np.zeros(0, int)}),
    "a gain beyond all": lambda path: with_tables(path, **{"scales.gain_bits": np.int64(-(2**62))}),
    "unknown steps": lambda path: with_tables(path, **{"scales.9.Spline.weight": np.zeros(3, int)}),
    "steps that do not fit": lambda path: with_tables(
        path, **{"scales.0.Linear.weight": np.zeros((3, 5), int)}
    ),
    "weights beyond all": lambda path: with_tables(
        path, **{"scales.0.Linear.weight": np.full((2, 64), 2**62)}
    ),
    "odd convolutions": lambda path: with_tables(path, **{"scales.0.Linear.taps": np.int64(4)}),
}


def packed(**fields):
    return msgpack.packb({"scores": "{}", "params": {}} | fields)


def array_of(shape, kind, data):
    return msgpack.ExtType(1, msgpack.packb((shape, kind, data)))


def deep(levels):
    content = b"\xc0"
    for _ in range(levels):
        content = b"\x81\xa1a" + content
    return b"\x82\xa6scores\xa2{}\xa6params" + content


NETWORKS = {
    "nothing": b"",
    "a number": b"\x07",
    "a list": b"\x93\x01\x02\x03",
    "a list that never ends": b"\xdd\xff\xff\xff\xff",
    "lists of lists that never end": b"\xdd\x00\x0f\xff\xff" * 500,
    "deep": deep(100_000),
    "a little deep": deep(400),
    "no weights": packed(),
    "huge": packed(params=array_of((10**6, 10**6), "float16", b"")),
    "an object": packed(params=array_of((1,), "object", b"\0" * 8)),
    "an unknown type": packed(params=array_of((1,), "float17", b"\0\0")),
    "too long": bytes(1 << 26),
    "deep scores": packed(scores="[" * 100_000),
    "scores that are none": packed(scores='{"val": ["a"]}'),
    "chunks": packed(
        params={"__msgpack_chunked_array__": True, "shape": {"0": 10**9}, "chunks": {}}
    ),
}


def refused_in_bounds(path, *messages):
    """Whether loading ends in one DataError, and in little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="|".join(messages)) as caught:
            vcmjax.load(path)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("kind", TABLES)
def test_tables_that_cannot_be_are_refused(saved, kind):
    (saved / "tables.npz").write_bytes(TABLES[kind](saved))
    signed(saved)
    refused_in_bounds(saved, "damaged codec .*tables.npz")


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_that_cannot_be_is_refused(saved, kind):
    (saved / "network.msgpack").write_bytes(NETWORKS[kind])
    signed(saved)
    refused_in_bounds(saved, "damaged codec .*network.msgpack")


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def circle(path):
    path.unlink()
    path.symlink_to(path.name)


def nowhere(path):
    path.unlink()
    path.symlink_to("nowhere")


def folder(path):
    path.unlink()
    path.mkdir()


def beyond(path):
    path.unlink()
    path.symlink_to("/")


@pytest.mark.parametrize("become", [pipe, device, circle, nowhere, folder, beyond])
@pytest.mark.parametrize("age", ["new", "old"])
def test_what_is_no_file_is_never_opened(saved, become, age):
    if age == "old":
        before_digests(saved)
    largest = max((saved / "params").rglob("d/*"), key=lambda path: path.stat().st_size)
    for file in (saved / "tables.npz", saved / "network.msgpack", largest, saved / "codec.json"):
        kept = file.read_bytes()
        become(file)
        with pytest.raises(DataError):
            vcmjax.load(saved)
        file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
        file.write_bytes(kept)
    vcmjax.load(saved)


def test_a_folder_that_holds_itself_is_refused(saved):
    (saved / "params" / "again").symlink_to(saved, target_is_directory=True)
    with pytest.raises(DataError, match="'params/again' is no regular file"):
        vcmjax.load(saved)


def test_folders_without_end_are_refused(saved):
    deepest = saved / "params"
    for _ in range(20):
        deepest /= "a"
    deepest.mkdir(parents=True)
    with pytest.raises(DataError, match="folders one in another"):
        vcmjax.load(saved)


@pytest.mark.parametrize("age", ["new", "old"])
def test_arrays_of_another_form_are_refused_by_name(saved, codec, age, tmp_path):
    other = jax.tree.map(lambda leaf: leaf, codec.params)
    other["synthesis"] = {"params": {"Conv_0": {"kernel": np.zeros((9, 9)), "bias": np.zeros(2)}}}
    shutil.rmtree(saved / "params")
    vcmjax.arrays.save(saved / "params", other)
    before_digests(saved) if age == "old" else signed(saved)
    refused_in_bounds(saved, r"damaged codec \(params.*synthesis")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunks": [10**5, 10**5, 1, 1]}, "in chunks of .* beyond its shape"),
        ({"shape": [10**6, 10**6, 1, 1]}, r"of shape \(1000000, 1000000, 1, 1\); expected \(3, 3"),
        ({"shape": "all"}, r"of shape \('a', 'l', 'l'\); expected \(3, 3"),
        ({"compressor": {"id": "bomb"}}, "is stored as .*bomb.*; expected .*zstd"),
    ],
)
def test_arrays_that_say_they_are_larger_are_refused(saved, change, message):
    store = {"driver": "ocdbt", "base": f"file://{saved}/params/"}
    keys = tensorstore.KvStore.open(store).result()
    name = b"synthesis.params.Conv_0.kernel/.zarray"
    about = json.loads(keys.read(name).result().value)
    keys.write(name, json.dumps(about | change).encode()).result()
    signed(saved)
    refused_in_bounds(saved, f"damaged codec .*params.*({message})")
