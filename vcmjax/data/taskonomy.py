"""The Taskonomy data set, and `rooms` written in its layout.

Where its files lie, in folders or tars, is told in `taskonomy_files`; what they mean, in
`taskonomy_decode`; its lists of buildings and classes, in `taskonomy_lists`.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vcmjax.data import images, reading, taskonomy_files
from vcmjax.data import taskonomy_decode as decode
from vcmjax.data.taskonomy_lists import Classes, classes, split_of
from vcmjax.errors import DataError, UsageError
from vcmjax.tasks import ROOMS, Task

DENSE = ("depth_zbuffer", "depth_euclidean", "edge_occlusion", "edge_texture")
TASKS = ROOMS | {name: Task(name, "dense", 1) for name in DENSE}
"""What can be read; class tasks with the classes of `rooms`, see `describe`."""

PAPER_COUNTS = (51316, 945, 1024)
"""Views of train, val and test in CVR."""


class Taskonomy:
    """Random-access source of ``{"image": uint8 (H, W, 3), task: label, ...}``.

    Every rgb view of the split's buildings, ordered by building, point and view; or `count` of
    them at random. Shrinking to size x size is by area average for image, reshading, depth and
    edges (over valid pixels; NaN where fewer than half are valid), by nearest pixel for segments,
    normals and curvature, masked likewise.

    Args:
      root: Folder with the files, in any layout that `taskonomy_files` knows.
      split: ``train``, ``val`` or ``test``.
      tasks: Names from `TASKS`.
      size: Side of the square result in pixels; None keeps each image as it is.
      splits: CSV ``id,train,val,test`` of buildings; default as `taskonomy_lists.split_of` says.
      subset: ``tiny``, ``medium``, ``full`` or ``fullplus``: the official list of that name.
      count: Number of views, drawn without replacement and in the order drawn; a smaller count
        gives the first of a larger one. All, in that order, if there are fewer.
      seed: Of that draw.

    Attributes:
      tasks: Each `Task` by its name, as `describe` gives it.
      origin: The list of buildings that was used.

    Raises:
      UsageError: An unknown task, split or subset, or a negative count or seed.
      DataError: No such folder or CSV, no view, a domain with no file in the split, a tar that
        cannot be read, or a list of classes that does not fit. Reading an example raises it
        for a missing, damaged, wrongly sized or out-of-range file.
    """

    def __init__(
        self,
        root: Path | str,
        split: str,
        tasks: Sequence[str],
        size: int | None = 256,
        splits: Path | str | None = None,
        *,
        subset: str | None = None,
        count: int | None = None,
        seed: int = 0,
    ):
        """Indexes the split; arguments and errors as the class says."""
        self.root, self.size = Path(root), size
        if unknown := [name for name in tasks if name not in TASKS]:
            raise UsageError(f"no task named {unknown[0]!r}; choose from {', '.join(TASKS)}.")
        if seed < 0 or (count is not None and count < 1):
            raise UsageError(f"`count` {count}, `seed` {seed}: expected at least 1 and 0.")
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder. Check --data.")
        mine, others, self.origin = split_of(
            self.root, split, Path(splits) if splits else None, subset,
            lambda: taskonomy_files.index(self.root, {"rgb"}),
        )  # fmt: skip
        masks = decode.MASKS if any(TASKS[name].kind == "dense" for name in tasks) else ()
        domains = {"rgb", *tasks, *masks}
        self._files = taskonomy_files.index(self.root, domains, mine, others)
        self._buildings = sorted(name for name, found in self._files.items() if "rgb" in found)
        if not self._buildings:
            raise DataError(
                f"{self.root}: rgb: expected point_P_view_V_domain_rgb.png in folders or tars "
                f"named after the {split} buildings of {self.origin}, found none."
            )
        for name in tasks:
            if not any(name in found for found in self._files.values()):
                raise DataError(f"{self.root}: {name}: no file of this domain in split {split}.")
        keys = [self._files[name]["rgb"].keys for name in self._buildings]
        self._keys = np.concatenate(keys)
        self._building = np.repeat(np.arange(len(keys), dtype=np.int16), [k.size for k in keys])
        if count is not None:
            drawn = np.random.default_rng(seed).permutation(self._keys.size)[:count]
            self._keys, self._building = self._keys[drawn], self._building[drawn]
        self._classes = _classes(self.root, tasks)
        self.tasks = _tasks(tasks, self._classes)
        logging.getLogger("vcmjax").info(
            "%s: %s: %d views of %d buildings by %s",
            self.root, split, len(self), len(self._buildings), self.origin,
        )  # fmt: skip

    def __len__(self) -> int:
        """Number of views."""
        return self._keys.size

    @property
    def views(self) -> list[tuple[str, int, int]]:
        """(building, point, view) of each example."""
        return [self._view(index) for index in range(len(self))]

    def _view(self, index: int) -> tuple[str, int, int]:
        key = int(self._keys[index])
        return self._buildings[self._building[index]], key >> 32, key & 0xFFFFFFFF

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Decodes view `index`; raises `DataError` as the class says."""
        found = self._files[self._buildings[self._building[index]]]
        key = int(self._keys[index])
        files = {d: file for d, f in found.items() if (file := f.get(key)) is not None}
        image = images.to_rgb(images.load(files["rgb"], "rgb"), files["rgb"], "rgb")
        example = {"image": images.shrink(image, self.size)}
        loaded: dict[str, Image.Image] = {}

        def load(domain: str) -> tuple[Image.Image, reading.File]:
            if domain not in loaded:
                loaded[domain] = images.load(files[domain], domain)
                images.check_size(loaded[domain].size, image.size, files[domain], domain)
            return loaded[domain], files[domain]

        masked = None
        masks = [name for name in decode.MASKS if name in files]
        if masks and any(task.kind == "dense" for task in self.tasks.values()):
            masked = decode.invalid(*load(masks[0]), masks[0])
        for name, task in self.tasks.items():
            if name not in files:
                building, point, view = self._view(index)
                suffix = "npy" if task.kind == "class" else "png"
                path = Path(building) / f"point_{point}_view_{view}_domain_{name}.{suffix}"
                raise reading.bad(path, name, f"this file, as for {files['rgb']}", "no file")
            if task.kind == "class":
                example[name] = decode.class_index(files[name], self._classes[name])
            elif task.kind == "segment":
                example[name] = decode.segment(*load(name), task, self.size)
            else:
                example[name] = decode.dense(*load(name), name, masked, self.size)
        return example


