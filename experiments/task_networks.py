"""Train the frozen task networks: one small hourglass per task.

Run:    python -m experiments.task_networks [--data rooms|DIR] [--task NAME ...] [--out DIR]
Cost:   about 8 minutes per task on two CPU cores
Expect: one NAME.msgpack per task, its scores inside; those of the rooms ship with the package
"""

import argparse
import contextlib
import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments import harness
from vcmjax.data import SPLITS, dataset, loader
from vcmjax.errors import DataError
from vcmjax.evaluate import measure, metrics
from vcmjax.nets import pretrained
from vcmjax.nets.small_hourglass import hourglass
from vcmjax.tasks import ROOMS, Task
from vcmjax.train import loop, losses, parallel, task_network

log = logging.getLogger("vcmjax")
_CHUNK = 100
SEGMENT = "segment_semantic"


@dataclasses.dataclass(frozen=True)
class Config:
    """What is trained on, and how long.

    Attributes:
      counts: Rooms in train, val and test; a folder has its own.
      steps: Optimiser steps per network, a multiple of 100.
      batch: Images per step.
      learning_rate: Peak.
      weight_decay: Decoupled.
      size: Image side in pixels.
      seed: Of initialisation and batches.
    """

    counts: tuple[int, int, int] = (6000, 400, 400)
    steps: int = 3000
    batch: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    size: int = 128
    seed: int = 0


QUICK = {"steps": 100, "batch": 2, "counts": (16, 8, 8)}


class Origin(NamedTuple):
    """Where a task's network comes from.

    Attributes:
      about: The same in words.
      network: None where it has to be trained first.
    """

    about: str
    network: pretrained.TaskNetwork | None


def origin(data: dataset.Dataset, task: Task, config: Config, cache: Path) -> Origin:
    """Of the network of `task`: shipped for the procedural rooms, in `cache`, or to be trained."""
    if data.procedural:
        return Origin("shipped with vcmjax", pretrained.shipped(ROOMS[task.name]))
    path = _path(data, task, config, cache)
    if path.exists():
        return Origin("trained here before", pretrained.load(path, task))
    return Origin(f"to be trained here first, {config.steps} steps", None)


def network_for(
    data: dataset.Dataset, task: Task, config: Config, cache: Path
) -> pretrained.TaskNetwork:
    """The network of `task`, trained now if `origin` has none.

    Two runs that want the same one do not train it both: the second waits.
    """
    if data.procedural:
        return pretrained.shipped(ROOMS[task.name])
    path = _path(data, task, config, cache)
    scratch = path.parent / path.stem
    waits = not path.exists() and not parallel.devices().process
    with harness.alone(scratch) if waits else contextlib.nullcontext():
        parallel.agree({f"whether {path.name} is there": path.exists()})
        if not path.exists():
            log.info("training a task network on %s first; kept in %s", data.name, path.parent)
            train(data, [task], config, scratch, lambda name: path)
    return pretrained.load(path, task)


def _path(data: dataset.Dataset, task: Task, config: Config, cache: Path) -> Path:
    key = hashlib.sha256(f"{data.identity} {task} {config}".encode()).hexdigest()[:12]
    return cache / "task_networks" / f"{data.name}-{task.name}-{key}.msgpack"


def given(folder: Path, task: Task) -> pretrained.TaskNetwork:
    """The released network of `task` in a folder that ``vcmjax convert`` wrote."""
    if not folder.is_dir():
        raise DataError(f"--networks {folder}: no such folder; expected what vcmjax convert wrote.")
    if not (folder / task.name).is_dir():
        pth = any(folder.glob("*.pth"))
        remedy = f"vcmjax convert {folder if pth else 'WEIGHTS'} --out NETWORKS --task {task.name}"
        raise DataError(f"--networks {folder}: no network {task.name} in it; make it by {remedy}")
    return pretrained.load(folder / task.name, task)


