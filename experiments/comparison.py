"""One method against another: bits at the plateaus, and Bjøntegaard deltas, with intervals."""

from typing import Any, NamedTuple

import numpy as np

from experiments import harness
from vcmjax.evaluate import metrics
from vcmjax.evaluate.bd_rate import delta
from vcmjax.evaluate.measure import Measurement
from vcmjax.tasks import Task

RESAMPLES = 200
"""Of curves, whose deltas take a while each."""


class Curve(NamedTuple):
    """What a method does on one split; a method without training has one seed.

    Attributes:
      points: Measurements by seed, for each rate of its curve.
      best: Those at its plateau.
      reached: Whether that does as well as the reference.
    """

    points: list[dict[int, Measurement]]
    best: dict[int, Measurement]
    reached: bool


def compare(task: Task, test: Curve, anchor: Curve) -> dict[str, Any]:
    """How `test` does beside `anchor` on the same images, with 95 % bootstrap intervals.

    Returns:
      ``bits_ratio``, bits at the plateau over the anchor's, which are at equal score as far as
      both are ``reached``; ``bd_rate`` in per cent and ``bd_score`` in the unit of the score,
      over the curves' common range, None where there is none; ``ci`` of each.
    """
    images = len(next(iter(test.best.values())).bytes)

    def statistic(seed: int):
        own, other = _of_seed(test, seed), _of_seed(anchor, seed)

        def resampled(weights: np.ndarray) -> dict[str, np.ndarray]:
            ratio = (weights @ own.best.total) / (weights @ other.best.total)
            curves = [_curve(task, each.points, weights) for each in (other, own)]
            deltas = [
                delta((bpp_a, score_a), (bpp, score), task.higher_is_better)
                for (bpp_a, score_a), (bpp, score) in zip(*curves, strict=True)
            ]
            rate, score = np.array(deltas).T
            return {"bits_ratio": ratio, "bd_rate": rate, "bd_score": score}

        return resampled

    return {
        **harness.summary([statistic(seed) for seed in test.best], images, RESAMPLES),
        "reached": [test.reached, anchor.reached],
    }


class _Seed(NamedTuple):
    points: list[Measurement]
    best: Measurement


def _of_seed(curve: Curve, seed: int) -> _Seed:
    """A curve of one training; one without training is the same for all."""
    seed = seed if seed in curve.best else next(iter(curve.best))
    return _Seed([point[seed] for point in curve.points], curve.best[seed])


def _curve(task: Task, points: list[Measurement], weights: np.ndarray):
    """(bytes, scores) of a curve under each of R sets of weights."""
    size = np.array([weights @ point.total / weights.sum(1) for point in points])
    score = np.array(
        [metrics.resampled_scores(task, p.statistics, weights)[task.metric] for p in points]
    )
    return list(zip(size.T, score.T, strict=True))
