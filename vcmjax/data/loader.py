"""Batches from a random-access source: seeded shuffle, shards, augmentation, read-ahead."""

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import grain
import numpy as np

from vcmjax.errors import DataError, UsageError

Example = dict[str, np.ndarray]


class Source(Protocol):
    """What a data set is: examples by index, each ``{"image": ..., task: label}``."""

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, index: int, /) -> Example:
        """Example `index`; `DataError` if it cannot be read."""


class Subset:
    """The examples of `source` at `indices`, in that order."""

    def __init__(self, source: Source, indices: Sequence[int]):
        """Wraps without reading."""
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        """Number of examples kept."""
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        """Example `index` of those kept."""
        return self.source[self.indices[index]]


class Advised:
    """The examples of `source`; what is said of one that cannot be read ends in a remedy.

    Which there is, beside replacing a file, a command knows by its options.
    """

    def __init__(self, source: Source, remedy: str):
        """Wraps without reading."""
        self.source, self.remedy = source, remedy

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        """Example `index`."""
        try:
            return self.source[index]
        except DataError as error:
            raise DataError(f"{error} {self.remedy}") from error


def batches(
    source: Source,
    batch: int,
    *,
    seed: int = 0,
    shuffle: bool = False,
    epochs: int | None = 1,
    shard: tuple[int, int] = (0, 1),
    start: int = 0,
    transform: Callable[[Example, np.random.Generator], Example] | None = None,
    drop_remainder: bool = False,
    workers: int = 4,
) -> Iterator[Example]:
    """Stacked examples; the same arguments give the same batches, on any number of workers.

    Batches run across the end of an epoch, so only the very last one can be short.

    Args:
      source: Random-access examples.
      batch: Examples per batch, per shard.
      seed: Non-negative; sets shuffle and augmentation.
      shuffle: Reorder all examples, differently in each epoch.
      epochs: Passes over the source; None for ever.
      shard: This process and the number of processes, ``(jax.process_index(),
        jax.process_count())``. Shard p of P holds examples p, p + P, ... of the one stream that
        all share, so P processes with batches of b see the batches of one process with P·b. Their
        lengths can differ by one: train with ``epochs=None`` if processes step together.
      start: Batches to pass over, without reading them: those used before an interruption.
      transform: Random augmentation, given a generator of its own for each example and epoch.
      drop_remainder: Leave out a short last batch.
      workers: Threads that read ahead, by two batches; 0 reads in the caller.

    Yields:
      Each entry stacked on a new first axis.

    Raises:
      UsageError: An argument out of range, or no batch would come out.
      DataError: A bad example, or examples of different shapes.
    """
    index, count = shard
    if (
        batch < 1
        or not 0 <= index < count
        or (epochs is not None and epochs < 1)
        or min(seed, start) < 0
    ):
        raise UsageError(
            f"batches: {batch=}, {shard=}, {epochs=}, {seed=}, {start=} is out of range."
        )
    total = len(source) * (1 if epochs is None else epochs)
    mine = len(range(index, total, count))
    if not len(source) or (epochs is not None and mine < (batch if drop_remainder else 1)):
        raise UsageError(
            f"batches: no batch of {batch} from {mine} examples (of {len(source)}, {shard=}, "
            f"{epochs=}). Use a smaller batch or fewer processes."
        )
    # Grain counts seeds up by epoch, so neighbouring seeds must first be spread apart.
    order, augment = (int(s) for s in np.random.SeedSequence(seed).generate_state(2))
    data = grain.MapDataset.source(source)
    if shuffle:
        data = data.shuffle(order)
    if transform is not None:  # Before the shards part, lest all draw the same numbers.
        data = data.random_map(transform, seed=augment)
    buffer = max(2 * batch, workers) if workers else 0
    ahead = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=buffer)
    end = sys.maxsize if epochs is None else total
    stream = _Stream(data, range(index + start * batch * count, end, count)).to_iter_dataset(ahead)
    return iter(stream.batch(batch, drop_remainder=drop_remainder, batch_fn=_stack))


class _Stream(grain.MapDataset):
    """`data` at `positions`, which run on through its epochs."""

    def __init__(self, data: grain.MapDataset, positions: range):
        super().__init__(data)
        self._data, self._positions = data, positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, i: int) -> Example:
        return self._data[self._positions[i]]


def checked(
    source: Source,
    skip_bad: bool,
    progress: Callable[[Iterable, int], Iterable] = lambda items, total: items,
    workers: int = 4,
) -> tuple[Source, list[tuple[int, str]]]:
    """Optionally leaves out the examples that cannot be read.

    Args:
      source: Random-access examples.
      skip_bad: Read every example once, in threads, and keep the good ones. False does nothing:
        the first bad example then raises when it is read.
      progress: Wraps the iteration over ``(items, total)`` to show it.
      workers: Reading threads.

    Returns:
      The source, or a `Subset` of it, and (index, message) of each example left out.

    Raises:
      DataError: No example can be read; says what is wrong with the first.
    """
    if not skip_bad:
        return source, []
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        read = pool.map(functools.partial(_complaint, source), range(len(source)))
        complaints = list(progress(read, len(source)))
    skipped = [(i, complaint) for i, complaint in enumerate(complaints) if complaint]
    if len(skipped) == len(source):
        raise DataError(f"none of {len(source)} examples can be read. First: {skipped[0][1]}")
    bad = {i for i, _ in skipped}
    return Subset(source, [i for i in range(len(source)) if i not in bad]), skipped


def _complaint(source: Source, index: int) -> str:
    try:
        source[index]
    except DataError as error:
        return str(error)
    return ""


def _stack(examples: Sequence[Any]) -> Any:
    """One dictionary or named tuple of arrays, like each of `examples`; what is None stays so."""
    kind = type(examples[0])
    named = [one if isinstance(one, dict) else one._asdict() for one in examples]
    stacked: dict[str, Any] = {}
    for name, first in named[0].items():
        if first is None:
            stacked[name] = None
            continue
        arrays = [np.asarray(example[name]) for example in named]
        if shapes := {a.shape for a in arrays} - {arrays[0].shape}:
            raise DataError(
                f"{name}: expected one shape per batch, found {arrays[0].shape} and "
                f"{min(shapes)}. State a common size, or use batches of one."
            )
        stacked[name] = np.stack(arrays)
    return kind(**stacked)
