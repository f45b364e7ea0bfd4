"""Scores of tasks beside the uncompressed network's: pooled, with intervals, and in words."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import harness
from experiments.task_data import TaskData
from vcmjax.evaluate import measure, metrics, tables
from vcmjax.evaluate.bd_rate import delta
from vcmjax.evaluate.measure import Measurement


def described(at: dict[str, TaskData]) -> dict[str, Any]:
    """The entry ``tasks`` of a results file."""
    return {
        name: {"metric": each.task.metric, "higher_is_better": each.task.higher_is_better}
        for name, each in at.items()
    }


def originals(at: dict[str, TaskData], split: str) -> dict[str, float]:
    """The uncompressed network's score, by task."""
    found = {}
    for name, each in at.items():
        part = each.splits[split]
        statistics = measure.head_statistics(each.task, each.head, part.feature, part.label)
        found[name] = metrics.headline(each.task, statistics)
    return found


def share(higher_is_better: bool, score: Any, original: float) -> Any:
    """A score as a share of the uncompressed network's: 1 is no loss, 0.98 a loss of 2 %.

    NaN or infinite beside a network that scores nothing, or that has no error to lose from.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = score / np.float64(original)
    return ratio if higher_is_better else 2 - ratio


def bits(groups: Sequence[dict[str, Measurement]], weights: np.ndarray) -> np.ndarray:
    """Bits per image of the streams of all groups of tasks, (R,).

    Args:
      groups: Of each stream, the measurements of its tasks by name.
      weights: Multiplicities of the images, (R, images).
    """
    total = sum(next(iter(measured.values())).total for measured in groups)
    return 8 * (weights @ np.asarray(total)) / weights.sum(1)


def scores(
    groups: Sequence[dict[str, Measurement]], at: dict[str, TaskData], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """The headline score of every task, (R,) each; arguments as of `bits`."""
    return {
        n: metrics.resampled_scores(at[n].task, m.statistics, weights)[at[n].task.metric]
        for measured in groups
        for n, m in measured.items()
    }


def kept(
    groups: Sequence[dict[str, Measurement]],
    at: dict[str, TaskData],
    originals: dict[str, float],
    weights: np.ndarray,
) -> np.ndarray:
    """Mean over tasks of the share of the score that is kept, (R,); arguments as of `bits`."""
    return scores_and_kept(groups, at, originals, weights)["kept"]


def scores_and_kept(
    groups: Sequence[dict[str, Measurement]],
    at: dict[str, TaskData],
    originals: dict[str, float],
    weights: np.ndarray,
) -> dict[str, np.ndarray]:
    """``kept``, and ``score/TASK`` of every task, as results files name them, (R,) each."""
    found = scores(groups, at, weights)
    shares = [share(at[n].task.higher_is_better, s, originals[n]) for n, s in found.items()]
    return {
        "kept": np.mean(shares, axis=0),
        **{f"score/{name}": score for name, score in found.items()},
    }


Curve = Sequence[Sequence[dict[str, Measurement]]]
"""By λ: of each stream, the measurements of its tasks by name."""


def bd_rate(
    own: Curve,
    anchor: Curve,
    at: dict[str, TaskData],
    originals: dict[str, float],
    weights: np.ndarray,
) -> np.ndarray:
    """Difference of bits, all streams together, at equal `kept`, in per cent: (R,).

    Args:
      own: What is compared.
      anchor: With what.
      at: Tasks.
      originals: As of `kept`.
      weights: As of `bits`.
    """
    curves = [
        np.stack([[bits(p, weights), kept(p, at, originals, weights)] for p in curve], axis=-1)
        for curve in (anchor, own)
    ]
    return np.array(
        [
            delta(tuple(a), tuple(b), True).rate
            for a, b in zip(*np.swapaxes(curves, 1, 2), strict=True)
        ]
    )


def pooled(measured: dict[int, Measurement], at: TaskData, original: float) -> dict[str, Any]:
    """One task on the test split: means over images and seeds, with 95 % bootstrap intervals.

    Args:
      measured: By seed.
      at: The task.
      original: The uncompressed network's score there.

    Returns:
      ``score``, ``kept`` (see `share`), ``bytes`` and ``bpp`` per image, ``ci`` of each, and
      ``per_image`` bytes by seed.
    """
    task = at.task
    height, width = at.splits["test"].image_shape

    def statistic(m: Measurement):
        def resampled(weights: np.ndarray) -> dict[str, np.ndarray]:
            score = metrics.resampled_scores(task, m.statistics, weights)[task.metric]
            size = weights @ m.total / weights.sum(1)
            return {
                "score": score,
                "kept": share(task.higher_is_better, score, original),
                "bytes": size,
                "bpp": 8 * size / (height * width),
            }

        return resampled

    statistics = [statistic(m) for m in measured.values()]
    images = len(at.splits["test"].feature)
    return {
        **harness.summary(statistics, images),
        "per_image": {
            str(seed): {"bytes": m.total.round(2).tolist()} for seed, m in measured.items()
        },
    }


def cell(results: dict[str, Any], task: str, value: float, ci: list[float] | None) -> str:
    """A task's headline score as tables print it, with its interval if there is one."""
    metric = results["tasks"][task]["metric"]
    return tables.cell(value, ci, tables.SCALES.get(metric, 1), 4 if metric == "l1" else 1)


def star(entry: dict[str, Any]) -> str:
    """What marks an entry of `joint.status` that is not at its plateau for every seed."""
    return "" if all(entry["reached"].values()) else " *"


def at_the_plateau(results: dict[str, Any], starred: bool = True) -> str:
    """What numbers of a table are, where each is taken at its plateau; `starred` where missed."""
    seeds = len(results["seeds"])
    star = "; *: not reached, so at the best score" if starred else ""
    return (
        f"Test images, at the fewest bits within {100 * results['config']['tolerance']:g} % of "
        f"Original on validation images{star}. "
        f"{tables.trainings(seeds)}. {tables.brackets(seeds)}"
    )
