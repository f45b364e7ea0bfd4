"""Which files of a folder are images, and in what order; walks that end."""

import functools
import logging
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from vcmjax.data import SPLITS
from vcmjax.errors import DataError
from vcmjax.io import atomic

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Names by which a file in an image folder counts as an image, in any case."""

_SYSTEM = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information")
"""Folders that archivers and file systems make, with copies and previews of the images in them."""
_ALSO_CALLED = {"val": ("valid", "validation")}
_NAMED = 5


class Listing(NamedTuple):
    """What a folder holds, in natural order."""

    files: list[Path]
    skipped: list[Path]
    """What is no image: other files and folders, hidden files, devices, pipes, broken links."""


def listed(folder: Path, suffixes: Collection[str] = SUFFIXES) -> Listing:
    """The images directly in a folder: regular files, not hidden, with one of `suffixes`.

    None of them is opened.

    Raises:
      DataError: The folder cannot be read.
    """
    with atomic.naming(folder, "read"):
        inside = sorted(folder.iterdir(), key=lambda path: natural(path.name))
    files = [path for path in inside if _counts(path, suffixes)]
    kept = set(files)
    return Listing(files, [path for path in inside if path not in kept])


def tree(folder: Path) -> Listing:
    """As `listed`, of a folder and, at any depth, the folders in it that are not hidden.

    Raises:
      DataError: A folder cannot be read.
    """
    found = Listing([], [])
    for path, inner, _ in walk(folder, strict=True):
        inner[:] = [name for name in inner if not name.startswith(".") and name not in _SYSTEM]
        files, skipped = listed(Path(path))
        found.files.extend(files)
        found.skipped.extend(path for path in skipped if not path.is_dir())
    found.files.sort(key=lambda file: [natural(part) for part in file.parts])
    return found


def _counts(path: Path, suffixes: Collection[str]) -> bool:
    hidden = path.name.startswith(".")
    return not hidden and path.suffix.lower() in suffixes and path.is_file()


def natural(name: str) -> tuple[list[str | int], str]:
    """Sorts numbers in names by value, ``img2`` before ``img10``; the same in any Unicode form."""
    parts: list[str | int] = list(re.split("([0-9]+)", unicodedata.normalize("NFC", name)))
    parts[1::2] = [int(digits) for digits in parts[1::2]]
    return parts, name


def stem(path: Path) -> str:
    """The name by which an image and its label belong together: one Unicode form, no suffix."""
    return unicodedata.normalize("NFC", path.stem)


def walk(root: Path, strict: bool = False) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` in order of name, through links, which ends where links lead round in circles.

    A link is not followed into a folder that it lies in; nor is one inside a linked folder, into
    any that has been entered before. The list of inner folders may be cut by the caller. What
    cannot be read is passed over, or if `strict`, raises `DataError`.
    """

    def complain(error: OSError) -> None:
        with atomic.naming(error.filename, "read"):
            raise error

    def behind_a_link(folder: str) -> bool:
        plain = os.path.join(os.path.realpath(root), os.path.relpath(folder, root))
        return os.path.realpath(folder) != os.path.normpath(plain)

    entered: set[str] = set()
    onerror = complain if strict else None
    for folder, inner, names in os.walk(root, onerror=onerror, followlinks=True):
        here = os.path.realpath(folder)
        if here in entered and os.path.islink(folder) and behind_a_link(os.path.dirname(folder)):
            inner.clear()
            continue
        entered.add(here)
        inner[:] = sorted(
            name for name in inner if not _is_circle(os.path.join(folder, name), here)
        )
        yield folder, inner, sorted(names)


def _is_circle(path: str, folder: str) -> bool:
    """Whether `path` is a link to the folder that it lies in, or to one that holds that."""
    if not os.path.islink(path):
        return False
    target = os.path.realpath(path)
    return os.path.commonpath([target, folder]) == target


def split_folder(root: Path, split: str) -> Path:
    """The folder of a split's images; that of ``val`` may be called ``valid`` or ``validation``."""
    folder = root / split
    if not folder.is_dir():
        for name in _ALSO_CALLED.get(split, ()):
            if (root / name).is_dir():
                say(f"{root / name}: read as the split {split}")
                return root / name
    return folder


def split_images(root: Path, split: str, inside: bool = False) -> list[Path]:
    """The images of a split, in order; those of folders within it, too, if `inside`.

    Raises:
      DataError: No such folder, or no image in it.
    """
    folder = split_folder(root, split)
    if not folder.is_dir():
        there = ", ".join(sorted(p.name for p in root.iterdir())[:8]) if root.is_dir() else ""
        raise DataError(
            f"{folder}: no such folder; {root} holds: {there or 'nothing'}. "
            f"Name the folders of images {', '.join(SPLITS)}."
        )
    files, skipped = tree(folder) if inside else listed(folder)
    say_skipped(folder, skipped)
    if not files:
        raise DataError(
            f"{folder}: no image in it; expected one of {sorted(SUFFIXES)}, found {_some(skipped)}."
        )
    return files


def say_skipped(folder: Path, skipped: Iterable[Path]) -> None:
    """Tells in one line what in an image folder is no image; its table of labels is none either."""
    strays = [path for path in skipped if path.name != "labels.csv"]
    if strays:
        say(f"{folder}: left out as no image: {len(strays)} ({_some(strays)})")


def _some(paths: list[Path]) -> str:
    names = [path.name + "/" * path.is_dir() for path in paths[:_NAMED]]
    return ", ".join(names + ["..."] * (len(paths) > _NAMED)) or "nothing"


@functools.cache
def say(message: str, level: int = logging.INFO) -> None:
    """Logs what was found out about a data set: once, though every split finds it."""
    logging.getLogger("vcmjax").log(level, "%s", message)
