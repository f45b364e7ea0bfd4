"""Times of several works, taken in turn so that they share the machine's noise."""

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np
import rich.progress

Key = TypeVar("Key", bound=Hashable)


def medians(works: Mapping[Key, Callable[[], object]], repeats: int) -> dict[Key, float]:
    """Median seconds of each of `works` over `repeats` rounds, after one of each to warm up."""
    for work in works.values():
        work()
    seconds: dict[Key, list[float]] = {key: [] for key in works}
    for _ in rich.progress.track(range(repeats), "rounds"):
        for key, work in works.items():
            start = time.perf_counter()
            work()
            seconds[key].append(time.perf_counter() - start)
    return {key: float(np.median(times)) for key, times in seconds.items()}
