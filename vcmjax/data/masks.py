"""Label images of class indices: which classes a folder of them shows, and how one is read."""

import functools
import os
import unicodedata
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from vcmjax.data import SPLITS, images, listing, reading
from vcmjax.errors import DataError
from vcmjax.tasks import VOID, Task

SEGMENT = "segment_semantic"
SUFFIXES = frozenset({".bmp", ".png", ".tif", ".tiff"})
"""Of label files, in any case. GIF is left out: its writers renumber the colours of each file."""

_MOST = 200
_FEW, _GAPS = 16, 8
_LIST = "list the classes in classes.txt, one a line in order of index"


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


class Masks(NamedTuple):
    """How the label images of a folder are read.

    Attributes:
      task: The segmentation.
      voids: Indices that are not scored.
      two_valued: Labels are 0 and 255, which is class 1.
    """

    task: Task
    voids: frozenset[int]
    two_valued: bool = False

    def read(self, path: Path, size: tuple[int, int]) -> np.ndarray:
        """The label of an image of `size` (width, height): uint8 (H, W), void as `VOID`.

        Raises:
          DataError: The file is missing, damaged, of another size, or has a stray index.
        """
        image = images.load(path, SEGMENT)
        images.check_size(image.size, size, path, SEGMENT)
        ids = images.to_ids(image, path, SEGMENT)
        if self.two_valued:
            if image.mode == "1":
                return ids
            stray = ids[(ids != 0) & (ids != 255)]
            if stray.size:
                found = f"{stray.max()} ({stray.size} such pixels)"
                expected = "0 and 255 alone, as in the training labels"
                raise reading.bad(path, SEGMENT, expected, found, f"Correct it, or {_LIST}.")
            return ids & 1
        table = np.arange(256, dtype=np.uint8)
        table[list(self.voids)] = VOID
        ids = table[ids]
        remedy = f"State the void index (--void), or {_LIST}."
        images.check_ids(ids, self.task.channels, VOID, path, SEGMENT, remedy)
        return ids


def labelled(root: Path) -> bool:
    """Whether a folder has label images."""
    return any(_annotations(root, split).is_dir() for split in SPLITS)


def pairs(root: Path, split: str) -> dict[Path, Path]:
    """Each image of a split, in order, with its label, which may be missing.

    They belong together by name without suffix, in whatever Unicode form.

    Raises:
      DataError: No such folder, no image in it, or two images or labels of one name.
    """
    files, folder = listing.split_images(root, split), _annotations(root, split)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected a label NAME.png per image.")
    stems = _by_stem(files)
    found = _by_stem(f for f in listing.listed(folder, SUFFIXES).files if listing.stem(f) in stems)
    return {file: found.get(stem, folder / f"{file.stem}.png") for stem, file in stems.items()}


def _annotations(root: Path, split: str) -> Path:
    folder = listing.split_folder(root, split)
    return folder.with_name(f"{folder.name}annot")


