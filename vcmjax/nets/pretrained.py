"""Trained task networks on disk: those shipped for the rooms, a user's own, and the released ones.

A small network is one file of float16; one of the Taskonomy release, a hundred times as large, is
a directory of float32 that Orbax writes, ``network.json`` beside it.
"""

import hashlib
import importlib.resources
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

from vcmjax import arrays
from vcmjax.errors import DataError
from vcmjax.nets import hourglass, small_hourglass
from vcmjax.nets.hourglass import Hourglass
from vcmjax.tasks import Task

Scores = dict[str, dict[str, float]]
_FORMAT = 1


class TaskNetwork(NamedTuple):
    """A frozen task network.

    Attributes:
      task: What it predicts.
      network: Its two halves.
      params: Their parameters, float32.
      fingerprint: Eight hexadecimal digits that change with the parameters.
      scores: ``{"val": {metric: value}, "test": {...}}`` of the uncompressed network; empty where
        they are not known.
    """

    task: Task
    network: Hourglass
    params: Any
    fingerprint: str
    scores: Scores


def save(path: Path, network: Hourglass, params: Any, scores: Scores) -> None:
    """Write `params` with their scores to `path`, a file or a directory, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.part-{os.getpid()}")
    if network.name == "small":
        half = jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), params)
        content = {"scores": json.dumps(scores), "params": half}
        aside.write_bytes(flax.serialization.msgpack_serialize(content))
        os.replace(aside, path)
        return
    try:
        arrays.save(aside / "params", params)
        about = {
            "format": _FORMAT,
            "name": network.name,
            "digest": _digest(params),
            "scores": scores,
        }
        (aside / "network.json").write_text(json.dumps(about, indent=1) + "\n")
        shutil.rmtree(path, ignore_errors=True)
        os.replace(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def load(path: Path, task: Task) -> TaskNetwork:
    """Read what `save` wrote.

    Raises:
      DataError: No such file or directory, a damaged one, or not a network for `task`.
      UsageError: `path` is of the Taskonomy release, which has no network for `task`.
    """
    return _load_released(path, task) if path.is_dir() else _load_small(path, task)


def _load_small(path: Path, task: Task) -> TaskNetwork:
    try:
        data = path.read_bytes()
        content = flax.serialization.msgpack_restore(data)
        scores = json.loads(content["scores"])
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), content["params"])
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such task network; train it by experiments.task_networks, or convert "
            "released weights by vcmjax convert."
        ) from None
    except Exception as error:
        raise DataError(
            f"{path}: not a task network ({error}); delete it and train again."
        ) from error
    network = small_hourglass.hourglass(task)
    if _shapes(params) != _shapes(_expected(network)):
        raise DataError(
            f"{path}: not a network for {task.name} with {task.channels} channels; "
            "delete it and train again."
        )
    return TaskNetwork(task, network, params, hashlib.sha256(data).hexdigest()[:8], scores)


def _load_released(path: Path, task: Task) -> TaskNetwork:
    network = hourglass.hourglass(task)
    again = "convert it again by vcmjax convert."
    try:
        about = json.loads((path / "network.json").read_text())
        found, name = about["format"], about["name"]
        digest, scores = about["digest"], about["scores"]
    except FileNotFoundError as error:
        raise DataError(f"{path}: not a converted network ({error.filename}); {again}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: network.json is damaged ({error!r}); {again}") from None
    if found != _FORMAT:
        raise DataError(f"{path}: format {found}; expected {_FORMAT}; {again}")
    if name != network.name:
        raise DataError(f"{path}: the network of {name}; expected that of {task.name}; {again}")
    try:
        params = arrays.load(path / "params", _expected(network))
    except Exception as error:  # Orbax raises many types on damaged files and on other shapes
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"{path}: damaged ({reason}); {again}") from error
    if _digest(params) != digest:
        raise DataError(f"{path}: its arrays do not match its digest: damaged; {again}")
    return TaskNetwork(task, network, params, digest[:8], scores)


def shipped(task: Task) -> TaskNetwork:
    """The network of a rooms task that comes with the package.

    Raises:
      DataError: No network is shipped for `task`.
    """
    weights = importlib.resources.files("vcmjax.nets") / "weights" / f"{task.name}.msgpack"
    with importlib.resources.as_file(weights) as path:
        return load(path, task)


def _expected(network: Hourglass) -> Any:
    return jax.eval_shape(lambda: network.init(jax.random.key(0), hourglass.SIZE))


def _shapes(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.shape, params)


def _digest(params: Any) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()
