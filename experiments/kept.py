"""Measurements on disk, so that a study that is cut off goes on from the last one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vcmjax.errors import DataError
from vcmjax.evaluate.measure import Measurement
from vcmjax.io import atomic


def kept(path: Path, compute: Callable[[], Measurement]) -> Measurement:
    """The measurement in `path`, or the one computed now and left there, whole or not at all.

    Raises:
      DataError: `path` is damaged, or cannot be read or written.
    """
    if not path.exists():
        new = compute()
        named = {f"statistics/{key}": value for key, value in new.statistics.items()}
        plain = {k: v for k, v in new._asdict().items() if k != "statistics"}
        with atomic.naming(path, "written"):
            path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.file(path) as file:
            np.savez(file, allow_pickle=False, **named, **plain)
    with atomic.naming(path, "read"), open(path, "rb") as file:
        try:
            with np.load(file) as archive:
                saved = dict(archive)
            statistics = {k.removeprefix("statistics/"): v for k, v in saved.items() if "/" in k}
            plain = {k: v for k, v in saved.items() if "/" not in k}
            return Measurement(**plain, statistics=statistics)
        except Exception as error:  # damaged archives raise from EOFError to NotImplementedError
            raise DataError(
                f"{path}: not a measurement ({error}); delete it and run again."
            ) from error
