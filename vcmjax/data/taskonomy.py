"""The Taskonomy data set, and `rooms` written in its layout.

A file is ``point_P_view_V_domain_DOMAIN.png`` (``.npy`` for class tasks). Its building is told by a
folder on its path named ``BUILDING`` or ``BUILDING_DOMAIN``, so ``DOMAIN/BUILDING/``,
``BUILDING/DOMAIN/``, ``BUILDING_DOMAIN/`` and ``DOMAIN/taskonomy/BUILDING/`` all read alike.

Encodings, as published:

* ``segment_semantic``: 8-bit, 0 uncertain (becomes `VOID`), class index + 1 otherwise
* ``class_scene``, ``class_object``: probabilities; the label is the most probable class
* ``normal``: v/255·2 − 1 per channel, x right, y down, z away from the camera
* ``principal_curvature``: channels 0 and 1, (v − 127)/127 clipped to [-1, 1]
* ``reshading``: grey, v/255
* ``depth_zbuffer``, ``depth_euclidean``: uint16, metres = v/512, 65535 invalid (becomes NaN)
"""

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vcmjax.data import images
from vcmjax.errors import DataError, UsageError
from vcmjax.tasks import ROOMS, VOID, Task

OFFICIAL_CLASSES = {"class_scene": 365, "class_object": 1000}
"""Length of Taskonomy's own vectors (Places, ImageNet); `rooms` writes those of `tasks.ROOMS`."""

TASKS = ROOMS | {name: Task(name, "dense", 1) for name in ("depth_zbuffer", "depth_euclidean")}

_NAME = re.compile(r"point_(\d+)_view_(\d+)_domain_(\w+)\.(?:png|npy)")
_ALIASES = {"segmentsemantic": "segment_semantic"}  # The official files' name of the domain.


class Taskonomy:
    """Random-access source of ``{"image": uint8 (H, W, 3), task: label, ...}``.

    Every rgb view of the split's buildings, ordered by building, point and view. Shrinking to
    size x size is by area average for image, reshading and depth (over valid pixels; NaN where
    fewer than half are valid), by nearest pixel for segments, normals and curvature.

    Args:
      root: Folder with the files, in any layout of the module docstring.
      split: ``train``, ``val`` or ``test``.
      tasks: Names from `TASKS`.
      size: Side of the square result in pixels; None keeps each image as it is.
      splits: CSV ``id,train,val,test`` of buildings; default ``root/splits.csv``.

    Attributes:
      tasks: Each `Task` by its name. For class tasks, 365 or 1000 classes if the first vector of
        the split has that length.
      views: (building, point, view) of each example.

    Raises:
      UsageError: An unknown task.
      DataError: No such folder or CSV, no view, or a domain with no file in the split. Reading
        an example raises it for a missing, damaged, wrongly sized or out-of-range file.
    """

    def __init__(
        self,
        root: Path | str,
        split: str,
        tasks: Sequence[str],
        size: int | None = 256,
        splits: Path | str | None = None,
    ):
        """Indexes the split; arguments and errors as the class says."""
        self.root, self.size = Path(root), size
        if unknown := [name for name in tasks if name not in TASKS]:
            raise UsageError(f"no task named {unknown[0]!r}; choose from {', '.join(TASKS)}.")
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder. Check --data.")
        table = Path(splits) if splits else self.root / "splits.csv"
        self._files = _index(self.root, buildings(table, split), {"rgb", *tasks})
        self.views = sorted(view for view, files in self._files.items() if "rgb" in files)
        if not self.views:
            raise DataError(
                f"{self.root}: rgb: expected point_P_view_V_domain_rgb.png in folders named after "
                f"the {split} buildings of {table}, found none."
            )
        for name in tasks:
            if not any(name in files for files in self._files.values()):
                raise DataError(f"{self.root}: {name}: no file of this domain in split {split}.")
        self.tasks = {name: self._task(name) for name in tasks}

    def __len__(self) -> int:
        """Number of views."""
        return len(self.views)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Decodes view `index`; raises `DataError` as the class says."""
        view = self.views[index]
        files = self._files[view]
        image = images.to_rgb(images.load(files["rgb"], "rgb"), files["rgb"], "rgb")
        example = {"image": images.shrink(image, self.size)}
        for name, task in self.tasks.items():
            if name not in files:
                building, point, number = view
                suffix = "npy" if task.kind == "class" else "png"
                path = Path(building) / f"point_{point}_view_{number}_domain_{name}.{suffix}"
                raise images.bad(path, name, f"this file, as for {files['rgb']}", "no file")
            if task.kind == "class":
                example[name] = _argmax(files[name], task)
            else:
                label = images.load(files[name], name)
                images.check_size(label.size, image.size, files[name], name)
                example[name] = _decode(label, files[name], task, self.size)
        return example

    def _task(self, name: str) -> Task:
        task, official = TASKS[name], OFFICIAL_CLASSES.get(name)
        for view in self.views if official else ():
            if name in self._files[view]:
                try:
                    length = _vector(self._files[view][name], name).size
                except DataError:  # Comes up again when the example is read, or skipped there.
                    continue
                if length == official:
                    return Task(name, "class", length, tuple(f"class {i}" for i in range(length)))
                break
        return task


def buildings(table: Path, split: str) -> tuple[set[str], set[str]]:
    """Buildings of one split and those of the others, from Taskonomy's published CSV.

    Raises:
      DataError: No such file, another header, or no building in the split.
    """
    if not table.is_file():
        raise DataError(
            f"{table}: no such file; expected Taskonomy's list of buildings (header "
            "`id,train,val,test`): copy train_val_test_tiny.csv there or pass its path."
        )
    rows = list(csv.DictReader(table.read_text(encoding="utf-8-sig").splitlines()))
    if not rows or not {"id", "train", "val", "test"} <= rows[0].keys():
        found = ",".join(rows[0]) if rows else "no row"
        raise images.bad(table, "splits", "header `id,train,val,test`", found, "Correct the file.")
    mine = {row["id"] for row in rows if row.get(split) == "1"}
    if not mine:
        raise DataError(f"{table}: splits: no building with 1 in column {split!r}.")
    return mine, {row["id"] for row in rows} - mine


View = tuple[str, int, int]


def _index(
    root: Path, of_split: tuple[set[str], set[str]], domains: set[str]
) -> dict[View, dict[str, Path]]:
    """File of each domain of each view; does not descend into other splits' buildings."""
    mine, others = of_split
    suffixes = ["", *(f"_{domain}" for domain in sorted(domains))]
    building_of = {f"{name}{suffix}": name for name in mine for suffix in suffixes}
    pruned = {f"{name}{suffix}" for name in others for suffix in suffixes}
    files: dict[View, dict[str, Path]] = {}
    for folder, inner, names in os.walk(root, followlinks=True):
        inner[:] = sorted(set(inner) - pruned)
        parts = Path(folder).relative_to(root).parts
        building = next((building_of[part] for part in parts if part in building_of), None)
        if building is None:
            continue
        for match in filter(None, map(_NAME.fullmatch, names)):
            domain = _ALIASES.get(match[3], match[3])
            if domain in domains:
                view = (building, int(match[1]), int(match[2]))
                files.setdefault(view, {})[domain] = Path(folder) / match[0]
    return files


