"""Names of files: as a coded file keeps them, and back to places below a folder, safely.

What stands in a coded file is a stranger's word. Whatever it says, `Places` stays in its folder,
and gives no place twice.
"""

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

_LONGEST = 180
"""Bytes of a part of a path that are kept; most file systems hold 255, and numbers are added."""
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""What Windows takes for a device, whatever the folder."""


def names(files: Sequence[Path]) -> list[str]:
    """Each file's path below the folder that all of them share, ``/`` between folders."""
    if not files:
        return []
    whole = [os.path.abspath(file) for file in files]
    shared = os.path.commonpath([os.path.dirname(file) for file in whole])
    return [Path(os.path.relpath(file, shared)).as_posix() for file in whole]


class Places:
    """Places below a folder for results that are named after images.

    Names that would end in one place, as of two images that differ in suffix, or in the case of
    letters alone, are told apart by a number.
    """

    def __init__(self, suffix: str) -> None:
        """Takes the suffix of results, which replaces that of images."""
        self._suffix = suffix
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def place(self, number: int, name: str | None) -> PurePosixPath:
        """The relative path of the result on image `number`, called `name` if it has a name."""
        *folders, last = _safe(name or "") or [f"{number:06d}"]
        at = PurePosixPath()
        for folder in folders:
            at = self._free(at, folder, "", self._files)
            self._folders.add(_same(at))
        stem = last if last.startswith(".") else PurePosixPath(last).stem
        at = self._free(at, stem, self._suffix, self._files | self._folders)
        self._files.add(_same(at))
        return at

    def _free(self, at: PurePosixPath, stem: str, suffix: str, taken: set[str]) -> PurePosixPath:
        path, k = at / f"{stem}{suffix}", 1
        while _same(path) in taken:
            k += 1
            path = at / f"{stem}-{k}{suffix}"
        return path


def _same(path: PurePosixPath) -> str:
    """Equal for paths that some file system holds for one."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def _safe(name: str) -> list[str]:
    """The parts of a path that lead nowhere but down, and that every file system can hold."""
    parts = re.split(r"[/\\]", re.sub(r"^[A-Za-z]:(?=[/\\])", "", name))
    return [_safe_part(part) for part in parts if part.strip(". ")]


def _safe_part(part: str) -> str:
    part = "".join("_" if _unfit(character) else character for character in part)
    while len(os.fsencode(part)) > _LONGEST:
        part = part[:-1]
    part = part.rstrip(". ") or "_"
    return f"_{part}" if _DEVICES.fullmatch(part) else part


def _unfit(character: str) -> bool:
    """Whether a character hides what a name says, or is forbidden in names on some systems."""
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp")
    return hidden or character in '<>:"|?*'
