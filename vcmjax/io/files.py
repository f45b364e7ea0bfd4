"""Files that others may have written: regular ones alone, within limits, and their digests.

A pipe in the place of a file would be waited for, a device never ends, and a link may lead in
circles; none of them is opened.
"""

import contextlib
import hashlib
import io
import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from vcmjax.errors import DataError
from vcmjax.io import atomic

MOST_FILES, MOST_DEPTH, MOST_BYTES = 10_000, 16, 1 << 34
"""In a directory and below it, as `regular` takes it."""
_STRAY = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "lost+found"}


def stray(name: str) -> bool:
    """Whether a file or folder is one that systems and file managers leave behind by themselves."""
    return name.startswith(".") or name.casefold() in _STRAY


def read(path: Path, most: int) -> bytes:
    """All of a regular file.

    Raises:
      DataError: It is something else, or of more than `most` bytes.
      OSError: It cannot be read.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise DataError(f"{path}: has {size} bytes; expected {most} at most.")
        return file.read(size)


def regular(directory: Path) -> dict[str, Path]:
    """The files in `directory` and below it by name, with ``/`` between folders, in order.

    What `stray` tells is left out.

    Raises:
      DataError: Something is neither a folder nor a regular file; there is more than the limits of
        this module; it cannot be read.
    """
    found: dict[str, Path] = {}
    total = 0
    with atomic.naming(directory, "read"):
        for folder, folders, names in os.walk(directory, onerror=_raise):
            folders[:] = sorted(name for name in folders if not stray(name))
            depth = len(Path(folder).relative_to(directory).parts)
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            for name in [*links, *(name for name in sorted(names) if not stray(name))]:
                path = Path(folder, name)
                with atomic.naming(path, "read"):
                    about = os.stat(path)
                if not stat.S_ISREG(about.st_mode):
                    raise DataError(f"{directory}: {_named(path, directory)!r} is no regular file.")
                found[_named(path, directory)] = path
                total += about.st_size
            if len(found) > MOST_FILES or depth > MOST_DEPTH or total > MOST_BYTES:
                raise DataError(
                    f"{directory}: holds over {MOST_FILES} files, {MOST_DEPTH} folders one in "
                    f"another, or {MOST_BYTES} bytes; expected less (vcmjax.io.files)."
                )
    return dict(sorted(found.items()))


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of each, in hexadecimal digits.

    Raises:
      DataError: One cannot be read.
    """
    found = {}
    for name, path in files.items():
        with atomic.naming(path, "read"), _opened(path) as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    def without_waiting(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK)

    with open(path, "rb", opener=without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DataError(f"{path}: is no regular file.")
        yield file


def _named(path: Path, directory: Path) -> str:
    return unicodedata.normalize("NFC", path.relative_to(directory).as_posix())


def _raise(error: OSError) -> None:
    raise error
