"""Distortions: how far a task output is from a label, or from the uncompressed network's output.

Every function returns one number per image, (B,), so that each image may carry its own λ. The
Lagrangian is fixed once, here: ``rate_bpp + lam * distortion``, λ weighs DISTORTION (CVR eq. 12).
"""

from typing import Literal

import jax
import jax.numpy as jnp

from vcmjax.tasks import VOID, Task

Target = Literal["labels", "network", "mix"]


def to_labels(
    task: Task, output: jax.Array, label: jax.Array, weight: jax.Array | float = 1.0
) -> jax.Array:
    """Cross-entropy in nats, or mean absolute error, against the label; void is left out.

    Args:
      task: Decides the form of output and label, see `vcmjax.tasks`.
      output: (B, classes), or (B, h, w, channels), resized to the label's size.
      label: (B,) int; (B, H, W) uint8 with `VOID`; or (B, H, W, channels) with NaN.
      weight: Of each pixel's cross-entropy, broadcasting to (B, H, W).
    """
    if task.kind == "class":
        return -jnp.take_along_axis(jax.nn.log_softmax(output), label[:, None], axis=1)[:, 0]
    output = resized(output, label.shape[1], label.shape[2])
    if task.kind == "dense":
        valid = ~jnp.isnan(label)
        return _masked_mean(jnp.abs(output - jnp.where(valid, label, 0.0)), valid)
    valid = label != VOID
    index = jnp.where(valid, label, 0).astype(jnp.int32)[..., None]
    nats = -jnp.take_along_axis(jax.nn.log_softmax(output), index, axis=-1)[..., 0]
    return _masked_mean(weight * nats, valid)


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
    task: Task, target: Target, output: jax.Array, reference: jax.Array, label: jax.Array
) -> jax.Array:
    """The distortion that `target` names; ``mix`` is the mean of both."""
    if target == "labels":
        return to_labels(task, output, label)
    if target == "network":
        return to_network(task, output, reference)
    return (to_labels(task, output, label) + to_network(task, output, reference)) / 2


def resized(output: jax.Array, height: int, width: int) -> jax.Array:
    """(B, h, w, C) to (B, height, width, C), bilinear."""
    return jax.image.resize(output, (output.shape[0], height, width, output.shape[3]), "linear")


def _masked_mean(x: jax.Array, valid: jax.Array) -> jax.Array:
    total = jnp.where(valid, x, 0.0).reshape(x.shape[0], -1).sum(1)
    return total / jnp.maximum(valid.reshape(x.shape[0], -1).sum(1), 1)
