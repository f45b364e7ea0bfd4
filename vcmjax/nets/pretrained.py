"""Trained task networks as single files: those shipped for the rooms, and a user's own."""

import hashlib
import importlib.resources
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

from vcmjax.errors import DataError
from vcmjax.nets.hourglass import Hourglass, hourglass
from vcmjax.tasks import Task


class TaskNetwork(NamedTuple):
    """A frozen task network.

    Attributes:
      task: What it predicts.
      network: Its two halves.
      params: Their parameters, float32.
      fingerprint: Eight hexadecimal digits that change with the parameters.
      scores: ``{"val": {metric: value}, "test": {...}}`` of the uncompressed network.
    """

    task: Task
    network: Hourglass
    params: Any
    fingerprint: str
    scores: dict[str, dict[str, float]]


def save(path: Path, params: Any, scores: dict[str, dict[str, float]]) -> None:
    """Write `params` (as float16) with their scores to one file, whole or not at all."""
    half = jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), params)
    data = flax.serialization.msgpack_serialize({"scores": json.dumps(scores), "params": half})
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(data)
    os.replace(aside, path)


def load(path: Path, task: Task) -> TaskNetwork:
    """Read what `save` wrote.

    Raises:
      DataError: No such file, or not a network for `task`.
    """
    try:
        data = path.read_bytes()
        content = flax.serialization.msgpack_restore(data)
        scores = json.loads(content["scores"])
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), content["params"])
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such task network; train it by experiments.task_networks."
        ) from None
    except Exception as error:
        raise DataError(
            f"{path}: not a task network ({error}); delete it and train again."
        ) from error
    network = hourglass(task)
    expected = jax.eval_shape(lambda: network.init(jax.random.key(0)))
    if jax.tree.map(jnp.shape, params) != jax.tree.map(lambda leaf: leaf.shape, expected):
        raise DataError(
            f"{path}: not a network for {task.name} with {task.channels} channels; "
            "delete it and train again."
        )
    return TaskNetwork(task, network, params, hashlib.sha256(data).hexdigest()[:8], scores)


def shipped(task: Task) -> TaskNetwork:
    """The network of a rooms task that comes with the package.

    Raises:
      DataError: No network is shipped for `task`.
    """
    weights = importlib.resources.files("vcmjax.nets") / "weights" / f"{task.name}.msgpack"
    with importlib.resources.as_file(weights) as path:
        return load(path, task)
