"""Integer probability tables for the range coder, and the bits an ideal coder would spend.

A table row is ``[±precision, 0, ..., 2**precision]``: the cumulative frequencies of its symbols, as
in tensorflow-compression. Symbol `s` owns the interval ``[row[s + 1], row[s + 2])``. A negative
precision makes the last symbol an escape: every other int32 value is coded as that symbol and then
with Elias gamma.
"""

import functools
import heapq
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_PRECISION = 16
BUCKET_BITS = 8  # 7..11 decode equally fast (within 6 %) at 64 tables of 33 symbols


class CdfTables(NamedTuple):
    """Checked tables, flattened. Build with `from_rows`; all arrays are read-only.

    Attributes:
      data: int32, all cumulative frequencies one table after another, scaled to 16 bits. The
        scaling changes no coded byte: (size * l) >> p equals (size * (l << (16 - p))) >> 16.
      offsets: (k,) int32, where each table starts in `data`.
      sizes: (k,) int32, symbols per table, the escape included.
      precision: (k,) int32, 1..16, as given in the rows.
      escapes: (k,) int32, 1 where the last symbol is an escape, else 0.
      guess: (k, 2**BUCKET_BITS) uint16, the lowest symbol in each bucket of the 16-bit range.
    """

    data: NDArray[np.int32]
    offsets: NDArray[np.int32]
    sizes: NDArray[np.int32]
    precision: NDArray[np.int32]
    escapes: NDArray[np.int32]
    guess: NDArray[np.uint16]

    @classmethod
    def from_rows(cls, rows: Iterable[ArrayLike]) -> "CdfTables":
        """Checks and flattens rows ``[±precision, 0, ..., 2**precision]``.

        Entries after the first 2**precision may only repeat it; they are padding and are dropped,
        as tensorflow-compression does. Equal neighbours give a symbol that cannot be coded.

        Raises:
          ValueError: a row is too short, starts or ends wrongly, falls, or has a precision outside
            1..16; the message names row, position and value.
        """
        cdfs, signed = [], []
        for number, row in enumerate(rows):
            cdf, precision = _checked_row(number, np.asarray(row))
            cdfs.append((cdf << (MAX_PRECISION - abs(precision))).astype(np.int32))
            signed.append(precision)
        lengths = np.array([cdf.size for cdf in cdfs], np.int64)
        buckets = np.arange(2**BUCKET_BITS) << (MAX_PRECISION - BUCKET_BITS)
        guess = [np.minimum(np.searchsorted(c, buckets, "right") - 1, 65535) for c in cdfs]
        tables = cls(
            data=np.concatenate([*cdfs, np.zeros(0, np.int32)]),
            offsets=(np.cumsum(lengths) - lengths).astype(np.int32),
            sizes=(lengths - 1).astype(np.int32),
            precision=np.abs(np.array(signed, np.int32)),
            escapes=(np.array(signed) < 0).astype(np.int32),
            guess=np.array(guess, np.uint16).reshape(len(cdfs), 2**BUCKET_BITS),
        )
        for array in tables:
            array.setflags(write=False)
        return tables

    def rows(self) -> list[NDArray[np.int32]]:
        """The rows as given to `from_rows`, without padding."""
        out = []
        for start, size, precision, escape in zip(
            self.offsets, self.sizes, self.precision, self.escapes, strict=True
        ):
            cdf = self.data[start : start + size + 1] >> (MAX_PRECISION - precision)
            out.append(np.concatenate([[-precision if escape else precision], cdf]))
        return [row.astype(np.int32) for row in out]


def _checked_row(number: int, row: NDArray) -> tuple[NDArray[np.int64], int]:
    """Cumulative frequencies without padding, and the signed precision."""
    if row.ndim != 1 or row.size < 3 or row.dtype.kind not in "iu":
        raise ValueError(
            f"table row {number}: expected integers [±precision, 0, ..., 2**precision], "
            f"got {row.dtype} of shape {row.shape}"
        )
    precision, cdf = int(row[0]), row[1:].astype(np.int64)
    if not 1 <= abs(precision) <= MAX_PRECISION:
        raise ValueError(f"table row {number}: precision at position 0 is {precision}, not ±1..16")
    if cdf[0] != 0:
        raise ValueError(f"table row {number}: position 1 must be 0, is {cdf[0]}")
    total = 1 << abs(precision)
    falls = np.flatnonzero((np.diff(cdf) < 0) | (cdf[1:] > total))
    if falls.size:
        at = int(falls[0]) + 2
        raise ValueError(
            f"table row {number}: position {at} is {row[at]} after {row[at - 1]}; "
            f"entries must rise from 0 to {total}"
        )
    if cdf[-1] != total:
        raise ValueError(f"table row {number}: last entry is {cdf[-1]}, not 2**precision = {total}")
    return cdf[: int(np.searchsorted(cdf, total)) + 1], precision


