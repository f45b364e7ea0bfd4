"""A data set by name: the procedural rooms, a Taskonomy copy, or a folder of labelled images."""

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from vcmjax.data import SPLITS, listing, taskonomy
from vcmjax.data.folder import Folder, describe
from vcmjax.data.loader import Source
from vcmjax.data.rooms import Rooms
from vcmjax.errors import DataError, UsageError
from vcmjax.tasks import ROOMS, Task

_READING = 2
"""Of how files become examples: which count, their order, their pixels and labels.

To be raised with every change of that, lest caches give examples as they were read before.
"""


class Dataset(NamedTuple):
    """What can be learned and read.

    Attributes:
      name: ``rooms``, or the folder's name.
      tasks: The tasks that it labels, by name.
      open: ``open(split)`` gives the source of all tasks, ``open(split, name)`` that of one, which
        leaves the files of the others alone. Nothing is read before.
      identity: Changes when the examples do; names caches.
      procedural: Whether these are the procedural rooms, for which networks are shipped; no folder
        is, whatever its name.
    """

    name: str
    tasks: dict[str, Task]
    open: Callable[..., Source]
    identity: str
    procedural: bool = False


def rooms(counts: tuple[int, int, int], size: int, seed: int = 0) -> Dataset:
    """Procedural rooms, `counts` of them in train, val and test."""
    number = dict(zip(SPLITS, counts, strict=True))
    return Dataset(
        "rooms",
        ROOMS,
        lambda split, only=None: Rooms(split, number[split], size, seed),
        f"rooms-{counts[0]}-{counts[1]}-{counts[2]}-{size}-{seed}",
        procedural=True,
    )


def directory(
    root: Path,
    size: int,
    tasks: Sequence[str] = (),
    void: int | None = None,
    *,
    subset: str | None = None,
    counts: tuple[int, int, int] | None = None,
    seed: int = 0,
) -> Dataset:
    """A Taskonomy copy (it has an ``rgb`` domain), or a folder as `Folder` reads it.

    Args:
      root: The data set's folder.
      size: Side to which images are resized, in pixels.
      tasks: Domains to read of a Taskonomy copy; a folder has one task.
      void: Class index that is not scored, besides 255.
      subset: Of a Taskonomy copy, the official subset by whose list its buildings are split.
      counts: Of a Taskonomy copy, how many views of train, val and test to draw; None takes all.
      seed: Of that draw.

    Raises:
      DataError: `root` is not such a folder.
      UsageError: A task that the data set does not label.
    """
    if not root.is_dir():
        raise DataError(f"--data {root}: no such folder; expected 'rooms' or a folder of images.")
    identity = f"{root.resolve().name}-{_listing_digest(root)}-{size}-{void}"
    if taskonomy.is_copy(root):
        names = tuple(tasks) or tuple(ROOMS)
        check_tasks(names, taskonomy.TASKS, root.name)
        number = dict(zip(SPLITS, counts or (None, None, None), strict=True))
        drawn = f"-{'-'.join(map(str, counts))}-{seed}" if counts else ""
        return Dataset(
            root.resolve().name,
            taskonomy.describe(root, names),
            lambda split, only=None: taskonomy.Taskonomy(
                root,
                split,
                (only,) if only else names,
                size,
                subset=subset,
                count=number[split],
                seed=seed,
            ),
            f"{identity}-{subset}{drawn}",
        )
    task = describe(root, void)
    check_tasks(tasks, {task.name: task}, root.name)
    return Dataset(
        root.resolve().name,
        {task.name: task},
        lambda split, only=None: Folder(root, split, size, void, task.channels),
        identity,
    )


def check_tasks(names: Sequence[str], known: dict[str, Task], where: str) -> None:
    """Raise `UsageError` for a name that is not in `known`."""
    for name in names:
        if name not in known:
            raise UsageError(
                f"--task {name}: {where} has no such task; expected {', '.join(known)}."
            )


def _listing_digest(root: Path) -> str:
    """Digest of every file's name, size and time, so that a changed folder is read anew."""
    digest = hashlib.sha256(f"{_READING}\n".encode())
    for folder, _, names in listing.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            try:
                state = os.stat(path)
            except OSError:  # a link to nowhere, which is not read either
                continue
            if stat.S_ISREG(state.st_mode):
                told = f"{os.path.relpath(path, root)}\0{state.st_size}\0{state.st_mtime_ns}\n"
                digest.update(os.fsencode(told))
    return digest.hexdigest()[:12]
