"""Decoding and resizing of image files, with errors that name the file and the remedy.

Images are read as a viewer shows them: upright by their EXIF orientation, the first picture of
several, and scaled to 8 bits by what their format says of its samples.
"""

import io
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from vcmjax.data.listing import SUFFIXES as SUFFIXES
from vcmjax.data.reading import File, bad, opened
from vcmjax.errors import DataError

MAX_PIXELS = 120_000_000
"""Of an image that is decoded, unless another limit is passed: half a gigabyte at 4 bytes each."""

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow knows forty more, of which some run other programs."""
_BY_WAY_OF = {"P": "RGBA", "PA": "RGBA", "RGBa": "RGBA", "La": "LA"}
"""Modes whose alpha must first be told apart: a palette's, or one that is multiplied in."""
_LOSSY = ("JPEG", "MPO", "WEBP")
_BYTES_A_PIXEL, _BYTES_BESIDE = 8, 2**26
_ORIENTATION, _PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH = 274, 262, 322, 323
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What stands an image upright, by its EXIF orientation."""


def read(path: File, size: int | None = None, max_pixels: int | None = None) -> np.ndarray:
    """An image file as uint8 (H, W, 3), by area average to size x size; None keeps its size.

    Raises:
      DataError: As of `load` and `to_rgb`.
    """
    return shrink(to_rgb(load(path, "image", max_pixels), path, "image"), size)


def load(path: File, domain: str, max_pixels: int | None = None) -> Image.Image:
    """Decodes a whole image file, upright; the format is told by its content, not its name.

    Args:
      path: The file.
      domain: Of what it holds, for messages.
      max_pixels: An image that announces more is not decoded; None for `MAX_PIXELS`. Pillow's own
        limit, which holds for the whole process, is raised to it.

    Raises:
      DataError: The file is missing, no regular file, not an image, truncated, or too large.
    """
    if max_pixels is None:
        max_pixels = MAX_PIXELS
    elif Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(max_pixels, Image.MAX_IMAGE_PIXELS)
    longest = _BYTES_A_PIXEL * max_pixels + _BYTES_BESIDE
    with opened(path, domain, "an image", longest) as file:
        try:
            with Image.open(file, formats=_FORMATS) as image:
                pixels = max(image.width * image.height, _tile(image))
                if pixels > max_pixels:
                    raise _too_large(path, domain, max_pixels, str(pixels))
                told = _told(image)
                image.load()
                image.info.update(told)
                return _upright(image)
        except DataError:
            raise
        except Image.DecompressionBombError as error:
            raise _too_large(path, domain, max_pixels, f"more ({error})") from error
        except Exception as error:  # Pillow's decoders raise many types on damaged input.
            found = f"{file.seek(0, io.SEEK_END)} bytes that do not decode"
            if not isinstance(error, UnidentifiedImageError):  # which names the file object
                found += f" ({type(error).__name__}: {error})"
            raise bad(path, domain, "an image", found) from error


def _too_large(path: File, domain: str, limit: int, found: str) -> DataError:
    remedy = "Shrink it, or raise max_pixels (vcmjax.data.images.MAX_PIXELS)."
    return bad(path, domain, f"an image of at most {limit} pixels", found, remedy)


def _tile(image: Image.Image) -> int:
    """Pixels of a TIFF's tile, which is decoded whole though the image be smaller."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_LENGTH, 0)


def _told(image: ImageFile.ImageFile) -> dict[str, Any]:
    """What the format says of its samples, which Pillow forgets as it decodes."""
    told: dict[str, Any] = {}
    args = next((tile[3] for tile in image.tile), None)
    raw = args[0] if isinstance(args, tuple) and args else args
    # "RGB;16B" or "I;12"; not "I;16S", which is signed.
    bits = str(raw).partition(";")[2].rstrip("BLNR")
    if bits in ("12", "16"):
        told["bit_depth"] = int(bits)
    elif image.format == "PPM" and image.mode == "I":  # which Pillow scales
        told["bit_depth"] = 16
    if image.mode.startswith("I") and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
        told["white_is_zero"] = True
    return told


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow's parser raises many types on broken EXIF: read as it lies.
        return image
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.format = image.format
    return turned


def to_rgb(image: Image.Image, path: File, domain: str) -> Image.Image:
    """Converts an image of any mode to 8-bit RGB; alpha is dropped.

    Of 12 and 16 bits the high ones are kept. A 16-bit image that would come out nearly black, all
    its pixels being below 4096, is refused: most such hold 12-bit values.

    Raises:
      DataError: Pixels are floats, signed, integers wider than 16 bits, or 16-bit ones that would
        be nearly black.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return _narrowed(image, path, domain).convert("RGB")
    colours = image.convert(_BY_WAY_OF[image.mode]) if image.mode in _BY_WAY_OF else image
    if colours.mode != "RGB":
        colours = colours.convert("RGB")
    if image.info.get("bit_depth") == 16:  # of which Pillow keeps the high byte
        high = int(np.asarray(colours).max())
        if high < 16:
            raise _dark(high << 8 | 255, path, domain)
    return colours


def _narrowed(image: Image.Image, path: File, domain: str) -> Image.Image:
    """An image of one deep channel as 8-bit grey."""
    bits = image.info.get("bit_depth", 16 if image.mode.startswith("I;16") else 32)
    if image.mode == "F" or bits == 32:
        remedy = "Save it with 8 bits."
        raise bad(path, domain, "8- or 16-bit pixels", f"mode {image.mode}", remedy)
    deep = np.asarray(image)
    if bits == 16 and 0 < deep.max() < 4096:
        raise _dark(int(deep.max()), path, domain)
    if image.info.get("white_is_zero"):
        deep = 2**bits - 1 - deep
    return Image.fromarray((deep >> (bits - 8)).astype(np.uint8))


def _dark(highest: int, path: File, domain: str) -> DataError:
    return bad(
        path, domain, "16-bit pixels up to 65535", f"{highest} at most, nearly black",
        "Scale them to 16 bits, 12-bit ones by 16; or save it with 8 bits.",
    )  # fmt: skip


def to_ids(image: Image.Image, path: File, domain: str) -> np.ndarray:
    """Reads class indices: the raw 8-bit values, of a palette image the palette indices.

    Returns:
      uint8 (H, W).

    Raises:
      DataError: 16-bit, coloured, or JPEG inside (lossy, so its indices are wrong).
    """
    expected = "an 8-bit image of class indices, lossless"
    if image.format in _LOSSY or image.info.get("compression") in ("jpeg", "webp"):
        raise bad(path, domain, expected, f"{image.format} data")
    ids = np.asarray(image)
    if image.mode in ("LA", "RGB", "RGBA"):  # Grey stored so.
        colours = ids[..., :1] if image.mode == "LA" else ids[..., :3]
        if (colours != colours[..., :1]).any():
            raise bad(path, domain, expected, f"colours (mode {image.mode})")
        ids = colours[..., 0]
    if ids.ndim != 2 or ids.dtype not in (np.bool_, np.uint8):
        raise bad(path, domain, expected, f"mode {image.mode}")
    return ids.astype(np.uint8)


def check_ids(
    ids: np.ndarray,
    classes: int,
    void: int,
    path: File,
    domain: str,
    remedy: str = "Replace it.",
) -> None:
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
