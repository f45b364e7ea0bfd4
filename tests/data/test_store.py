import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmjax.data import loader, store
from vcmjax.data.store import open_store, verify, write
from vcmjax.errors import DataError, UsageError

ARRAYS = {"feature": ((2, 3), np.float16), "label": ((), "uint8")}
COUNT, SHARD = 11, 3


def values(start, stop):
    """Examples that say which they are."""
    index = np.arange(start, stop)
    return {
        "feature": (index[:, None, None] % 100 + np.arange(6).reshape(2, 3) / 8).astype(np.float32),
        "label": index % 256,
    }


def make(root, produce=values, identity="a", count=COUNT, shard=SHARD, arrays=ARRAYS, **more):
    return write(root, identity, count, shard, arrays, produce, **more)


def content(root):
    """Every file by its path, but for what a killed writer of store.json may leave."""
    files = (p for p in Path(root).rglob("*") if p.is_file() and "store.json." not in p.name)
    return {str(p.relative_to(root)): p.read_bytes() for p in files}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Content of a store written without interruption."""
    root = tmp_path_factory.mktemp("whole") / "store"
    assert make(root) == 4
    return content(root)


def test_files_are_plain_npy_with_the_examples_and_their_crc32(root):
    make(root)
    for shard, (start, stop) in enumerate([(0, 3), (3, 6), (6, 9), (9, 11)]):
        folder = root / f"shard-{shard:05d}"
        crcs = json.loads((folder / "crc32.json").read_text())
        for name, expected in values(start, stop).items():
            saved = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            assert saved.dtype == ARRAYS[name][1]
            np.testing.assert_array_equal(saved, expected)
            assert crcs[name] == zlib.crc32((folder / f"{name}.npy").read_bytes())
    assert len(content(root)) == 1 + 4 * 3


@settings(max_examples=50)
@given(
    count=st.integers(1, 12),
    shard=st.integers(1, 15),
    processes=st.integers(1, 4),
    shape=st.lists(st.integers(1, 3), max_size=3).map(tuple),
    dtype=st.sampled_from(["bool", "uint8", "int64", "float16", "float32", "float64"]),
)
def test_any_store_gives_back_each_example_and_each_array(count, shard, processes, shape, dtype):
    data = np.random.default_rng(count).integers(0, 2, (count, *shape)).astype(dtype)
    with tempfile.TemporaryDirectory() as folder:
        for index in reversed(range(processes)):
            assert write(
                folder, "", count, shard, {"x": (shape, dtype)}, lambda a, b: {"x": data[a:b]},
                shards=(index, processes),
            ) == len(range(index, -(-count // shard), processes))  # fmt: skip
        opened = open_store(folder)
        assert len(opened) == count and not verify(folder)
        whole = opened.array("x")
        np.testing.assert_array_equal(whole, data)
        assert whole.dtype == data.dtype
        for i in range(-count, count):
            assert opened[i]["x"].dtype == data.dtype and opened[i]["x"].shape == shape
            np.testing.assert_array_equal(opened[i]["x"], data[i])
        for i in (count, -count - 1):
            with pytest.raises(IndexError):
                opened[i]


def test_examples_are_copies_that_may_be_changed(root, whole):
    make(root)
    opened = open_store(root)
    opened[4]["feature"][...] = 0
    np.testing.assert_array_equal(opened[4]["feature"], values(4, 5)["feature"][0])
    assert content(root) == whole


@pytest.mark.parametrize("workers", [0, 4])
def test_batches_of_a_store_are_those_of_the_arrays(root, workers):
    make(root)
    stream = loader.batches(open_store(root), 4, shuffle=True, epochs=2, workers=workers)
    labels = np.concatenate([check_batch(batch) for batch in stream])
    assert sorted(labels[:COUNT]) == sorted(labels[COUNT:]) == list(range(COUNT))


def check_batch(batch):
    expected = np.stack([values(i, i + 1)["feature"][0] for i in batch["label"]])
    np.testing.assert_array_equal(batch["feature"], expected)
    return batch["label"]


def test_threads_may_read_at_once(root):
    make(root, count=60)
    opened = open_store(root)
    with ThreadPoolExecutor(8) as pool:
        for i, example in enumerate(pool.map(opened.__getitem__, range(60))):
            np.testing.assert_array_equal(example["feature"], values(i, i + 1)["feature"][0])


def test_opening_and_reading_examples_does_not_load_the_store(root):
    zeros = np.zeros((16, 1 << 20), np.uint8)
    write(root, "", 32, 16, {"x": ((1 << 20,), "uint8")}, lambda a, b: {"x": zeros})
    tracemalloc.start()
    try:
        opened = open_store(root)
        for i in range(32):
            opened[i]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 1 << 20 <= peak < 3 << 20  # NumPy's own memory is traced: an example, of 32


def test_a_finished_store_is_not_produced_again(root, whole):
    make(root)
    assert make(root, produce=None) == 0 and content(root) == whole


@pytest.mark.parametrize("stop_at", range(4))
def test_after_an_exception_in_produce_only_missing_shards_are_made(stop_at, root, whole):
    def fails(start, stop):
        if start == stop_at * SHARD:
            raise OSError("image.png")
        return values(start, stop)

    with pytest.raises(OSError, match=r"^image.png$"):
        make(root, fails)
    assert set(os.listdir(root)) == {"store.json", *(f"shard-0000{i}" for i in range(stop_at))}
    with pytest.raises(DataError, match=f"{4 - stop_at} of 4 shards missing: run .* again"):
        open_store(root)
    asked = []
    assert make(root, lambda *r: asked.append(r) or values(*r)) == 4 - stop_at
    assert [start for start, _ in asked] == list(range(stop_at * SHARD, COUNT, SHARD))
    assert content(root) == whole


HERE = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import os, signal, time\n"
HERE += "from test_store import make, values\n"

# A writer that dies at one call of the system: its os.replace is of store.json, a second
# os.rename that of the second shard, and an os.fsync of one of its files or itself.
DIES = """
root, module, name, call, after = eval(sys.argv[1])
module = __import__(module)
owner = getattr(module, "Path", module)
real, calls = getattr(owner, name), []

