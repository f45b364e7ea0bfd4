"""Distortions: how far a task output is from a label, or from the uncompressed network's output.

Every function returns one number per image, (B,), so that each image may carry its own λ. The
Lagrangian is fixed once, here: ``rate_bpp + lam * distortion``, λ weighs DISTORTION (CVR eq. 12).
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from vcmjax.tasks import VOID, Task

Target = Literal["labels", "network", "mix"]


def class_weights(task: Task, label: np.ndarray) -> np.ndarray:
    """Weight of each class of a segmentation, 1/√frequency, of mean one over labelled pixels.

    Rare classes count in the mean IoU as much as frequent ones do; weights are capped at 10.
    """
    counts = np.bincount(label[label != VOID], minlength=task.channels)[: task.channels]
    weights = 1.0 / np.sqrt(np.maximum(counts, 1) / max(counts.sum(), 1))
    weights = np.where(counts > 0, weights, 0.0)
    weights /= max((weights * counts).sum() / max(counts.sum(), 1), 1e-9)
    return np.minimum(weights, 10.0).astype(np.float32)


def to_labels(
    task: Task, output: jax.Array, label: jax.Array, weights: np.ndarray | None = None
) -> jax.Array:
    """Cross-entropy in nats, or mean absolute error, against the label; void is left out.

    Args:
      task: Decides the form of output and label, see `vcmjax.tasks`.
      output: (B, classes), or (B, h, w, channels), resized to the label's size.
      label: (B,) int; (B, H, W) uint8 with `VOID`; or (B, H, W, channels) with NaN.
      weights: (classes,) of a segmentation's cross-entropy, from `class_weights`; None for ones.
    """
    if task.kind == "class":
        return -jnp.take_along_axis(jax.nn.log_softmax(output), label[:, None], axis=1)[:, 0]
    output = resized(output, label.shape[1], label.shape[2])
    if task.kind == "dense":
        valid = ~jnp.isnan(label)
        return _masked_mean(
            jnp.abs(output - jnp.where(valid, label, 0.0).astype(jnp.float32)), valid
        )
    valid = label != VOID
    index = jnp.where(valid, label, 0).astype(jnp.int32)[..., None]
    nats = -jnp.take_along_axis(jax.nn.log_softmax(output), index, axis=-1)[..., 0]
    if weights is not None:
        nats = nats * jnp.asarray(weights, jnp.float32)[index[..., 0]]
    return _masked_mean(nats, valid)


def to_network(task: Task, output: jax.Array, reference: jax.Array) -> jax.Array:
    """KL(reference ‖ output) in nats per pixel or image, or mean absolute difference.

    `reference` is the head's output on the uncompressed feature, of the same shape as `output`:
    needs no labels.
    """
    if task.kind == "dense":
        return jnp.abs(output - reference).reshape(output.shape[0], -1).mean(1)
    log_p = jax.nn.log_softmax(reference)
    nats = jnp.sum(jnp.exp(log_p) * (log_p - jax.nn.log_softmax(output)), axis=-1)
    return nats.reshape(nats.shape[0], -1).mean(1)


def distortion(
    task: Task,
    target: Target,
    output: jax.Array,
    reference: jax.Array,
    label: jax.Array,
    weights: np.ndarray | None = None,
) -> jax.Array:
    """The distortion that `target` names; ``mix`` is the mean of both. Others as `to_labels`."""
    if target == "labels":
        return to_labels(task, output, label, weights)
    if target == "network":
        return to_network(task, output, reference)
    return (to_labels(task, output, label, weights) + to_network(task, output, reference)) / 2


def resized(output: jax.Array, height: int, width: int) -> jax.Array:
    """(B, h, w, C) to (B, height, width, C), bilinear."""
    return jax.image.resize(output, (output.shape[0], height, width, output.shape[3]), "linear")


def _masked_mean(x: jax.Array, valid: jax.Array) -> jax.Array:
    total = jnp.where(valid, x, 0.0).reshape(x.shape[0], -1).sum(1)
    count = valid.reshape(x.shape[0], -1).sum(1).astype(jnp.float32)
    return total / jnp.maximum(count, 1.0)
