"""Measurements on disk, so that a study that is cut off goes on from the last one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vcmjax.errors import DataError
from vcmjax.evaluate.measure import Measurement


def kept(path: Path, compute: Callable[[], Measurement]) -> Measurement:
    """The measurement in `path`, or the one computed now and left there, whole or not at all.

    Raises:
      DataError: `path` is damaged.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        new = compute()
        named = {f"statistics/{key}": value for key, value in new.statistics.items()}
        plain = {k: v for k, v in new._asdict().items() if k != "statistics"}
        aside = path.with_suffix(".part.npz")
        np.savez(aside, allow_pickle=False, **named, **plain)
        aside.replace(path)
    try:
        with np.load(path) as file:
            saved = dict(file)
        statistics = {k.removeprefix("statistics/"): v for k, v in saved.items() if "/" in k}
        plain = {k: v for k, v in saved.items() if "/" not in k}
        return Measurement(**plain, statistics=statistics)
    except Exception as error:  # damaged archives raise from EOFError to NotImplementedError
        raise DataError(f"{path}: not a measurement ({error}); delete it and run again.") from error