def dying(*args, **more):
    calls.append(args)
    done = real(*args, **more) if after or len(calls) < call else None
    if len(calls) == call:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

setattr(owner, name, dying)
make(root)
"""


@pytest.mark.parametrize(
    ("module", "name", "call", "after", "left"),
    [
        ("pathlib", "mkdir", 1, True, 4),
        ("os", "replace", 1, False, 4),
        ("os", "replace", 1, True, 4),
        ("os", "fsync", 1 + 4 + 2, False, 3),
        ("os", "fsync", 1 + 4 + 4, True, 3),
        ("os", "rename", 2, False, 3),
        ("os", "rename", 2, True, 2),
    ],
)
def test_a_writer_killed_at_a_step_is_resumed_to_the_same_bytes(
    module, name, call, after, left, root, whole
):
    done = subprocess.run(
        [sys.executable, "-c", HERE + DIES, repr((str(root), module, name, call, after))],
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(DataError, match=f"no store here|{left} of 4 shards missing"):
        open_store(root)
    assert make(root) == left and content(root) == whole


@pytest.mark.parametrize("wait", [0.0, 0.013, 0.029])
def test_a_writer_killed_at_any_moment_is_resumed_to_the_same_bytes(wait, root, tmp_path):
    script = (
        "make(sys.argv[1], count=150, progress=lambda s: (print(i, flush=True) or i for i in s))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", HERE + script, root], stdout=subprocess.PIPE
    ) as process:
        while process.stdout.readline() != b"5\n":
            assert process.poll() is None
        threading.Event().wait(wait)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not verify(root)
    assert 0 < make(root, count=150) <= 45
    make(tmp_path / "alone", count=150)
    assert content(root) == content(tmp_path / "alone")


@pytest.mark.parametrize(
    ("shards", "made"), [(((0, 2), (1, 2)), [b"2\n", b"2\n"]), (((0, 1), (0, 1)), [b"0\n", b"4\n"])]
)
def test_two_processes_at_once_make_each_shard_once(shards, made, root, tmp_path, whole):
    script = """
