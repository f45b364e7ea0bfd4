"""IDFC: a feature tensor quantised to integers, packed into frames and coded by HEVC or VVC.

Source: Chen, Fan, Wang, Duan, Lin and Kot, "Toward intelligent sensing: intermediate deep feature
compression", IEEE TIP 2020; packings as in VCM (2020), section VII-A. What the papers leave open
is chosen in favour of this baseline: the range costs 4 bytes, parameter sets are known to both
sides, and the last frame needs no length.
"""

import dataclasses
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Literal

import numpy as np

from vcmjax.codecs import hevc, vvc
from vcmjax.coding.container_format import Cursor, encode_numbers
from vcmjax.errors import CorruptStream, TruncatedStream, UsageError

Packing = Literal["concatenation", "descending", "tiling"]
Scale = Literal["minmax", "percentile", "log"]

CLIPPED = 0.5
"""Per cent of the values that ``percentile`` clips at either end."""
_RANGE = np.dtype("<f2")


@dataclasses.dataclass(frozen=True)
class Idfc:
    """Codes features of one shape; holds hyper-parameters only, as there is nothing to train.

    Attributes:
      shape: (H, W, C) of the feature.
      packing: ``concatenation``: a channel per frame. ``descending``: the same, each channel after
        the one that it differs least from (greedily, from channel 0), their order being sent.
        ``tiling``: one frame, a mosaic of all channels.
      bits: 8 or 10, of the integers that HEVC codes.
      scale: How values map to integers: linearly between the least and the greatest of the tensor,
        between percentiles of it, or the logarithm log(1 + |x|) with x's sign, linearly.
      inter: Whether a channel is predicted from those before it; has no effect on one frame.
      preset: Of x265.
      lossless: HEVC without loss, so that only the integers' rounding is lost.
      codec: ``hevc``; or ``vvc``, for which features must be tiled, and of 8 bits.
    """

    shape: tuple[int, int, int]
    packing: Packing = "tiling"
    bits: int = 8
    scale: Scale = "minmax"
    inter: bool = False
    preset: str = "medium"
    lossless: bool = False
    codec: Literal["hevc", "vvc"] = "hevc"

    def __post_init__(self) -> None:
        """Refuse what HEVC cannot code."""
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise UsageError(f"Idfc: shape {self.shape}; expected (H, W, C).")
        if self.bits not in (8, 10):
            raise UsageError(f"Idfc: bits {self.bits}; expected 8 or 10.")
        if self.codec == "vvc" and (self.packing, self.bits) != ("tiling", 8):
            raise UsageError(
                f"Idfc: {self.packing} of {self.bits} bits by VVC; expected tiling and 8 bits."
            )

    @property
    def form(self) -> hevc.Format:
        """Of the frames: padded where the feature is smaller than HEVC's least."""
        height, width = mosaic(self.shape) if self.packing == "tiling" else self.shape[:2]
        pixels = "gray" if self.bits == 8 else "gray10le"
        intra = self.packing == "tiling" or not self.inter
        height = max(height, hevc.LOWEST_SIDE)
        width = max(width, hevc.LOWEST_SIDE if intra else hevc.LOWEST_INTER_WIDTH)
        if self.codec == "vvc":
            height, width = height + height % 2, width + width % 2
        return hevc.Format(height, width, pixels, intra, self.preset, self.lossless)

    def encode(self, features: np.ndarray, qp: int = 0) -> list[bytes]:
        """One stream per image: range, channel order if any, slice data.

        Args:
          features: (N, H, W, C), finite and below 65504, float16's greatest.
          qp: 0 to 51, of VVC to 63.

        Raises:
          UsageError: Features or QP that do not fit; the extra ``[codecs]`` is not installed.
        """
        features = np.asarray(features, np.float32)
        if features.shape[1:] != self.shape:
            raise UsageError(f"Idfc: features {features.shape}; expected (N, *{self.shape}).")
        return [self._encode(feature, qp) for feature in features]

    def decode(self, streams: Sequence[bytes]) -> np.ndarray:
        """Features (N, H, W, C), float32.

        Raises:
          TruncatedStream, CorruptStream: Not what `encode` wrote.
          UsageError: The extra ``[codecs]`` is not installed.
        """
        decoded = [self._decode(stream) for stream in streams]
        return np.stack(decoded) if decoded else np.zeros((0, *self.shape), np.float32)

    def stream_bytes(self, stream: bytes) -> int:
        """Length of `stream` if it held a whole elementary stream, parameter sets included."""
        slices = self._slices(stream)
        return self._side + self._coder.stream_bytes(slices, self.form)

    # One image

    def _encode(self, feature: np.ndarray, qp: int) -> bytes:
        integers, ends = quantise(feature, self.bits, self.scale)
        channels = list(integers.transpose(2, 0, 1))
        order = b""
        if self.packing == "descending":
            places = nearest_chain(feature)
            channels = [channels[place] for place in places]
            order = _packed_order(places)
        frames = [tile(integers)] if self.packing == "tiling" else channels
        frames = [self._padded(frame) for frame in frames]
        slices = self._coder.encode(frames, self.form, qp)
        lengths = encode_numbers([len(unit) for unit in slices[:-1]]) if slices[1:] else b""
        return ends.tobytes() + order + lengths + b"".join(slices)

    def _decode(self, stream: bytes) -> np.ndarray:
        slices = self._slices(stream)
        frames = self._coder.decode(slices, self.form)
        ends = np.frombuffer(stream[: 2 * _RANGE.itemsize], _RANGE)
        height, width, channels = self.shape
        if self.packing == "tiling":
            integers = untile(frames[0], self.shape)
        else:
            integers = np.stack([frame[:height, :width] for frame in frames], -1)
        if self.packing == "descending":
            order = stream[2 * _RANGE.itemsize : self._side]
            integers = integers[..., np.argsort(_unpacked_order(order, channels))]
        return dequantise(integers, ends, self.bits, self.scale)

    @property
    def _coder(self) -> ModuleType:
        return vvc if self.codec == "vvc" else hevc

    @property
    def _side(self) -> int:
        """Bytes before the slice data."""
        order = _order_bytes(self.shape[2]) if self.packing == "descending" else 0
        return 2 * _RANGE.itemsize + order

    def _slices(self, stream: bytes) -> list[bytes]:
        cursor = Cursor(stream, 0, "Idfc", "the stream of a feature", TruncatedStream)
        cursor.take(self._side)
        frames = 1 if self.packing == "tiling" else self.shape[2]
        lengths = cursor.numbers(frames - 1) if frames > 1 else []
        # The last one's length is what is left.
        slices = [cursor.take(length) for length in lengths] + [stream[cursor.at :]]
        if not all(slices):
            raise TruncatedStream(f"Idfc: {len(stream)} bytes hold an empty frame")
        return slices

    # Frames

    def _padded(self, frame: np.ndarray) -> np.ndarray:
        height, width = self.form.height - frame.shape[0], self.form.width - frame.shape[1]
        return np.pad(frame, ((0, height), (0, width)), mode="edge")


