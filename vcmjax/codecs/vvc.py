"""VVC by vvenc, grey frames by themselves: HEVC's successor, for the same baselines as `hevc`.

The encoder is the FFmpeg of the package imageio-ffmpeg, which holds vvenc, from the extra
``[vvc]``; the decoder is PyAV's, from ``[codecs]``. As in `hevc`, `encode` returns what a frame
needs alone, its NAL units without the first start code: parameter sets depend on size alone, and a
decoder that knows it rebuilds them. vvenc's interface in FFmpeg takes 4:2:0 of ten bits only:
samples are shifted up by two bits, and chroma is constant.
"""

import functools
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vcmjax.codecs import annex_b
from vcmjax.codecs.hevc import Format
from vcmjax.errors import UsageError

QPS = range(64)
LOWEST_SIDE = 16
_FIRST_PARAMETER_SET, _LAST_PARAMETER_SET = 14, 16  # NAL unit types: VPS, SPS, PPS
_DELIMITER = 20


def encode(frames: Sequence[np.ndarray], form: Format, qp: int) -> list[bytes]:
    """The NAL units of each frame, without the first start code; each is coded by itself.

    Args:
      frames: Arrays of ``form.shape``, uint8.
      form: Their format: ``gray`` and `intra`, of even sides.
      qp: Quantisation parameter, 0..63.

    Raises:
      UsageError: The extra is not installed; a QP, format or frame that does not fit.
    """
    if qp not in QPS:
        raise UsageError(f"vvc: QP {qp}; expected 0 to 63.")
    _check(form)
    for frame in frames:
        if frame.shape != form.shape or frame.dtype != form.dtype:
            raise UsageError(
                f"vvc: frame of {frame.dtype} {frame.shape}; expected uint8 {form.shape}."
            )
    slices = []
    for frame in frames:
        units = annex_b.units(_elementary(frame, form, qp))
        sets = tuple(unit for unit in units if _is_parameter_set(unit))
        if sets != parameter_sets(form):
            raise AssertionError("vvenc's parameter sets vary with content: a decoder cannot know")
        # Filters adapted to a frame come in units of their own before its slice.
        own = (u for u in units if not _is_parameter_set(u) and _kind(u) != _DELIMITER)
        slices.append(annex_b.BETWEEN.join(own))
    return slices


def decode(slices: Sequence[bytes], form: Format) -> list[np.ndarray]:
    """The frames, uint8; inverse of `encode` up to the loss.

    Raises:
      CorruptStream: What libavcodec cannot decode to a frame of that format each.
      UsageError: The extra is not installed.
    """
    _check(form)
    size = (form.height, form.width)
    frames = []
    for own in slices:
        stream = annex_b.joined((*parameter_sets(form), own))
        (samples,) = annex_b.decode("vvc", stream, 1, "yuv420p10le", size)
        luma = samples[: form.height].astype(np.int32)
        frames.append(np.minimum((luma + 2) >> 2, 255).astype(np.uint8))
    return frames


@functools.cache
def parameter_sets(form: Format) -> tuple[bytes, ...]:
    """SPS and PPS of a format: known to both sides, or sent once per connection."""
    units = annex_b.units(_elementary(np.zeros(form.shape, np.uint8), form, 32))
    return tuple(unit for unit in units if _is_parameter_set(unit))


def stream_bytes(slices: Sequence[bytes], form: Format) -> int:
    """Length of the elementary stream that holds `slices`: parameter sets and start codes too."""
    return len(annex_b.joined((*parameter_sets(form), *slices)))


def _elementary(frame: np.ndarray, form: Format, qp: int) -> bytes:
    luma = frame.astype("<u2") << 2
    grey = np.full(luma.size // 2, 512, "<u2")
    # Not through stdout: vvenc writes its warnings there.
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "frame.vvc")
        command = [
            _ffmpeg(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p10le",
            "-s", f"{form.width}x{form.height}", "-r", "1", "-i", "-", "-c:v", "libvvenc",
            "-preset", form.preset, "-qp", str(qp), "-qpa", "0", "-threads", "1",
            "-period", "1", "-f", "vvc", str(out),
        ]  # fmt: skip
        done = subprocess.run(
            command, input=luma.tobytes() + grey.tobytes(), capture_output=True, check=False
        )
        if done.returncode or not out.exists():
            reason = " ".join(done.stderr.decode(errors="replace").split())
            raise UsageError(f"vvc: FFmpeg failed ({reason[:300]}); expected one with libvvenc.")
        return out.read_bytes()


def _check(form: Format) -> None:
    if form.pixels != "gray" or not form.intra or form.lossless:
        raise UsageError(f"vvc: {form}; expected grey frames, intra, with loss.")
    if min(form.shape) < LOWEST_SIDE or form.height % 2 or form.width % 2:
        raise UsageError(
            f"vvc: frames of {form.height}×{form.width}; expected even sides from {LOWEST_SIDE}."
        )


def _kind(unit: bytes) -> int:
    return unit[1] >> 3


def _is_parameter_set(unit: bytes) -> bool:
    return _FIRST_PARAMETER_SET <= _kind(unit) <= _LAST_PARAMETER_SET


def _ffmpeg() -> str:
    try:
        import imageio_ffmpeg
    except ImportError:
        raise UsageError("VVC needs imageio-ffmpeg: pip install 'vcmjax[codecs,vvc]'") from None
    return imageio_ffmpeg.get_ffmpeg_exe()
