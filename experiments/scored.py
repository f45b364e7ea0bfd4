"""Scores of tasks beside the uncompressed network's: pooled, with intervals, and in words."""

from typing import Any

import numpy as np

from experiments.task_data import TaskData
from vcmjax.evaluate import bootstrap, measure, metrics, tables
from vcmjax.evaluate.measure import Measurement


def described(at: dict[str, TaskData]) -> dict[str, Any]:
    """The entry ``tasks`` of a results file."""
    return {
        name: {"metric": each.task.metric, "higher_is_better": each.task.higher_is_better}
        for name, each in at.items()
    }


def original(at: TaskData, split: str) -> float:
    """The uncompressed network's score."""
    part = at.splits[split]
    statistics = measure.head_statistics(at.task, at.head, part.feature, part.label)
    return metrics.scores(at.task, statistics)[at.task.metric]


def share(at: TaskData, score: Any, original: float) -> Any:
    """A score as a share of the uncompressed network's: 1 is no loss, 0.98 a loss of 2 %."""
    return score / original if at.task.higher_is_better else 2 - score / original


def pooled(measured: dict[int, Measurement], at: TaskData) -> dict[str, Any]:
    """One task on the test split: means over images and seeds, with 95 % bootstrap intervals.

    Returns:
      ``score``, ``kept`` (see `share`), ``bytes`` and ``bpp`` per image, ``ci`` of each, and
      ``per_image`` bytes by seed.
    """
    task, whole = at.task, original(at, "test")
    height, width = at.splits["test"].image_shape

    def statistic(m: Measurement):
        def resampled(weights: np.ndarray) -> dict[str, np.ndarray]:
            score = metrics.resampled_scores(task, m.statistics, weights)[task.metric]
            size = weights @ m.total / weights.sum(1)
            return {
                "score": score,
                "kept": share(at, score, whole),
                "bytes": size,
                "bpp": 8 * size / (height * width),
            }

        return resampled

    statistics = [statistic(m) for m in measured.values()]
    images = len(at.splits["test"].feature)
    means = [each(np.ones((1, images))) for each in statistics]
    ci = bootstrap.interval(statistics, images, seed=0)
    return {
        **{key: float(np.mean([each[key][0] for each in means])) for key in means[0]},
        "ci": {key: list(ends) for key, ends in ci.items()},
        "per_image": {
            str(seed): {"bytes": m.total.round(2).tolist()} for seed, m in measured.items()
        },
    }


def cell(results: dict[str, Any], task: str, value: float, ci: list[float] | None) -> str:
    """A task's headline score as tables print it, with its interval if there is one."""
    metric = results["tasks"][task]["metric"]
    return tables.cell(value, ci, tables.SCALES.get(metric, 1), 4 if metric == "l1" else 1)


def at_the_plateau(results: dict[str, Any]) -> str:
    """What numbers of a table are, where each is taken at its plateau."""
    seeds = len(results["seeds"])
    return (
        f"Test images, at the fewest bits within {100 * results['config']['tolerance']:g} % of "
        "Original on validation images; *: not reached, so at the best score. Brackets: 95 % "
        f"bootstrap interval over images{' and seeds' * (seeds > 1)}; {seeds} training "
        f"seed{'s' * (seeds > 1)}."
    )
