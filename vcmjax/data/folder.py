"""A user's own folder of images with segmentation labels or scene classes.

Segmentation: ``root/SPLIT/NAME.jpg`` (or png, ...) with ``root/SPLITannot/NAME.png``, an 8-bit
image of class indices. An optional ``root/classes.txt`` names one class per line in index order;
a line ``void`` marks an index that is not scored. Index 255 is never scored.

Scenes: ``root/labels.csv`` (files as ``SPLIT/NAME.jpg``) or ``root/SPLIT/labels.csv`` (files as
``NAME.jpg``), rows ``file,class``. Where both forms of label exist, segmentation is read.
"""

import csv
import functools
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vcmjax.data import SPLITS, images
from vcmjax.errors import DataError, UsageError
from vcmjax.tasks import VOID, Task

SEGMENT, SCENE = "segment_semantic", "class_scene"


class Known(NamedTuple):
    """A published data set that carries no list of its classes, and how to tell it."""

    classes: tuple[str, ...]
    void: int
    prefixes: tuple[str, ...]
    """Every image name starts with one of these."""


KNOWN = {
    "SegNet's CamVid": Known(
        ("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car",
         "Pedestrian", "Bicyclist"),
        11,
        ("0001TP_", "0006R0_", "0016E5_", "Seq05VD_"),
    ),
}  # fmt: skip


