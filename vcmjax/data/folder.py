"""A user's own folder of images with segmentation labels or scene classes.

Images lie in ``root/train``, ``root/val`` (or ``valid``, ``validation``) and ``root/test``, read in
natural order of their names, as `listing` says.

Segmentation: ``root/SPLIT/NAME.jpg`` (or png, ...) with ``root/SPLITannot/NAME.png``, an 8-bit
image of class indices (or bmp, tif). An optional ``root/classes.txt`` names one class per line in
index order; a line ``void`` marks an index that is not scored. Index 255 is not scored either,
unless the labels are 0 and 255 alone. What the labels show is told in the log; see
`masks.describe` for what is refused.

Scenes: ``root/labels.csv`` (files as ``SPLIT/NAME.jpg``) or ``root/SPLIT/labels.csv`` (files as
``NAME.jpg``), rows ``file,class``, see `label_table` for the forms that are read; without any,
``root/SPLIT/CLASS/NAME.jpg``. Where labels of more than one form exist, the first of these is read.
"""

from pathlib import Path

import numpy as np

from vcmjax import tasks
from vcmjax.data import images, masks, scenes
from vcmjax.data.masks import Masks
from vcmjax.data.scenes import Scenes
from vcmjax.errors import DataError, UsageError, VcmError
from vcmjax.tasks import Task


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
      UsageError: `void` outside 0..255, or `classes` of a segmentation outside 1..255.
      DataError: No such folder, no images in it, or no labels; labels that are refused. Reading an
        example raises it for a damaged image, or a label that is missing, of another size or out
        of range.
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
        self._labels = _describe(self.root, void, classes)
        self._masks: dict[Path, Path] = {}
        if isinstance(self._labels, Masks):
            self._masks = masks.pairs(self.root, split)
            self.files = list(self._masks)
        else:
            self.files = self._labels.files(split)
        self.tasks = {self._labels.task.name: self._labels.task}

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Decodes example `index`; raises `DataError` as the class says."""
        file = self.files[index]
        rgb = images.to_rgb(images.load(file, "image"), file, "image")
        if isinstance(self._labels, Masks):
            label = self._labels.read(self._masks[file], rgb.size)
            label = images.nearest(label, self.size)
        else:
            label = self._labels.read(file)
        return {"image": images.shrink(rgb, self.size), self._labels.task.name: label}


def describe(root: Path | str, void: int | None = None) -> Task:
    """The task that a folder's labels set: kind, number of classes, their names.

    Segmentation classes come from ``classes.txt``; else from a known data set's table if folder,
    file names and label indices all fit (said in the log); else the largest training index tells
    how many. See `masks.describe`.

    Args:
      root: Folder laid out as the module docstring says.
      void: Label index that is not scored, beside 255; overrides the other sources.

    Raises:
      UsageError: `void` outside 0..255.
      DataError: No such folder, no labels in it, or labels that are refused.
    """
    return _describe(Path(root), void, None).task


def _describe(root: Path, void: int | None, classes: int | None) -> Masks | Scenes:
    if void is not None and void not in range(256):
        raise UsageError(f"void is {void}; expected a label index in 0..255.")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder. Check --data.")
    if masks.labelled(root):
        if classes is not None and classes not in range(1, 256):
            raise UsageError(f"classes is {classes}; expected 1..255.")
        labels: Masks | Scenes = masks.describe(root, void, classes)
    else:
        labels = scenes.describe(root)
    try:
        tasks.check(labels.task)  # now: a codec is saved with these names after all its training
    except VcmError as error:
        raise DataError(f"{root}: {error}. Correct its labels.") from None
    return labels
