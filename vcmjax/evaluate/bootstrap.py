"""Percentile intervals by resampling images, and training seeds where there are several."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from vcmjax.errors import UsageError

Resampled: TypeAlias = np.ndarray | Mapping[str, np.ndarray]
Statistic: TypeAlias = Callable[[np.ndarray], Resampled]
"""Image multiplicities (R, images) to scores (R,), one array or several by name."""
Interval: TypeAlias = tuple[float, float]

_BLOCK = 2_000_000  # Multiplicities held at once, 16 MB.


def interval(
    statistics: Statistic | Sequence[Statistic],
    images: int,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Percentile bootstrap interval of pooled scores, by name of score.

    A replicate draws `images` images with replacement and, given several statistics (one per
    training seed, all on the same images), as many seeds with replacement; its score is the mean
    over the drawn seeds, each read on the same drawn images. With one statistic only images vary.

    Intervals made with the same `seed`, `images` and number of statistics use the same draws, so
    the interval of a difference is that of ``lambda weights: a(weights) - b(weights)``.

    With S seeds the resampled spread between them is too small by a factor sqrt((S - 1) / S) and
    never leaves the range of the S values; three seeds give a hint, not 95 % coverage.

    Args:
      statistics: One statistic, or one per training seed. An unnamed array is named "".
      images: Number of images the statistics pool, > 0.
      seed: Seed of the draws.
      resamples: Number of replicates, > 0.
      level: Coverage aimed at, in (0, 1).

    Returns:
      (low, high) of each score, replicates that are NaN left out; (nan, nan) if all are.

    Raises:
      UsageError: An argument is out of its range.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    several = [statistics] if callable(statistics) else list(statistics)
    if not several or images < 1 or resamples < 1 or not 0 < level < 1:
        raise UsageError(
            f"interval: {len(several)} statistics, {images} images, {resamples} resamples, level "
            f"{level}; expected at least one of each and a level between 0 and 1"
        )
    image_draws, seed_draws = (
        np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2)
    )
    blocks = []
    step = max(1, _BLOCK // images)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        weights = image_draws.multinomial(images, np.full(images, 1 / images), size=rows)
        share = seed_draws.multinomial(len(several), np.full(len(several), 1 / len(several)), rows)
        blocks.append(_mean([_named(each(weights)) for each in several], share / len(several)))
    return {
        name: _percentiles(np.concatenate([block[name] for block in blocks]), level)
        for name in blocks[0]
    }


def means(statistics: Statistic | Sequence[Statistic], images: int) -> dict[str, float]:
    """The scores that `interval` is around: of all images once, the mean over seeds."""
    several = [statistics] if callable(statistics) else list(statistics)
    whole = [_named(each(np.ones((1, images)))) for each in several]
    return {name: float(np.mean([each[name] for each in whole])) for name in whole[0]}


def _named(resampled: Resampled) -> dict[str, np.ndarray]:
    return dict(resampled) if isinstance(resampled, Mapping) else {"": resampled}


def _mean(scores: list[dict[str, np.ndarray]], share: np.ndarray) -> dict[str, np.ndarray]:
    """Mean over seeds with shares (R, seeds). A seed not drawn is no part of it, even if NaN."""
    result = {}
    for name in scores[0]:
        values = np.stack([np.asarray(each[name], np.float64) for each in scores], 1)
        result[name] = np.where(share > 0, values * share, 0).sum(1)
    return result


def _percentiles(replicates: np.ndarray, level: float) -> Interval:
    finite = replicates[~np.isnan(replicates)]
    if not finite.size:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
