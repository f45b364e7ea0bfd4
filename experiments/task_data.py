"""What a study knows of one task: the features of each split under its frozen network."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import harness
from vcmjax.data import SPLITS, dataset, features, loader, store
from vcmjax.nets.pretrained import TaskNetwork
from vcmjax.tasks import Task
from vcmjax.train import losses, parallel
from vcmjax.train.codec import Features, Goal, with_reference
from vcmjax.train.losses import Target

_VALIDATED = 128
_ON_DEVICE = 2 << 30
"""Bytes of training labels up to which they lie on the device; more are read as they are needed."""
_WEIGHED, _SAMPLED = 2048, 4096


class TaskData(NamedTuple):
    """What every step on one task needs.

    Attributes:
      task: The task.
      network: Frozen.
      head: Its decoder, feature to output.
      train: What `loop.fit` trains on; a source where the labels are too many for a device.
      sample: (N, h, w, C) float16, the first training features.
      weights: Of the classes of a segmentation that is trained towards labels.
      splits: Those to measure, by name.
    """

    task: Task
    network: TaskNetwork
    head: Callable[[jax.Array], jax.Array]
    train: "Features | Streamed"
    sample: np.ndarray
    weights: np.ndarray | None
    splits: dict[str, features.Split]

    def goal(self, target: Target, dtype: Any = None) -> Goal:
        """What a codec is trained for, its network computing in `dtype`."""
        decode = functools.partial(self.network.network.decode, self.network.params, dtype=dtype)
        return Goal(self.task, decode, target, self.weights)


@dataclasses.dataclass
class Reader:
    """Opens the splits of a data set, and extracts their features into a cache.

    Attributes:
      data: The data set.
      cache: Folder of extracted features.
      views: Training views in all, at most, for a data set other than the procedural rooms.
      skip_bad: Leave out examples that cannot be read.
      dtype: To extract in; None for float32.
      remedy: For examples that cannot be read, beside replacing them.
      skipped: What was wrong with each example that was left out.
    """

    data: dataset.Dataset
    cache: Path
    views: int
    skip_bad: bool = False
    dtype: Any = None
    remedy: str = ""
    skipped: list[str] = dataclasses.field(default_factory=list)
    _sources: dict[tuple[str, str], loader.Source] = dataclasses.field(default_factory=dict)

    def source(self, task: Task, split: str) -> loader.Source:
        """Examples of a split; with `skip_bad` those that can be read, the others counted once."""
        if (task.name, split) not in self._sources:
            source = self.data.open(split, task.name)
            if self.skip_bad:
                bar = lambda items, n: harness.tracked(f"checking {split}", n)(items)  # noqa: E731
                source, bad = loader.checked(source, True, bar)
                messages = dict.fromkeys(self.skipped + [message for _, message in bad])
                self.skipped[:] = messages
            elif self.remedy:
                source = loader.Advised(source, self.remedy)
            self._sources[task.name, split] = source
        return self._sources[task.name, split]

    def images(self, task: Task, split: str) -> np.ndarray:
        """Images uint8 (N, H, W, 3) of a split."""
        (images,) = stacked(self.source(task, split), ("image",))
        return images

    def extract(self, task: Task, network: TaskNetwork, split: str) -> store.Store:
        """The features of a split, extracted now unless they are in the cache."""
        source, training = self.source(task, split), split == "train"
        viewed = training and task.kind != "dense" and not self.data.procedural
        views = max(1, self.views // len(source)) if viewed else 1
        kind = jnp.dtype(self.dtype or jnp.float32).name
        name = f"{self.data.identity}-{task.name}-{network.fingerprint}-{kind}"
        name += f"-{split}-{len(source)}x{views}"
        devices = parallel.devices()
        about = f"{task.name}: {split} features"
        return features.extract(
            source,
            network,
            self.cache / "features" / name,
            training=training,
            views=views,
            dtype=self.dtype,
            shards=(devices.process, devices.processes),
            wait=lambda: parallel.agree({"features": name}),
            progress=lambda shards: harness.tracked(about, len(list(shards)))(shards),
        )

    def prepare(self, task: Task, network: TaskNetwork) -> None:
        """Extracts every split, so that all that is wrong with an example is known beforehand."""
        for split in SPLITS:
            self.extract(task, network, split)

    def open(self, task: Task, network: TaskNetwork, target: Target) -> TaskData:
        """What it takes to train towards `target` and to validate; `splits` has ``val`` alone."""
        kept = self.extract(task, network, "train")
        weights = None
        if task.kind == "segment" and target != "network":
            weights = losses.class_weights(task, _some_labels(kept))
        feature = kept.array("feature")
        data = TaskData(
            task,
            network,
            functools.partial(network.network.decode, network.params),
            _training(kept, feature, target),
            feature[:_SAMPLED],
            weights,
            {"val": self.read(task, network, "val")},
        )
        if isinstance(data.train, Streamed):
            return data
        return data._replace(train=with_reference(data.train, data.goal(target, self.dtype)))

    def read(self, task: Task, network: TaskNetwork, split: str) -> features.Split:
        """The features of a split, in memory."""
        return features.load(self.extract(task, network, split))


def stacked(
    source: loader.Source, keys: Sequence[str], count: int | None = None
) -> list[np.ndarray]:
    """Entries `keys` of the first `count` examples, or of all, stacked."""
    some = [source[i] for i in range(len(source))[:count]]
    return [np.stack([each[key] for each in some]) for key in keys]


class Streamed:
    """A store of training features as a source of `Features`, read as they are needed."""

    def __init__(self, kept: store.Store):
        """Wraps without reading."""
        self.kept = kept

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.kept)

    def __getitem__(self, index: int) -> Features:
        """Example `index`."""
        example = self.kept[index]
        return Features(example["feature"], example["label"])


def _training(kept: store.Store, feature: np.ndarray, target: Target) -> Features | Streamed:
    if target == "network":  # which asks for no labels
        return Features(feature, np.zeros(len(kept), np.uint8))
    shape, dtype = kept.arrays["label"]
    if len(kept) * math.prod(shape) * np.dtype(dtype).itemsize > _ON_DEVICE:
        return Streamed(kept)
    return Features(feature, kept.array("label"))


def validation(split: features.Split, stride: int, target: Target) -> Features:
    """What a checkpoint is chosen by: a tenth of the training time at most, labels at `stride`."""
    few = np.linspace(0, len(split.feature) - 1, min(len(split.feature), _VALIDATED)).astype(int)
    label = split.label[few]
    if target == "network":
        label = np.zeros(len(few), np.uint8)
    elif label.ndim > 1:
        label = label[:, stride // 2 :: stride, stride // 2 :: stride]
    return Features(split.feature[few], label)


def _some_labels(kept: store.Store) -> np.ndarray:
    """Labels of training examples spread over the whole, enough to count classes by."""
    few = np.linspace(0, len(kept) - 1, min(len(kept), _WEIGHED)).astype(int)
    return np.stack([kept[int(i)]["label"] for i in few])
