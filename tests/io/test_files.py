"""What others wrote is read within limits, and what is no file is not opened."""

import hashlib
import os

import pytest

from vcmjax.errors import DataError
from vcmjax.io import files


def test_a_file_is_read_whole_up_to_the_limit(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert files.read(path, 3) == b"abc"
    with pytest.raises(DataError, match="a: has 3 bytes; expected 2 at most"):
        files.read(path, 2)
    with pytest.raises(FileNotFoundError):
        files.read(tmp_path / "b", 3)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_would_never_end_is_not_read(tmp_path, kind):
    path = tmp_path / "a"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="a: is no regular file"):
        files.read(path, 10)
    with pytest.raises(DataError, match="'a' is no regular file"):
        files.regular(tmp_path)


def test_files_are_listed_by_name_and_strays_left_out(tmp_path):
    for name in ("b", "a/c", "a/.hidden", ".git/x", "Thumbs.db", "a/desktop.ini"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    found = files.regular(tmp_path)
    assert list(found) == ["a/c", "b"]
    expected = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a/c", "b")}
    assert files.digests(found) == expected


def test_names_that_a_system_has_taken_apart_are_put_together_again(tmp_path):
    (tmp_path / "network-Stra\u0308sse").touch()  # ä as two characters
    assert list(files.regular(tmp_path)) == ["network-Str\u00e4sse"]


@pytest.mark.parametrize(("limit", "value"), [("MOST_FILES", 3), ("MOST_BYTES", 30)])
def test_more_than_the_limits_is_refused(tmp_path, monkeypatch, limit, value):
    for i in range(4):
        (tmp_path / str(i)).write_bytes(bytes(10))
    assert len(files.regular(tmp_path)) == 4
    monkeypatch.setattr(files, limit, value)
    with pytest.raises(DataError, match="holds over"):
        files.regular(tmp_path)


def test_links_that_lead_in_circles_or_nowhere_are_refused_by_name(tmp_path):
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(DataError, match="a: cannot be read: Too many levels"):
        files.regular(tmp_path)
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to("b")
    with pytest.raises(DataError, match="a: cannot be read: No such file"):
        files.regular(tmp_path)
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to(tmp_path)
    with pytest.raises(DataError, match="'a' is no regular file"):
        files.regular(tmp_path)


def test_a_folder_that_is_not_there_or_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match="none: cannot be read: No such file"):
        files.regular(tmp_path / "none")
