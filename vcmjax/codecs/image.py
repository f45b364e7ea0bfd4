"""Conventional image codecs: compress the image, and run the network on what was received.

Same contract as `idfc.Idfc`: `encode` of images to one byte string each, `decode` back, and
`stream_bytes`, what a file of it would count. JPEG XL needs imagecodecs and HEVC PyAV, both from
the extra ``[codecs]``; the others come with Pillow.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, features

from vcmjax.codecs import hevc
from vcmjax.errors import CorruptStream, DataError, UsageError

BPG_HEADER = 20
"""Bytes of a BPG file beside its slice data and its two sides: libbpg's bpgenc with x265 added 22
to 64×32 pixels, of which a byte for each side."""
_EXTRA = "pip install 'vcmjax[codecs]'"


class Format(NamedTuple):
    """One format and the qualities it offers.

    Attributes:
      name: Printed name.
      levels: Quality settings, from fewest to most bits.
      write: (image uint8 (H, W, 3), quality) to bytes.
      read: (bytes, height, width) to uint8 (H, W, 3).
      around: (height, width) to bytes beside what `write` returns, in a file of its own.
    """

    name: str
    levels: tuple[int, ...]
    write: Callable[[np.ndarray, int], bytes]
    read: Callable[[bytes, int, int], np.ndarray]
    around: Callable[[int, int], int] = lambda height, width: 0


class ImageCodec:
    """Codes images by one of `FORMATS`; there is nothing to train."""

    def __init__(self, name: str, size: tuple[int, int]):
        """A codec of images of `size` (height, width), known to both sides.

        Raises:
          UsageError: No such format.
        """
        if name not in FORMATS:
            raise UsageError(f"ImageCodec: {name!r}; expected one of {', '.join(FORMATS)}.")
        self.format, self.size = FORMATS[name], size

    def encode(self, images: np.ndarray, quality: int) -> list[bytes]:
        """One stream per image, uint8 (N, H, W, 3).

        Raises:
          DataError: Images of another size or type, or the codec failed on one, which is named.
          UsageError: The library is not installed.
        """
        if images.dtype != np.uint8 or images.shape[1:] != (*self.size, 3):
            expected = f"uint8 (N, {self.size[0]}, {self.size[1]}, 3)"
            raise DataError(f"images are {images.dtype} {images.shape}; expected {expected}.")
        streams = []
        for index, image in enumerate(images):
            try:
                streams.append(self.format.write(np.ascontiguousarray(image), quality))
            except UsageError:
                raise
            except Exception as error:  # each library has errors of its own
                name = f"image {index}: {self.format.name} at quality {quality}"
                raise DataError(f"{name} failed ({error!r}).") from error
        return streams

    def decode(self, streams: Sequence[bytes]) -> np.ndarray:
        """Images uint8 (N, H, W, 3).

        Raises:
          CorruptStream: A stream that the library cannot read, or of another size.
        """
        images = np.zeros((len(streams), *self.size, 3), np.uint8)
        for index, stream in enumerate(streams):
            try:
                image = self.format.read(stream, *self.size)
            except UsageError:
                raise
            except Exception as error:  # each library has errors of its own
                name = f"stream {index}: not {self.format.name}"
                raise CorruptStream(f"{name}, or damaged ({error}).") from error
            if image.shape != images.shape[1:]:
                raise CorruptStream(
                    f"stream {index}: an image of {image.shape}; expected {images.shape[1:]}."
                )
            images[index] = image
        return images

    def stream_bytes(self, stream: bytes) -> int:
        """Length of a file of it."""
        return len(stream) + self.format.around(*self.size)


# HEVC as BPG does it


def ycc(image: np.ndarray) -> np.ndarray:
    """Full-range BT.601 4:2:0 of (H, W, 3), even sides: planes below each other, as FFmpeg's."""
    y, cb, cr = _split(np.asarray(Image.fromarray(image).convert("YCbCr")))
    height, width = y.shape
    chroma = [
        np.rint(c.reshape(height // 2, 2, width // 2, 2).mean((1, 3))).astype(np.uint8).ravel()
        for c in (cb, cr)
    ]
    return np.concatenate([y.ravel(), *chroma]).reshape(height * 3 // 2, width)


def rgb(planes: np.ndarray) -> np.ndarray:
    """Inverse of `ycc` up to its rounding and chroma's resolution, chroma interpolated."""
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    y, chroma = planes[:height], planes[height:].reshape(2, height // 2, width // 2)
    full = [Image.fromarray(c).resize((width, height), Image.Resampling.BILINEAR) for c in chroma]
    merged = Image.merge("YCbCr", [Image.fromarray(np.ascontiguousarray(y)), *full])
    return np.asarray(merged.convert("RGB"))


def _split(image: np.ndarray) -> list[np.ndarray]:
    return [image[..., i] for i in range(3)]


def _hevc_form(height: int, width: int) -> hevc.Format:
    rows, columns = (max(side + side % 2, hevc.LOWEST_SIDE) for side in (height, width))
    return hevc.Format(rows, columns, "yuv420p", preset="veryslow")


def _write_hevc(image: np.ndarray, qp: int) -> bytes:
    form = _hevc_form(*image.shape[:2])
    missing = ((0, form.height - image.shape[0]), (0, form.width - image.shape[1]), (0, 0))
    return hevc.encode([ycc(np.pad(image, missing, mode="edge"))], form, qp)[0]


def _read_hevc(stream: bytes, height: int, width: int) -> np.ndarray:
    (planes,) = hevc.decode([stream], _hevc_form(height, width))
    return rgb(planes)[:height, :width]


def _bpg_around(height: int, width: int) -> int:
    return BPG_HEADER + sum(1 if side < 128 else 2 for side in (height, width))


# The others


def _pillow(form: str, feature: str | None, options: Callable[[int], dict[str, Any]]):
    def write(image: np.ndarray, quality: int) -> bytes:
        if feature and not features.check(feature):
            raise UsageError(f"this Pillow has no {form}: pip install -U pillow")
        out = io.BytesIO()
        Image.fromarray(image).save(out, form, **options(quality))
        return out.getvalue()

    def read(stream: bytes, height: int, width: int) -> np.ndarray:
        kinds = ["JPEG2000"] if form == "JPEG2000" else [form]
        with Image.open(io.BytesIO(stream), formats=kinds) as opened:
            if opened.size != (width, height):  # before a bomb is decoded
                raise ValueError(f"{opened.size[1]}×{opened.size[0]} pixels")
            return np.asarray(opened.convert("RGB"))

    return write, read


def _imagecodecs() -> Any:
    try:
        import imagecodecs
    except ImportError:
        raise UsageError(f"JPEG XL needs imagecodecs: {_EXTRA}") from None
    return imagecodecs


def _write_jxl(image: np.ndarray, tenths: int) -> bytes:
    return _imagecodecs().jpegxl_encode(image, distance=tenths / 10, usecontainer=False)


def _read_jxl(stream: bytes, height: int, width: int) -> np.ndarray:
    del height, width
    return _imagecodecs().jpegxl_decode(stream)


FORMATS: dict[str, Format] = {
    "hevc": Format(
        "HEVC intra (as BPG)", tuple(range(51, 11, -1)), _write_hevc, _read_hevc, _bpg_around
    ),
    "jpeg": Format(
        "JPEG",
        (1, 2, 3, 5, 7, 10, 14, 20, 28, 40, 55, 75, 90, 95),
        *_pillow("JPEG", "jpg", lambda q: {"quality": q, "optimize": True}),
    ),
    "jpeg2000": Format(
        "JPEG 2000",
        tuple(range(14, 46, 2)),
        *_pillow(
            "JPEG2000",
            "jpg_2000",
            lambda q: {
                "quality_mode": "dB",
                "quality_layers": [q],
                "irreversible": True,
                "no_jp2": True,
            },
        ),
    ),
    "webp": Format(
        "WebP",
        (0, 1, 3, 5, 10, 15, 20, 30, 40, 50, 65, 80, 90, 95),
        *_pillow("WEBP", "webp", lambda q: {"quality": q, "method": 6}),
    ),
    "avif": Format(
        "AVIF",
        (0, 3, 6, 10, 15, 20, 27, 35, 45, 55, 65, 75, 85, 95),
        *_pillow("AVIF", "avif", lambda q: {"quality": q, "speed": 4, "max_threads": 1}),
    ),
    "jxl": Format(
        "JPEG XL",
        (250, 200, 150, 120, 100, 80, 60, 45, 30, 20, 14, 10, 5),
        _write_jxl,
        _read_jxl,
    ),
}
"""By name on the command line. Qualities are what each library calls them; QP for HEVC, tenths of
a distance for JPEG XL."""
