"""What one would use without learning: the feature through HEVC, or the image through a codec.

Both stand in a study beside the trained methods. Their rate levels are the qualities of the codec,
ascending in bits: QP 51 down to 12 of HEVC, 63 down to 12 of VVC, and what each image library
offers.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.kept import kept
from experiments.method import Method
from experiments.task_data import TaskData
from vcmjax.codecs.idfc import Idfc, Packing
from vcmjax.codecs.image import FORMATS, ImageCodec
from vcmjax.errors import UsageError
from vcmjax.evaluate import measure
from vcmjax.evaluate.measure import Measurement

QPS = {"hevc": tuple(range(51, 11, -1)), "vvc": tuple(range(63, 11, -1))}
_POINTS = 8
"""Points of a curve; the plateau search tries qualities between them."""


PACKINGS: dict[str, Packing] = {
    "idfc_tiling": "tiling",
    "idfc_concatenation": "concatenation",
    "idfc_descending": "descending",
    "idfc_vvc": "tiling",
}
IMAGES = {f"image_{name}": name for name in FORMATS}
METHODS = (*PACKINGS, *IMAGES)
SLOW = ("idfc_vvc",)
"""Of `METHODS`, those that are run only if named."""


def check(names: Sequence[str], feature: tuple[int, ...], size: tuple[int, int]) -> None:
    """Codes something by those of `names` that are conventional, at the ends of their curves.

    Args:
      names: Methods.
      feature: Shape of the features, (h, w, C).
      size: (height, width) of the images.

    Raises:
      UsageError: One does not run here, whose package is missing or does not work.
    """
    for name in names:
        if name in PACKINGS:
            by = _idfc(name, feature)
            probe(f"--methods {name}", by, np.zeros((1, *feature), np.float32), QPS[by.codec])
        elif name in IMAGES:
            image_codec = ImageCodec(IMAGES[name], size)
            blank = np.zeros((1, *size, 3), np.uint8)
            probe(f"--methods {name}", image_codec, blank, image_codec.format.levels)


def probe(
    about: str, codec: Idfc | ImageCodec, items: np.ndarray, qualities: Sequence[int]
) -> None:
    """Codes `items` at the least and the greatest of `qualities`.

    Raises:
      UsageError: It fails, with a reason behind `about`.
    """
    for quality in (qualities[0], qualities[-1]):
        try:
            found = codec.decode(codec.encode(items, quality)).shape
        except Exception as error:  # each library has errors of its own
            raise UsageError(f"{about}: {error}") from error
        if found != items.shape:
            raise UsageError(f"{about}: the codec made {found} of {items.shape}; expected as much.")


def _idfc(name: str, shape: tuple[int, ...]) -> Idfc:
    by: Literal["hevc", "vvc"] = "vvc" if name == "idfc_vvc" else "hevc"
    inter = PACKINGS[name] != "tiling"
    return Idfc(shape, PACKINGS[name], inter=inter, codec=by)  # type: ignore[arg-type]


def idfc(name: str, at: TaskData, seed: int, folder: Path) -> Method:
    """The feature of `at` through HEVC or VVC; channels as frames are predicted, as in VCM 2020."""
    codec = _idfc(name, tuple(at.splits["val"].feature.shape[1:]))

    def measured(split: str, quality: int) -> Measurement:
        data = at.splits[split]
        return measure.conventional(
            codec, data.feature, quality, at.task, at.head, data.label, shared=True
        )

    recipe = f"{codec.bits} bits, {codec.scale}, {'inter' if codec.inter else 'intra'}"
    return _method(name, recipe, QPS[codec.codec], measured, seed, folder)


def image(
    name: str,
    at: TaskData,
    seed: int,
    folder: Path,
    head: Callable,
    images: Callable[[str], np.ndarray],
) -> Method:
    """The image through a codec, and the network run on what was received.

    Args:
      name: Of `IMAGES`.
      at: The task.
      seed: See `_method`.
      folder: Where measurements are kept.
      head: Images uint8 (B, H, W, 3) to the task's output; one object, so that it compiles once.
      images: Split to its images uint8 (N, H, W, 3).
    """
    form = FORMATS[IMAGES[name]]
    codec = ImageCodec(IMAGES[name], at.splits["val"].image_shape)

    def measured(split: str, quality: int) -> Measurement:
        label = at.splits[split].label
        return measure.conventional(codec, images(split), quality, at.task, head, label)

    return _method(name, form.name, form.levels, measured, seed, folder)


def opened(
    names: Sequence[str],
    at: TaskData,
    seed: int,
    folder: Path,
    images: Callable[[str], np.ndarray],
    dtype: Any,
) -> list[Method]:
    """Those of `names` that are conventional, on the task `at`.

    Args:
      names: Methods.
      at: The task.
      seed: Under which the one measurement of each is filed.
      folder: Of measurements, in a folder per method.
      images: Split to its images uint8 (N, H, W, 3).
      dtype: That the task network computes in, None for float32.
    """
    network = at.network.network
    encode = functools.partial(network.encode, at.network.params, dtype=dtype)
    images, head = functools.cache(images), lambda pixels: at.head(encode(pixels))
    return [
        idfc(name, at, seed, folder)
        if name in PACKINGS
        else image(name, at, seed, folder, head, images)
        for name in names
        if name in METHODS
    ]


def _method(
    name: str,
    recipe: str,
    qualities: Sequence[int],
    measured: Callable[[str, int], Measurement],
    seed: int,
    folder: Path,
) -> Method:
    last = len(qualities) - 1
    return Method(
        name,
        recipe,
        (seed,),
        tuple(sorted({round(i * last / (_POINTS - 1)) for i in range(_POINTS)})),
        last,
        lambda level: {"lam": None, "quality": qualities[level]},
        lambda _, level, split: kept(
            folder / name / f"{split}_{level}.npz", lambda: measured(split, qualities[level])
        ),
    )
