"""What a user gives, as what a codec works with, or an error that says what was expected."""

import contextlib
import math
import operator
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from vcmjax.errors import VcmError


def as_float(name: str, value: Any) -> np.ndarray:
    """Numbers that a user gives, as float32 on the host; what is beyond its range is infinite.

    Raises:
      VcmError: They are no real numbers, or no array; says so of `name`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return numbers(name, value).astype(np.float32, copy=False)


def numbers(name: str, value: Any) -> np.ndarray:
    """Real numbers that a user gives, as an array; raises as `as_float` does."""
    try:
        found = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, arrays of other kinds
        raise VcmError(f"{name} cannot be read as an array: {error}") from None
    real = (jnp.floating, jnp.integer, jnp.bool_)
    if not any(jnp.issubdtype(found.dtype, kind) for kind in real):
        raise VcmError(f"{name}: found {found.dtype} {found.shape}; expected real numbers")
    return found


def count(name: str, value: Any) -> int:
    """A whole number of at least 1 that a user gives as the hyper-parameter `name`.

    Raises:
      VcmError: It is something else.
    """
    try:
        found = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = 0
    if found >> 31 > 0:
        raise VcmError(f"{name} is beyond 2**31; expected less")
    if found < 1:
        raise VcmError(f"{name} is {value!r}; expected a whole number, at least 1")
    return found


def range_of(lams: Any) -> tuple[float, float]:
    """Least and greatest λ, as numbers of Python, which are written down and hashed alike.

    Raises:
      VcmError: They are something else.
    """
    found = tuple(lams) if isinstance(lams, Iterable) else ()
    if len(found) == 2 and not any(isinstance(lam, str | bool) for lam in found):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            low, high = (lam if type(lam) in (int, float) else float(lam) for lam in found)
            if 0 < low <= high < math.inf:
                return low, high
    raise VcmError(f"lams is {lams}; expected 0 < least <= greatest, both finite")


def byte_strings(streams: Any) -> list[bytes]:
    """Streams that a user gives.

    Raises:
      VcmError: A single one, or something else than a list of them.
    """
    if isinstance(streams, str | bytes | bytearray | memoryview):
        found = type(streams).__name__
        raise VcmError(f"streams are one {found}; expected a list of byte strings: [stream]")
    try:
        listed = list(streams)
    except TypeError:
        raise VcmError(f"streams are {streams!r:.60}; expected a list of byte strings") from None
    for i, stream in enumerate(listed):
        if not isinstance(stream, bytes | bytearray | memoryview):
            found = type(stream).__name__
            raise VcmError(f"streams[{i}] is of type {found}; expected bytes")
    return [bytes(stream) for stream in listed]


def refuse_infinite(features: np.ndarray, given: Any) -> None:
    """Refuse features, in float32, that are not finite; `given` is what they were made of.

    Raises:
      VcmError: Names the image and the value.
    """
    finite = np.isfinite(features)
    if finite.all():
        return
    at = tuple(int(n) for n in np.argwhere(~finite)[0])
    value = np.asarray(given)[at]
    what = f"{value}, beyond float32" if np.isfinite(value) else "NaN or infinity"
    raise VcmError(f"features[{at[0]}] holds {what}; expected finite values")
