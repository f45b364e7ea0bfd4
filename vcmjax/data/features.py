"""Features of a split under a frozen task network, with its labels: extracted once, kept on disk.

A split is a `store` directory of shards, so that extraction streams, goes on where it was stopped,
and can be shared among processes. Features are kept as float16, half the size of float32.
"""

import contextlib
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vcmjax.data import loader, store
from vcmjax.errors import DataError
from vcmjax.nets.pretrained import TaskNetwork
from vcmjax.tasks import Task
from vcmjax.train import augment

log = logging.getLogger(__name__)

_BATCH = 32
_SHARD = 512


class Split(NamedTuple):
    """One split in memory; leading axis images.

    Attributes:
      feature: (N, h, w, C) float32.
      label: As in `vcmjax.tasks`, whole.
      image_shape: (height, width) in pixels.
    """

    feature: np.ndarray
    label: np.ndarray
    image_shape: tuple[int, int]


def extract(
    source: loader.Source,
    network: TaskNetwork,
    directory: Path,
    *,
    training: bool,
    views: int = 1,
    dtype: Any = None,
    shards: tuple[int, int] = (0, 1),
    wait: Callable[[], object] = lambda: None,
    progress: store.Progress = iter,
) -> store.Store:
    """The store of `source` at `directory`; only shards missing or damaged there are computed.

    Its arrays are ``feature`` (h, w, C) float16 and ``label``; its `about` has ``image_shape``.
    View v of image i, which is the image itself for v = 0, is example i·views + v.

    Args:
      source: Examples that label `network.task`, all of one size.
      network: Frozen.
      directory: Its name must tell source, network and options from others.
      training: Keep labels of pixel tasks at the stride of the network's output only, and those
        of dense tasks as float16.
      views: Random views per image, the first being the image itself (class and segmentation
        tasks); small data sets then teach a codec more of the feature's distribution.
      dtype: To compute in, e.g. ``jnp.bfloat16``; None for float32.
      shards: This process and the number of processes, each of which extracts its share.
      wait: Returns when all processes have done so. What then is missing, because the others write
        to disks of their own, is extracted here too.
      progress: Wraps the shards to extract.

    Raises:
      DataError: An example cannot be read or has another size than the first; a feature is not
        finite, or too large for float16; `directory` cannot be written, or its ``store.json`` is
        damaged or another's.
    """
    identity = directory.name
    if (directory / "store.json").exists():
        with contextlib.suppress(DataError):
            return store.open_store(directory, identity)
        # Unfinished, or damaged: what is whole is kept.
        if removed := store.verify(directory, identity, remove=True):
            shown = ", ".join(map(str, removed))
            log.warning("%s: damaged shards are extracted anew: %s", directory, shown)
    task, full = network.task, network.network
    first = source[0]
    size = first["image"].shape[:2]

    def kept(label: np.ndarray) -> np.ndarray:
        if not training or task.kind == "class":
            return label
        stride = full.output_stride
        label = label[:, stride // 2 :: stride, stride // 2 :: stride]
        return label.astype(np.float16) if task.kind == "dense" else label

    @jax.jit
    def seen(params, image, label, key, index):
        if key is not None:
            keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
            image, label = jax.vmap(functools.partial(_view, task))(keys, image, label)
        return full.encode(params, image, dtype), label

    def produce(start: int, stop: int) -> dict[str, np.ndarray]:
        images = range(start // views, stop // views)
        batches = loader.batches(loader.Subset(source, images), _BATCH)
        parts: list[list[np.ndarray]] = []
        for begin, batch in zip(images[::_BATCH], batches, strict=True):
            image, label = batch["image"], batch[task.name]
            if image.shape[1:3] != size:
                raise DataError(
                    f"{task.name}: an image of {image.shape[1:3]} pixels among images of {size}; "
                    "expected one size."
                )
            index = np.arange(begin, begin + len(image))
            by_view = []
            for view in range(views):
                key = jax.random.key(view) if view else None
                feature, label_seen = seen(network.params, image, label, key, index)
                by_view.append((np.asarray(feature), kept(np.asarray(label_seen))))
            # Views of one image side by side, so that a shard needs no image of another.
            stacked = [np.stack(leaves, axis=1) for leaves in zip(*by_view, strict=True)]
            parts.append([leaf.reshape(-1, *leaf.shape[2:]) for leaf in stacked])
        feature, label = (np.concatenate(leaves) for leaves in zip(*parts, strict=True))
        return {"feature": feature, "label": label}

    feature = jax.eval_shape(full.encode, network.params, first["image"][None])
    label = kept(np.asarray(first[task.name])[None])
    write = functools.partial(
        store.write,
        directory,
        identity,
        len(source) * views,
        max(1, _SHARD // views) * views,
        {"feature": (feature.shape[1:], np.float16), "label": (label.shape[1:], label.dtype)},
        produce,
        nan=("label",),
        about={"image_shape": list(size), "task": task.name, "views": views},
        progress=progress,
    )
    write(shards=shards)
    wait()
    write()
    return store.open_store(directory, identity)


def load(extracted: store.Store) -> Split:
    """All of a store in memory, for measuring."""
    height, width = extracted.about["image_shape"]
    feature = extracted.array("feature").astype(np.float32)
    return Split(feature, extracted.array("label"), (height, width))


def _view(task: Task, key: jax.Array, image: jax.Array, label: jax.Array):
    view_key, colour_key = jax.random.split(key)
    view = augment.random_view(view_key)
    image = augment.colour_jitter(colour_key, augment.image_view(view, image), strength=0.15)
    return image, augment.label_view(view, label) if task.kind == "segment" else label