def pmf_to_quantized_cdf(pmf: ArrayLike, precision: int) -> NDArray[np.int32]:
    """Integer cumulative frequencies for a probability mass function.

    Rounds each mass to whole units of 2**-precision, at least one, then takes units from (gives
    units to) the symbols where that costs least (gains most) code length, one unit at a time,
    until the sum is right. Works on float32 masses and breaks ties first come, first served, like
    the operation of this name in tensorflow-compression (whose unstable sort may settle exact ties
    otherwise where there are more than 16 symbols).

    Args:
      pmf: (n,) finite masses >= 0 that sum to about one; 2 <= n <= 2**precision.
      precision: 1..16.

    Returns:
      int32 (n + 1,), strictly rising from 0 to 2**precision.

    Raises:
      ValueError: an argument is outside the stated range.
    """
    mass = np.asarray(pmf, np.float32)
    if not 1 <= precision <= MAX_PRECISION:
        raise ValueError(f"pmf_to_quantized_cdf: `precision` is {precision}, not 1..16")
    if mass.ndim != 1 or not 2 <= mass.size <= 2**precision:
        raise ValueError(
            f"pmf_to_quantized_cdf: `pmf` has shape {mass.shape}; "
            f"expected (n,) with 2 <= n <= 2**precision = {2**precision}"
        )
    bad = np.flatnonzero(~(np.isfinite(mass) & (mass >= 0) & (mass <= 2)))
    if bad.size:
        raise ValueError(
            f"pmf_to_quantized_cdf: `pmf` position {bad[0]} is {mass[bad[0]]}, not a probability"
        )
    count = np.maximum(np.rint(mass * np.float32(2**precision)), 1).astype(np.int64)
    surplus = int(count.sum()) - 2**precision
    if surplus:
        _settle(count, mass.astype(np.float64), surplus)
    return np.concatenate([[0], np.cumsum(count)]).astype(np.int32)


def _settle(count: NDArray[np.int64], mass: NDArray[np.float64], surplus: int) -> None:
    """Moves `surplus` units out of `count` in place, each where it costs least code length."""
    step, log2 = (-1 if surplus > 0 else 1), _log2()
    # Bits lost (negative: gained) by moving each symbol one step; a unit is never taken from one.
    cost = mass * (log2[count] - log2[np.maximum(count + step, 1)])
    cost[count + step < 1] = math.inf
    queue = list(zip(cost.tolist(), range(len(count)), range(len(count)), strict=True))
    heapq.heapify(queue)  # by cost, then order of arrival; the symbol last
    for arrival in range(len(count), len(count) + abs(surplus)):
        i = queue[0][2]
        count[i] += step
        n = int(count[i])
        again = math.inf if n + step < 1 else float(mass[i]) * float(log2[n] - log2[n + step])
        heapq.heapreplace(queue, (again, arrival, i))


@functools.lru_cache(maxsize=1)
def _log2() -> NDArray[np.float64]:
    """log2 of 0 (never used) to twice 2**16 and one, each as `math.log2` rounds it."""
    return np.array([math.nan, *(math.log2(n) for n in range(1, 2 ** (MAX_PRECISION + 1) + 2))])


def from_pmf_rows(
    pmfs: Sequence[ArrayLike], tail: Sequence[float], precision: int = MAX_PRECISION
) -> list[NDArray[np.int32]]:
    """Rows whose last symbol is an escape, from masses of the values in range.

    Args:
      pmfs: k arrays (n_k,), masses of the values 0..n_k - 1.
      tail: k masses of everything else.
      precision: 1..16.

    Returns:
      k rows ``[-precision, 0, ..., 2**precision]`` of n_k + 1 symbols.

    Raises:
      ValueError: lengths differ, or see `pmf_to_quantized_cdf`.
    """
    rows = []
    for pmf, outside in zip(pmfs, tail, strict=True):
        cdf = pmf_to_quantized_cdf(np.append(pmf, outside), precision)
        rows.append(np.concatenate([[-precision], cdf]).astype(np.int32))
    return rows


