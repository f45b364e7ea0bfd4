"""The lists that are published with Taskonomy: buildings of each split, names of classes.

They are looked for in the data set's own folder. ``train_val_test_SUBSET.csv`` and, in
``taskbank/lib/data`` and beside, the names of classes come with Taskonomy's repository
(github.com/StanfordVL/taskonomy).
"""

import csv
import hashlib
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vcmjax.data import SPLITS, reading
from vcmjax.errors import DataError, UsageError
from vcmjax.tasks import Task

SUBSETS = ("tiny", "medium", "full", "fullplus")

KEPT_PLACES = (
    3, 23, 25, 26, 28, 37, 43, 45, 51, 52, 56, 61, 63, 88, 89, 93, 95, 100, 102, 106, 121, 124,
    126, 129, 131, 133, 135, 156, 165, 176, 177, 179, 182, 203, 208, 215, 217, 228, 240, 241, 244,
    246, 248, 253, 255, 264, 269, 280, 281, 282, 285, 298, 303, 311, 317, 318, 328, 332, 343, 346,
    352, 358, 363,
)  # fmt: skip
"""The 63 homes and workplaces among the 365 of Places on which Taskonomy's network was trained.

They stand in its training code; its ``places_class_to_keep.txt`` marks only the 31 homes of them.
"""

KEPT_OBJECTS = (
    401, 402, 409, 412, 414, 430, 431, 435, 453, 462, 463, 470, 478, 487, 488, 492, 495, 504, 505,
    508, 519, 520, 521, 526, 527, 528, 530, 532, 533, 534, 539, 545, 546, 548, 550, 553, 559, 564,
    579, 588, 598, 606, 619, 620, 632, 648, 651, 662, 664, 673, 681, 700, 706, 711, 713, 716, 721,
    728, 729, 733, 736, 737, 738, 742, 748, 750, 752, 753, 754, 760, 761, 765, 770, 773, 778, 794,
    799, 804, 805, 809, 825, 827, 831, 844, 846, 849, 851, 859, 861, 882, 883, 892, 894, 897, 904,
    905, 907, 923, 968, 999,
)  # fmt: skip
"""Places of Taskonomy's 100 object classes among the 1000 of ImageNet in order of WordNet id."""
_KEPT_IDS_CRC = 319752681  # CRC-32 of their WordNet ids, ascending, joined by spaces.


class Classes(NamedTuple):
    """How the vectors of a class task become labels."""

    task: Task
    length: int
    """Numbers in a vector."""
    kept: np.ndarray
    """Places in the vector among which the most probable is sought."""
    labels: np.ndarray
    """The label of each of those."""


def classes(root: Path, task: Task, length: int) -> Classes:
    """What to make of vectors of `length`; `task` as it is for vectors of its own length.

    365 numbers in class_scene are Places' classes: `KEPT_PLACES` are kept and numbered anew, with
    names from ``places_class_names.txt`` if it is there. 1000 numbers in class_object are
    ImageNet's: `KEPT_OBJECTS` are kept, under ImageNet's numbers as the released network has 1000
    outputs, with names from ``imagenet_selected_classes.txt`` if it is there.

    Raises:
      DataError: A list does not fit.
    """
    if (task.name, length) == ("class_scene", 365):
        kept = np.array(KEPT_PLACES)
        names = [f"place {i}" for i in range(length)]
        if (path := root / "places_class_names.txt").is_file():
            names = [line.strip("'") for line in _lines(path, task.name, length, "names")]
        task = Task(task.name, "class", kept.size, tuple(names[i] for i in kept))
        return Classes(task, length, kept, np.arange(kept.size))
    if (task.name, length) == ("class_object", 1000):
        kept = np.array(KEPT_OBJECTS)
        names = [f"class {i}" for i in range(length)]
        if (path := root / "imagenet_selected_classes.txt").is_file():
            lines = sorted(_lines(path, task.name, kept.size, "WordNet id and names"))
            if zlib.crc32(" ".join(line.split()[0] for line in lines).encode()) != _KEPT_IDS_CRC:
                expected = f"the WordNet ids of Taskonomy's {kept.size} classes"
                raise reading.bad(path, task.name, expected, "others", _REMEDY)
            for place, line in zip(KEPT_OBJECTS, lines, strict=True):
                names[place] = line.partition(" ")[2].split(",")[0]
        return Classes(Task(task.name, "class", length, tuple(names)), length, kept, kept)
    every = np.arange(task.channels)
    return Classes(task, task.channels, every, every)


