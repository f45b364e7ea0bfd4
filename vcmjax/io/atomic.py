"""Files and directories that appear under their name whole, or not at all: the one writer of all.

    with atomic.file(path) as file:
        file.write(data)
    with atomic.directory(path) as aside:
        (aside / "one").write_bytes(data)

Content is written beside the final name, as ``NAME.part-`` and random digits, put on disk, and
renamed. What a killed writer leaves is removed by the next writer of the same name; one that is
still at work holds a lock, and is left alone.
"""

import contextlib
import ctypes
import fcntl
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vcmjax.errors import DataError

_EXCHANGE = 2
"""RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS."""
_LONGEST = 200
"""Bytes of a name that are kept in that of its part, which a file system holds to 255."""


@contextlib.contextmanager
def naming(name: object, done: str) -> Iterator[None]:
    """Turns a failure of the system into a `DataError` that names the file: it cannot be `done`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"{name}: cannot be {done}: {reason}; check path, permissions and free space"
        ) from error


@contextlib.contextmanager
def file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A new file to write to, which takes the name `path` when the block ends without exception.

    A symbolic link is followed: what it points to is replaced. A file that was there stays as it
    is until then.

    Raises:
      DataError: `path` is a directory, a device or a pipe; it cannot be written, or the disk is
        full.
    """
    final = Path(os.path.realpath(path))
    with naming(path, "written"):
        if final.exists() and not stat.S_ISREG(final.stat().st_mode):
            raise DataError(f"{path}: cannot be written: it is no regular file; name another.")
        _clear(final)
        part, handle = _claimed(final, lambda part: os.open(part, _NEW, 0o666))
        with os.fdopen(handle, "wb") as opened:
            try:
                yield opened
                opened.flush()
                os.fsync(handle)  # else a power cut may leave the name without the content
                os.replace(part, final)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(part)
                raise


_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL


def write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Writes a whole file, text as UTF-8. Raises DataError, see `file`."""
    with file(path) as opened:
        opened.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def directory(path: str | os.PathLike[str], merge: bool = False) -> Iterator[Path]:
    """An empty directory to fill, which takes the name `path` when the block ends.

    A directory that was there is replaced as a whole, in one step where the system can exchange two
    names (Linux and macOS on their own file systems); elsewhere it is moved aside first, whence
    `recover` brings it back after a kill.

    Args:
      path: The directory.
      merge: Move each file into a directory that was there, and leave its others, instead.

    Raises:
      DataError: `path` is something else than a directory; it cannot be written, or the disk is
        full; or a link in it would lead a merged file out of it.
    """
    final = Path(os.path.realpath(path))
    with naming(path, "written"):
        if final.exists() and not final.is_dir():
            raise DataError(f"{path}: cannot be written: it is no directory; name another.")
        final.parent.mkdir(parents=True, exist_ok=True)
        recover(final)
        _clear(final)

        def made(part: Path) -> int:
            part.mkdir()
            return os.open(part, os.O_RDONLY)

        part, handle = _claimed(final, made)
        try:
            yield part
            _sync(part)
            if not final.exists():
                os.rename(part, final)
            elif merge:
                _merge(part, final)
            elif not _exchanged(part, final):
                was = _beside(final, "was")
                os.rename(final, was)
                os.rename(part, final)
                part = was
        finally:  # the unfinished one, or the one that was replaced
            shutil.rmtree(part, ignore_errors=True)
            os.close(handle)


def recover(path: str | os.PathLike[str]) -> None:
    """Brings back a directory whose replacement was cut off between two renames, if any was."""
    final = Path(os.path.realpath(path))
    if final.exists():
        return
    for was in _siblings(final, "was"):
        with contextlib.suppress(OSError):  # its writer is alive and has finished
            os.rename(was, final)
            return


def _beside(final: Path, kind: str) -> Path:
    name = os.fsdecode(os.fsencode(final.name)[:_LONGEST])
    return final.with_name(f"{name}.{kind}-{secrets.token_hex(8)}")


def _siblings(final: Path, kind: str) -> list[Path]:
    name = os.fsdecode(os.fsencode(final.name)[:_LONGEST])
    form = re.compile(re.escape(f"{name}.{kind}-") + "[0-9a-f]+")
    with contextlib.suppress(OSError):
        return sorted(p for p in final.parent.iterdir() if form.fullmatch(p.name))
    return []


def _claimed(final: Path, make) -> tuple[Path, int]:
    """A new part, made by `make`, and its handle, whose lock says that it is being written."""
    while True:
        part = _beside(final, "part")
        handle = make(part)
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(part)):
                return part, handle
        os.close(handle)  # cleared by another writer before it was locked


def _clear(final: Path) -> None:
    """Removes the parts of writers that are dead."""
    for part in [*_siblings(final, "part"), *(_siblings(final, "was") if final.exists() else ())]:
        with contextlib.suppress(OSError):  # locked: its writer is alive; or gone by now
            handle = os.open(part, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if part.is_dir():
                    shutil.rmtree(part)
                else:
                    part.unlink()
            finally:
                os.close(handle)


def _merge(part: Path, final: Path) -> None:
    """Moves every file below `part` to its place below `final`."""
    for folder, _, names in os.walk(part):
        target = final / os.path.relpath(folder, part)
        target.mkdir(exist_ok=True)
        if not Path(os.path.realpath(target)).is_relative_to(final):
            raise DataError(f"{target}: cannot be written: it is a link out of {final}; remove it.")
        for name in names:
            os.replace(os.path.join(folder, name), target / name)


def _sync(root: Path) -> None:
    """Puts everything below `root` on disk."""
    for folder, _, names in os.walk(root):
        for name in (*names, "."):
            handle = os.open(os.path.join(folder, name), os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether the two names could be exchanged, as they now are."""
    library = ctypes.CDLL(None)
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin":
        return library.renamex_np(*names, _EXCHANGE) == 0
    if not hasattr(library, "renameat2"):
        return False
    here = -100  # AT_FDCWD
    return library.renameat2(here, names[0], here, names[1], _EXCHANGE) == 0
