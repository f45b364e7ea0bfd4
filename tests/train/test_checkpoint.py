import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmjax import arrays
from vcmjax.errors import DataError, UsageError
from vcmjax.train import checkpoint


def state(seed):
    rng = np.random.default_rng(seed)
    return {
        "params": [
            rng.normal(size=(2, 3)).astype(np.float32),
            np.asarray(rng.integers(9), np.int32),
        ],
        "healthy": np.asarray([True, False]),
        "history": np.full((3, 2), np.nan, np.float32),
    }


def save(directory, *steps):
    with checkpoint.opened(directory) as kept:
        for step in steps:
            kept.save(step, state(step))


def newest(directory, like=None):
    with checkpoint.opened(directory) as kept:
        return kept.newest(state(0) if like is None else like)


def assert_equal(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def listing(directory):
    return sorted(path.name for path in directory.iterdir())


def test_an_empty_directory_holds_no_state(tmp_path):
    with checkpoint.opened(tmp_path / "none" / "yet") as kept:
        assert kept.newest(state(0)) is None


def test_the_newest_state_comes_back_bit_for_bit_and_two_are_kept(tmp_path):
    with checkpoint.opened(tmp_path) as kept:
        for step in (100, 200, 300):
            kept.save(step, state(step))
    with checkpoint.opened(tmp_path) as kept:
        assert_equal(kept.newest(jax.tree.map(jnp.zeros_like, state(0))), state(300))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["200", "300"]


def test_a_half_written_state_is_passed_over(tmp_path):
    with checkpoint.opened(tmp_path) as kept:
        kept.save(100, state(100))
    # What a kill leaves of a write: a folder of a temporary name.
    (tmp_path / "200.orbax-checkpoint-tmp-0").mkdir()
    with checkpoint.opened(tmp_path) as kept:
        assert_equal(kept.newest(state(0)), state(100))


def test_what_killed_writers_left_is_removed_and_what_others_keep_is_not(tmp_path):
    save(tmp_path, 100, 200)
    for name in ("300.part-0123456789abcdef", "300.orbax-checkpoint-tmp-12", "notes", "measured-0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "0300").touch()
    # A replacement that was cut off between its two renames.
    (tmp_path / "200").rename(tmp_path / "200.was-0123456789abcdef")
    assert_equal(newest(tmp_path), state(200))
    assert listing(tmp_path) == [".DS_Store", "0300", "100", "200", "measured-0", "notes"]
    save(tmp_path, 300)
    assert listing(tmp_path) == [".DS_Store", "0300", "200", "300", "measured-0", "notes"]


def content(path):
    """The files of Orbax that hold arrays."""
    return [p for p in sorted(path.glob("default/**/d/*")) if p.stat().st_size]


def emptied(path):
    shutil.rmtree(path)
    path.mkdir()


def cut(path):
    for file in content(path):
        file.write_bytes(file.read_bytes()[:50])


def zeroed(path):
    for file in content(path):
        file.write_bytes(bytes(file.stat().st_size))


def overwritten(path):
    """By arrays of the same form that are sound in themselves."""
    shutil.rmtree(path / "default")
    bad = jax.tree.map(lambda a: a * np.nan if a.dtype.kind == "f" else a, state(200))
    arrays.save(path / "default", bad)


def replaced_by_a_file(path):
    shutil.rmtree(path)
    path.touch()


def replaced_by_a_pipe(path):
    shutil.rmtree(path)
    os.mkfifo(path)


def replaced_by_a_link_to_nothing(path):
    shutil.rmtree(path)
    path.symlink_to("nowhere")


def with_a_pipe_as_record(path):
    (path / "checkpoint.json").unlink()
    os.mkfifo(path / "checkpoint.json")


def with_a_pipe_as_arrays(path):
    (file, *_) = content(path)
    file.unlink()
    os.mkfifo(file)


def with_a_record_of(text):
    def damaged(path):
        (path / "checkpoint.json").write_bytes(text)

    return damaged


def without(name):
    def damaged(path):
        (path / name).unlink() if (path / name).is_file() else shutil.rmtree(path / name)

    return damaged


DAMAGE = {
    "emptied": emptied,
    "cut": cut,
    "zeroed": zeroed,
    "overwritten": overwritten,
    "a file": replaced_by_a_file,
    "a pipe": replaced_by_a_pipe,
    "a link to nothing": replaced_by_a_link_to_nothing,
    "a pipe as record": with_a_pipe_as_record,
    "a pipe as arrays": with_a_pipe_as_arrays,
    "no record": without("checkpoint.json"),
    "no arrays": without("default"),
    "no _METADATA": without("default/_METADATA"),
    "no manifest": without("default/manifest.ocdbt"),
    "empty record": with_a_record_of(b""),
    "a list as record": with_a_record_of(b"[]"),
    "deep record": with_a_record_of(b"[" * 100_000),
    "binary record": with_a_record_of(b"\xff\x00"),
    "record of other types": with_a_record_of(b'{"arrays": 1, "files": 2, "crc32": 3}'),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    save(root, 100, 200)
    return root


@pytest.fixture
def two(whole, tmp_path):
    """A directory of two checkpoints."""
    return shutil.copytree(whole, tmp_path / "run")


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_newest_is_named_passed_over_and_replaced(two, caplog, how):
    DAMAGE[how](two / "200")
    with checkpoint.opened(two) as kept:
        assert_equal(kept.newest(state(0)), state(100))
        (said,) = [r.getMessage() for r in caplog.records if r.name == checkpoint.__name__]
        assert said.startswith(f"{two}/200: damaged checkpoint (")
        assert said.endswith("); training goes on from step 100")
        # The older one stays until two that are whole have followed.
        kept.save(150, state(150))
        kept.finish()
        assert listing(two) == ["100", "150", "200"]
        kept.save(200, state(7))
    assert_equal(newest(two), state(7))
    assert listing(two) == ["150", "200"]


def test_a_damaged_one_does_not_count_among_the_two(two):
    emptied(two / "200")
    with checkpoint.opened(two) as kept:
        assert kept.newest(state(0)) is not None
        kept.save(230, state(230))
    assert listing(two) == ["100", "230"]


def test_where_all_are_damaged_training_starts_anew_and_says_so(two, caplog):
    for step in ("100", "200"):
        cut(two / step)
    with checkpoint.opened(two) as kept:
        assert kept.newest(state(0)) is None
        said = [r.getMessage() for r in caplog.records if r.name == checkpoint.__name__]
        assert [line.split(": ")[0] for line in said] == [f"{two}/200", f"{two}/100"]
        ending = f"nothing in {two} can be used, and training starts anew"
        assert all(line.endswith(ending) for line in said)
        for step in (100, 200):
            kept.save(step, state(step))
    assert_equal(newest(two), state(200))
    assert listing(two) == ["100", "200"]


@settings(max_examples=40)
@given(st.data())
def test_bits_flipped_in_any_file_are_found_or_do_no_harm(whole, data):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "run")
        shutil.copytree(whole, root)
        files = sorted(p for p in (root / "200").rglob("*") if p.is_file() and p.stat().st_size)
        file = data.draw(st.sampled_from(files))
        damaged = bytearray(file.read_bytes())
        place = data.draw(st.integers(0, len(damaged) - 1))
        width = data.draw(st.sampled_from([1, 4096]))
        mask = data.draw(st.integers(1, 255))
        for at in range(place, min(place + width, len(damaged))):
            damaged[at] ^= mask
        file.write_bytes(damaged)
        logging.disable()  # of each example
        try:
            found = newest(root)
        finally:
            logging.disable(logging.NOTSET)
        harmless = int(found["params"][1]) == int(state(200)["params"][1])
        assert_equal(found, state(200) if harmless else state(100))
        # But for white space of the record, nothing is harmless.
        assert not harmless or file.name == "checkpoint.json"


OTHERS = {
    "more": lambda s: s | {"more": np.zeros(1, np.float32)},
    "less": lambda s: {k: v for k, v in s.items() if k != "history"},
    "another tree": lambda s: s | {"params": {"a": s["params"][0], "b": s["params"][1]}},
    "another shape": lambda s: s | {"history": np.zeros((4, 2), np.float32)},
    "another type": lambda s: s | {"healthy": np.zeros(2, np.int32)},
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_a_state_of_another_form_is_refused_by_name_and_kept(tmp_path, change):
    with checkpoint.opened(tmp_path) as kept:
        kept.save(100, state(100))
    with (
        checkpoint.opened(tmp_path) as kept,
        pytest.raises(DataError, match=f"{tmp_path}/100: a checkpoint of another form"),
    ):
        kept.newest(change(state(0)))
    with checkpoint.opened(tmp_path) as kept:
        assert_equal(kept.newest(state(0)), state(100))


def test_what_differs_in_form_is_named(tmp_path):
    save(tmp_path, 100)
    with pytest.raises(
        DataError, match=r"\['history'\] is \[\[3, 2\], 'float32'\], not \[\[4, 2\]"
    ):
        newest(tmp_path, OTHERS["another shape"](state(0)))


def test_behind_a_damaged_one_another_form_is_refused_still(two):
    emptied(two / "200")
    with pytest.raises(DataError, match=f"{two}/100: a checkpoint of another form"):
        newest(two, OTHERS["more"](state(0)))
    assert listing(two) == ["100", "200"]


def save_as_before(directory, step, tree):
    """By versions that left everything to Orbax."""
    with ocp.CheckpointManager(directory.absolute()) as manager:
        manager.save(step, args=ocp.args.StandardSave(tree))


def test_what_an_earlier_version_saved_is_read_with_what_it_lacks(tmp_path):
    save_as_before(tmp_path, 100, state(100))
    more = {"since": np.zeros(1, np.int32)}
    with checkpoint.opened(tmp_path) as kept:
        found = kept.newest({**state(0), "since": np.ones(1, np.int32)}, added=more)
        assert_equal(found, {**state(100), **more})
        kept.save(200, state(200))
    assert listing(tmp_path) == ["100", "200"]
    assert_equal(newest(tmp_path), state(200))


def test_what_an_earlier_version_saved_of_another_training_is_refused(tmp_path):
    save_as_before(tmp_path, 100, state(100))
    with pytest.raises(DataError, match="/100: a checkpoint of another form"):
        newest(tmp_path, OTHERS["less"](state(0)))


HOLD = """
import sys
from pathlib import Path
from vcmjax.train import checkpoint
with checkpoint.opened(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_has_ended_even_by_kill_9(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        with (
            pytest.raises(UsageError, match=f"^{tmp_path}: another process is training here; wait"),
            checkpoint.opened(tmp_path),
        ):
            pass
        process.kill()
    assert process.returncode == -signal.SIGKILL
    save(tmp_path, 100)
    assert listing(tmp_path) == ["100"]


def test_the_time_between_checkpoints_doubles_up_to_the_longest(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    waited = []
    with checkpoint.opened(tmp_path, seconds=15) as kept:
        for step in range(7):
            begun = now[0]
            while not kept.due():
                now[0] += 0.25
            waited.append(now[0] - begun)
            kept.save(step, {"x": np.zeros(1)})
    assert waited == [1, 2, 4, 8, 15, 15, 15]


def test_at_no_seconds_a_checkpoint_is_always_due(tmp_path):
    with checkpoint.opened(tmp_path, seconds=0) as kept:
        assert kept.due()
        kept.save(1, {"x": np.zeros(1)})
        assert kept.due()


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(DataError, match=f"{tmp_path}/file: cannot be written"),
        checkpoint.opened(tmp_path / "file"),
    ):
        pass


@pytest.mark.parametrize("how", ["no space", "orbax"])
def test_what_cannot_be_written_is_named_and_the_last_one_stays(tmp_path, monkeypatch, how):
    def fails(path, tree):
        raise ValueError("RESOURCE_EXHAUSTED:\n no space left")

    save(tmp_path, 100)
    if how == "orbax":
        monkeypatch.setattr(arrays, "save", fails)
        reason = "RESOURCE_EXHAUSTED: no space left"
    else:
        usage = shutil.disk_usage(tmp_path)._replace(free=10)
        monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage)
        reason = "0.0 MB to write, 0.0 MB free"
    with checkpoint.opened(tmp_path) as kept:
        kept.save(200, state(200))
        with pytest.raises(DataError, match=f"^{tmp_path}/200: cannot be written: {reason}; check"):
            kept.finish()
    assert listing(tmp_path) == ["100"]
    assert_equal(newest(tmp_path), state(100))


def test_the_record_holds_the_form_and_a_checksum_of_every_file(tmp_path):
    save(tmp_path, 100)
    record = json.loads((tmp_path / "100" / "checkpoint.json").read_text())
    assert record["arrays"]["['params'][0]"] == [[2, 3], "float32"]
    files = {
        str(p.relative_to(tmp_path / "100")) for p in (tmp_path / "100").rglob("*") if p.is_file()
    }
    assert record["files"].keys() == files - {"checkpoint.json"}
