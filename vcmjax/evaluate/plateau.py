"""The plateau bit-rate: the fewest bits at which a task does as well as without compression.

Source: CVR (Yang et al. 2021, arXiv:2110.09241), section 4.3, which calls the performance
"comparable" to models without rate control; here it is within a relative tolerance of theirs.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from vcmjax.errors import UsageError


class Plateau(NamedTuple):
    """Where a rate-performance curve reaches its plateau.

    Attributes:
      reached: Whether any evaluated point is within tolerance of the Control Group.
      level: Level of the point with the least bpp among those; if none, of the best score.
      bpp: Its bits per image pixel.
      score: Its headline score.
      evaluated: Every level evaluated, in ascending order, with its (bpp, score).
    """

    reached: bool
    level: int
    bpp: float
    score: float
    evaluated: dict[int, tuple[float, float]]


def within(score: float, control: float, tolerance: float, higher_is_better: bool) -> bool:
    """Whether a score is as good as the control's, up to a relative tolerance.

    Args:
      score: The score in question; NaN is never within.
      control: Score of the Control Group, >= 0; if NaN, nothing is within.
      tolerance: Relative loss allowed, >= 0.
      higher_is_better: If so, ``score >= control * (1 - tolerance)`` is asked, else
        ``score <= control * (1 + tolerance)``. Both bounds belong to the plateau.
    """
    if higher_is_better:
        return score >= control * (1 - tolerance)
    return score <= control * (1 + tolerance)


def search(
    evaluate: Callable[[int], tuple[float, float]],
    levels: Sequence[int],
    control: float,
    tolerance: float,
    higher_is_better: bool,
    low: int = 0,
    high: int = 255,
    refine: bool = True,
) -> Plateau:
    """The least-bpp point within tolerance of the Control Group.

    Evaluates the grid. With `refine` it then halves the interval of levels between the grid's
    least-bpp point within tolerance and the nearest evaluated level below it that is not (`low`
    is tried if the grid has none), or, where the grid reaches nothing, tries `high` and halves
    from there. At most ``len(levels) + 1 + ceil(log2(high - low))`` evaluations, each level once.
    Exact where bpp and score grow with the level; on any other curve still the least bpp of all
    evaluated points within tolerance, ties going to the better score, then to the lower level.

    Args:
      evaluate: Level to (bpp, score); a NaN in either makes the point unusable.
      levels: The grid; order and repetition do not matter. With `refine`, within [low, high].
      control: Score of the Control Group, see `within`.
      tolerance: Relative tolerance, see `within`.
      higher_is_better: Direction of the score.
      low: Least level the model accepts, used with `refine` only.
      high: Greatest level the model accepts, used with `refine` only.
      refine: False for separate models, where a level merely numbers a model.

    Raises:
      UsageError: The grid is empty or leaves [low, high], or the tolerance is negative.
    """
    grid = sorted(set(levels))
    if not grid or tolerance < 0:
        raise UsageError(
            f"search: {len(grid)} levels, tolerance {tolerance}; expected at least one level and a "
            "tolerance of 0 or more"
        )
    if refine and not low <= grid[0] <= grid[-1] <= high:
        raise UsageError(f"search: levels {grid[0]}..{grid[-1]}; expected them in {low}..{high}")
    seen: dict[int, tuple[float, float]] = {}

    def passes(level: int) -> bool:
        if level not in seen:
            seen[level] = evaluate(level)
        bpp, score = seen[level]
        return not math.isnan(bpp) and within(score, control, tolerance, higher_is_better)

    def cost(level: int) -> tuple[float, float, int]:
        bpp, score = seen[level]
        return bpp, -score if higher_is_better else score, level

    for level in grid:
        passes(level)
    if refine:
        if not any(map(passes, grid)):
            passes(high)
        _halve(passes, cost, seen, low)

    good = [level for level in seen if passes(level)]
    best = min(good, key=cost) if good else _best_score(seen, higher_is_better)
    return Plateau(bool(good), best, *seen[best], dict(sorted(seen.items())))


def _halve(
    passes: Callable[[int], bool],
    cost: Callable[[int], tuple[float, float, int]],
    seen: dict[int, tuple[float, float]],
    low: int,
) -> None:
    """Evaluates levels between the best one that passes and the nearest one below that fails."""
    good = [level for level in seen if passes(level)]
    if not good:
        return
    top = min(good, key=cost)
    bottom = max((level for level in seen if level < top and not passes(level)), default=low)
    if bottom == low and passes(low):
        return
    while top - bottom > 1:
        middle = (top + bottom) // 2
        if passes(middle):
            top = middle
        else:
            bottom = middle


def _best_score(seen: dict[int, tuple[float, float]], higher_is_better: bool) -> int:
    """Level with the best score, ties going to fewer bits; one whose score is NaN comes last."""

    def rank(level: int) -> tuple[bool, float, float, int]:
        bpp, score = seen[level]
        return math.isnan(score), -score if higher_is_better else score, bpp, level

    return min(seen, key=rank)
