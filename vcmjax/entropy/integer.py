"""Hyper-synthesis in exact integers: from decoded side symbols to the table index of each latent.

A float network gives another last bit on another device, batch size or compiler, and one table
index that differs turns the rest of a stream into noise. Here every value is an integer, held in
float64 so that matrix products run at BLAS speed: all sums stay below 2**53, where float64 is exact
in any order of summation. Rounding is by powers of two; what is not (tanh, exp, log) is tabulated
once, when a trained model is frozen, and stored. NumPy on the host, no JAX: nothing here depends on
a device.

Activations have 12 fractional bits and weights 14, so training needs no quantisation: the rate
differs from that of the float network by less than one part in a thousand (tests).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vcmjax.errors import VcmError

FRACTION = 12
"""Fractional bits of activations."""
WEIGHT_FRACTION = 14
"""Fractional bits of weights, gains and bases."""
LIMIT = 2.0**23
"""Activations are clipped to less than this, which bounds every sum whatever a stream says."""
_EXACT = 2.0**53
_LEAK = round(0.01 * 2**16)
"""Slope of leaky ReLU at negative values, as `flax.linen.leaky_relu`'s, in units of 2**-16."""

Integers = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Linear:
    """Product with a matrix, at each position or over its 3×3 neighbourhood.

    Attributes:
      weight: (taps·inputs, outputs), `WEIGHT_FRACTION` bits; taps row by row.
      bias: (outputs,), ``FRACTION + WEIGHT_FRACTION`` bits.
      taps: 1, or 9 for a convolution with zeros around.
    """

    weight: Integers
    bias: Integers
    taps: int = 1

    def __call__(self, x: Integers, level: NDArray[np.integer], size: tuple[int, ...]) -> Integers:
        """(B, ..., inputs) to (B, ..., outputs)."""
        del level, size
        if self.taps == 9:
            x = _neighbourhoods(x)
        return _rescaled(x @ self.weight + self.bias, WEIGHT_FRACTION)


@dataclasses.dataclass(frozen=True)
class Film:
    """x·gain + shift by rate level, then leaky ReLU.

    Attributes:
      gain: (levels, channels), `WEIGHT_FRACTION` bits.
      shift: (levels, channels), ``FRACTION + WEIGHT_FRACTION`` bits.
    """

    gain: Integers
    shift: Integers

    def __call__(self, x: Integers, level: NDArray[np.integer], size: tuple[int, ...]) -> Integers:
        """Modulate (B, ..., channels)."""
        del size
        broadcast = (len(x), *(1,) * (x.ndim - 2), -1)
        gain, shift = (table[level].reshape(broadcast) for table in (self.gain, self.shift))
        x = _rescaled(x * gain + shift, WEIGHT_FRACTION)
        return np.where(x < 0, np.floor(x * (_LEAK * 2.0**-16)), x)


@dataclasses.dataclass(frozen=True)
class Expand:
    """Coefficients times spatial bases: Ẑ = Σ a·C (CVR eq. 11).

    Attributes:
      codebook: (bases, height, width), `WEIGHT_FRACTION` bits; resampled to other sizes.
    """

    codebook: Integers

    def __call__(self, x: Integers, level: NDArray[np.integer], size: tuple[int, ...]) -> Integers:
        """(B, maps·bases) to (B, *size, maps)."""
        del level
        bases = resample(self.codebook, size[0], size[1])
        sequences = x.reshape(len(x), -1, len(bases))
        maps = sequences @ bases.reshape(len(bases), -1)
        return _rescaled(np.moveaxis(maps, 1, 2).reshape(len(x), *size, -1), WEIGHT_FRACTION)