def mosaic(shape: tuple[int, int, int]) -> tuple[int, int]:
    """(height, width) of all channels of an (H, W, C) feature side by side, as square as can be."""
    height, width, channels = shape
    return height * -(-channels // _columns(shape)), width * _columns(shape)


def tile(integers: np.ndarray) -> np.ndarray:
    """(H, W, C) to a mosaic; what is left over repeats the last channel, which costs least."""
    height, width, channels = integers.shape
    columns = _columns(integers.shape)
    rows = -(-channels // columns)
    integers = np.pad(integers, ((0, 0), (0, 0), (0, rows * columns - channels)), mode="edge")
    tiles = integers.reshape(height, width, rows, columns).transpose(2, 0, 3, 1)
    return tiles.reshape(rows * height, columns * width)


def untile(frame: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Inverse of `tile`; what lies right of the mosaic or below it is padding."""
    height, width, channels = shape
    columns = _columns(shape)
    rows = -(-channels // columns)
    tiles = frame[: rows * height, : columns * width].reshape(rows, height, columns, width)
    return tiles.transpose(1, 3, 0, 2).reshape(height, width, -1)[..., :channels]


def _columns(shape: tuple[int, ...]) -> int:
    height, width, channels = shape
    return min(channels, max(1, round(math.sqrt(channels * height / width))))


def quantise(feature: np.ndarray, bits: int, scale: Scale) -> tuple[np.ndarray, np.ndarray]:
    """Integers 0..2^bits - 1 of a tensor, and the two float16 ends that they are spread between.

    Raises:
      UsageError: Values that are not finite, or above float16's greatest.
    """
    values = _companded(feature) if scale == "log" else feature.astype(np.float64)
    clip = CLIPPED if scale == "percentile" else 0
    wanted = np.percentile(values, [clip, 100 - clip])
    with np.errstate(over="ignore"):  # what overflows is refused
        ends = wanted.astype(_RANGE)
    if not np.isfinite(wanted).all() or not np.isfinite(ends).all():
        raise UsageError("Idfc: features beyond float16's range; expected finite ones below 65504.")
    # Outwards, so that what lies between the ends wanted lies between those sent.
    if ends[0] > wanted[0]:
        ends[0] = np.nextafter(ends[0], _RANGE.type(-np.inf))
    if ends[1] < wanted[1]:
        ends[1] = np.nextafter(ends[1], _RANGE.type(np.inf))
    low, step = _spread(ends, bits)
    levels = np.rint((values - low) / step) if step else np.zeros(values.shape)
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.clip(levels, 0, 2**bits - 1).astype(dtype), ends


def dequantise(integers: np.ndarray, ends: np.ndarray, bits: int, scale: Scale) -> np.ndarray:
    """Inverse of `quantise` up to half a step, float32.

    Raises:
      CorruptStream: Ends that are not finite.
    """
    if not np.isfinite(ends).all():
        raise CorruptStream("Idfc: a range that is not finite")
    low, step = _spread(ends, bits)
    values = low + step * integers.astype(np.float64)
    if scale == "log":
        values = np.sign(values) * np.expm1(np.abs(values))
    return values.astype(np.float32)


def nearest_chain(feature: np.ndarray) -> np.ndarray:
    """Channels (C,) from 0 on, each followed by the one left that is nearest to it in L2."""
    flat = feature.reshape(-1, feature.shape[-1]).astype(np.float64)
    left = list(range(1, flat.shape[1]))
    chain = [0]
    while left:
        far = ((flat[:, left] - flat[:, chain[-1], None]) ** 2).sum(0)
        chain.append(left.pop(int(far.argmin())))
    return np.array(chain)


def _companded(feature: np.ndarray) -> np.ndarray:
    values = feature.astype(np.float64)
    return np.sign(values) * np.log1p(np.abs(values))


def _spread(ends: np.ndarray, bits: int) -> tuple[float, float]:
    low, high = ends.astype(np.float64)
    return low, (high - low) / (2**bits - 1)


def _order_bytes(channels: int) -> int:
    """Length of a permutation that leaves channel 0 where it is."""
    return -(-(math.factorial(channels - 1) - 1).bit_length() // 8)


def _packed_order(places: np.ndarray) -> bytes:
    """The rank of the permutation among all (Lehmer's code), in as few bytes as there can be."""
    left, rank = list(range(1, len(places))), 0
    for place in places[1:]:
        rank = rank * len(left) + left.index(place)
        left.remove(place)
    return rank.to_bytes(_order_bytes(len(places)), "little")


def _unpacked_order(packed: bytes, channels: int) -> np.ndarray:
    rank, digits = int.from_bytes(packed, "little"), []
    for base in range(1, channels):
        rank, digit = divmod(rank, base)
        digits.append(digit)
    if rank:
        raise CorruptStream("Idfc: no such order of channels")
    left = list(range(1, channels))
    return np.array([0, *(left.pop(digit) for digit in reversed(digits))])
