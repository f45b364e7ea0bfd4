"""What one would use without learning: the feature through HEVC, or the image through a codec.

Both stand in a study beside the trained methods. Their rate levels are the qualities of the codec,
ascending in bits: QP 51 down to 12 of HEVC, and what each image library offers.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.task_data import TaskData
from vcmjax.codecs.idfc import Idfc, Packing
from vcmjax.codecs.image import FORMATS, ImageCodec
from vcmjax.evaluate import measure
from vcmjax.evaluate.measure import Measurement

QPS = tuple(range(51, 11, -1))
_POINTS = 8
"""Points of a curve; the plateau search tries qualities between them."""


class Conventional(NamedTuple):
    """A method with nothing to train, on one task.

    Attributes:
      name: On the command line.
      recipe: What its parameters are, in words.
      qualities: By rate level.
      measure: (split, level) to its measurement.
    """

    name: str
    recipe: str
    qualities: tuple[int, ...]
    measure: Callable[[str, int], Measurement]

    @property
    def grid(self) -> list[int]:
        """Levels of its curve, spread over all."""
        last = len(self.qualities) - 1
        return sorted({round(i * last / (_POINTS - 1)) for i in range(_POINTS)})


PACKINGS: dict[str, Packing] = {
    "idfc_tiling": "tiling",
    "idfc_concatenation": "concatenation",
    "idfc_descending": "descending",
}
IMAGES = {f"image_{name}": name for name in FORMATS}
METHODS = (*PACKINGS, *IMAGES)


def idfc(name: str, at: TaskData) -> Conventional:
    """The feature of `at` through HEVC; channels as frames are predicted, as in VCM (2020)."""
    shape = at.splits["val"].feature.shape[1:]
    inter = PACKINGS[name] != "tiling"
    codec = Idfc(tuple(shape), PACKINGS[name], inter=inter)

    def measured(split: str, level: int) -> Measurement:
        data = at.splits[split]
        return measure.conventional(
            codec, data.feature, QPS[level], at.task, at.head, data.label, shared=True
        )

    recipe = f"{codec.bits} bits, {codec.scale}, {'inter' if inter else 'intra'}"
    return Conventional(name, recipe, QPS, measured)


def image(
    name: str, at: TaskData, head: Callable, images: Callable[[str], np.ndarray]
) -> Conventional:
    """The image through a codec, and the network run on what was received.

    Args:
      name: Of `IMAGES`.
      at: The task.
      head: Images uint8 (B, H, W, 3) to the task's output; one object, so that it compiles once.
      images: Split to its images uint8 (N, H, W, 3).
    """
    form = FORMATS[IMAGES[name]]
    codec = ImageCodec(IMAGES[name], at.splits["val"].image_shape)

    def measured(split: str, level: int) -> Measurement:
        quality, label = form.levels[level], at.splits[split].label
        return measure.conventional(codec, images(split), quality, at.task, head, label)

    return Conventional(name, form.name, form.levels, measured)


def opened(
    methods: Sequence[str], at: TaskData, images: Callable[[str], np.ndarray], dtype: Any
) -> list[Conventional]:
    """Those of `methods` that are conventional, on the task `at`."""
    network = at.network.network
    encode = functools.partial(network.encode, at.network.params, dtype=dtype)
    images, head = functools.cache(images), lambda pixels: at.head(encode(pixels))
    return [
        idfc(name, at) if name in PACKINGS else image(name, at, head, images)
        for name in methods
        if name in METHODS
    ]
