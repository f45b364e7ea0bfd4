"""A room's picture and labels in Taskonomy's encodings: what `taskonomy_decode` undoes."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from vcmjax.data.taskonomy_lists import KEPT_OBJECTS, KEPT_PLACES
from vcmjax.tasks import OBJECT_CLASSES, ROOM_CLASSES

_PER_METRE = 512
_INVALID = 65535


def encode(
    view: dict[str, np.ndarray], quirks: bool = False, official_classes: bool = False
) -> Iterator[tuple[str, bytes]]:
    """Domain and content of each of a room's files; arguments as `rooms.write_taskonomy` says."""
    for domain, stored in _stored(view):
        file = io.BytesIO()
        if domain.startswith("class_"):
            np.save(file, _official(domain, stored) if official_classes else stored)
        elif quirks:
            kind = "JPEG" if domain == "rgb" else "PNG"
            _with_quirks(domain, stored).save(file, kind, quality=95)
        else:
            Image.fromarray(stored).save(file, "PNG")
        yield domain, file.getvalue()


def _stored(view: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Domain and stored array of each of a room's files."""
    yield "rgb", view["image"]
    yield "normal", np.rint((view["normal"] + 1) / 2 * 255).astype(np.uint8)
    grey = np.rint(view["reshading"] * 255).astype(np.uint8)
    yield "reshading", np.repeat(grey, 3, axis=2)
    curvature = np.rint(127 + 127 * view["principal_curvature"]).astype(np.uint8)
    yield "principal_curvature", np.pad(curvature, ((0, 0), (0, 0), (0, 1)))
    yield "segment_semantic", view["segment_semantic"] + np.uint8(1)
    for domain in ("depth_zbuffer", "depth_euclidean"):
        units = np.rint(view[domain][..., 0] * _PER_METRE)
        yield domain, np.where(units < _INVALID, units, _INVALID).astype(np.uint16)
    for domain, classes in (("class_scene", ROOM_CLASSES), ("class_object", OBJECT_CLASSES)):
        yield domain, np.eye(len(classes), dtype=np.float32)[view[domain]]


def _official(domain: str, one_hot: np.ndarray) -> np.ndarray:
    """A vector of Taskonomy's length whose largest number is of a class that is not kept."""
    length, kept = {"class_scene": (365, KEPT_PLACES), "class_object": (1000, KEPT_OBJECTS)}[domain]
    vector = np.zeros(length, np.float32)
    vector[0], vector[kept[int(one_hot.argmax())]] = 0.5, 0.25
    return vector


def _with_quirks(domain: str, stored: np.ndarray) -> Image.Image:
    """Modes in which files have been seen, and a hole in the scan: the upper left 1/16."""
    hole = (slice(len(stored) // 4),) * 2
    if domain in ("segment_semantic", "depth_zbuffer", "depth_euclidean"):
        stored = stored.copy()
        stored[hole] = 0 if domain == "segment_semantic" else _INVALID
    if domain == "normal":
        stored = np.pad(stored, ((0, 0), (0, 0), (0, 1)), constant_values=128)
    elif domain == "reshading":
        stored = stored[..., 0] * np.uint16(257)
    image = Image.fromarray(stored)
    if domain == "segment_semantic":
        image.putpalette(bytes(range(255, -1, -1)) * 3)
    return image
