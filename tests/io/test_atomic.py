"""Whole or not at all, whatever ends the writer, and nothing left behind."""

import os
import signal
import subprocess
import sys

import pytest

from vcmjax.errors import DataError
from vcmjax.io import atomic


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_when_the_block_ends(tmp_path):
    path = tmp_path / "a"
    with atomic.file(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one" and listing(tmp_path) == ["a"]


def test_an_exception_leaves_what_was_there(tmp_path):
    path, folder = tmp_path / "a", tmp_path / "b"
    atomic.write(path, "old")
    with atomic.directory(folder) as aside:
        (aside / "x").write_text("old")

    def fail(form):
        with form as aside:
            aside.write(b"new") if form is one else (aside / "x").write_text("new")
            raise KeyError

    one = atomic.file(path)
    for form in (one, atomic.directory(folder)):
        with pytest.raises(KeyError):
            fail(form)
    assert path.read_text() == (folder / "x").read_text() == "old"
    assert listing(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_directory_is_replaced_as_a_whole(tmp_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(atomic, "_exchanged", lambda one, other: False)
    path = tmp_path / "a"
    for name in ("one", "two"):
        with atomic.directory(path) as aside:
            (aside / name).touch()
        assert listing(path) == [name] and listing(tmp_path) == ["a"]


def test_a_merge_replaces_files_of_the_same_place_and_leaves_the_others(tmp_path):
    path = tmp_path / "a"
    (path / "deep").mkdir(parents=True)
    for name in ("kept", "deep/kept", "deep/old"):
        (path / name).write_text("before")
    with atomic.directory(path, merge=True) as aside:
        (aside / "deep").mkdir()
        (aside / "new").write_text("after")
        (aside / "deep" / "old").write_text("after")
    found = {p.relative_to(path).as_posix(): p.read_text() for p in path.rglob("*") if p.is_file()}
    assert found == {"kept": "before", "deep/kept": "before", "new": "after", "deep/old": "after"}
    assert listing(tmp_path) == ["a"]


def test_a_merge_does_not_follow_a_link_out_of_the_folder(tmp_path):
    path, elsewhere = tmp_path / "a", tmp_path / "elsewhere"
    path.mkdir(), elsewhere.mkdir()
    (path / "link").symlink_to(elsewhere)
    (path / "file").symlink_to(elsewhere / "x")

    def merge(name):
        with atomic.directory(path, merge=True) as aside:
            (aside / name).parent.mkdir(exist_ok=True)
            (aside / name).write_text("new")

    with pytest.raises(DataError, match="link out of"):
        merge("link/x")
    merge("file")  # the link is replaced
    assert listing(elsewhere) == [] and (path / "file").read_text() == "new"


def test_a_directory_moved_aside_by_a_killed_writer_comes_back(tmp_path):
    was = tmp_path / "a.was-0123456789abcdef"
    was.mkdir()
    (was / "x").touch()
    atomic.recover(tmp_path / "a")
    assert listing(tmp_path) == ["a"] and listing(tmp_path / "a") == ["x"]
    atomic.recover(tmp_path / "none")
    assert listing(tmp_path) == ["a"]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a", tmp_path / "link"
    link.symlink_to(target)
    for content in ("one", "two"):
        atomic.write(link, content)
        assert link.is_symlink() and target.read_text() == content


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, "/dev/null"):
        with pytest.raises(DataError, match="no regular file"):
            atomic.write(path, "")
    with pytest.raises(DataError, match="no directory"), atomic.directory(pipe):
        pass


def test_what_cannot_be_written_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none/a: cannot be written: No such file"):
        atomic.write(tmp_path / "none" / "a", "")


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("é" * 127)
    atomic.write(path, "x")
    assert path.read_text() == "x"


WRITER = """
import os, signal, sys
from vcmjax.io import atomic
with getattr(atomic, sys.argv[1])(sys.argv[2]) as aside:
    print("ready", flush=True)
    if sys.argv[3] == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_parts_of_the_dead_are_removed_and_those_of_the_living_kept(tmp_path, kind):
    path = tmp_path / "a"
    (tmp_path / "a.part-of-another").touch()

    def start(how):
        command = [sys.executable, "-c", WRITER, kind, str(path), how]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(command, text=True, **pipes)
        assert process.stdout.readline() == "ready\n"
        return process

    dead = start("dies")
    assert dead.wait() == -signal.SIGKILL
    dead.communicate()
    (left,) = set(listing(tmp_path)) - {"a.part-of-another"}
    living = start("lives")
    parts = set(listing(tmp_path)) - {"a.part-of-another"}
    assert len(parts) == 1 and left not in parts
    with getattr(atomic, kind)(path):
        assert parts < set(listing(tmp_path))
    living.communicate()
    assert living.returncode == 0
    assert listing(tmp_path) == ["a", "a.part-of-another"]
