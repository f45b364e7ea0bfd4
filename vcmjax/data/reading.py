"""How files of a data set are opened: regular ones only, of a bounded size; errors about them."""

import codecs
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from vcmjax.errors import DataError

_MAX_TEXT = 2**28
_ROOM = 500
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_MARKS = {  # UTF-16's mark begins that of UTF-32, which is therefore tried first.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class File(Protocol):
    """What can be decoded: a `Path`, or a member of a tar. Its ``str`` names it in messages."""

    def read_bytes(self) -> bytes:
        """The whole content."""


def bad(
    path: object, domain: str, expected: str, found: str, remedy: str = "Replace it."
) -> DataError:
    """The one form of error about a file: which, of what domain, expected, found, remedy."""
    return DataError(f"{path}: {domain}: expected {expected}, found {short(found)}. {remedy}")


def short(text: str) -> str:
    """The text, or what of it a message of one line has room for."""
    return text if len(text) <= _ROOM else f"{text[:_ROOM]}..."


@contextmanager
def opened(path: File, domain: str, expected: str, limit: int) -> Iterator[BinaryIO]:
    """A file to read from. One that is not regular is not opened: a pipe would wait for ever.

    Args:
      path: A `Path` is read as far as the caller reads, another `File` at once.
      domain: For messages.
      expected: What the file should be, for messages.
      limit: Bytes of the longest file that is opened.

    Raises:
      DataError: There is no such file, it is not regular, too long, or cannot be read.
    """
    try:
        file = _opened(path, domain, expected, limit) if isinstance(path, Path) else _whole(path)
    except DataError:
        raise
    except FileNotFoundError:
        raise bad(path, domain, expected, "no file") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise bad(path, domain, expected, f"that it cannot be read ({error})") from error
    with file:
        yield file


def _opened(path: Path, domain: str, expected: str, limit: int) -> BinaryIO:
    state = os.stat(path)
    if kind := _KINDS.get(stat.S_IFMT(state.st_mode)):
        raise bad(path, domain, expected, kind)
    if state.st_size > limit:
        raise bad(path, domain, f"{expected} of at most {limit} bytes", f"{state.st_size}")
    return open(path, "rb")


def _whole(path: File) -> BinaryIO:
    return io.BytesIO(path.read_bytes())


def content(path: File, domain: str, expected: str, limit: int = _MAX_TEXT) -> bytes:
    """The whole content of a file; arguments and errors as of `opened`."""
    with opened(path, domain, expected, limit) as file:
        try:
            return file.read()
        except OSError as error:
            raise bad(path, domain, expected, f"that it cannot be read ({error})") from error


def text(path: File, domain: str) -> str:
    """The content of a text file: UTF-8, or UTF-16 or UTF-32 with a byte order mark.

    Raises:
      DataError: As of `opened`; it is of another encoding, or holds NUL.
    """
    data = content(path, domain, "a text file")
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    remedy = "Save the file as UTF-8."
    try:
        decoded = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte {error.start} (line {line}) of another encoding"
        named = encoding.removesuffix("-sig").upper()
        raise bad(path, domain, f"text in {named}", found, remedy) from None
    if "\0" in decoded:
        line = decoded.count("\n", 0, decoded.index("\0")) + 1
        raise bad(path, domain, "text in UTF-8", f"a NUL in line {line}", remedy)
    return decoded