def train(data, tasks: Sequence[Task], config: Config, scratch: Path, path_of) -> None:
    """Train a network for each of `tasks` and save it under ``path_of(task.name)``.

    Args:
      data: From `vcmjax.data.dataset`.
      tasks: Tasks that `data` labels.
      config: How to train.
      scratch: Folder of checkpoints, from which an interrupted run goes on.
      path_of: Task name to file.
    """
    tasks = [task for task in tasks if not path_of(task.name).exists()]
    if not tasks:
        log.info("nothing to train: every network exists already")
        return
    tasks.sort(key=lambda task: task.name != SEGMENT)
    options = loop.Options(
        config.steps, config.batch, config.learning_rate, config.weight_decay, _CHUNK
    )
    examples = {split: data.open(split) for split in SPLITS}
    read = {
        split: task_network.read(
            examples[split],
            tasks,
            harness.tracked(f"reading {split}", -(-len(examples[split]) // 32)),
        )
        for split in ("train", "val")
    }
    checking = harness.tracked("checking test", -(-len(examples["test"]) // 32))
    for _ in checking(loader.batches(examples["test"], 32)):
        pass  # else its first bad example would end the run after the training
    for task in tasks:
        network = hourglass(task)
        data_of = {
            split: task_network.Labelled(*map(jnp.asarray, read[split][task.name]))
            for split in read
        }
        weights = None
        if task.kind == "segment":
            weights = losses.class_weights(task, np.asarray(data_of["train"].label))
        encoder = None
        if task.kind == "class" and SEGMENT in data.tasks and path_of(SEGMENT).exists():
            # A class label alone teaches an encoder little: scene accuracy on validation rooms was
            # 26 % from scratch in 3000 steps, 38 % from the segmentation's encoder in 1200.
            encoder = pretrained.load(path_of(SEGMENT), data.tasks[SEGMENT]).params["encoder"]
        runs = loop.Runs(np.array([config.seed]), np.ones((1, 2), np.float32))
        with harness.steps(f"training {task.name}", config.steps) as progress:
            (result,) = loop.fit(
                task_network.problem(task, network, config.size, weights, encoder),
                data_of["train"],
                data_of["val"],
                options,
                runs,
                scratch / task.name,
                progress,
            )
        scores = {
            split: _scores(task, network, result.params, examples[split])
            for split in ("val", "test")
        }
        pretrained.save(path_of(task.name), network, result.params, scores)
        log.info("%s: %s", task.name, scores)


def _scores(task, network, params, source) -> dict[str, float]:
    parts = []
    for batch in loader.batches(source, 32):
        feature = network.encode(params, jnp.asarray(batch["image"]))
        head = lambda x: network.decode(params, x)  # noqa: E731
        parts.append(measure.head_statistics(task, head, np.asarray(feature), batch[task.name]))
    return metrics.scores(task, metrics.concatenate(parts))


@dataclasses.dataclass(frozen=True)
class _Job(Config):
    """What the networks of one folder have in common: the training, and its data."""

    data: str = "rooms"
    void: int | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module docstring."""
    defaults = _Job()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="rooms", help="'rooms' or a folder")
    parser.add_argument("--task", nargs="+", default=["all"], help="task names, or all")
    parser.add_argument("--out", type=Path, default=Path("runs/task_networks"))
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--void", type=int, help="class index that is not scored, besides 255")
    options = parser.parse_args(arguments)
    config = _Job(steps=options.steps, seed=options.seed, data=options.data, void=options.void)
    with harness.claimed(options.out, config):
        data = (
            dataset.rooms(config.counts, config.size)
            if harness.procedural(config.data)
            else dataset.directory(Path(config.data), config.size, void=config.void)
        )
        names = list(data.tasks) if options.task == ["all"] else options.task
        dataset.check_tasks(names, data.tasks, data.name)
        tasks = [data.tasks[name] for name in names]
        scratch = options.out / "checkpoints"
        train(data, tasks, config, scratch, lambda name: options.out / f"{name}.msgpack")


if __name__ == "__main__":
    harness.main(main)
