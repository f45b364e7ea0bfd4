"""Bjøntegaard deltas between rate-performance curves that need not be monotone.

Task scores wobble with rate where they are flat. A delta is taken between upper envelopes: points
that score better than every point of fewer bits. Integration is the package `bjontegaard`'s.

Source: Bjøntegaard, VCEG-M33 (2001); Barman, Martini and Reznik, "Bjøntegaard Delta (BD): a
tutorial overview", 2024, for piecewise cubic interpolation.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vcmjax.evaluate import drawing


class Delta(NamedTuple):
    """How a curve compares with its anchor over what both cover; NaN where that is nothing.

    Attributes:
      rate: Mean difference of bits at equal score, in per cent; negative is better.
      score: Mean difference of the score at equal bits, in its own unit.
    """

    rate: float
    score: float


def envelope(
    bpp: Sequence[float] | np.ndarray, score: Sequence[float] | np.ndarray, higher_is_better: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(bpp, score) of the points that score better than all of fewer bits, in ascending bpp."""
    sign = 1 if higher_is_better else -1
    kept: list[tuple[float, float]] = []
    for rate, value in sorted(zip(bpp, score, strict=True), key=lambda p: (p[0], -sign * p[1])):
        if rate > 0 and (not kept or sign * value > sign * kept[-1][1]):
            kept.append((float(rate), float(value)))
    rates, scores = np.array(kept).reshape(-1, 2).T
    return rates, scores


def delta(
    anchor: tuple[Sequence[float], Sequence[float]],
    test: tuple[Sequence[float], Sequence[float]],
    higher_is_better: bool,
) -> Delta:
    """BD-rate and BD-metric of `test` relative to `anchor`.

    Args:
      anchor: (bpp, score) of each point, in any order.
      test: Likewise.
      higher_is_better: Direction of the score.

    Raises:
      UsageError: Matplotlib, which the package imports, cannot be imported.
    """
    drawing.matplotlib()  # which bjontegaard imports, and which a notebook's settings can break
    import bjontegaard

    a, b = (envelope(*curve, higher_is_better) for curve in (anchor, test))
    sign = 1.0 if higher_is_better else -1.0
    curves = (a[0], sign * a[1], b[0], sign * b[1])
    options = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}
    rate = score = float("nan")
    if min(len(a[0]), len(b[0])) >= 2:
        if _overlap(a[1], b[1]):
            rate = float(bjontegaard.bd_rate(*curves, **options))
        if _overlap(a[0], b[0]):
            score = sign * float(bjontegaard.bd_psnr(*curves, **options))
    return Delta(rate, score)


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    return max(a.min(), b.min()) < min(a.max(), b.max())
