"""Checkpoints by Orbax: written aside and renamed, so that kill -9 leaves the last one whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp


class Checkpoints:
    """The two newest states of one training run."""

    def __init__(self, manager: ocp.CheckpointManager) -> None:
        """Use `opened` instead."""
        self._manager = manager

    def save(self, step: int, state: Any) -> None:
        """Write `state`, a tree of arrays, in the background."""
        self._manager.save(step, args=ocp.args.StandardSave(state))

    def newest(self, like: Any) -> Any | None:
        """The newest state, arrays shaped as in `like`; None when there is none."""
        step = self._manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))


@contextmanager
def opened(directory: Path) -> Iterator[Checkpoints]:
    """Checkpoints under `directory`, created if need be; pending writes finish on leaving."""
    options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
    with ocp.CheckpointManager(Path(directory).absolute(), options=options) as manager:
        yield Checkpoints(manager)
