"""NAL units in a byte stream, as Annex B of H.265 and H.266 has them, and PyAV's decoders."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from vcmjax.errors import CorruptStream, UsageError

START, BETWEEN = b"\0\0\0\1", b"\0\0\1"
"""Start codes: of an access unit's first NAL unit and of parameter sets, and of any other."""


def units(stream: bytes) -> list[bytes]:
    """NAL units of a stream; none ends in a zero byte."""
    return [unit.rstrip(b"\0") for unit in stream.split(BETWEEN)[1:]]


def joined(units: Iterable[bytes]) -> bytes:
    """A stream of NAL units, each behind a long start code."""
    return b"".join(START + unit for unit in units)


def decode(
    codec: str, stream: bytes, count: int, pixels: str, size: tuple[int, int]
) -> list[np.ndarray]:
    """The frames of a stream, as PyAV gives them.

    Args:
      codec: FFmpeg's name: ``hevc`` or ``vvc``.
      stream: From `joined`.
      count: Number of frames that there should be.
      pixels: FFmpeg's name of their format.
      size: (height, width) of theirs.

    Raises:
      CorruptStream: What libavcodec cannot decode to as many frames of that format.
      UsageError: PyAV is not installed.
    """
    library = av(codec)
    decoder = library.CodecContext.create(codec, "r")
    decoder.thread_count = 1
    try:
        packets = [*decoder.parse(stream), *decoder.parse(b"")]
        frames = [frame for packet in packets for frame in decoder.decode(packet)]
        frames += decoder.decode(None)
    except (library.FFmpegError, ValueError) as error:
        raise CorruptStream(f"{codec}: not decodable slice data ({error})") from None
    found = [
        frame.to_ndarray()
        for frame in frames
        if (frame.format.name, frame.height, frame.width) == (pixels, *size)
    ]
    if len(found) != count or len(frames) != count:
        raise CorruptStream(f"{codec}: {len(found)} frames decoded; expected {count}")
    return found


def av(codec: str) -> Any:
    """PyAV.

    Raises:
      UsageError: It is not installed.
    """
    try:
        import av
    except ImportError:
        raise UsageError(f"{codec.upper()} needs PyAV: pip install 'vcmjax[codecs]'") from None
    return av
