"""A tree of arrays as a directory, written and read by Orbax, whatever other processes do.

Beside it a digest of such a tree, and the check that JAX is not used across a fork.
"""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from orbax.checkpoint.options import MultiprocessingOptions

from vcmjax.errors import DataError, VcmError
from vcmjax.io import files

MOST_UNPAID = 1 << 30
"""Bytes of arrays that are read without a hundredth of them being there: those of one value take
next to nothing on disk."""
_ABOUT = b"/.zarray"
_FORM = {
    "compressor": {"id": "zstd", "level": 1},
    "dimension_separator": ".",
    "fill_value": None,
    "filters": None,
    "order": "C",
    "zarr_format": 2,
}
"""How Orbax stores each array, beside its shape, chunks and type."""
_user: int | None = None
"""The process that first used JAX by way of this package; inherited by what it forks."""


def check_process() -> None:
    """Refuse a process that was forked from one that had used JAX, where any computation hangs.

    Raises:
      VcmError: This is one.
    """
    global _user
    _user = _user or os.getpid()
    if _user != os.getpid():
        raise VcmError(
            f"this process was forked from process {_user} after JAX had been used there, and "
            "would hang, as JAX's threads are not copied: start processes by the method 'spawn' or "
            "'forkserver' (multiprocessing.get_context), or fork before the first use"
        )


def digest(tree: Any) -> str:
    """SHA-256 of all arrays and of their places, in hexadecimal digits."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        found.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return found.hexdigest()


def save(directory: Path, tree: Any) -> None:
    """Write `tree` to `directory`, which must not exist yet.

    Raises:
      DataError: It cannot be written.
    """
    try:
        with _checkpointer() as checkpointer:
            checkpointer.save(directory.absolute(), jax.tree.map(np.asarray, tree))
    except Exception as error:  # Orbax raises many types where a disk is full
        raise DataError(
            f"{directory}: cannot be written ({first_line(error)}); check permissions and space"
        ) from error


def load(directory: Path, like: Any) -> Any:
    """What `save` wrote, on this process's first device, with the shapes and types of `like`.

    Raises:
      DataError: There are other arrays, or of other shapes, or they cannot be read.
    """
    try:
        return _load(directory.absolute(), like)
    except DataError:
        raise
    except Exception as error:  # Orbax raises many types on damaged files
        raise DataError(f"{directory}: cannot be read ({first_line(error)})") from error


def first_line(error: Exception) -> str:
    """What an error says, without what libraries add for those who wrote them."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text[:200]}"


def _load(directory: Path, like: Any) -> Any:
    stored = sum(path.stat().st_size for path in files.regular(directory).values())
    wanted = _leaves(like)
    needed = sum(4 * math.prod(leaf.shape) for leaf in wanted.values())
    if needed > MOST_UNPAID + 100 * stored:
        raise DataError(f"{directory}: has {stored} bytes, too few for {needed} bytes of arrays")
    _compare(directory, wanted)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    described = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), like
    )
    with _checkpointer() as checkpointer:
        return checkpointer.restore(directory, described)


def _compare(directory: Path, wanted: dict[str, Any]) -> None:
    """Refuse arrays of other names, shapes or forms than `save` gives them.

    Orbax would cut or fill them up in silence; and where it finds one of a form that it cannot
    read among others, it ends the process.
    """
    base = {"driver": "file", "path": f"{directory}/"}
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    keys = [key for key in store.list().result() if key.endswith(_ABOUT)]
    found = {key.removesuffix(_ABOUT).decode(): json.loads(store.read(key).result().value)
             for key in keys}  # fmt: skip
    if other := sorted(found.keys() ^ wanted.keys()):
        what = "lacks" if other[0] in wanted else "holds"
        raise DataError(f"{directory}: {what} {other[0]}, unlike this model")
    for name, leaf in wanted.items():
        about = dict(found[name])
        shape, chunks = (tuple(about.pop(part, ())) for part in ("shape", "chunks"))
        if shape != leaf.shape:
            raise DataError(f"{directory}: {name} is of shape {shape}; expected {leaf.shape}")
        if len(chunks) != len(shape) or math.prod(chunks) > max(math.prod(shape), 1):
            raise DataError(
                f"{directory}: {name} is stored in chunks of {chunks}, beyond its shape"
            )
        dtype = np.dtype(leaf.dtype)
        expected = _FORM | {"dtype": str(dtype) if dtype.kind == "V" else dtype.str}
        if about != expected:
            raise DataError(f"{directory}: {name} is stored as {about!r:.300}; expected {expected}")


def _leaves(tree: Any) -> dict[str, Any]:
    """Arrays by the names that Orbax stores them under, of named tuples as of dicts."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(map(_key, path)): leaf for path, leaf in leaves}


def _key(entry: Any) -> str:
    """One part of a name: a field, a key or an index."""
    return str(next(getattr(entry, of) for of in ("name", "key", "idx") if hasattr(entry, of)))


def _checkpointer() -> ocp.StandardCheckpointer:
    # Without this, Orbax waits for all processes, of which only one may be saving or loading.
    process = jax.process_index()
    alone = MultiprocessingOptions(primary_host=process, active_processes={process})
    return ocp.StandardCheckpointer(multiprocessing_options=alone)
