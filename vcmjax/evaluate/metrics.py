"""Scores of the three kinds of task, from counts that add up over images.

`statistics` keeps one row per image; `scores` and `resampled_scores` pool rows. A bootstrap over
images therefore never touches a pixel twice.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from vcmjax.errors import DataError
from vcmjax.tasks import VOID, Task

Statistics: TypeAlias = dict[str, np.ndarray]
"""Arrays whose leading axis is images; the keys of each kind are listed under `statistics`."""


def statistics(task: Task, output: ArrayLike, label: ArrayLike) -> Statistics:
    """What each image contributes to the scores of a task.

    Args:
      task: The task; `channels` is the number C of classes or of regressed channels.
      output: Network output at label resolution. class: logits (B, C); segment: logits
        (B, H, W, C); dense: (B, H, W, C).
      label: class: integers (B,); segment: integers (B, H, W), `VOID` is not scored; dense:
        floats (B, H, W, C), NaN is not scored.

    Returns:
      float64 arrays, images leading. class: ``correct`` (B,) 0 or 1, ``cross_entropy`` (B,) nats.
      segment: ``confusion`` (B, C, C) pixel counts, rows truth and columns prediction,
      ``cross_entropy`` (B,) nats summed over pixels. dense: ``error`` (B,) sum of absolute
      differences, ``count`` (B,) number of label elements. Batches join with `concatenate`.

    Raises:
      DataError: Shapes do not fit the task, or a label is neither a class index nor void.
    """
    output, label = np.asarray(output), np.asarray(label)
    _check_shapes(task, output, label)
    if task.kind == "dense":
        scored = ~np.isnan(label)
        error = np.where(scored, np.abs(output - np.where(scored, label, 0)), 0)
        axes = (1, 2, 3)
        return {
            "error": error.sum(axes, dtype=np.float64),
            "count": scored.sum(axes, dtype=np.float64),
        }
    scored = label != VOID if task.kind == "segment" else np.ones(label.shape, bool)
    _check_classes(task, label[scored])
    truth = np.where(scored, label, 0).astype(np.int64)
    guess = output.argmax(-1)
    nats = np.where(scored, _cross_entropy(output, truth), 0)
    if task.kind == "class":
        return {"correct": (guess == truth).astype(np.float64), "cross_entropy": nats}
    images, classes = len(output), task.channels
    image = np.arange(images)[:, None, None]
    cell = ((image * classes + truth) * classes + guess)[scored]
    confusion = np.bincount(cell, minlength=images * classes**2)
    return {
        "confusion": confusion.reshape(images, classes, classes).astype(np.float64),
        "cross_entropy": nats.sum((1, 2)),
    }


def concatenate(batches: list[Statistics]) -> Statistics:
    """Joins the statistics of consecutive batches of one task into one set."""
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def scores(
    task: Task, statistics: Statistics, weights: ArrayLike | None = None
) -> dict[str, float]:
    """Scores pooled over images, as Python floats.

    Args:
      task: The task.
      statistics: As returned by `statistics`, B images.
      weights: (B,) multiplicity of each image; None counts each once.

    Returns:
      class: ``accuracy`` (fraction) and ``cross_entropy`` (mean nats per image). segment: ``miou``,
      the mean of intersection over union (fractions) over the classes that occur in truth or
      prediction of the pooled scored pixels (CVR averages over all classes); ``accuracy``, the
      fraction of scored pixels that are right; ``non_background_accuracy``, the same among pixels
      whose truth is not class 0, only where class 0 is named "background"; ``cross_entropy`` (mean
      nats per scored pixel). dense: ``l1``, the mean absolute difference per scored element. NaN
      where nothing is scored.

    Raises:
      DataError: `weights` is not one number per image.
    """
    count = len(next(iter(statistics.values())))
    weights = np.ones(count) if weights is None else np.asarray(weights)
    if weights.shape != (count,):
        raise DataError(f"scores: weights of shape {weights.shape}; expected ({count},)")
    pooled = resampled_scores(task, statistics, weights[None])
    return {name: float(value[0]) for name, value in pooled.items()}


def headline(task: Task, statistics: Statistics) -> float:
    """The one of `scores` that `task` is judged by, ``task.metric``; statistics as there."""
    return scores(task, statistics)[task.metric]


def resampled_scores(task: Task, statistics: Statistics, weights: np.ndarray) -> Statistics:
    """`scores` under R sets of weights at once, (R, B); each value is an array (R,)."""
    weights = weights.astype(np.float64)
    total = {
        name: (weights @ value.reshape(len(value), -1)).reshape(-1, *value.shape[1:])
        for name, value in statistics.items()
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        if task.kind == "dense":
            return {"l1": total["error"] / total["count"]}
        if task.kind == "class":
            count = weights.sum(1)
            return {name: total[key] / count for name, key in _CLASS_SCORES.items()}
        return _segment_scores(task, total["confusion"], total["cross_entropy"])


_CLASS_SCORES = {"accuracy": "correct", "cross_entropy": "cross_entropy"}


def _segment_scores(task: Task, confusion: np.ndarray, nats: np.ndarray) -> Statistics:
    """Scores of pooled confusion matrices (R, C, C) and summed cross-entropies (R,)."""
    right = np.diagonal(confusion, axis1=1, axis2=2)
    truth, guess = confusion.sum(2), confusion.sum(1)
    union = truth + guess - right
    pixels = truth.sum(1)
    iou = np.divide(right, union, out=np.zeros_like(union), where=union > 0)
    result = {
        "miou": iou.sum(1) / (union > 0).sum(1),
        "accuracy": right.sum(1) / pixels,
        "cross_entropy": nats / pixels,
    }
    if task.classes[:1] == ("background",):
        result["non_background_accuracy"] = right[:, 1:].sum(1) / truth[:, 1:].sum(1)
    return result


def _cross_entropy(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Nats of the true class, float64 of the shape of `truth`; logits have one more axis."""
    largest = logits.max(-1)
    normaliser = np.log(np.exp(logits - largest[..., None]).sum(-1)) + largest
    chosen = np.take_along_axis(logits, truth[..., None], -1)[..., 0]
    return (normaliser - chosen).astype(np.float64)


def _check_shapes(task: Task, output: np.ndarray, label: np.ndarray) -> None:
    axes = 2 if task.kind == "class" else 4
    expected = output.shape if task.kind == "dense" else output.shape[:-1]
    if output.ndim != axes or output.shape[-1] != task.channels:
        form = "(B, {})" if axes == 2 else "(B, H, W, {})"
        form = form.format(task.channels)
        raise DataError(f"{task.name}: output of shape {output.shape}; expected {form}")
    if label.shape != expected:
        raise DataError(
            f"{task.name}: label of shape {label.shape} for an output of shape {output.shape}; "
            f"expected {expected}"
        )


def _check_classes(task: Task, label: np.ndarray) -> None:
    wrong = (label < 0) | (label >= task.channels)
    if wrong.any():
        raise DataError(
            f"{task.name}: label {label[wrong][0]}; expected a class index below {task.channels}"
            + (f" or {VOID} for void" if task.kind == "segment" else "")
        )
