"""What training a task network minimises: the task's own loss on random views of its images."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vcmjax.data import loader
from vcmjax.data.loader import Source
from vcmjax.nets.hourglass import Hourglass
from vcmjax.tasks import Task
from vcmjax.train import augment, losses
from vcmjax.train.loop import Problem

LOSS_STRIDE = 2
"""Image pixels per position at which a pixel loss is taken, along each side."""
Progress = Callable[[Iterable], Iterable]
"""Wraps an iterable to show how far it has come, as `rich.progress.track` does."""


class Labelled(NamedTuple):
    """Images (N, H, W, 3) uint8 and their labels at full size."""

    image: jax.Array | np.ndarray
    label: jax.Array | np.ndarray


def problem(
    task: Task,
    network: Hourglass,
    size: int,
    weights: np.ndarray | None = None,
    encoder: Any = None,
) -> Problem:
    """Training `network` on `Labelled` images of `size` × `size` pixels.

    Args:
      task: Form of labels and loss.
      network: From `small_hourglass.hourglass(task)`.
      size: Image side, in pixels.
      weights: From `losses.class_weights`, for segmentation.
      encoder: Parameters of a trained encoder to start from.
    """

    def reduced(label):
        # Dense labels are read at the stride of the loss; maps of classes stay whole until cropped.
        return label[:, ::LOSS_STRIDE, ::LOSS_STRIDE] if task.kind == "segment" else label

    def example(key, image, label):
        view_key, colour_key = jax.random.split(key)
        if task.kind != "dense":  # a mirrored or scaled view has other normals and depths
            view = augment.random_view(view_key)
            image = augment.image_view(view, image)
            label = augment.label_view(view, label) if task.kind == "segment" else label
        return augment.colour_jitter(colour_key, image.astype(jnp.float32)), label

    def loss(params, keys, run, batch: Labelled, progress):
        image, label = jax.vmap(example)(keys, batch.image, batch.label)
        output = network.decode(params, network.encode(params, image))
        total = losses.to_labels(task, output, reduced(label), weights).mean()
        return total, total[None]

    def validate(params, run, batch: Labelled):
        output = network.decode(params, network.encode(params, batch.image))
        return losses.to_labels(task, output, reduced(batch.label))

    def init(key: jax.Array):
        fresh = network.init(key, size)
        # A copy, as training gives its buffers away.
        return fresh if encoder is None else fresh | {"encoder": jax.tree.map(jnp.array, encoder)}

    return Problem(init, loss, validate, ("loss",))


def read(source: Source, tasks: Sequence[Task], progress: Progress = iter) -> dict[str, Labelled]:
    """The whole of `source` in memory, one `Labelled` per task; dense labels at `LOSS_STRIDE`."""
    images: list[np.ndarray] = []
    labels: dict[str, list[np.ndarray]] = {task.name: [] for task in tasks}
    for batch in progress(loader.batches(source, 32)):
        images.append(batch["image"])
        for task in tasks:
            label = batch[task.name]
            if task.kind == "dense":
                label = label[:, ::LOSS_STRIDE, ::LOSS_STRIDE].astype(np.float16)
            labels[task.name].append(label)
    image = np.concatenate(images)
    return {name: Labelled(image, np.concatenate(parts)) for name, parts in labels.items()}
