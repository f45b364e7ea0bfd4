"""The loops of the range coder, compiled with Numba at first use. Call them through `range_coder`.

All arithmetic is int64: sizes reach 2**32 and cumulative frequencies 2**16, so nothing overflows.
"""

import functools
import logging
from collections.abc import Callable

import numba
import numpy as np
from numba.core import event
from numba.extending import register_jitable

DONE, ILLEGAL, FULL, CORRUPT = 0, 1, 2, 3  # first of the three numbers a kernel returns
NO_INT32 = 1 << 40  # in place of a symbol: the escape code is damaged
ESCAPE_WORDS = 9  # an escaped int32 takes 17 + 2 * 32 bits at most, with rounding under 7 words


def encode_rows(values, indexes, data, offsets, sizes, escapes, words, lengths):
    """Codes each row into a stream of its own.

    Args:
      values, indexes: (b, n) int32.
      data, offsets, sizes, escapes: of `CdfTables`.
      words: uint16, receives the streams one after another, each from a fresh word.
      lengths: (b,) int64, receives the bytes of each stream.

    Returns:
      (status, row, column) of the first trouble, or (DONE, 0, 0).
    """
    rows, n = values.shape
    pos = 0
    for row in range(rows):
        begin = pos
        low, size = 0, 1 << 32
        for i in range(n):
            table = indexes[row, i]
            if not 0 <= table < sizes.size:
                return ILLEGAL, row, i
            symbol, escape = np.int64(values[row, i]), escapes[table]
            plain = np.int64(sizes[table]) - escape
            gamma = 0
            if not 0 <= symbol < plain:
                if not escape:
                    return ILLEGAL, row, i
                if pos + ESCAPE_WORDS + (n + 2) * (rows - row) - i > words.size:
                    return FULL, row, i
                negative = symbol < 0
                gamma = -symbol if negative else symbol - plain + 1
                symbol = plain
            first = np.uint64(offsets[table] + symbol)
            lower, upper = np.int64(data[first]), np.int64(data[first + np.uint64(1)])
            if lower == upper:
                return ILLEGAL, row, i
            start = (size * lower) >> 16
            low, size, pos = _settle(low + start, ((size * upper) >> 16) - start, pos, words)
            if gamma:
                digits = 0
                while gamma >> digits:
                    digits += 1
                for _ in range(digits - 1):
                    low, size, pos = _settle(low, size >> 1, pos, words)
                pattern = gamma << 1 | negative
                for k in range(digits, -1, -1):
                    half = size >> 1
                    one = (pattern >> k) & 1
                    low, size, pos = _settle(
                        low + half * one, size - half if one else half, pos, words
                    )
        pos, lengths[row] = _finish(low, size, begin, pos, words)
    return DONE, 0, 0


@register_jitable
def _settle(low, size, pos, words):
    """Passes on a carry and shifts out the top word if the interval has become small."""
    if low >> 32:
        _carry(pos, words)
        low &= 0xFFFFFFFF
    words[np.uint64(pos)] = low >> 16  # overwritten unless settled: cheaper than a branch
    small = size <= 1 << 16
    shift = 16 if small else 0
    return (low << shift) & 0xFFFFFFFF, size << shift, pos + small


@register_jitable
def _carry(pos, words):
    pos -= 1
    while words[pos] == 0xFFFF:
        words[pos] = 0
        pos -= 1
    words[pos] += 1


@register_jitable
def _finish(low, size, begin, pos, words):
    """Writes the shortest end inside the interval; gives the next free word and the bytes."""
    if low + size > 1 << 32:  # 2**32 is inside: a carry, and zeros that need no writing
        _carry(pos, words)
        while words[pos - 1] == 0:
            pos -= 1
    elif low > 0:
        top = ((low - 1) >> 24) + 1
        if top <= (low + size - 1) >> 24:
            words[pos] = top << 8
            return pos + 1, 2 * (pos - begin) + 1
        words[pos] = ((low - 1) >> 16) + 1
        pos += 1
    else:
        return pos, 2 * (pos - begin)
    return pos, 2 * (pos - begin) - (words[pos - 1] & 0xFF == 0)


