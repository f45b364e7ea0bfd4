import contextlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcmjax.data import reading
from vcmjax.errors import DataError

TEXT = st.text(st.characters(exclude_characters="\0\ufeff", exclude_categories=["Cs"]))
MARKED = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


class Bytes:
    """What a member of a tar is to a reader."""

    def __init__(self, content: bytes):
        self.content = content

    def read_bytes(self) -> bytes:
        return self.content

    def __str__(self) -> str:
        return "bytes.txt"


@given(TEXT, st.sampled_from(MARKED))
def test_text_of_any_encoding_with_a_mark_and_utf_8_without_reads_back(text, encoding):
    assert reading.text(Bytes(text.encode(encoding)), "domain") == text


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("width", ["16", "32"])
def test_text_of_either_byte_order_reads_back(order, width):
    data = "\ufeffStraße,1\n".encode(f"utf-{width}-{order}")
    assert reading.text(Bytes(data), "domain") == "Straße,1\n"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ("a\nvélo".encode("cp1252"), r"text in UTF-8, found byte 3 \(line 2\) of another"),
        ("a,b\n".encode("utf-16-le"), "UTF-8, found a NUL in line 1"),
        (b"a\n\nb\0", "UTF-8, found a NUL in line 3"),
        (b"\xff\xfea", "text in UTF-16, found byte 2"),
        (b"\xff\xfe\x00\xd8a\0", "text in UTF-16, found byte 2"),
    ],
)
def test_text_of_another_encoding_is_refused_with_the_place_and_the_remedy(data, found):
    with pytest.raises(DataError, match=rf"^bytes.txt: domain: .*{found}.*Save the file as UTF-8"):
        reading.text(Bytes(data), "domain")


@given(st.binary())
def test_any_bytes_are_text_or_a_data_error(data):
    with contextlib.suppress(DataError):
        assert isinstance(reading.text(Bytes(data), "domain"), str)


def special(folder: Path, kind: str) -> Path:
    """Something of the name of a file that is none."""
    path = folder / "a.png"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        os.chdir(folder)  # the path of a socket is short
        socket.socket(socket.AF_UNIX).bind(path.name)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "no file":
        path.symlink_to(folder / "nowhere")
    return path


SPECIAL = ["a folder", "a pipe", "a socket", "a device", "no file"]


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_regular_file_is_named_and_not_opened(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = special(tmp_path, kind)
    with pytest.raises(DataError, match=rf"a.png: domain: expected text, found {kind}"):
        reading.content(path, "domain", "text")


def test_a_longer_file_than_the_limit_is_not_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    os.truncate(path, 10**13)  # of which nothing lies on disk
    with pytest.raises(DataError, match=r"at most 99 bytes, found 10000000000000"):
        reading.content(path, "domain", "text", 99)


def test_a_path_that_no_file_can_have_is_a_data_error():
    with pytest.raises(DataError, match="found that it cannot be read"):
        reading.content(Path("a\0b"), "domain", "text")
    with pytest.raises(DataError, match="found that it cannot be read"):
        reading.content(Path("a" * 5000), "domain", "text")