print("ready", flush=True)
while not os.path.exists(sys.argv[3]):
    pass
slow = lambda a, b: time.sleep(0.02) or values(a, b)
print(make(sys.argv[1], slow, shards=eval(sys.argv[2])))
"""
    arguments = [[root, repr(each), tmp_path / "go"] for each in shards]
    both = [
        subprocess.Popen([sys.executable, "-c", HERE + script, *a], stdout=subprocess.PIPE)
        for a in arguments
    ]
    for process in both:
        assert process.stdout.readline() == b"ready\n"
    (tmp_path / "go").touch()
    assert sorted(process.communicate()[0] for process in both) == made
    assert content(root) == whole


def damage(root, how):
    """Does to the third shard what its name says."""
    feature, crcs = root / "shard-00002/feature.npy", root / "shard-00002/crc32.json"
    data = bytearray(feature.read_bytes())
    match how:
        case "no record":
            crcs.unlink()
        case "record cut short":
            crcs.write_bytes(crcs.read_bytes()[:-9])
        case "array missing":
            feature.unlink()
        case "array empty":
            feature.write_bytes(b"")
        case "array cut short":
            feature.write_bytes(data[:-1])
        case "array too long":
            feature.write_bytes(data + b"\0")
        case "another dtype":
            np.save(feature, np.zeros((3, 2, 3), np.int16))
        case "another shape":
            np.save(feature, np.zeros((3, 3, 2), np.float16))
        case "objects":
            np.save(feature, np.full((3, 2, 3), None), allow_pickle=True)
        case "archive":
            with open(feature, "wb") as file:
                np.savez(file, np.zeros((3, 2, 3), np.float16))
        case "byte flipped":
            data[-1] ^= 1
            feature.write_bytes(data)
        case "record without an array":
            crcs.write_text('{"label": 0}')

        case "array a pipe":
            feature.unlink()
            os.mkfifo(feature)
        case "record a pipe":
            crcs.unlink()
            os.mkfifo(crcs)
        case "array a device":
            feature.unlink()
            feature.symlink_to("/dev/zero")
        case "array a link to itself":
            feature.unlink()
            feature.symlink_to(feature.name)
        case "record deep":
            crcs.write_text("[" * 100_000)
        case "record long":
            crcs.write_text(" " * (1 << 20) + crcs.read_text())
        case "record a list":
            crcs.write_text("[]")


FORM = [
    "no record", "record cut short", "array missing", "array empty", "array cut short",
    "array too long", "another dtype", "another shape", "objects", "archive", "array a pipe",
    "record a pipe", "array a device", "array a link to itself", "record deep", "record long",
]  # fmt: skip
NUMBERS = ["byte flipped", "record without an array", "record a list"]


@pytest.mark.parametrize("how", [*FORM, *NUMBERS])
def test_a_damaged_shard_is_named_and_once_removed_made_anew_alone(how, root, whole):
    make(root)
    damage(root, how)
    message = r"^\S*/shard-00002/\S+: damaged \(.*\); remove it by verify\(directory, remove=True\)"
    with pytest.raises(DataError, match=message):
        open_store(root)
    with pytest.raises(DataError, match=message) if how in FORM else contextlib.nullcontext():
        open_store(root, checksums=False)
    with pytest.raises(DataError, match=message):
        verify(root)
    assert verify(root, remove=True) == [2]
    with pytest.raises(DataError, match="1 of 4 shards missing"):
        open_store(root)
    asked = []
    assert make(root, lambda *r: asked.append(r) or values(*r)) == 1
    assert asked == [(6, 9)] and content(root) == whole and verify(root) == []


@pytest.mark.parametrize("what", ["file", "pipe", "link to nothing", "link to a folder"])
def test_what_is_no_shard_in_the_place_of_one_is_removed_and_what_it_points_to_stays(
    what, root, tmp_path
):
    make(root)
    place, beside = root / "shard-00002", tmp_path / "beside"
    place.rename(beside)
    match what:
        case "file":
            place.touch()
        case "pipe":
            os.mkfifo(place)
        case "link to nothing":
            place.symlink_to(tmp_path / "none")
        case "link to a folder":
            (beside / "label.npy").write_bytes(b"")
            place.symlink_to(beside)
    kept = content(beside)
    with pytest.raises(DataError, match=r"damaged|1 of 4 shards missing"):
        open_store(root)
    assert verify(root, remove=True) == ([] if what == "link to nothing" else [2])
    assert make(root) == 1
    for name, expected in values(0, COUNT).items():
        np.testing.assert_array_equal(open_store(root).array(name), expected)
    assert content(beside) == kept


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("written") / "store"
    make(root, about={"image_shape": [16, 24], "task": "normal", 9: None, 10: 0.1})
    return root


@settings(max_examples=150)
@given(st.data())
def test_bits_flipped_in_any_file_are_found_or_do_no_harm(written, data):
    expected = open_store(written)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "store")
        shutil.copytree(written, root)
        file = data.draw(st.sampled_from(sorted(p for p in root.rglob("*") if p.is_file())))
        damaged = bytearray(file.read_bytes())
        place = data.draw(st.integers(0, len(damaged) - 1))
        mask = data.draw(st.integers(1, 255))
        for at in range(place, min(place + data.draw(st.sampled_from([1, 64])), len(damaged))):
            damaged[at] ^= mask
        file.write_bytes(damaged)
        try:
            found = open_store(root, "a")
        except DataError:
            return
        assert file.suffix == ".json"
        assert found.about == expected.about
        for name in ARRAYS:
            np.testing.assert_array_equal(found.array(name), expected.array(name))


def test_each_file_is_read_once_per_process_until_it_changes(root, monkeypatch):
    make(root)
    # Its time must tell a change from what was there before.
    monkeypatch.setattr(store, "_TICK", 0)
    read = []
    real = store.zlib.crc32
    monkeypatch.setattr(store.zlib, "crc32", lambda *a: read.append(len(a) > 1) or real(*a))
    open_store(root)
    assert sum(read) == 4 * 2
    open_store(root)
    open_store(os.path.relpath(root))
    assert sum(read) == 4 * 2
    damage(root, "byte flipped")
    with pytest.raises(DataError, match=r"shard-00002/feature\.npy: damaged"):
        open_store(root)
    assert sum(read) == 4 * 2 + 1
    with pytest.raises(DataError):
        verify(root)  # reads again what it is asked about
    assert sum(read) > 4 * 2 + 1


def test_a_change_right_after_opening_is_seen(root):
    make(root)
    for _ in range(10):
        open_store(root)
        damage(root, "byte flipped")
        with pytest.raises(DataError, match=r"shard-00002/feature\.npy: damaged"):
            open_store(root)
        damage(root, "byte flipped")  # back


def test_verifying_another_store_removes_nothing(root):
    make(root)
    damage(root, "byte flipped")
    before = content(root)
    with pytest.raises(DataError, match="another store: identity is 'a', not 'b'"):
        verify(root, "b", remove=True)
    assert content(root) == before


@pytest.mark.parametrize("how", ["array missing", "array empty", "array cut short"])
def test_damage_after_opening_raises_data_error_when_read(how, root):
    make(root)
    opened = open_store(root)
    damage(root, how)
    with pytest.raises(DataError, match=r"shard-00002/feature.npy: not readable"):
        opened.array("feature")


def test_progress_wraps_the_shards_at_hand(root):
    shown = []
    make(root, shards=(1, 2), progress=lambda items: shown.append(list(items)) or items)
    verify(root, progress=lambda items: shown.append(list(items)) or items)
    assert shown == [[1, 3], [1, 3]]


OTHERS = {
    "identity is 'a', not 'b'": {"identity": "b"},
    "count is 11, not 12": {"count": COUNT + 1},
    "shard_size is 3, not 4": {"shard": SHARD + 1},
    "arrays is .*uint8.*, not .*int32": {"arrays": ARRAYS | {"label": ((), "int32")}},
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_store_is_refused_naming_what_differs_and_is_left_as_it_was(what, root, whole):
    make(root)
    with pytest.raises(DataError, match=rf"/store: another store: {what}.*; delete it .* or name"):
        make(root, **OTHERS[what])
    assert content(root) == whole


def test_opening_checks_the_identity_where_it_is_given(root):
    make(root, about={"network": "xyz", "sizes": [1, 2]})
    assert open_store(root, "a").about == {"network": "xyz", "sizes": [1, 2]}
    with pytest.raises(DataError, match="another store: identity is 'a', not 'b'"):
        open_store(root, "b")


def test_a_directory_with_other_things_is_refused_and_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no store, yet it holds holiday.jpg; name another"):
        make(tmp_path)
    assert content(tmp_path) == {"holiday.jpg": b"x"}


def test_a_file_in_the_place_of_the_store_is_refused(root):
    root.write_bytes(b"x")
    with pytest.raises(DataError, match="/store: cannot be written"):
        make(root)
    with pytest.raises(DataError, match="/store"):
        open_store(root)


def test_a_full_disk_raises_data_error_and_keeps_finished_shards(root, whole):
    script = """
