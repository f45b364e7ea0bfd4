"""Checkpoints by Orbax: written aside and renamed, so that kill -9 leaves the last one whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.options import MultiprocessingOptions

from vcmjax.errors import DataError


class Checkpoints:
    """The two newest states of one training run; kept by process 0 alone, where there are several.

    They then need no folder that all can see, and any number of processes goes on from them.
    """

    def __init__(self, manager: ocp.CheckpointManager | None) -> None:
        """Use `opened` instead."""
        self._manager = manager

    def save(self, step: int, state: Any) -> None:
        """Write `state`, a tree of arrays, in the background."""
        if self._manager:
            self._manager.save(step, args=ocp.args.StandardSave(state))

    def newest(self, like: Any) -> Any | None:
        """The newest state, of the shapes and types in `like`; None when there is none.

        Raises:
          DataError: The newest is of another form: of another training, or another version's.
        """
        if not self._manager or (step := self._manager.latest_step()) is None:
            return None
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), like
        )
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except ValueError as error:
            raise DataError(
                f"{self._manager.directory / str(step)}: a checkpoint of another form than what is "
                "trained now; expected one by this version of vcmjax and of the same model. Remove "
                f"{self._manager.directory} to train anew."
            ) from error


@contextmanager
def opened(directory: Path) -> Iterator[Checkpoints]:
    """Checkpoints under `directory`, created if need be; pending writes finish on leaving."""
    if jax.process_index():
        yield Checkpoints(None)
        return
    Path(directory).mkdir(parents=True, exist_ok=True)
    alone = MultiprocessingOptions(primary_host=0, active_processes={0})
    options = ocp.CheckpointManagerOptions(
        max_to_keep=2, create=False, multiprocessing_options=alone
    )
    with ocp.CheckpointManager(Path(directory).absolute(), options=options) as manager:
        yield Checkpoints(manager)
