"""A tree of arrays as a directory, written and read by Orbax, whatever other processes do."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.options import MultiprocessingOptions


def save(directory: Path, tree: Any) -> None:
    """Write `tree` to `directory`, which must not exist yet."""
    with _checkpointer() as checkpointer:
        checkpointer.save(directory.absolute(), jax.tree.map(np.asarray, tree))


def load(directory: Path, like: Any) -> Any:
    """What `save` wrote, on this process's first device, with the shapes and types of `like`.

    Orbax raises errors of many types on damaged files, and none on some other shapes.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    described = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), like
    )
    with _checkpointer() as checkpointer:
        return checkpointer.restore(directory.absolute(), described)


def _checkpointer() -> ocp.StandardCheckpointer:
    # Without this, Orbax waits for all processes, of which only one may be saving or loading.
    process = jax.process_index()
    alone = MultiprocessingOptions(primary_host=process, active_processes={process})
    return ocp.StandardCheckpointer(multiprocessing_options=alone)
