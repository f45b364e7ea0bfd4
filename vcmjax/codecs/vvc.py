"""VVC by vvenc, grey frames by themselves: HEVC's successor, for the same baselines as `hevc`.

The encoder is the FFmpeg of the package imageio-ffmpeg, which holds vvenc, and the decoder PyAV's;
both come with the extra ``[vvc]``. As in `hevc`, `encode` returns what a frame needs alone, its NAL
units without the first start code: parameter sets depend on size alone, and a decoder that knows it
rebuilds them. vvenc's interface in FFmpeg takes 4:2:0 of ten bits only: samples are shifted up by
two bits, and chroma is constant.
"""

import functools
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from vcmjax.codecs.hevc import Format
from vcmjax.errors import CorruptStream, UsageError

QPS = range(64)
LOWEST_SIDE = 16
_START, _BETWEEN = b"\0\0\0\1", b"\0\0\1"
_FIRST_PARAMETER_SET, _LAST_PARAMETER_SET = 14, 16  # NAL unit types: VPS, SPS, PPS
_DELIMITER = 20
_EXTRA = "pip install 'vcmjax[codecs,vvc]'"
_JOBS = 2


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
    with ThreadPoolExecutor(_JOBS) as pool:  # each waits for a process
        streams = list(pool.map(lambda frame: _elementary(frame, form, qp), frames))
    slices = []
    for stream in streams:
        units = [unit for unit in _units(stream) if _kind(unit) != _DELIMITER]
        sets = tuple(unit for unit in units if _is_parameter_set(unit))
        if sets != parameter_sets(form):
            raise AssertionError("vvenc's parameter sets vary with content: a decoder cannot know")
        # Filters adapted to a frame come in units of their own before its slice.
        slices.append(_BETWEEN.join(unit for unit in units if not _is_parameter_set(unit)))
    return slices


def decode(slices: Sequence[bytes], form: Format) -> list[np.ndarray]:
    """The frames, uint8; inverse of `encode` up to the loss.

    Raises:
      CorruptStream: What libavcodec cannot decode to a frame of that format each.
      UsageError: The extra is not installed.
    """
    av = _av()
    _check(form)
    frames = []
    for own in slices:
        stream = b"".join(_START + unit for unit in (*parameter_sets(form), own))
        decoder = av.CodecContext.create("vvc", "r")
        decoder.thread_count = 1
        try:
            packets = [*decoder.parse(stream), *decoder.parse(b"")]
            found = [frame for packet in packets for frame in decoder.decode(packet)]
            found += decoder.decode(None)
        except (av.FFmpegError, ValueError) as error:
            raise CorruptStream(f"vvc: not decodable slice data ({error})") from None
        if [(f.format.name, f.height, f.width) for f in found] != [("yuv420p10le", *form.shape)]:
            raise CorruptStream(f"vvc: {len(found)} frames decoded; expected one of {form.shape}")
        luma = found[0].to_ndarray()[: form.height].astype(np.int32)
        frames.append(np.minimum((luma + 2) >> 2, 255).astype(np.uint8))
    return frames


@functools.cache
def parameter_sets(form: Format) -> tuple[bytes, ...]:
    """SPS and PPS of a format: known to both sides, or sent once per connection."""
    units = _units(_elementary(np.zeros(form.shape, np.uint8), form, 32))
    return tuple(unit for unit in units if _is_parameter_set(unit))


def stream_bytes(slices: Sequence[bytes], form: Format) -> int:
    """Length of the elementary stream that holds `slices`: parameter sets and start codes too."""
    return sum(len(_START) + len(unit) for unit in (*parameter_sets(form), *slices))


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


def _units(stream: bytes) -> list[bytes]:
    """NAL units of an Annex B stream; none ends in a zero byte."""
    return [unit.rstrip(b"\0") for unit in stream.split(_BETWEEN)[1:]]


def _kind(unit: bytes) -> int:
    return unit[1] >> 3


def _is_parameter_set(unit: bytes) -> bool:
    return _FIRST_PARAMETER_SET <= _kind(unit) <= _LAST_PARAMETER_SET


def _ffmpeg() -> str:
    try:
        import imageio_ffmpeg
    except ImportError:
        raise UsageError(f"VVC needs imageio-ffmpeg: {_EXTRA}") from None
    return imageio_ffmpeg.get_ffmpeg_exe()


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise UsageError(f"VVC needs PyAV: {_EXTRA}") from None
    return av