def _by_stem(files: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(listing.stem(file), file)
        if other != file:
            expected = "one file of a name, which an image and its label share"
            remedy = "Rename or remove one."
            raise reading.bad(file, SEGMENT, expected, f"{other.name} beside it", remedy)
    return found


def describe(root: Path, void: int | None = None, classes: int | None = None) -> Masks:
    """What classes the labels of a folder show; said in the log.

    Void are 255, and `void`, else what ``classes.txt`` or a known data set says. Where the labels
    are 0 and 255 alone, 255 is no void but class 1. Classes are those of ``classes.txt``, else a
    known data set's, else as many as the largest index says. That is refused

    * if a single class occurs, as every decoder would be right about it;
    * if it is more than 200 classes, as of soft or grey masks, or more than 16 and more than eight
      for each that occurs, as of masks like 0, 127, 254; unless the labels have a palette with a
      colour for each index.

    Args:
      root: Folder laid out as `folder` says.
      void: Label index that is not scored, beside 255; overrides the other sources.
      classes: Number of classes; with `void` too, no training label is read.

    Raises:
      DataError: No labels, or such as are refused; a list of classes that cannot be read.
    """
    if void is not None and classes is not None:
        return Masks(_task(_numbered(classes)), frozenset({VOID, void}))
    folder, seen = _scan(root)
    names, stated = _listed(root)
    title = "" if names else _known(root, seen)
    known = KNOWN.get(title)
    if void is not None:
        stated = {void}
    elif known:
        stated = {known.void}
        listing.say(f"{root}: recognised {title}: class {known.void} is void")
    two = seen.values <= {0, VOID} and VOID in seen.values and not stated and len(names) in (0, 2)
    voids = set() if two else stated | {VOID}
    pixels = seen.two_valued if two else seen.pixels
    present = sorted(set(np.flatnonzero(pixels).tolist()) - voids)
    if len(present) < 2:
        found = "no class; every training label is void"
        if present:
            found = f"one class, {VOID if two and present[0] else present[0]}"
        remedy = "Check the labels, or state another void index (--void)."
        raise reading.bad(folder, SEGMENT, "two classes or more", found, remedy)
    while len(names) - 1 in voids:
        names.pop()
    if known and known.void in voids:
        names = list(known.classes)
    elif not names:
        _check_gaps(folder, seen, present)
        names = _numbered(present[-1] + 1)
    if classes is not None and classes != len(names):
        names = _numbered(classes)
    _tell(root, names, voids, pixels, seen.files, two)
    return Masks(_task(names), frozenset(voids), two)


def _numbered(classes: int) -> list[str]:
    return [f"class {i}" for i in range(classes)]


def _task(names: list[str]) -> Task:
    return Task(SEGMENT, "segment", len(names), tuple(names))


def _tell(
    root: Path, names: list[str], voids: set[int], pixels: np.ndarray, files: int, two: bool
) -> None:
    if two:
        listing.say(f"{root}: labels are 0 and 255 alone: 255 is class 1, and no index is void")
    share = 100 * pixels[list(voids)].sum() / pixels.sum()
    listed = ", ".join(map(str, sorted(voids))) or "none"
    listing.say(
        f"{root}: {len(names)} classes, void = {listed}, {share:.1f} % void, from {files} images"
    )


def _listed(root: Path) -> tuple[list[str], set[int]]:
    """Names in ``classes.txt``, if there is one, and the places of those called void."""
    path = root / "classes.txt"
    if not os.path.lexists(path):
        return [], set()
    lines = reading.text(path, SEGMENT).rstrip().splitlines()
    names = [unicodedata.normalize("NFC", line.strip()) for line in lines]
    one_each = "a class a line, in order of index"
    for number, name in enumerate(names, 1):
        if not name:
            remedy = "Name the class, or remove the line."
            raise reading.bad(path, SEGMENT, one_each, f"line {number} empty", remedy)
    voids = {i for i, name in enumerate(names) if name.casefold() == "void"}
    if not 0 < len(names) <= VOID + 1 or len(voids) == len(names):
        count = len(names) - len(voids)
        raise reading.bad(path, SEGMENT, one_each, f"{count} classes", "Correct the file.")
    return names, voids


class _Seen(NamedTuple):
    """Indices of the labels that were read, by their pixels."""

    files: int
    deep: np.ndarray
    """int64 (256,): pixels by index in labels of more than one bit."""
    bilevel: np.ndarray
    """Likewise in labels of one bit, which shows 0 and 255 as it shows 0 and 1."""
    colours: int
    """Most colours of a palette."""

    @property
    def values(self) -> set[int]:
        return set(np.flatnonzero(self.deep).tolist())

    @property
    def pixels(self) -> np.ndarray:
        return self.deep + self.bilevel

    @property
    def two_valued(self) -> np.ndarray:
        """Pixels by class where 255 is class 1."""
        pixels = self.bilevel.copy()
        pixels[:2] += self.deep[[0, VOID]]
        return pixels


def _scan(root: Path) -> tuple[Path, _Seen]:
    """What the training labels show (else those of the first split labelled), and their folder."""
    split = next(split for split in SPLITS if _annotations(root, split).is_dir())
    folder = _annotations(root, split)
    labels = [label for label in pairs(root, split).values() if label.is_file()]
    if not labels:
        raise DataError(
            f"{folder}: no label in it; expected NAME.png per image (or bmp, tif; JPEG changes the "
            "indices)."
        )
    stats = ((path, path.stat()) for path in labels)
    return folder, _seen(tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in stats))


@functools.lru_cache(maxsize=4)
def _seen(stamps: tuple[tuple[Path, int, int], ...]) -> _Seen:
    """Indices in the label files; cached, since each split and `describe` ask the same."""
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(_counted, (path for path, _, _ in stamps)))
    readable = [one for one in found if not isinstance(one, DataError)]
    if not readable:
        raise next(one for one in found if isinstance(one, DataError))
    none = np.zeros(256, np.int64)
    return _Seen(
        len(readable),
        sum((pixels for pixels, bilevel, _ in readable if not bilevel), none),
        sum((pixels for pixels, bilevel, _ in readable if bilevel), none),
        max(colours for _, _, colours in readable),
    )


def _counted(path: Path) -> tuple[np.ndarray, bool, int] | DataError:
    """Pixels by index, whether of one bit, and colours of the palette, if it is one."""
    try:
        image = images.load(path, SEGMENT)
        ids = images.to_ids(image, path, SEGMENT)
    except DataError as error:  # Comes up again when the example is read, or skipped there.
        return error
    return np.bincount(ids.ravel(), minlength=256), image.mode == "1", _colours(image)


def _colours(image: Image.Image) -> int:
    """Colours of a palette; a palette of greys in order says no more than grey pixels do."""
    palette = bytes(image.getpalette() or ()) if image.mode == "P" else b""
    count = -(-len(palette.rstrip(b"\0")) // 3)
    grey = all(set(palette[3 * i : 3 * i + 3]) == {i} for i in range(count))
    return 0 if grey else count


def _check_gaps(folder: Path, seen: _Seen, present: list[int]) -> None:
    count = present[-1] + 1
    if count <= seen.colours or count <= min(_MOST, max(_FEW, _GAPS * len(present))):
        return
    some = ", ".join(map(str, present[:8])) + ", ..." * (len(present) > 8)
    raise reading.bad(
        folder, SEGMENT, "class indices 0, 1, 2, ...",
        f"{some} of up to {present[-1]}, that is {count} classes of which {len(present)} occur",
        f"Number the classes one after the other, or {_LIST}.",
    )  # fmt: skip


def _known(root: Path, seen: _Seen) -> str:
    """The published data set that names, folders and indices fit, or none."""
    indices = set(np.flatnonzero(seen.pixels).tolist())
    folders = [listing.split_folder(root, split) for split in SPLITS]
    if not all(folder.is_dir() for folder in (*folders, *(_annotations(root, s) for s in SPLITS))):
        return ""
    names = [file.name for file in listing.listed(folders[0]).files]
    for title, known in KNOWN.items():
        named = all(name.startswith(known.prefixes) for name in names)
        if named and indices <= {*range(len(known.classes)), known.void}:
            return title
    return ""
