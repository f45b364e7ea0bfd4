"""Range coder whose bytes equal those of tensorflow-compression, compiled with Numba.

Coding a symbol narrows an interval [low, low + size) in proportion to its table mass; what the
interval has settled is written in words of 16 bits. Here a carry runs back into words already
written; tensorflow-compression delays them until the carry is known. The bytes are the same.

    tables = CdfTables.from_rows(rows)
    data = range_coder.encode(values, indexes, tables)
    values = range_coder.decode(data, indexes, tables)

Many streams at once: `encode_batch` and `decode_batch`, on threads. To run a network between two
parts of one stream, read the parts with `Decoder` or `BatchDecoder`.

Source: G. N. N. Martin 1979, "Range encoding: an algorithm for removing redundancy from a digitised
message".
"""

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vcmjax.coding import range_kernels
from vcmjax.coding.tables import CdfTables, check_symbols
from vcmjax.errors import CorruptStream

_WORTH_A_THREAD = 1 << 16  # symbols; fewer take less time than starting one


def encode(values: ArrayLike, indexes: ArrayLike, tables: CdfTables) -> bytes:
    """Codes integers into one stream.

    Args:
      values: (n,) int32; any int32 where the table escapes, else 0 <= value < symbols of the table.
      indexes: (n,) the table of each value, 0 <= index < k.
      tables: the k tables.

    Returns:
      The stream, possibly empty. It does not store n.

    Raises:
      ValueError: a value or index is outside its range; the message names position and value.
    """
    v, k = _int32("values", values, 1), _int32("indexes", indexes, 1)
    if v.shape != k.shape:
        raise ValueError(f"encode: `values` has shape {v.shape} but `indexes` {k.shape}")
    streams = _encode_rows(v[None], k[None], tables)
    return _refuse(v, k, tables) if streams is None else streams[0]


def decode(data: bytes, indexes: ArrayLike, tables: CdfTables) -> NDArray[np.int32]:
    """Inverse of `encode`: (n,) int32 from one stream and the same `indexes` and `tables`.

    A truncated or foreign stream gives arbitrary values: the coder reads zeros past the end, so
    only an impossible escape code is noticed. Detecting damage is up to the container.

    Raises:
      ValueError: an index is outside its range.
      CorruptStream: an escape code is not that of an int32.
    """
    return Decoder(data, tables).read(indexes)


def encode_batch(
    values: ArrayLike, indexes: ArrayLike, tables: CdfTables, threads: int | None = None
) -> list[bytes]:
    """Codes each row of `values` into its own stream, in parallel.

    Args:
      values: (b, n) int32, see `encode`.
      indexes: (b, n), or (n,) for the same tables in every row.
      tables: the tables.
      threads: at most this many; by default one per CPU.

    Returns:
      b streams, equal to those of `encode`.

    Raises:
      ValueError: see `encode`.
    """
    v = _int32("values", values, 2)
    k = _batched(indexes, len(v))
    if v.shape != k.shape:
        raise ValueError(f"encode_batch: `values` has shape {v.shape} but `indexes` {k.shape}")
    parts = _split(v.shape, threads, lambda rows: _encode_rows(v[rows], k[rows], tables))
    if any(part is None for part in parts):
        _refuse(v, k, tables)
    return [stream for part in parts for stream in part]


def decode_batch(
    streams: Sequence[bytes], indexes: ArrayLike, tables: CdfTables, threads: int | None = None
) -> NDArray[np.int32]:
    """Inverse of `encode_batch`: (b, n) int32. Raises as `decode` does."""
    return BatchDecoder(streams, tables, threads).read(indexes)


