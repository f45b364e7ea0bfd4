"""Scene classes of a folder's images: by tables ``labels.csv``, or by the folders they lie in."""

import logging
import os
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vcmjax.data import SPLITS, label_table, listing, reading
from vcmjax.data.label_table import Row
from vcmjax.errors import DataError
from vcmjax.tasks import Task

SCENE = "class_scene"


class Scenes(NamedTuple):
    """Scene classes of a folder's images.

    Attributes:
      task: The classification.
      root: The folder.
      class_of: The class of each image that has one.
      lost: Rows of tables that name no image, with its path; None where folders are the classes.
    """

    task: Task
    root: Path
    class_of: dict[Path, str]
    lost: list[tuple[str, Row]] | None = None

    def files(self, split: str) -> list[Path]:
        """The images of a split, in order.

        Raises:
          DataError: There are none; a row names an image that is not there; an image lies beside
            the folders of classes.
        """
        files = listing.split_images(self.root, split, inside=True)
        folder = listing.split_folder(self.root, split)
        if self.lost is None:
            for file in files:
                if file.parent == folder:
                    expected, remedy = "each image in the folder of its class", "Move it there."
                    raise reading.bad(file, SCENE, expected, "one beside them", remedy)
            return files
        others = {listing.split_folder(self.root, other).name for other in SPLITS if other != split}
        for path, row in self.lost:
            if path.partition("/")[0] not in others:
                lost = self.root / reading.short(path)
                raise DataError(
                    f"{lost}: {SCENE}: in labels.csv, but no such image in {split} ({row.table}, "
                    f"line {row.line}). Correct the row or remove it."
                )
        files = [file for file in files if file.parent == folder or file in self.class_of]
        if not files:
            expected = "images, those in folders with a row in labels.csv"
            raise reading.bad(folder, SCENE, expected, "none", "Add the rows.")
        return files

    def read(self, file: Path) -> np.ndarray:
        """The label int32 () of an image; `DataError` if it has none."""
        if file not in self.class_of:
            remedy = "Add the row, or remove the image."
            raise reading.bad(file, SCENE, "a row `file,class` in labels.csv", "none", remedy)
        return np.asarray(self.task.classes.index(self.class_of[file]), np.int32)


def describe(root: Path) -> Scenes:
    """The scene classes of a folder by its tables; without any, by its folders of images.

    Raises:
      DataError: A table cannot be read, names an image outside of `root` or gives one two classes;
        no labels, or a single folder of images.
    """
    tables = [root / "labels.csv"]
    tables += [listing.split_folder(root, split) / "labels.csv" for split in SPLITS]
    tables = [table for table in tables if os.path.lexists(table)]
    class_of, lost = _by_tables(root, tables) if tables else (_by_folders(root), None)
    names = tuple(sorted({*class_of.values(), *(row.name for _, row in lost or ())}))
    listing.say(f"{root}: {len(names)} classes, from {len(class_of)} images")
    if len(names) == 1:
        accuracy = "its accuracy is 1 whatever is sent"
        listing.say(
            f"{root}: {reading.short(names[0])} is the only class: {accuracy}", logging.WARNING
        )
    return Scenes(Task(SCENE, "class", len(names), names), root, class_of, lost)


def _by_folders(root: Path) -> dict[Path, str]:
    """The class of each image by the folder of its split in which it lies, at any depth."""
    class_of: dict[Path, str] = {}
    for folder in (listing.split_folder(root, split) for split in SPLITS):
        for file in listing.tree(folder).files if folder.is_dir() else ():
            if file.parent != folder:
                class_of[file] = _plain(file.relative_to(folder).parts[0])
    names = set(class_of.values())
    if not names:
        raise DataError(
            f"{root}: no labels; expected trainannot/NAME.png per image, labels.csv of "
            "`file,class` rows, or a folder of images per class in train."
        )
    if len(names) == 1:
        found, remedy = f"one, {names.pop()}", "Add labels, or divide the images by class."
        raise reading.bad(root, SCENE, "a folder of images per class", found, remedy)
    return class_of


def _by_tables(root: Path, tables: list[Path]) -> tuple[dict[Path, str], list[tuple[str, Row]]]:
    """The class of each image in the tables, and the rows whose image is not there."""
    index = _Index(root)
    row_of: dict[Path, Row] = {}
    lost = []
    for table in tables:
        for row in label_table.rows(table, SCENE):
            found = index.find(row)
            if isinstance(found, str):
                lost.append((found, row))
                continue
            other = row_of.setdefault(found, row)
            if other.name != row.name:
                raise reading.bad(
                    table, SCENE, "one class for each image",
                    f"line {row.line}: {row.file} not as in {other.table} line {other.line}: "
                    f"{other.name!r} there, {row.name!r} here", "Correct one of the rows.",
                )  # fmt: skip
    if not row_of and not lost:
        raise reading.bad(tables[0], SCENE, "rows `file,class`", "none", "Add them.")
    return {file: row.name for file, row in row_of.items()}, lost


class _Index:
    """The images of all splits, found by what a table may call them."""

    def __init__(self, root: Path):
        self.root = root
        self.tops = [os.path.abspath(root), os.path.realpath(root)]
        self.splits = [listing.split_folder(root, split) for split in SPLITS]
        self.files: dict[str, Path] = {}
        for folder in self.splits:
            for file in listing.tree(folder).files if folder.is_dir() else ():
                self.files.setdefault(_plain(file.relative_to(root).as_posix()), file)

    def find(self, row: Row) -> Path | str:
        """The image of a row, or where it should be: its path relative to the folder.

        A path is absolute, or relative to the table, to the folder or to where that lies; or it
        is one that a single split has.
        """
        if re.match("/|[A-Za-z]:/", row.file):
            inside = [self._inside(row.file), self._inside(os.path.realpath(row.file))]
        else:
            bases = (row.table.parent, self.root, os.path.dirname(self.tops[0]))
            inside = [self._inside(os.path.join(os.path.abspath(b), row.file)) for b in bases]
        for path in filter(None, inside):
            if path in self.files:
                return self.files[path]
        names = [os.path.normpath(f"{folder.name}/{row.file}") for folder in self.splits]
        held = [self.files[name] for name in names if name in self.files]
        if len(held) == 1:
            return held[0]
        found = f"line {row.line}: {row.file}"
        if held:
            remedy = "Write SPLIT/NAME."
            found += f", which is in {' and '.join(file.parent.name for file in held)}"
            raise reading.bad(row.table, SCENE, "an image of one split", found, remedy)
        missing = next(filter(None, inside), None)
        if missing is None:
            expected = f"images inside {self.root}, their paths relative to it"
            raise reading.bad(row.table, SCENE, expected, found, "Correct the path.")
        return missing

    def _inside(self, path: str) -> str | None:
        """A path relative to the folder, if it lies in it."""
        path = _plain(os.path.normpath(path))
        for top in self.tops:
            if path.startswith(_plain(top) + os.sep):
                return path[len(_plain(top)) + 1 :]
        return None


def _plain(path: str) -> str:
    return unicodedata.normalize("NFC", path)
