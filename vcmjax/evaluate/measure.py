"""Scores and bytes of one model at one rate level, from streams that were written and read back."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vcmjax.codecs.feature import FeatureCodec, Tables
from vcmjax.data.features import Split
from vcmjax.evaluate import metrics
from vcmjax.tasks import Task
from vcmjax.train import losses

_BATCH = 32


class Measurement(NamedTuple):
    """Per-image results; leading axis images.

    Attributes:
      bytes: Length of each image's stream; zeros for a method that sends none.
      estimated_bits: The model's own estimate for it.
      side_bits: The part of that estimate spent on side information.
      statistics: From `metrics.statistics`.
    """

    bytes: np.ndarray
    estimated_bits: np.ndarray
    side_bits: np.ndarray
    statistics: metrics.Statistics


def head_statistics(
    task: Task, head: Callable[[jax.Array], jax.Array], feature: np.ndarray, label: np.ndarray
) -> metrics.Statistics:
    """Statistics of the task's output on `feature`, at the label's resolution."""
    output = jax.jit(lambda x: _full_size(task, head(x), label.shape))
    parts = []
    for start in range(0, len(feature), _BATCH):
        chosen = slice(start, start + _BATCH)
        parts.append(metrics.statistics(task, output(feature[chosen]), label[chosen]))
    return metrics.concatenate(parts)


def prediction(
    task: Task, head: Callable[[jax.Array], jax.Array], feature: np.ndarray, label: np.ndarray
) -> np.ndarray:
    """Class index (N,), class map (N, H, W) or values (N, H, W, C), at the label's resolution."""
    output = np.asarray(_full_size(task, head(jnp.asarray(feature)), label.shape))
    return output if task.kind == "dense" else output.argmax(-1)


def reconstruction(
    codec: FeatureCodec, params: dict, frozen: Tables | None, split: Split, level: int
) -> tuple[np.ndarray, Measurement]:
    """What the decoder gets, and what it cost; scores are left empty.

    A codec without prior (the Control Group) sends nothing and passes its latent on as it is.

    Raises:
      AssertionError: A decoded feature differs from the evaluation-mode reconstruction: a defect
        of the codec, never of the data.
    """
    count = len(split.feature)
    lam = float(codec.lam_of(level))
    if frozen is None:
        run = jax.jit(lambda x: codec.apply(params, jax.random.key(0), x, jnp.asarray(lam)).feature)
        parts = [
            run(split.feature[start : start + _BATCH]) for start in range(0, count, _BATCH)
        ]
        none = np.zeros(count)
        return np.concatenate(parts), Measurement(none.astype(int), none, none, {})
    streams = codec.encode(params, frozen, split.feature, lam)
    decoded = codec.decode(params, frozen, streams, lam, split.feature.shape[1:-1])
    expected, bits, side_bits = _evaluation(codec, params, split.feature, level)
    if not np.allclose(decoded, expected, atol=1e-3):
        raise AssertionError("decoded features differ from the evaluation-mode reconstruction")
    length = np.array([len(stream) for stream in streams])
    return decoded, Measurement(length, bits, side_bits, {})


def measure(
    codec: FeatureCodec,
    params: dict,
    frozen: Tables | None,
    task: Task,
    head: Callable[[jax.Array], jax.Array],
    split: Split,
    level: int,
) -> Measurement:
    """Code every image of `split`, decode it, finish the task, and score it."""
    feature, measured = reconstruction(codec, params, frozen, split, level)
    return measured._replace(statistics=head_statistics(task, head, feature, split.label))


def _evaluation(codec, params, feature, level):
    parts = []
    for start in range(0, len(feature), _BATCH):
        x = feature[start : start + _BATCH]
        output = codec.quantise(params, x, np.full(len(x), level, np.int32)).output
        parts.append((output.feature, output.bits, output.side_bits))
    return tuple(np.concatenate(leaves) for leaves in zip(*parts, strict=True))


def _full_size(task: Task, output: jax.Array, label_shape: tuple[int, ...]) -> jax.Array:
    return output if task.kind == "class" else losses.resized(output, *label_shape[1:3])
