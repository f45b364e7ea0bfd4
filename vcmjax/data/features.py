"""Features of a split under a frozen task network, extracted once and cached on disk."""

import os
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vcmjax.data import loader
from vcmjax.errors import DataError
from vcmjax.nets.pretrained import TaskNetwork
from vcmjax.train import augment
from vcmjax.train.task_network import Progress

_BATCH = 32


class Split(NamedTuple):
    """One split as arrays with a leading axis of images (times views, for training).

    Attributes:
      feature: (N, h, w, C) float32.
      output: The head's output on `feature`, float16.
      label: As in `vcmjax.tasks`; training labels of pixel tasks at the output's stride, others
        whole.
      image_shape: (height, width) in pixels.
    """

    feature: np.ndarray
    output: np.ndarray
    label: np.ndarray
    image_shape: tuple[int, int]


def extract(
    source: loader.Source,
    network: TaskNetwork,
    cache: Path,
    *,
    training: bool,
    views: int = 1,
    progress: Progress = iter,
) -> Split:
    """Features of `source`, from `cache` if they are there.

    Args:
      source: Examples that label `network.task`.
      network: Frozen.
      cache: File to read, or to write whole or not at all.
      training: Keep labels at the output's stride only.
      views: Random views per image, the first being the image itself (class and segmentation
        tasks); small data sets then teach a codec more of the feature's distribution.
      progress: Wraps the batches.

    Raises:
      DataError: An example cannot be read.
    """
    if cache.exists():
        try:
            with np.load(cache) as saved:
                height, width = saved["image_shape"]
                return Split(
                    saved["feature"], saved["output"], saved["label"], (int(height), int(width))
                )
        except Exception:  # damaged archives raise from EOFError to NotImplementedError
            cache.unlink()  # written by another version, or damaged on disk: made anew below
    task, params = network.task, network.params
    stride = network.network.output_stride

    @jax.jit
    def run(image, label, key):
        if key is not None:
            keys = jax.random.split(key, len(image))
            image, label = jax.vmap(lambda k, i, v: _view(task, k, i, v))(keys, image, label)
        feature = network.network.encode(params, image)
        output = network.network.decode(params, feature).astype(jnp.float16)
        if training and task.kind != "class":
            label = label[:, stride // 2 :: stride, stride // 2 :: stride]
        return feature, output, label

    parts: list[tuple[np.ndarray, ...]] = []
    shape = (0, 0)
    for number, batch in enumerate(progress(loader.batches(source, _BATCH))):
        image, label = batch["image"], batch[task.name]
        shape = image.shape[1:3]
        for view in range(views):
            key = jax.random.fold_in(jax.random.key(view), number) if view else None
            parts.append(tuple(np.asarray(a) for a in run(image, label, key)))
    feature, output, label = (np.concatenate(leaves) for leaves in zip(*parts, strict=True))
    if not np.isfinite(feature).all():
        raise DataError(
            f"{task.name}: the task network gives features that are not finite; "
            "delete it and train it again (experiments.task_networks)."
        )
    cache.parent.mkdir(parents=True, exist_ok=True)
    aside = cache.with_name(cache.name + ".part")
    with aside.open("wb") as file:
        np.savez(file, feature=feature, output=output, label=label, image_shape=shape)
    os.replace(aside, cache)
    return Split(feature, output, label, (int(shape[0]), int(shape[1])))


def _view(task, key, image, label):
    view_key, colour_key = jax.random.split(key)
    view = augment.random_view(view_key)
    image = augment.colour_jitter(colour_key, augment.image_view(view, image), strength=0.15)
    return image, augment.label_view(view, label) if task.kind == "segment" else label