class BatchDecoder:
    """Reads b streams side by side; each `read` goes on where the last one stopped."""

    def __init__(
        self, streams: Sequence[bytes], tables: CdfTables | None = None, threads: int | None = None
    ):
        """Opens b streams.

        Args:
          streams: b byte strings.
          tables: used by every `read` that names none.
          threads: at most this many; by default one per CPU.
        """
        # Zeros for the first value of an empty stream, and one word to read for ever.
        padded = [bytes(stream) + bytes(6 + len(stream) % 2) for stream in streams]
        self._words = np.frombuffer(b"".join(padded), ">u2").astype(np.uint16)
        rows, start = [], 0  # value - low, size, next word, last word (a zero, read for ever)
        for stream in padded:
            end = start + len(stream) // 2
            rows.append((int.from_bytes(stream[:4], "big"), 1 << 32, start + 2, end - 1))
            start = end
        self._state = np.array(rows, np.int64).reshape(len(rows), 4)
        self._tables, self._threads = tables, threads

    def read(self, indexes: ArrayLike, tables: CdfTables | None = None) -> NDArray[np.int32]:
        """Decodes the next n values of every stream.

        Args:
          indexes: (b, n), or (n,) for the same tables in every stream.
          tables: in place of those given at construction.

        Returns:
          (b, n) int32.

        Raises:
          ValueError: an index is outside its range. Nothing has been read.
          CorruptStream: an escape code is not that of an int32. The decoder is of no further use.
        """
        k = _batched(indexes, len(self._state))
        use = self._tables if tables is None else tables
        if k.shape[0] != len(self._state) or use is None:
            what = "no tables" if use is None else f"`indexes` of shape {k.shape}"
            raise ValueError(f"read: {what} for {len(self._state)} streams")
        if k.size and k.view(np.uint32).max() >= use.sizes.size:  # negative ones look huge
            check_symbols(np.zeros_like(k), k, use)
        values = np.empty(k.shape, np.int32)

        _, decode_rows = range_kernels.compiled()

        def part(rows: slice) -> None:
            status, row, column = decode_rows(
                self._words, self._state[rows], k[rows], *_arrays(use), use.guess, values[rows]
            )
            if status == range_kernels.CORRUPT:
                raise CorruptStream(
                    f"stream {rows.start + row}: the escape code of symbol {column} is no int32"
                )

        _split(k.shape, self._threads, part)
        return values


class Decoder:
    """Reads one stream; each `read` goes on where the last one stopped."""

    def __init__(self, data: bytes, tables: CdfTables | None = None):
        """Opens a stream; `tables` serve every `read` that names none."""
        self._batch = BatchDecoder([data], tables)

    def read(self, indexes: ArrayLike, tables: CdfTables | None = None) -> NDArray[np.int32]:
        """The next (n,) int32 values for indexes (n,). Raises as `BatchDecoder.read` does."""
        return self._batch.read(_int32("indexes", indexes, 1)[None], tables)[0]


def _encode_rows(
    values: NDArray[np.int32], indexes: NDArray[np.int32], tables: CdfTables
) -> list[bytes] | None:
    """One stream per row, or None if a value or an index is illegal."""
    rows, n = values.shape
    encode_rows, _ = range_kernels.compiled()
    lengths = np.empty(rows, np.int64)
    # One word per symbol and two to finish always do; every escape may take a few more.
    few, many = 1024, rows * n * range_kernels.ESCAPE_WORDS + range_kernels.ESCAPE_WORDS
    for room in (few, many):
        words = np.empty(rows * (n + 2) + room, np.uint16)
        status, _, _ = encode_rows(values, indexes, *_arrays(tables), words, lengths)
        if status != range_kernels.FULL:
            break
    if status == range_kernels.ILLEGAL:
        return None
    sizes = lengths.tolist()
    data = words[: sum((size + 1) // 2 for size in sizes)].astype(">u2").tobytes()
    starts = itertools.accumulate((size + size % 2 for size in sizes), initial=0)
    return [data[start : start + size] for start, size in zip(starts, sizes, strict=False)]


def _refuse(values: NDArray, indexes: NDArray, tables: CdfTables) -> NoReturn:
    check_symbols(values, indexes, tables)
    raise AssertionError("the kernel refused symbols that are legal")


def _int32(name: str, array: ArrayLike, ndim: int) -> NDArray[np.int32]:
    """Contiguous int32, refusing anything that would change on the way."""
    given = np.asarray(array)
    if given.ndim != ndim or (given.dtype.kind not in "iu" and given.size):
        raise ValueError(f"`{name}` is {given.dtype} {given.shape}; expected {ndim}-D integers")
    if given.dtype != np.int32 and given.size:
        for at in np.argwhere((given < -(2**31)) | (given >= 2**31))[:1]:
            raise ValueError(f"`{name}` at position {at.tolist()} is {given[tuple(at)]}: no int32")
    return np.ascontiguousarray(given, np.int32)


def _batched(indexes: ArrayLike, rows: int) -> NDArray[np.int32]:
    k = np.asarray(indexes)
    return _int32("indexes", np.broadcast_to(k, (rows, *k.shape)) if k.ndim == 1 else k, 2)


def _arrays(tables: CdfTables) -> tuple[NDArray[np.int32], ...]:
    return tables.data, tables.offsets, tables.sizes, tables.escapes


def _split(shape: tuple[int, ...], threads: int | None, work: Callable[[slice], object]) -> list:
    """Results of `work` on slices that cover the rows, one slice per thread worth starting."""
    rows = shape[0]
    parts = min(rows, rows * shape[1] // _WORTH_A_THREAD)
    if parts > 1:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        parts = min(parts, threads or cpus or 1)
    if parts <= 1:
        return [work(slice(0, rows))]
    slices = [slice(rows * i // parts, rows * (i + 1) // parts) for i in range(parts)]
    with ThreadPoolExecutor(parts) as pool:
        return list(pool.map(work, slices))
