"""What Taskonomy's files mean: images and vectors to labels.

Encodings, as published:

* ``segment_semantic``: 8-bit, 0 uncertain (becomes `VOID`), class index + 1 otherwise
* ``class_scene``, ``class_object``: probabilities or logits; the label is the most probable class
  of those kept, see `taskonomy_lists.classes`
* ``normal``: v/255·2 − 1 per channel, x right, y down, z away from the camera
* ``principal_curvature``: channels 0 and 1, (v − 127)/127 clipped to [-1, 1]
* ``reshading``: grey, v/255
* ``depth_zbuffer``, ``depth_euclidean``: uint16, metres = v/512, 65535 invalid (becomes NaN)
* ``edge_texture``: uint16, v/(0.08·65536) clipped to [0, 1]
* ``edge_occlusion``: uint16, v/(0.00625·65536), not clipped
* ``mask_valid``: 8-bit, 0 where the scan has no surface

A pixel without a surface is NaN in every dense task: where the view's ``mask_valid`` is 0; if it
has no such file, where its ``depth_zbuffer`` is 65535; if it has neither, nowhere. Segments have
their own uncertain pixels and are not masked further.
"""

import io

import numpy as np
from PIL import Image

from vcmjax.data import images, reading
from vcmjax.data.taskonomy_lists import Classes
from vcmjax.tasks import VOID, Task

MASKS = ("mask_valid", "depth_zbuffer")
"""Domains that tell where a surface is, the better one first."""
_INVALID = 65535

_ONE = {  # uint16 domains: the code of 1.
    "depth_zbuffer": 512,
    "depth_euclidean": 512,
    "edge_occlusion": 0.00625 * 65536,
    "edge_texture": 0.08 * 65536,
}


def vector(file: reading.File, domain: str) -> np.ndarray:
    """The numbers of a class task's file, (N,) or (1, N); `DataError` if it holds others."""
    expected = "a .npy vector of probabilities"
    data = reading.content(file, domain, expected)
    try:
        values = np.load(io.BytesIO(data), allow_pickle=False)
        values = values[0] if values.ndim == 2 and len(values) == 1 else values
    except Exception as error:  # NumPy raises many types on damaged input.
        found = f"{type(error).__name__}: {error}"
        raise reading.bad(file, domain, expected, found) from error
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        raise reading.bad(file, domain, expected, f"{values.dtype} of shape {values.shape}")
    if not np.isfinite(values).all():
        raise reading.bad(file, domain, expected, "numbers that are not finite")
    return values


def class_index(file: reading.File, classes: Classes) -> np.ndarray:
    """The label int32 () of a class task's file; `DataError` if its length is another."""
    values = vector(file, classes.task.name)
    if values.size != classes.length:
        expected = f"a vector of {classes.length} probabilities"
        raise reading.bad(file, classes.task.name, expected, f"{values.size} numbers")
    return np.asarray(classes.labels[values[classes.kept].argmax()], np.int32)


def segment(image: Image.Image, file: reading.File, task: Task, size: int | None) -> np.ndarray:
    """Class indices uint8 (size, size); `DataError` if the image holds no such indices."""
    ids = images.to_ids(image, file, task.name)
    images.check_ids(ids, task.channels + 1, 0, file, task.name)
    return images.nearest(np.where(ids == 0, np.uint8(VOID), ids - np.uint8(1)), size)


def invalid(mask: Image.Image, file: reading.File, domain: str) -> np.ndarray:
    """Pixels without a surface, bool (H, W), by the file of one of `MASKS`."""
    if domain == "mask_valid":
        return images.to_ids(mask, file, domain) == 0
    return _uint16(mask, file, domain) == _INVALID


def dense(
    image: Image.Image,
    file: reading.File,
    domain: str,
    masked: np.ndarray | None,
    size: int | None,
) -> np.ndarray:
    """Decoded, masked and shrunk label.

    Args:
      image: The decoded file.
      file: Names it in errors.
      domain: Of the dense ones above.
      masked: Pixels that become NaN, bool (H, W).
      size: Side of the result.

    Returns:
      float32 (size, size, channels).

    Raises:
      DataError: Pixels are not 8-bit, or not 16-bit where the domain is.
    """
    if domain in ("normal", "principal_curvature"):
        codes = np.asarray(images.to_rgb(image, file, domain))
        values = images.nearest(codes, size).astype(np.float32)
        if domain == "normal":
            values = values / np.float32(255) * 2 - 1
        else:
            values = np.clip((values[..., :2] - 127) / np.float32(127), -1, 1)
        if masked is not None:
            values[images.nearest(masked, size)] = np.nan
        return values
    if domain == "reshading":
        if image.mode.startswith("I"):
            units = _uint16(image, file, domain)[..., None]
            values = units.astype(np.float32) / np.float32(65535)
        else:
            grey = np.asarray(images.to_rgb(image, file, domain))[..., :1]
            values = grey.astype(np.float32) / np.float32(255)
    else:
        units = _uint16(image, file, domain)[..., None]
        values = units.astype(np.float32) / np.float32(_ONE[domain])
        if domain == "edge_texture":
            values = np.minimum(values, 1)
        elif domain.startswith("depth_"):
            values[units == _INVALID] = np.nan
    if masked is not None:
        values[masked] = np.nan
    return images.average(values, size)


def _uint16(image: Image.Image, file: reading.File, domain: str) -> np.ndarray:
    if not image.mode.startswith("I"):
        raise reading.bad(file, domain, "a 16-bit image", f"mode {image.mode}")
    return np.asarray(image)
