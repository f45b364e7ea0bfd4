"""Decoding and resizing of image files, with errors that name the file and the remedy."""

import io
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from vcmjax.errors import DataError

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Names by which a file in an image folder counts as an image."""


class File(Protocol):
    """What can be decoded: a `Path`, or a member of a tar. Its ``str`` names it in messages."""

    def read_bytes(self) -> bytes:
        """The whole content."""


def bad(path: object, domain: str, expected: str, found: str, remedy: str = "") -> DataError:
    """The one form of error about a file: which, of what domain, expected, found, remedy."""
    remedy = remedy or "Replace it, or leave such examples out with --skip-bad."
    return DataError(f"{path}: {domain}: expected {expected}, found {found}. {remedy}")


def load(path: File, domain: str) -> Image.Image:
    """Decodes a whole image file; the format is told by its content, not its name.

    Raises:
      DataError: The file is missing, not an image, or truncated.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise bad(path, domain, "an image", "no file") from None
    except OSError as error:
        raise bad(path, domain, "an image", f"that it cannot be read ({error})") from error
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return image
    except UnidentifiedImageError:  # Its message would name the buffer.
        raise bad(path, domain, "an image", f"{len(data)} bytes that do not decode") from None
    except Exception as error:  # Pillow's decoders raise many types on damaged input.
        found = f"{len(data)} bytes that do not decode ({type(error).__name__}: {error})"
        raise bad(path, domain, "an image", found) from error


def to_rgb(image: Image.Image, path: File, domain: str) -> Image.Image:
    """Converts grey, palette, RGBA (alpha dropped), CMYK and 16-bit grey images to 8-bit RGB.

    Raises:
      DataError: Pixels are floats, or integers wider than 16 bits.
    """
    if image.mode == "RGB":
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        wide = np.asarray(image)
        if image.mode == "F" or wide.min() < 0 or wide.max() > 65535:
            raise bad(path, domain, "8- or 16-bit pixels", f"mode {image.mode}")
        image = Image.fromarray((wide >> 8).astype(np.uint8))
    if image.mode == "P":  # A transparent palette entry converts cleanly only by way of RGBA.
        image = image.convert("RGBA")
    return image.convert("RGB")


def to_ids(image: Image.Image, path: File, domain: str) -> np.ndarray:
    """Reads class indices: the raw 8-bit values, of a palette image the palette indices.

    Returns:
      uint8 (H, W).

    Raises:
      DataError: 16-bit, coloured, or JPEG inside (lossy, so its indices are wrong).
    """
    expected = "an 8-bit image of class indices, lossless"
    if image.format == "JPEG":
        raise bad(path, domain, expected, "JPEG data")
    ids = np.asarray(image)
    if ids.ndim == 3:  # Grey stored as LA, RGB or RGBA.
        colours = ids[..., :1] if image.mode == "LA" else ids[..., :3]
        if (colours != colours[..., :1]).any():
            raise bad(path, domain, expected, f"colours (mode {image.mode})")
        ids = colours[..., 0]
    if ids.dtype not in (np.bool_, np.uint8):
        raise bad(path, domain, expected, f"mode {image.mode}")
    return ids.astype(np.uint8)


def check_ids(ids: np.ndarray, classes: int, void: int, path: File, domain: str, remedy: str = ""):
    """Raises `DataError` where an index is neither below `classes` nor `void`."""
    stray = ids[(ids >= classes) & (ids != void)]
    if stray.size:
        expected = f"class indices 0..{classes - 1}"
        raise bad(path, domain, expected, f"{stray.max()} ({stray.size} such pixels)", remedy)


def check_size(label: tuple[int, int], image: tuple[int, int], path: File, domain: str):
    """Raises `DataError` unless both (width, height) agree."""
    if label != image:
        expected = f"its image's size {image[0]}x{image[1]}"
        raise bad(path, domain, expected, f"{label[0]}x{label[1]} (width x height)")


def shrink(image: Image.Image, size: int | None) -> np.ndarray:
    """An RGB image as uint8 (H, W, 3), by area average to size x size; None keeps its size."""
    if size is not None:
        image = image.resize((size, size), Image.Resampling.BOX)
    return np.array(image)


def nearest(label: np.ndarray, size: int | None) -> np.ndarray:
    """Samples (H, W, ...) at the size x size pixel centres; None keeps its size."""
    if size is None:
        return label
    rows, columns = ((2 * np.arange(size) + 1) * n // (2 * size) for n in label.shape[:2])
    return label[rows[:, None], columns]


def average(label: np.ndarray, size: int | None) -> np.ndarray:
    """Area average of float32 (H, W, 1) over its finite pixels; NaN where half are not finite."""
    if size is None:
        return label

    def box(plane: np.ndarray) -> np.ndarray:
        image = Image.fromarray(plane.astype(np.float32))
        return np.asarray(image.resize((size, size), Image.Resampling.BOX))

    valid = np.isfinite(label[..., 0])
    share = box(valid)
    total = box(np.where(valid, label[..., 0], 0))
    mean = np.divide(total, share, out=np.full_like(total, np.nan), where=share > 0.5)
    return mean[..., None]
