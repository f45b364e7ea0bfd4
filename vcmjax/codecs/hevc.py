"""HEVC by x265, bit-exact and without a container: the codec under the conventional baselines.

x265 and the decoder come with PyAV, from the extra ``[codecs]``. Its wheels contain x265, which is
under the GPL, so that it is optional and imported when first used.

Bytes are counted in two ways. `encode` returns slice data alone: one NAL unit per frame, without
start codes. Parameter sets depend on size, format and mode, not on content or QP, so that a
decoder that knows those rebuilds them (`parameter_sets`); a connection sends them once.
`stream_bytes` is the length of the whole elementary stream.
"""

import functools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from vcmjax.codecs import annex_b
from vcmjax.errors import UsageError

LOWEST_SIDE = 16
"""x265 refuses smaller frames."""
LOWEST_INTER_WIDTH = 24
"""Where a frame is a single column of coding tree units, x265 4.2 writes other bytes from run to
run in its P frames, and they decode to other samples than it meant: lossless frames 16 or 32 wide
came back with errors, those of two columns or more never did. Hence blocks of 16 there."""
QPS = range(52)

# x265 codes I frames at three below the QP it is given unless told not to (ipratio), spends 2 kB
# on a message about its settings (info), and with threads its bytes vary from run to run.
_X265 = (
    "log-level=-1:info=0:ipratio=1:pbratio=1:aq-mode=0:cutree=0:wpp=0:pools=none:frame-threads=1"
    ":scenecut=0:rc-lookahead=0:bframes=0:vui-timing-info=0"
)
_FIRST_PARAMETER_SET, _LAST_PARAMETER_SET = 32, 34  # NAL unit types: VPS, SPS, PPS


class Format(NamedTuple):
    """What both sides know of a sequence of frames.

    Attributes:
      height: Of a frame in luma samples, at least 16; even for ``yuv420p``.
      width: Likewise, and at least 24 unless `intra`.
      pixels: FFmpeg's name: ``gray``, ``gray10le``, ``yuv420p``, ``yuv444p``.
      intra: Every frame by itself; else the first alone, and each later one from those before.
      preset: Of x265.
      lossless: Without loss, whatever the QP.
    """

    height: int
    width: int
    pixels: str = "gray"
    intra: bool = True
    preset: str = "medium"
    lossless: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array of a frame, as PyAV has it; planes of ``yuv420p`` lie below each other."""
        if self.pixels == "yuv420p":
            return (self.height * 3 // 2, self.width)
        return (3, self.height, self.width) if "444" in self.pixels else (self.height, self.width)

    @property
    def dtype(self) -> type:
        """Of the array of a frame."""
        return np.uint16 if self.pixels.endswith("le") else np.uint8


def encode(frames: Sequence[np.ndarray], form: Format, qp: int) -> list[bytes]:
    """Slice data of each frame, a NAL unit without start code.

    Args:
      frames: Arrays of ``form.shape``.
      form: Their format.
      qp: Quantisation parameter of every frame, 0..51; not used if lossless.

    Raises:
      UsageError: No PyAV with x265; a QP or a frame that does not fit.
    """
    if qp not in QPS:
        raise UsageError(f"hevc: QP {qp}; expected 0 to 51.")
    units = annex_b.units(_elementary(frames, form, qp))
    slices = tuple(unit for unit in units if _kind(unit) < _FIRST_PARAMETER_SET)
    sent = tuple(u for u in units if _FIRST_PARAMETER_SET <= _kind(u) <= _LAST_PARAMETER_SET)
    if set(sent) != set(parameter_sets(form)) or len(slices) != len(frames):
        raise AssertionError("x265's parameter sets vary with content: a decoder cannot know them")
    return list(slices)


def decode(slices: Sequence[bytes], form: Format) -> list[np.ndarray]:
    """The frames; inverse of `encode` up to the loss.

    Raises:
      CorruptStream: What libavcodec cannot decode to as many frames of that format.
      UsageError: No PyAV with x265.
    """
    stream = annex_b.joined((*parameter_sets(form), *slices))
    size = (form.height, form.width)
    return annex_b.decode("hevc", stream, len(slices), form.pixels, size)


@functools.cache
def parameter_sets(form: Format) -> tuple[bytes, ...]:
    """VPS, SPS and PPS of a format: known to both sides, or sent once per connection."""
    blank: np.ndarray = np.zeros(form.shape, form.dtype)
    units = annex_b.units(_elementary([blank], form, 30))
    return tuple(u for u in units if _FIRST_PARAMETER_SET <= _kind(u) <= _LAST_PARAMETER_SET)


def stream_bytes(slices: Sequence[bytes], form: Format) -> int:
    """Length of the elementary stream that holds `slices`: parameter sets and start codes too."""
    # The first unit of an access unit, and parameter sets, have start codes of 4 bytes.
    return len(annex_b.joined((*parameter_sets(form), *slices)))


def _elementary(frames: Sequence[np.ndarray], form: Format, qp: int) -> bytes:
    av = _av()
    width = LOWEST_SIDE if form.intra else LOWEST_INTER_WIDTH
    if form.height < LOWEST_SIDE or form.width < width:
        raise UsageError(
            f"hevc: frames of {form.height}×{form.width}; expected at least {LOWEST_SIDE}×{width}."
        )
    encoder: Any = av.CodecContext.create("libx265", "w")
    encoder.height, encoder.width, encoder.pix_fmt = form.height, form.width, form.pixels
    encoder.framerate, encoder.time_base = Fraction(25), Fraction(1, 25)
    rate = "lossless=1" if form.lossless else f"qp={qp}"
    keys = 1 if form.intra else -1
    options = f"{rate}:keyint={keys}:{_X265}"
    if not form.intra and form.width <= 64:
        options += ":ctu=16"
    encoder.options = {"preset": form.preset, "tune": "psnr", "x265-params": options}
    stream = b""
    for time, array in enumerate(frames):
        if array.shape != form.shape or array.dtype != form.dtype:
            # PyAV would rescale it without a word.
            raise UsageError(
                f"hevc: frame of {array.dtype} {array.shape}; expected {form.dtype.__name__} "
                f"{form.shape}."
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format=form.pixels)
        frame.pts = time
        stream += b"".join(map(bytes, encoder.encode(frame)))
    return stream + b"".join(map(bytes, encoder.encode(None)))


def _kind(unit: bytes) -> int:
    return unit[0] >> 1 & 63


def _av() -> Any:
    av = annex_b.av("hevc")
    if "libx265" not in av.codecs_available:
        raise UsageError("HEVC needs a PyAV that was built with x265; PyPI's wheels are.")
    return av