def is_copy(root: Path) -> bool:
    """Whether a folder has an rgb domain in folders or tars, or tars beside a list of buildings."""
    names = [f"{up}{name}{end}" for up in ("", "*/") for name in ("rgb", "*_rgb")
             for end in ("/", ".tar*")]  # fmt: skip
    lists = [*root.glob("splits.csv"), *root.glob("train_val_test_*.csv")]
    return any(any(root.glob(name)) for name in names) or (bool(lists) and any(root.glob("*.tar*")))


def describe(root: Path, tasks: Sequence[str]) -> dict[str, Task]:
    """Each `Task` by its name; class tasks with the classes that the copy's vectors have.

    Raises:
      DataError: A list of classes does not fit.
    """
    return _tasks(tasks, _classes(root, tasks))


def _tasks(names: Sequence[str], classes: dict[str, Classes]) -> dict[str, Task]:
    return {name: classes[name].task if name in classes else TASKS[name] for name in names}


def _classes(root: Path, tasks: Sequence[str]) -> dict[str, Classes]:
    """Of each class task how its vectors are read, told by the copy's first vector."""
    return {
        name: classes(root, TASKS[name], next(_lengths(root, name), TASKS[name].channels))
        for name in tasks
        if TASKS[name].kind == "class"
    }


def _lengths(root: Path, name: str) -> Iterator[int]:
    for place in taskonomy_files.scan(root, {name}):
        for file in taskonomy_files.files(place):
            try:
                yield decode.vector(file, name).size
            except DataError:  # Comes up again when the example is read, or skipped there.
                continue