_REMEDY = "Copy the file anew from Taskonomy's repository, or take it away: classes go unnamed."


def _lines(path: Path, domain: str, count: int, content: str) -> list[str]:
    """The `count` lines of a list, stripped."""
    expected = f"{count} lines, {content}"
    lines = reading.text(path, domain).split("\n")
    lines = [line.strip() for line in lines if line.strip()]
    if len(lines) != count:
        raise reading.bad(path, domain, expected, f"{len(lines)} lines", _REMEDY)
    return lines


class Split(NamedTuple):
    """The buildings of one split."""

    mine: frozenset[str]
    others: frozenset[str]
    """Those that are listed, but not in this split."""
    origin: str
    """The list that says so, for messages."""


def split_of(
    root: Path,
    split: str,
    table: Path | None = None,
    subset: str | None = None,
    found: Callable[[], Collection[str]] = tuple,
) -> Split:
    """The buildings of a split: from `table`, a subset's list, ``splits.csv``, or their names.

    Without the first three, of the official lists that lie in `root` the one that leaves fewest
    found buildings out, the smaller of two such; without any, the buildings in order of the
    SHA-256 of their name are dealt to train, val and test, about 8 : 1 : 1.

    Args:
      root: The data set's folder.
      split: One of `SPLITS`.
      table: CSV with header ``id,train,val,test``.
      subset: One of `SUBSETS`, instead of `table`.
      found: Gives the buildings there are; called only if needed.

    Raises:
      UsageError: An unknown split or subset, or both `table` and `subset`.
      DataError: As `buildings`; or too few buildings to have any in the split.
    """
    if split not in SPLITS:
        raise UsageError(f"`split` is {split!r}; expected one of {', '.join(SPLITS)}.")
    official = {name: root / f"train_val_test_{name}.csv" for name in SUBSETS}
    if subset is not None:
        if subset not in SUBSETS or table:
            what = f"{subset!r} beside `splits`" if table else repr(subset)
            raise UsageError(
                f"`subset` is {what}; expected one of {', '.join(SUBSETS)}, without `splits`."
            )
        table = official[subset]
    elif table is None and (root / "splits.csv").is_file():
        table = root / "splits.csv"
    if table:
        return buildings(table, split)
    there = set(found())
    if lists := [buildings(path, split) for path in official.values() if path.is_file()]:
        return min(lists, key=lambda one: len(there - one.mine - one.others))
    order = sorted(there, key=lambda name: hashlib.sha256(name.encode()).digest())
    held = max(1, round(len(order) / 10))
    first = max(1, len(order) - 2 * held)
    bounds = {"train": (0, first), "val": (first, first + held), "test": (first + held, None)}
    mine = frozenset(order[slice(*bounds[split])])
    if there and not mine:
        raise DataError(
            f"{root}: {len(order)} building(s) are too few for a {split} split; expected 3, or "
            "splits.csv (header `id,train,val,test`) there."
        )
    return Split(mine, frozenset(there) - mine, f"{root} (dealt by name)")


def buildings(table: Path, split: str) -> Split:
    """The buildings of one split from Taskonomy's published CSV.

    Raises:
      DataError: No such file, another header, a building in two splits, or none in this one.
    """
    if not table.is_file():
        raise DataError(
            f"{table}: no such file; expected Taskonomy's list of buildings (header "
            "`id,train,val,test`): copy train_val_test_tiny.csv there or pass its path."
        )
    try:
        rows = list(csv.DictReader(reading.text(table, "splits").splitlines()))
    except csv.Error as error:
        expected = "comma-separated values"
        raise reading.bad(table, "splits", expected, str(error), "Correct the file.") from error
    if not rows or not {"id", *SPLITS} <= rows[0].keys():
        found = ",".join(rows[0]) if rows else "no row"
        raise reading.bad(table, "splits", "header `id,train,val,test`", found, "Correct the file.")
    for row in rows:
        if sum(row[name] == "1" for name in SPLITS) > 1:
            raise reading.bad(
                table, "splits", "each building in one split", f"{row['id']} in more",
                "Correct the file.",
            )  # fmt: skip
    mine = frozenset(row["id"] for row in rows if row[split] == "1")
    if not mine:
        raise DataError(f"{table}: splits: no building with 1 in column {split!r}.")
    return Split(mine, frozenset(row["id"] for row in rows) - mine, str(table))