class Folder:
    """Random-access source of ``{"image": uint8 (H, W, 3), task: label}``, in order of name.

    The label is ``segment_semantic`` uint8 (H, W) with void as `VOID`, or ``class_scene`` int32.
    Images shrink by area average, labels by the nearest pixel, both to size x size.

    Args:
      root: Folder laid out as the module docstring says.
      split: ``train``, ``val`` or ``test``.
      size: Side of the square result in pixels; None keeps each image as it is.
      void: Label index that is not scored, beside 255. None: as ``classes.txt`` or a known data
        set says (see `describe`).
      classes: Number of segmentation classes; with `void` too, no training label is scanned.

    Attributes:
      tasks: The one task by its name.
      files: The image of each example.

    Raises:
      UsageError: `void` outside 0..255, or `classes` outside 1..255.
      DataError: No such folder, no images in it, or no labels. Reading an example raises it for
        a damaged image, or a label that is missing, of another size or out of range.
    """

    def __init__(
        self,
        root: Path | str,
        split: str,
        size: int | None = 128,
        void: int | None = None,
        classes: int | None = None,
    ):
        """Opens the folder; arguments and errors as the class says."""
        self.root, self.split, self.size = Path(root), split, size
        task, self._voids = _describe(self.root, void, classes)
        self.files = _images(self.root, split)
        self._annot = self.root / f"{split}annot"
        self.tasks = {task.name: task}
        self._task = task
        if task.name == SCENE:
            self._scenes = dict(_scenes(self.root))
            elsewhere = {self.root / other for other in SPLITS if other != split}
            known = set(self.files)
            stray = [p for p in self._scenes if p.parent not in elsewhere and p not in known]
            if stray:
                raise DataError(
                    f"{stray[0]}: {SCENE}: in labels.csv, but no such image in {split}."
                )
        elif not self._annot.is_dir():
            raise DataError(f"{self._annot}: no such folder; expected a label NAME.png per image.")

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Decodes example `index`; raises `DataError` as the class says."""
        file = self.files[index]
        rgb = images.to_rgb(images.load(file, "image"), file, "image")
        label = self._scene(file) if self._task.name == SCENE else self._segments(file, rgb.size)
        return {"image": images.shrink(rgb, self.size), self._task.name: label}

    def _scene(self, file: Path) -> np.ndarray:
        if file not in self._scenes:
            raise images.bad(file, SCENE, "a row `file,class` in labels.csv", "none")
        return np.asarray(self._task.classes.index(self._scenes[file]), np.int32)

    def _segments(self, file: Path, size: tuple[int, int]) -> np.ndarray:
        path = self._annot / f"{file.stem}.png"
        image = images.load(path, SEGMENT)
        images.check_size(image.size, size, path, SEGMENT)
        ids = _blank(images.to_ids(image, path, SEGMENT), self._voids)
        remedy = "State the void index with --void, or list the classes in classes.txt."
        images.check_ids(ids, self._task.channels, VOID, path, SEGMENT, remedy)
        return images.nearest(ids, self.size)


def describe(root: Path | str, void: int | None = None) -> Task:
    """The task that a folder's labels set: kind, number of classes, their names.

    Classes come from ``classes.txt``; else from a known data set's table if folder, file names
    and label indices all fit (said in the log); else the largest training index tells how many.

    Args:
      root: Folder laid out as the module docstring says.
      void: Label index that is not scored, beside 255; overrides the other sources.

    Raises:
      UsageError: `void` outside 0..255.
      DataError: No such folder, or no labels in it.
    """
    return _describe(Path(root), void, None)[0]


def _describe(root: Path, void: int | None, classes: int | None) -> tuple[Task, set[int]]:
    """The task, and every label index that is void."""
    if void is not None and void not in range(256):
        raise UsageError(f"void is {void}; expected a label index in 0..255.")
    if classes is not None and classes not in range(1, 256):
        raise UsageError(f"classes is {classes}; expected 1..255.")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder. Check --data.")
    if not any((root / f"{split}annot").is_dir() for split in SPLITS):
        scenes = sorted({name for _, name in _scenes(root)})
        return Task(SCENE, "class", len(scenes), tuple(scenes)), set()
    voids = {VOID} if void is None else {VOID, void}
    names: list[str] = []
    listed = root / "classes.txt"
    if listed.is_file():
        lines = listed.read_text(encoding="utf-8-sig").splitlines()
        names = [line.strip() for line in lines if line.strip()]
        if void is None:
            voids |= {i for i, name in enumerate(names) if name.casefold() == "void"}
        while len(names) - 1 in voids:
            names.pop()
    elif classes is None or void is None:
        ids = _scan(root)
        known = next((title for title in KNOWN if _fits(root, ids, KNOWN[title])), None)
        if known and void is None:
            voids.add(KNOWN[known].void)
            _announce(root, known, KNOWN[known].void)
        count = max(ids - voids, default=-1) + 1
        names = [f"class {i}" for i in range(count)]
        if known and len(KNOWN[known].classes) == count:
            names = list(KNOWN[known].classes)
    if classes is not None and classes != len(names):
        names = [f"class {i}" for i in range(classes)]
    if not names:
        raise DataError(f"{root}: {SEGMENT}: no class; every training label is void.")
    return Task(SEGMENT, "segment", len(names), tuple(names)), voids


@functools.cache
def _announce(root: Path, title: str, void: int) -> None:
    """Says once per folder what was assumed about it."""
    logging.getLogger("vcmjax").info("%s: recognised %s: class %d is void", root, title, void)


def _images(root: Path, split: str) -> list[Path]:
    folder = root / split
    if not folder.is_dir():
        there = ", ".join(sorted(p.name for p in root.iterdir())[:8]) if root.is_dir() else ""
        raise DataError(f"{folder}: no such folder; {root} holds: {there or 'nothing'}.")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in images.SUFFIXES)
    if not files:
        raise DataError(f"{folder}: no image in it; expected one of {sorted(images.SUFFIXES)}.")
    return files


def _scenes(root: Path) -> Iterable[tuple[Path, str]]:
    """Image file and class name of every row of every ``labels.csv``."""
    tables = [p for p in (root / s / "labels.csv" for s in ("", *SPLITS)) if p.is_file()]
    if not tables:
        raise DataError(
            f"{root}: no labels; expected trainannot/NAME.png per image, or labels.csv of "
            "`file,class` rows."
        )
    for table in tables:
        rows = list(csv.reader(table.read_text(encoding="utf-8-sig").splitlines()))
        for line, row in enumerate(rows, 1):
            cells = [cell.strip() for cell in row]
            if not any(cells) or cells == ["file", "class"]:
                continue
            if len(cells) != 2 or not all(cells):
                expected = "`file,class`"
                raise images.bad(table, SCENE, expected, f"line {line}: {row}", "Correct the line.")
            yield table.parent / cells[0], cells[1]


def _scan(root: Path) -> set[int]:
    """Label indices that occur in the training labels (else in the first split labelled)."""
    folder = next(f for f in (root / f"{s}annot" for s in SPLITS) if f.is_dir())
    stats = ((path, path.stat()) for path in sorted(folder.glob("*.png")))
    stamps = tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in stats)
    if not stamps:
        raise DataError(f"{folder}: no label in it; expected NAME.png per image.")
    return set(_occurring(stamps))


@functools.lru_cache(maxsize=4)
def _occurring(stamps: tuple[tuple[Path, int, int], ...]) -> frozenset[int]:
    """Indices in the label files; cached, since each split and `describe` ask the same."""

    def read(path: Path) -> list[int] | DataError:
        try:
            ids = images.to_ids(images.load(path, SEGMENT), path, SEGMENT)
        except DataError as error:  # Comes up again when the example is read, or skipped there.
            return error
        return np.flatnonzero(np.bincount(ids.ravel())).tolist()

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(read, (path for path, _, _ in stamps)))
    readable = [ids for ids in found if not isinstance(ids, DataError)]
    if not readable:
        raise next(error for error in found if isinstance(error, DataError))
    return frozenset().union(*readable)


def _fits(root: Path, ids: set[int], known: Known) -> bool:
    named = all(p.name.startswith(known.prefixes) for p in (root / "train").glob("*.*"))
    return (
        named
        and all((root / s).is_dir() and (root / f"{s}annot").is_dir() for s in SPLITS)
        and ids == {*range(len(known.classes)), known.void}
    )


def _blank(ids: np.ndarray, voids: set[int]) -> np.ndarray:
    table = np.arange(256, dtype=np.uint8)
    table[list(voids)] = VOID
    return table[ids]
