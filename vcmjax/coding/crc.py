"""CRC-32C (Castagnoli), compiled with Numba at first use."""

import functools
from collections.abc import Callable

import numba
import numpy as np
from numpy.typing import NDArray

from vcmjax.coding import range_kernels

_POLYNOMIAL = 0x82F63B78  # 0x1EDC6F41, lowest bit first


def crc32c(data: bytes, start: int = 0) -> int:
    """Checksum of bytes, or of what `start` is the checksum of followed by them.

    Finds every error of one to three bits, and every burst of up to 32 bits, at the lengths of a
    container block.

    Args:
      data: any bytes.
      start: ``crc32c(before)`` to go on from there; 0 for no bytes before.

    Returns:
      0 to 2**32 - 1; 0xE3069283 for ``b"123456789"``.
    """
    table, update = _compiled()
    return int(update(np.frombuffer(data, np.uint8), table, start))


def _update(data, table, start):
    crc = np.uint32(start) ^ np.uint32(0xFFFFFFFF)
    for byte in data:
        crc = table[(crc ^ byte) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
    return crc ^ np.uint32(0xFFFFFFFF)


@functools.cache
def _compiled() -> tuple[NDArray[np.uint32], Callable]:
    """The remainder of every byte, and `_update` as machine code."""
    table: NDArray[np.uint32] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> np.uint32(1)) ^ (table & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    given = numba.types.Array(numba.uint8, 1, "C", readonly=True)
    signature = numba.uint32(given, numba.uint32[::1], numba.int64)
    return table, range_kernels._compile(signature, _update)