def gaussian(
    scales: ArrayLike, precision: int = MAX_PRECISION, tail_mass: float = 2**-12
) -> tuple[list[NDArray[np.int32]], NDArray[np.int32]]:
    """Tables of zero-mean Gaussians on the integers, one per scale.

    Args:
      scales: (k,) standard deviations in quantisation steps, > 0.
      precision: 1..16.
      tail_mass: probability left to the escape, at most (unless that takes more than half of
        2**precision symbols). Sets the range of each table. The default costs least at 16 bits:
        1e-4 bits per symbol over the entropy, against 1.5e-3 with 2**-8.

    Returns:
      rows: k rows with an escape, over the integers -r..r with r growing with the scale.
      offsets: (k,) int32, -r: symbol s stands for the integer s + offset, in range or not.

    Raises:
      ValueError: a scale or `tail_mass` is outside its range.
    """
    from scipy.special import ndtr, ndtri  # here, as it doubles the import time of the coder

    sigma = np.asarray(scales, np.float64)
    if sigma.ndim != 1 or not np.all(np.isfinite(sigma) & (sigma > 0)):
        raise ValueError(f"gaussian: `scales` must be (k,), finite and > 0; got {sigma}")
    if not 0 < tail_mass < 1:
        raise ValueError(f"gaussian: `tail_mass` is {tail_mass}, not in (0, 1)")
    reach = np.ceil(-ndtri(tail_mass / 2) * sigma - 0.5)
    radius = np.clip(reach, 0, 2**precision // 4).astype(np.int32)
    pmfs, tail = [], []
    for r, s in zip(radius.tolist(), sigma, strict=True):
        below = ndtr((0.5 - np.arange(r + 2)) / s)  # P(value <= -i), in the accurate lower tail
        side = below[1:-1] - below[2:]
        pmfs.append(np.concatenate([side[::-1], [1 - 2 * below[1]], side]))
        tail.append(2 * float(below[-1]))
    return from_pmf_rows(pmfs, tail, precision), -radius


def check_symbols(values: NDArray, indexes: NDArray, tables: CdfTables) -> None:
    """Raises ValueError, naming the first position, if a value cannot be coded with its table."""
    for at in np.argwhere((indexes < 0) | (indexes >= tables.sizes.size))[:1]:
        raise ValueError(
            f"`indexes` at position {_name(at)} is {indexes[tuple(at)]}; "
            f"there are {tables.sizes.size} tables"
        )
    plain = (tables.sizes - tables.escapes)[indexes]
    outside = (values < 0) | (values >= plain)
    for at in np.argwhere(outside & (tables.escapes[indexes] == 0))[:1]:
        raise ValueError(
            f"`values` at position {_name(at)} is {values[tuple(at)]}; table {indexes[tuple(at)]} "
            f"codes 0..{plain[tuple(at)] - 1} and has no escape"
        )
    first = tables.offsets[indexes] + np.where(outside, plain, values)
    for at in np.argwhere(tables.data[first] == tables.data[first + 1])[:1]:
        raise ValueError(
            f"`values` at position {_name(at)} is {values[tuple(at)]}, to which table "
            f"{indexes[tuple(at)]} gives no probability"
        )


def _name(position: NDArray) -> str:
    return ", ".join(map(str, position))


def ideal_bits(values: ArrayLike, indexes: ArrayLike, tables: CdfTables) -> NDArray[np.float64]:
    """Bits (base 2) an ideal coder spends on each value: -log2 of its table mass, plus escape bits.

    Args:
      values: integers, any shape.
      indexes: integers, same shape, the table of each value.
      tables: the tables.

    Returns:
      float64 of that shape, >= 0. `len(range_coder.encode(...)) * 8` exceeds the sum by a few bits.

    Raises:
      ValueError: a value cannot be coded; the message names its position.
    """
    v, k = np.asarray(values), np.asarray(indexes)
    check_symbols(v, k, tables)
    v = v.astype(np.int64)
    plain = (tables.sizes - tables.escapes)[k].astype(np.int64)
    outside = (v < 0) | (v >= plain)
    first = tables.offsets[k] + np.where(outside, plain, v)
    bits = MAX_PRECISION - np.log2(tables.data[first + 1] - tables.data[first])
    gamma = np.where(v < 0, -v, v - plain + 1)
    digits = np.frexp(np.where(outside, gamma, 1).astype(np.float64))[1]
    return bits + np.where(outside, 2 * digits, 0)  # digits - 1 zeros, digits bits, one sign
