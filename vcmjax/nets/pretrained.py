"""Trained task networks on disk: those shipped for the rooms, a user's own, and the released ones.

A small network is one file of float16; one of the Taskonomy release, a hundred times as large, is
a directory of float32 that Orbax writes, ``network.json`` beside it.
"""

import hashlib
import importlib.resources
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

from vcmjax import arrays
from vcmjax.errors import DataError, VcmError
from vcmjax.io import atomic, files
from vcmjax.nets import hourglass, small_hourglass
from vcmjax.nets.hourglass import Hourglass
from vcmjax.tasks import Task

Scores = dict[str, dict[str, float]]
_FORMAT = 1
_ABOUT = 1 << 20
"""Bytes that what is not weights may take."""


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
    """Write `params` with their scores to `path`, a file or a directory, whole or not at all.

    Raises:
      DataError: `path` holds something else; it cannot be written.
      VcmError: A weight is not finite, of a small network in float16.
    """
    kept = stored(network, params)
    if not _finite(kept):
        kind = "float16" if network.name == "small" else "float32"
        raise VcmError(f"{path}: weights that are not finite in {kind}; the training has diverged")
    if network.name == "small":
        content = {"scores": json.dumps(scores), "params": kept, "digest": _digest(kept, scores)}
        with atomic.naming(path, "written"):
            path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, flax.serialization.msgpack_serialize(content))
        return
    with atomic.naming(path, "written"):
        foreign = path.is_dir() and any(path.iterdir()) and not (path / "network.json").exists()
    if foreign:
        raise DataError(f"{path}: exists and is not a network; name another directory.")
    with atomic.directory(path) as aside:
        arrays.save(aside / "params", kept)
        about = {
            "format": _FORMAT,
            "name": network.name,
            "digest": arrays.digest(kept),
            "scores": scores,
        }
        (aside / "network.json").write_text(json.dumps(about, indent=1) + "\n")


def stored(network: Hourglass, params: Any) -> Any:
    """`params` as `save` keeps them: those of a small network in half precision."""
    kind = np.float16 if network.name == "small" else np.float32
    with np.errstate(over="ignore"):  # what overflows is refused
        return jax.tree.map(lambda leaf: np.asarray(leaf).astype(kind), params)


def digest(network: TaskNetwork) -> str:
    """SHA-256 of the parameters as they are stored and of the scores, in hexadecimal digits."""
    return _digest(stored(network.network, network.params), network.scores)


def load(path: Path, task: Task) -> TaskNetwork:
    """Read what `save` wrote.

    Raises:
      DataError: No such file or directory, a damaged one, or not a network for `task`.
      UsageError: `path` is of the Taskonomy release, which has no network for `task`.
    """
    arrays.check_process()
    atomic.recover(path)
    return _load_released(path, task) if path.is_dir() else _load_small(path, task)


def _load_small(path: Path, task: Task) -> TaskNetwork:
    network = small_hourglass.hourglass(task)
    expected = _expected(network)
    bytes_of_all = 4 * sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(expected))
    try:
        data = files.read(path, bytes_of_all + _ABOUT)
        content = flax.serialization.msgpack_restore(data)
        scores = _scores(json.loads(content["scores"]))
        kept = content["params"]
        if "digest" in content and content["digest"] != _digest(kept, scores):
            raise ValueError("its weights or scores do not match its digest")
        if _shapes(kept) == _shapes(expected):
            params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), kept)
        else:
            params = None
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such task network; train it by experiments.task_networks, or convert "
            "released weights by vcmjax convert."
        ) from None
    except Exception as error:
        raise DataError(
            f"{path}: not a task network ({error}); delete it and train again."
        ) from error
    if params is None:
        raise DataError(
            f"{path}: not a network for {task.name} with {task.channels} channels; "
            "delete it and train again."
        )
    if not _finite(params):
        raise DataError(f"{path}: weights that are not finite; delete it and train again.")
    return TaskNetwork(task, network, params, hashlib.sha256(data).hexdigest()[:8], scores)


def _load_released(path: Path, task: Task) -> TaskNetwork:
    network = hourglass.hourglass(task)
    again = "convert it again by vcmjax convert."
    try:
        about = json.loads(files.read(path / "network.json", _ABOUT))
        found, name = about["format"], about["name"]
        digest, scores = str(about["digest"]), _scores(about["scores"])
    except FileNotFoundError as error:
        raise DataError(f"{path}: not a converted network ({error.filename}); {again}") from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{path}: network.json is damaged ({error!r}); {again}") from None
    if found != _FORMAT:
        raise DataError(f"{path}: format {found}; expected {_FORMAT}; {again}")
    if name != network.name:
        raise DataError(f"{path}: the network of {name}; expected that of {task.name}; {again}")
    try:
        params = arrays.load(path / "params", _expected(network))
    except DataError as error:
        raise DataError(f"{path}: damaged ({error}); {again}") from error
    if arrays.digest(params) != digest:
        raise DataError(f"{path}: its arrays do not match its digest: damaged; {again}")
    if not _finite(params):
        raise DataError(f"{path}: weights that are not finite; {again}")
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


def _digest(kept: Any, scores: Scores) -> str:
    text = arrays.digest(kept) + json.dumps(scores, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _finite(params: Any) -> bool:
    return all(bool(np.isfinite(np.asarray(leaf)).all()) for leaf in jax.tree.leaves(params))


def _scores(found: Any) -> Scores:
    """What was read, if it is scores.

    Raises:
      ValueError: It is something else.
    """
    splits = found.values() if isinstance(found, dict) else [None]
    for of in splits:
        if not isinstance(of, dict) or not all(isinstance(x, int | float) for x in of.values()):
            raise ValueError("scores are no numbers by name")
    return found