import resource
import numpy as np
from vcmjax.data.store import write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the limit is an error, as a full disk is
def produce(start, stop):
    if start == 6:
        resource.setrlimit(resource.RLIMIT_FSIZE, (140, 140))
    return values(start, stop)
make(sys.argv[1], produce)
"""
    done = subprocess.run(
        [sys.executable, "-c", HERE + script, root], capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert f"DataError: {root}: cannot be written (" in last and "free space" in last
    assert sorted(os.listdir(root)) == ["shard-00000", "shard-00001", "store.json"]
    assert make(root) == 2 and content(root) == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": np.zeros(3)}, "produce: expected feature, label; found feature, label, depth"),
        ({"label": np.zeros(2, np.uint8)}, r"label: expected shape \(3,\), found \(2,\)"),
        ({"feature": np.zeros((3, 3, 2))}, r"feature: expected shape \(3, 2, 3\), found \(3, 3, 2"),
        ({"label": np.zeros(3)}, "label: expected uint8, found float64; convert"),
        ({"label": np.zeros(3, bool)}, "label: expected uint8, found bool; convert"),
        ({"label": np.array(["a", "b", "c"])}, "label: expected uint8, found <U1"),
        ({"feature": np.zeros((3, 2, 3), int)}, "feature: expected float16, found int64"),
        ({"feature": np.full((3, 2, 3), None)}, "feature: expected float16, found object"),
        ({"label": np.array([0, 256, 0])}, "label: example 4: uint8 cannot hold 256"),
        ({"label": np.array([0, 2, -1])}, "label: example 5: uint8 cannot hold -1"),
    ],
)
def test_what_produce_must_not_return_raises_data_error_and_leaves_no_shard(changes, message, root):
    with pytest.raises(DataError, match=message):
        make(root, lambda a, b: values(a, b) | (changes if a == 3 else {}))
    assert sorted(os.listdir(root)) == ["shard-00000", "store.json"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 65520.0, -1e30])
@pytest.mark.parametrize("nan", [(), ("feature",)])
def test_a_value_float16_cannot_hold_raises_naming_array_and_example(bad, nan, root):
    data = values(0, 3)
    data["feature"][2, 0, 1] = bad
    if nan and np.isnan(bad):
        assert write(root, "a", 3, 3, ARRAYS, lambda a, b: data, nan=nan) == 1
        np.testing.assert_array_equal(open_store(root)[2]["feature"], data["feature"][2])
        return
    with pytest.raises(
        DataError, match=r"feature: example 2: float16 cannot hold (nan|-?inf|-?\d)"
    ):
        write(root, "a", 3, 3, ARRAYS, lambda a, b: data, nan=nan)


def test_the_largest_float16_is_kept_and_values_are_rounded_to_nearest(root):
    data = np.array([65519.0, -65504.0, 1 + 2**-11, 1 + 3 * 2**-11])
    write(root, "", 4, 4, {"x": ((), "float16")}, lambda a, b: {"x": data})
    assert open_store(root).array("x").tolist() == [65504.0, -65504.0, 1.0, 1 + 2**-9]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "count and shard_size"),
        ({"shard": 0}, "count and shard_size"),
        ({"count": 100_001, "shard": 1}, "at most 100000 shards"),
        ({"identity": 5}, "identity"),
        ({"arrays": {}}, "arrays"),
        ({"arrays": {"../x": ((), "uint8")}}, "arrays: '../x'"),
        ({"arrays": {"x": ((0,), "uint8")}}, "arrays: 'x'"),
        ({"arrays": {"x": ((), "object")}}, "arrays: 'x'"),
        ({"arrays": {"x": ((), "nonsense")}}, "nonsense"),
        ({"about": {"x": object()}}, "not JSON serializable"),
        ({"shards": (2, 2)}, "shards: expected"),
        ({"shards": (0, 0)}, "shards: expected"),
    ],
)
def test_an_argument_out_of_range_raises_usage_error_and_makes_nothing(change, message, root):
    with pytest.raises(UsageError, match=f"^write: .*{message}"):
        make(root, **change)
    assert not root.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"identity": None},
        {"count": 2**60},
        {"count": 2**60, "shard_size": 2**60},
        {"count": -1},
        {"count": "11"},
        {"count": 11.0},
        {"shard_size": 0},
        {"about": []},
        {"arrays": []},
        {"arrays": {}},
        {"arrays": {"../../etc/passwd": [[], "uint8"]}},
        {"arrays": {"/etc/passwd": [[], "uint8"]}},
        {"arrays": {"feature": [[], "O"]}},
        {"arrays": {"feature": [[2, 3], "object"]}},
        {"arrays": {"feature": [[2, 3], "float16,float16"]}},
        {"arrays": {"feature": [[2**40, 2**40], "float16"]}},
        {"arrays": {"feature": [[-2, -3], "float16"]}},
        {"arrays": {"feature": [[0], "float16"]}},
        {"arrays": {"feature": [[1.5], "float16"]}},
        {"arrays": {"feature": [[1] * 100, "float16"]}},
        {"arrays": {"feature": [[2, 3], "float16", 1]}},
        {"arrays": {"feature": {}}},
        {"arrays": {"feature": 3}},
    ],
)
def test_a_hostile_description_raises_data_error_and_allocates_nothing(change, root):
    make(root)
    said = json.loads((root / "store.json").read_text())
    (root / "store.json").write_text(json.dumps(said | change))
    check_refused(root)
    del said["crc32"]
    (root / "store.json").write_text(json.dumps(said | change))
    check_refused(root)


def test_a_description_that_was_made_without_a_checksum_is_read(root, whole):
    make(root)
    said = json.loads((root / "store.json").read_text())
    del said["crc32"]
    (root / "store.json").write_text(json.dumps(said, indent=1))
    assert len(open_store(root, "a")) == COUNT
    assert make(root, None) == 0


@pytest.mark.parametrize("what", ["pipe", "device", "directory", "link to itself"])
def test_a_description_that_is_no_file_raises_data_error(what, root):
    make(root)
    path = root / "store.json"
    path.unlink()
    match what:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "directory":
            path.mkdir()
        case "link to itself":
            path.symlink_to(path)
    check_refused(root)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", "\xff", "[" * 100_000, "1" * 10_000, " " * (1 << 20) + "{}"]
)
def test_a_description_that_is_none_raises_data_error(text, root):
    make(root)
    (root / "store.json").write_text(text, "latin-1")
    check_refused(root)
    with pytest.raises(DataError, match=r"store.json: not readable"):
        verify(root, remove=True)


def check_refused(root):
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=str(root)):
            open_store(root)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_no_store_raises_data_error(root):
    with pytest.raises(DataError, match=r"no store here; expected a directory with store.json"):
        open_store(root)


def test_no_such_array_raises_data_error(root):
    make(root)
    with pytest.raises(DataError, match="no array depth, only feature, label"):
        open_store(root).array("depth")


def test_a_store_is_a_source(root):
    make(root)
    source: loader.Source = open_store(root)
    assert isinstance(source, store.Store) and len(loader.Subset(source, [3, 4])) == 2