def _vector(path: Path, domain: str) -> np.ndarray:
    expected = "a .npy vector of probabilities"
    try:
        vector = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy raises many types on damaged input.
        found = f"{type(error).__name__}: {error}"
        raise images.bad(path, domain, expected, found) from error
    if vector.ndim != 1 or vector.dtype.kind not in "fiu":
        raise images.bad(path, domain, expected, f"{vector.dtype} of shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise images.bad(path, domain, expected, "numbers that are not finite")
    return vector


def _argmax(path: Path, task: Task) -> np.ndarray:
    vector = _vector(path, task.name)
    if vector.size != task.channels:
        expected = f"a vector of {task.channels} probabilities"
        raise images.bad(path, task.name, expected, f"{vector.size} numbers")
    return np.asarray(vector.argmax(), np.int32)


def _decode(label: Image.Image, path: Path, task: Task, size: int | None) -> np.ndarray:
    """Decodes and shrinks one label image, per the table in the module docstring."""
    if task.kind == "segment":
        ids = images.to_ids(label, path, task.name)
        images.check_ids(ids, task.channels + 1, 0, path, task.name)
        return images.nearest(np.where(ids == 0, np.uint8(VOID), ids - np.uint8(1)), size)
    if task.name.startswith("depth_"):
        if not label.mode.startswith("I"):
            raise images.bad(path, task.name, "a 16-bit image", f"mode {label.mode}")
        units = np.asarray(label).astype(np.float32)[..., None]
        return images.average(np.where(units == 65535, np.float32(np.nan), units / 512), size)
    values = np.asarray(images.to_rgb(label, path, task.name), np.float32)
    if task.name == "reshading":
        return images.average(values[..., :1] / 255, size)
    values = images.nearest(values, size)
    if task.name == "normal":
        return values / 255 * 2 - 1
    return np.clip((values[..., :2] - 127) / 127, -1, 1)