def decode_rows(words, state, indexes, data, offsets, sizes, escapes, guess, values):
    """Reads the next symbols of each stream.

    Args:
      words: uint16, all streams.
      state: (b, 4) int64 per stream: value - low, size, next word, last word; updated.
      indexes: (b, n) int32, checked by the caller.
      data, offsets, sizes, escapes, guess: of `CdfTables`.
      values: (b, n) int32, receives the symbols.

    Returns:
      (status, row, column) of the first trouble, or (DONE, 0, 0).
    """
    rows, n = indexes.shape
    tables = data, offsets, sizes, escapes, guess
    for row in range(0, rows - 1, 2):
        # Two streams in turn, so that the processor overlaps their chains of dependent steps:
        # 136 instead of 84 million symbols per second.
        value, size, pos, last = state[row, 0], state[row, 1], state[row, 2], state[row, 3]
        value2, size2, pos2 = state[row + 1, 0], state[row + 1, 1], state[row + 1, 2]
        last2 = state[row + 1, 3]
        for i in range(n):
            symbol, value, size, pos = _symbol(
                value, size, pos, last, words, np.uint64(indexes[row, i]), tables
            )
            symbol2, value2, size2, pos2 = _symbol(
                value2, size2, pos2, last2, words, np.uint64(indexes[row + 1, i]), tables
            )
            if symbol == NO_INT32 or symbol2 == NO_INT32:
                return CORRUPT, row + (symbol != NO_INT32), i
            values[row, i], values[row + 1, i] = symbol, symbol2
        state[row, 0], state[row, 1], state[row, 2] = value, size, pos
        state[row + 1, 0], state[row + 1, 1], state[row + 1, 2] = value2, size2, pos2
    for row in range(rows - rows % 2, rows):
        value, size, pos, last = state[row, 0], state[row, 1], state[row, 2], state[row, 3]
        for i in range(n):
            symbol, value, size, pos = _symbol(
                value, size, pos, last, words, np.uint64(indexes[row, i]), tables
            )
            if symbol == NO_INT32:
                return CORRUPT, row, i
            values[row, i] = symbol
        state[row, 0], state[row, 1], state[row, 2] = value, size, pos
    return DONE, 0, 0


@register_jitable
def _symbol(value, size, pos, last, words, table, tables):
    """The next symbol, or NO_INT32, and the new state."""
    data, offsets, sizes, escapes, guess = tables
    # Where `value` lies in the interval, in buckets, rounded down; then step up to the symbol.
    bucket = np.uint64(value * guess.shape[1]) // np.uint64(size)
    offset = np.uint64(offsets[table])
    first = offset + np.uint64(guess[table, bucket])
    start = (size * np.int64(data[first])) >> 16
    end = (size * np.int64(data[first + np.uint64(1)])) >> 16
    while end <= value:
        first += np.uint64(1)
        start = end
        end = (size * np.int64(data[first + np.uint64(1)])) >> 16
    value, size, pos = _refill(value - start, end - start, pos, last, words)
    symbol = np.int64(first - offset)
    plain = np.int64(sizes[table]) - escapes[table]
    if symbol == plain:  # the escape, as other tables have no such symbol
        return _escaped(value, size, pos, last, words, plain)
    return symbol, value, size, pos


@register_jitable
def _escaped(value, size, pos, last, words, plain):
    """Elias gamma: as many zeros as digits follow the leading one, the digits, the sign."""
    zeros, bit = -1, 0
    while not bit:
        bit, value, size, pos = _bit(value, size, pos, last, words)
        zeros += 1
        if zeros > 31:
            return NO_INT32, value, size, pos
    gamma = 1
    for _ in range(zeros):
        bit, value, size, pos = _bit(value, size, pos, last, words)
        gamma = gamma << 1 | bit
    bit, value, size, pos = _bit(value, size, pos, last, words)
    symbol = -gamma if bit else gamma + plain - 1
    if not -(1 << 31) <= symbol < 1 << 31:
        symbol = NO_INT32
    return symbol, value, size, pos


@register_jitable
def _bit(value, size, pos, last, words):
    half = size >> 1
    bit = 1 if value >= half else 0
    value, size, pos = _refill(
        value - half if bit else value, size - half if bit else half, pos, last, words
    )
    return bit, value, size, pos


@register_jitable
def _refill(value, size, pos, last, words):
    """Shifts in a word, zeros past the end, if the interval has become small."""
    shifted = value << 16 | np.int64(words[np.uint64(pos)])
    small = size <= 1 << 16
    value = shifted if small else value
    return value, size << (16 if small else 0), min(pos + small, last)


def _compile(signature, kernel):
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(signature, cache=True, **options)(kernel)
    except (RuntimeError, OSError):  # Numba finds no directory to keep the machine code in
        return numba.njit(signature, **options)(kernel)


class _Notice(event.Listener):
    """Says once why the first call takes seconds."""

    said = False

    def on_start(self, event: event.Event) -> None:
        if not self.said:
            logging.getLogger("vcmjax").warning("compiling the range coder, once per machine")
            self.said = True

    def on_end(self, event: event.Event) -> None:
        """Nothing to say."""


@functools.cache
def compiled() -> tuple[Callable, Callable]:
    """`encode_rows` and `decode_rows` as machine code, from Numba's cache where it is writable."""
    u16, i32, i64 = numba.uint16, numba.int32, numba.int64

    def given(dtype, ndim):
        return numba.types.Array(dtype, ndim, "C", readonly=True)  # takes writable arrays as well

    tables = [given(i32, 1)] * 4
    result = numba.types.UniTuple(i64, 3)
    encode = result(given(i32, 2), given(i32, 2), *tables, u16[::1], i64[::1])
    decode = result(given(u16, 1), i64[:, ::1], given(i32, 2), *tables, given(u16, 2), i32[:, ::1])
    with event.install_listener("numba:compile", _Notice()):
        return _compile(encode, encode_rows), _compile(decode, decode_rows)