@dataclasses.dataclass(frozen=True)
class Upsample:
    """Depth to space, cropped to the latent: (B, h, w, 4C) to (B, *size, C)."""

    def __call__(self, x: Integers, level: NDArray[np.integer], size: tuple[int, ...]) -> Integers:
        """Rearrange as `vcmjax.nets.layers.upsample` does."""
        del level
        b, h, w, c = x.shape
        x = x.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(b, 2 * h, 2 * w, c // 4)[:, : size[0], : size[1]]


Step = Linear | Film | Expand | Upsample


@dataclasses.dataclass(frozen=True)
class ScaleNetwork:
    """Side symbols, and latent symbols already known, to table indexes.

    Attributes:
      gain_bits: Side symbols are divided by 2**gain_bits first.
      steps: Applied in order; the last gives log-scales.
      thresholds: (tables - 1,) ascending log-scales between neighbouring tables, `FRACTION` bits.
      context: Applied in order to anchors beside log-scales; the last gives what is added to the
        log-scales of the others. Empty for none. See `vcmjax.entropy.checkerboard`.
    """

    gain_bits: int
    steps: tuple[Step, ...]
    thresholds: Integers
    context: tuple[Step, ...] = ()

    def log_scales(
        self, side: ArrayLike, level: NDArray[np.integer], size: tuple[int, ...]
    ) -> Integers:
        """Log-scale of each latent symbol by the side symbols: (B, *size, channels).

        Args:
          side: Integers (B, ...), any int32; a level's network sees at most ±2**(11 + gain_bits).
          level: (B,) rate levels.
          size: (h, w) of the latent, or () for a vector.
        """
        x = np.asarray(side, np.float64) * 2.0 ** (FRACTION - self.gain_bits)
        x = np.clip(np.floor(x), -LIMIT, LIMIT)
        for step in self.steps:
            x = step(x, level, size)
        return x

    def in_context(
        self,
        log_scales: Integers,
        latent: ArrayLike,
        anchor: NDArray[np.bool_],
        level: NDArray[np.integer],
    ) -> Integers:
        """What `context` makes of log-scales; those of anchors are as given.

        Args:
          log_scales: From `log_scales`; what is beyond the grid of scales counts as its end.
          latent: Symbols (B, h, w, channels), any int32, of which the network sees at most ±2**11;
            of what are no anchors any value, which is not seen.
          anchor: (h, w, 1), where the anchors are.
          level: (B,) rate levels.
        """
        seen = np.where(anchor, np.asarray(latent, np.float64), 0.0)
        seen = np.clip(seen * 2.0**FRACTION, -LIMIT, LIMIT)
        # As far beyond the outermost thresholds as the grid of scales reaches.
        beyond = np.diff(self.thresholds[:2]) // 2
        own = np.clip(log_scales, self.thresholds[0] - beyond, self.thresholds[-1] + beyond)
        x = np.concatenate([seen, own], axis=-1)
        for step in self.context:
            x = step(x, level, x.shape[1:-1])
        return np.where(anchor, log_scales, own + x)

    def indexes(self, log_scales: Integers) -> NDArray[np.int32]:
        """Table of each latent symbol, 0 to ``len(thresholds)``."""
        return np.searchsorted(self.thresholds, log_scales, side="right").astype(np.int32)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, as int64 arrays to be stored; inverse of `from_arrays`."""
        out = {"gain_bits": np.int64(self.gain_bits), "thresholds": self.thresholds}
        if self.context:
            out["context"] = np.int64(len(self.context))
        for i, step in enumerate(self.steps + self.context):
            for name, value in {"": np.zeros(0), **vars(step)}.items():
                out[f"{i}.{type(step).__name__}.{name}"] = np.asarray(value)
        return {name: np.asarray(value).astype(np.int64) for name, value in out.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "ScaleNetwork":
        """The network that `arrays` describes.

        Raises:
          VcmError: They describe none, or one whose sums could pass 2**53.
        """
        kinds = {kind.__name__: kind for kind in (Linear, Film, Expand, Upsample)}
        found: dict[int, tuple[Any, dict[str, Any]]] = {}
        try:
            for name, value in arrays.items():
                if "." in name:
                    number, kind, attribute = name.split(".")
                    fields = found.setdefault(int(number), (kinds[kind], {}))[1]
                    if attribute:
                        exact = int(value) if attribute == "taps" else value.astype(np.float64)
                        fields[attribute] = exact
            steps = tuple(kind(**fields) for _, (kind, fields) in sorted(found.items()))
            thresholds = arrays["thresholds"].astype(np.float64)
            own = len(steps) - int(arrays.get("context", 0))
            if not 0 <= own <= len(steps):
                raise ValueError(f"context of {len(steps) - own} steps of {len(steps)}")
            network = cls(int(arrays["gain_bits"]), steps[:own], thresholds, steps[own:])
            if not 0 <= network.gain_bits <= FRACTION:
                raise ValueError(f"gain_bits is {network.gain_bits}")
            if odd := {s.taps for s in steps if isinstance(s, Linear)} - {1, 9}:
                raise ValueError(f"convolution of {odd.pop()} taps")
        except (KeyError, TypeError, ValueError) as error:
            raise VcmError(f"not a scale network: {error!r}") from None
        check(network.steps + network.context)
        return network


def linear(kernel: ArrayLike, bias: ArrayLike) -> Linear:
    """From a Flax Dense kernel (in, out) or a 3×3 or 1×1 Conv kernel (h, w, in, out)."""
    kernel = np.asarray(kernel, np.float64)
    taps = math.prod(kernel.shape[:-2])
    weight = kernel.reshape(-1, kernel.shape[-1])
    return Linear(rounded(weight, WEIGHT_FRACTION), rounded(bias, FRACTION + WEIGHT_FRACTION), taps)


def film(params: dict, positions: ArrayLike) -> Film:
    """From the parameters of a `vcmjax.nets.layers.Film`, at each of `positions` (levels,)."""
    first, second = (params[name] for name in ("Dense_0", "Dense_1"))
    at = np.asarray(positions, np.float64)[:, None]
    hidden = np.tanh(at @ np.asarray(first["kernel"], np.float64) + np.asarray(first["bias"]))
    out = hidden @ np.asarray(second["kernel"], np.float64) + np.asarray(second["bias"])
    gain, shift = np.split(out, 2, axis=-1)
    return Film(rounded(np.exp(gain), WEIGHT_FRACTION), rounded(shift, FRACTION + WEIGHT_FRACTION))


def rounded(x: ArrayLike, fraction: int) -> Integers:
    """`x` in units of 2**-fraction."""
    return np.rint(np.asarray(x, np.float64) * 2.0**fraction)


def check(steps: Sequence[Step]) -> None:
    """Refuse a network whose sums could leave the integers that float64 holds exactly.

    Raises:
      VcmError: A layer's weights are so great that some activation could make them.
    """
    for i, step in enumerate(steps):
        reach = 0.0
        if isinstance(step, Linear):
            reach = float((np.abs(step.weight).sum(0) * LIMIT + np.abs(step.bias)).max())
        elif isinstance(step, Film):
            reach = float((np.abs(step.gain) * LIMIT + np.abs(step.shift)).max())
        elif isinstance(step, Expand):
            reach = float(np.abs(step.codebook).sum(0).max() * LIMIT)
        if not reach < _EXACT / 4:  # a quarter: resampled bases may be a little greater
            raise VcmError(
                f"step {i} of the hyper-synthesis, {type(step).__name__}, reaches {reach:.3g}; "
                f"expected less than 2**51. Its weights have diverged: train again"
            )


def resample(codebook: Integers, height: int, width: int) -> Integers:
    """Bases (τ, h, w) to (τ, height, width), bilinear and exact at their own size.

    As `jax.image.resize` does, but by integer weights: the same integers everywhere.
    """
    if codebook.shape[1:] == (height, width):
        return codebook
    rows = _interpolation(codebook.shape[1], height)
    columns = _interpolation(codebook.shape[2], width)
    along = _rescaled(rows @ codebook, WEIGHT_FRACTION)
    return _rescaled(along @ columns.T, WEIGHT_FRACTION)


def _interpolation(old: int, new: int) -> Integers:
    """Weights (new, old) of a triangle kernel, widened where it reduces; `WEIGHT_FRACTION` bits."""
    # Sums, products and quotients alone, which IEEE 754 rounds alike on every machine.
    scale = old / new
    centre = (np.arange(new)[:, None] + 0.5) * scale - 0.5
    weight = np.maximum(1.0 - np.abs(centre - np.arange(old)) / max(scale, 1.0), 0.0)
    total = weight[:, :1] * 0
    for column in weight.T:  # one by one: `sum` may add in another order on another machine
        total = total + column[:, None]
    return rounded(weight / total, WEIGHT_FRACTION)


def _neighbourhoods(x: Integers) -> Integers:
    """(B, h, w, C) to (B, h, w, 9C), zeros outside."""
    _, h, w, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return np.concatenate(shifted, axis=-1)


def _rescaled(x: Integers, bits: int) -> Integers:
    """Divide by 2**bits, round half up, and clip to `LIMIT`."""
    return np.clip(np.floor(x * 2.0**-bits + 0.5), -LIMIT, LIMIT)
