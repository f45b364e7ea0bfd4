"""Arrays of many examples on disk: written once in shards, resumable, checksummed, read by index.

    store.json              identity, counts, arrays, whatever the writer wants to say, and a CRC-32
    shard-00000/NAME.npy    the first examples of one array; `np.load` reads or maps it
    shard-00000/crc32.json  the CRC-32 of each of these files

A shard gets its name by one rename once all of it is on disk, see `vcmjax.io.atomic`: it is there
whole or not at all.
"""

import contextlib
import dataclasses
import fcntl
import json
import logging
import math
import os
import re
import secrets
import shutil
import stat
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from vcmjax.errors import DataError, UsageError
from vcmjax.io import atomic

log = logging.getLogger(__name__)

_STORE, _CHECKSUMS = "store.json", "crc32.json"
_DTYPE = re.compile("bool|u?int(8|16|32|64)|float(16|32|64)")
_NAME = re.compile(r"\w[\w.-]{0,99}", re.ASCII)
_MAX_SHARDS, _MAX_JSON, _BLOCK = 100_000, 1 << 20, 1 << 17
_ANOTHER = "delete it and make it again, or name another directory"
_REMAKE = "remove it by verify(directory, remove=True), then run what wrote the store again"
Progress = Callable[[Iterable], Iterable]
_TICK = 50_000_000
"""Nanoseconds within which a file may change twice and bear the same time."""
_measured: dict[str, tuple[tuple[int, ...], int]] = {}
"""State of a file, by which a change is noticed, and CRC-32 that this process found, by path."""


@dataclasses.dataclass(frozen=True)
class Store:
    """What ``store.json`` says; from `open_store`, a source of examples: ``store[i]``.

    Each read opens its file anew. That costs microseconds, keeps nothing open however many shards
    there are, and makes a failing disk an error, where a memory map would end the process. Threads
    and processes may read at once.

    Attributes:
      directory: Where it is.
      identity: What the arrays were made from and by.
      count: Number of examples.
      shard_size: Examples per shard; the last may have fewer.
      arrays: Shape of one example and dtype, by name.
      about: What else the writer said.
    """

    directory: Path
    identity: str
    count: int
    shard_size: int
    arrays: dict[str, tuple[tuple[int, ...], str]]
    about: dict[str, Any]

    def __len__(self) -> int:
        """Number of examples."""
        return self.count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """A copy of example `index`. Raises IndexError, or DataError if it cannot be read."""
        shard, row = divmod(range(self.count)[index], self.shard_size)
        return {name: self._read(name, shard, row, 1)[0] for name in self.arrays}

    def array(self, name: str) -> np.ndarray:
        """All of one array, (count, ...), in memory. Raises DataError: none such, or unreadable."""
        if name not in self.arrays:
            raise DataError(f"{self.directory}: no array {name}, only {', '.join(self.arrays)}.")
        shape, dtype = self.arrays[name]
        whole = np.empty((self.count, *shape), dtype)
        for shard in range(self.shards):
            start, stop = self.span(shard)
            whole[start:stop] = self._read(name, shard, 0, stop - start)
        return whole

    @property
    def shards(self) -> int:
        """Number of shards, finished or not."""
        return -(-self.count // self.shard_size)

    def span(self, shard: int) -> tuple[int, int]:
        """First example of a shard, and the one past its last."""
        return shard * self.shard_size, min((shard + 1) * self.shard_size, self.count)

    def _path(self, shard: int) -> Path:
        return self.directory / f"shard-{shard:05d}"

    def _finished(self) -> list[int]:
        return [shard for shard in range(self.shards) if self._path(shard).exists()]

    def _read(self, name: str, shard: int, row: int, rows: int) -> np.ndarray:
        """Some rows of a file whose form `_check` has seen."""
        shape, dtype = self.arrays[name]
        path, size = self._path(shard) / f"{name}.npy", math.prod(shape)
        try:
            with open(path, "rb") as file:
                head = file.read(10)
                begin = 10 + int.from_bytes(head[8:], "little")  # the format 1.0 of .npy
                file.seek(begin + row * size * np.dtype(dtype).itemsize)
                return np.fromfile(file, dtype, rows * size).reshape(rows, *shape)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not readable ({error}); {_REMAKE}.") from None

    def _measure(self) -> None:
        """Lets `_check` find each checksum measured, by as many threads as there are processors.

        It does not run in threads itself: those that parse headers at once disturb each other in
        Python 3.11.
        """

        def measure(path: Path) -> None:
            with contextlib.suppress(OSError, ValueError):  # which `_check` will raise again
                _crc32(path, again=False)

        paths = (self._path(s) / f"{name}.npy" for s in range(self.shards) for name in self.arrays)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(measure, paths))

    def _check(self, shard: int, checksums: bool, again: bool = False) -> None:
        """Raises DataError if a finished shard is damaged; only `checksums` reads the numbers."""
        path, (start, stop) = self._path(shard) / _CHECKSUMS, self.span(shard)
        try:
            crcs = json.loads(_read_json(path))
            for name, (shape, dtype) in self.arrays.items():
                path = self._path(shard) / f"{name}.npy"
                size = _status(path).st_size
                found = np.load(path, mmap_mode="r", allow_pickle=False)
                if (found.shape, found.dtype) != ((stop - start, *shape), np.dtype(dtype)):
                    raise ValueError(f"expected {stop - start} x {shape} {dtype}")
                if found.offset + found.nbytes != size:
                    raise ValueError("longer than its array")
                if checksums and _crc32(path, again) != crcs.get(name):
                    raise ValueError("not the bytes that were written")
        except Exception as error:  # np.load raises whatever it likes about hostile headers
            raise DataError(f"{path}: damaged ({error}); {_REMAKE}.") from None


def open_store(
    directory: str | os.PathLike[str], identity: str | None = None, *, checksums: bool = True
) -> Store:
    """A complete store, ready to read, once its files have been compared with their checksums.

    That takes about a second per gigabyte and processor the first time in a process, and nothing
    again until a file changes.

    Args:
      directory: Where `write` made it.
      identity: What its identity must be; None takes any.
      checksums: Whether to; without, files are checked for form and length alone.

    Raises:
      DataError: No store there; one that is unfinished, damaged, or of another identity.
    """
    store = _load(Path(directory), identity)
    if missing := store.shards - len(store._finished()):
        raise DataError(
            f"{directory}: {missing} of {store.shards} shards missing: "
            "run what wrote the store again to finish it."
        )
    if checksums:
        store._measure()
    for shard in range(store.shards):
        store._check(shard, checksums)
    return store


def verify(
    directory: str | os.PathLike[str],
    identity: str | None = None,
    *,
    remove: bool = False,
    progress: Progress = iter,
) -> list[int]:
    """Reads the finished shards of a store, which need not be all, and compares checksums.

    Args:
      directory: The store.
      identity: What its identity must be; None takes any.
      remove: Delete damaged shards, for `write` to make anew, instead of raising.
      progress: Wraps the shards.

    Returns:
      Numbers of the shards removed.

    Raises:
      DataError: No store there, or of another identity; a shard is damaged, or cannot be removed.
    """
    store, removed = _load(Path(directory), identity), []
    for shard in progress(store._finished()):
        try:
            store._check(shard, checksums=True, again=True)
        except DataError:
            if not remove:
                raise
            with _writing(store.directory):
                _remove(store._path(shard))
            removed.append(shard)
    return removed


def _remove(path: Path) -> None:
    """Under another name first: half a removal must not look like a shard."""
    aside = path.with_name(f"{path.name}.part-{secrets.token_hex(8)}")
    path.rename(aside)
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    else:
        aside.unlink()


def write(
    directory: str | os.PathLike[str],
    identity: str,
    count: int,
    shard_size: int,
    arrays: Mapping[str, tuple[tuple[int, ...], Any]],
    produce: Callable[[int, int], Mapping[str, Any]],
    *,
    nan: Collection[str] = (),
    about: Mapping[str, Any] = {},
    shards: tuple[int, int] = (0, 1),
    progress: Progress = iter,
) -> int:
    """Makes the shards of a store that are missing; called again, goes on where it was stopped.

    A kill at any moment, or a full disk, loses the shard in progress at most.

    Args:
      directory: The store; made if it does not exist.
      identity: What the arrays follow from, such as data set and network.
      count: Examples in all, by every process.
      shard_size: Examples per shard, which is what memory holds and a kill loses.
      arrays: Shape of one example and dtype, by name.
      produce: Given the first example of a shard and the one past its last, returns each array,
        (stop - start, ...). Numbers are converted to the stated dtype, which must hold them.
      nan: Arrays that may hold NaN, as labels do where they are not scored; else all is finite.
      about: Anything JSON can hold, for people to read; not compared.
      shards: This process and the number of processes; each makes every so-many-th shard, all at
        once if need be, but only one at a time with the same numbers. One that makes all shards
        waits for any other that writes the store, and then makes what is missing.
      progress: Wraps the numbers of the shards to make.

    Returns:
      Number of shards made.

    Raises:
      UsageError: An argument is out of range.
      DataError: The directory holds another store or something else, or cannot be written; or
        what `produce` returns is not what `arrays` says. What `produce` raises passes through.
    """
    index, processes = shards
    if not 0 <= index < processes:
        raise UsageError(f"write: shards: expected (0..n-1, n), found {shards}.")
    try:
        typed = {name: (tuple(shape), np.dtype(dt).name) for name, (shape, dt) in arrays.items()}
        said = {"format": 1, "identity": identity, "count": count, "shard_size": shard_size}
        said = json.loads(json.dumps(said | {"arrays": typed, "about": dict(about)}))
        text = json.dumps(said | {"crc32": _crc32_of(said)}, indent=1)
        store = _parse(Path(directory), said)
    except (TypeError, ValueError) as error:
        raise UsageError(f"write: {error}.") from None
    with _writing(store.directory):
        _begin(store, text)
    with _locked(store.directory, shared=processes > 1):
        finished = set(store._finished())
        missing = [n for n in range(index, store.shards, processes) if n not in finished]
        for shard in progress(missing) if missing else ():
            start, stop = store.span(shard)
            found = produce(start, stop)
            if found.keys() != typed.keys():
                raise DataError(f"produce: expected {', '.join(typed)}; found {', '.join(found)}.")
            converted = {
                name: _converted(name, found[name], start, (stop - start, *shape), dt, name in nan)
                for name, (shape, dt) in typed.items()
            }
            with _writing(store.directory):
                _write_shard(store._path(shard), converted)
    return len(missing)


@contextlib.contextmanager
def _locked(root: Path, shared: bool) -> Iterator[None]:
    """Waits until nobody else writes; the lock goes with the process, however that ends."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    directory = os.open(root, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems lock no directories
            try:
                fcntl.flock(directory, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                log.warning("%s: waiting for another run that writes it", root)
                fcntl.flock(directory, kind)
        yield
    finally:
        os.close(directory)


def _begin(store: Store, text: str) -> None:
    """Makes the directory with its ``store.json``, or refuses one that holds anything else."""
    root = store.directory
    root.mkdir(parents=True, exist_ok=True)
    found = [name for name in os.listdir(root) if not name.startswith(_STORE)]
    if not (root / _STORE).exists():  # asked after the listing: another process may just begin
        if found:
            raise DataError(f"{root}: no store, yet it holds {found[0]}; name another directory.")
        atomic.write(root / _STORE, text)
    _check_same(_load(root), store)


def _check_same(was: Store, now: Store) -> None:
    for field in ("identity", "count", "shard_size", "arrays"):
        old, new = getattr(was, field), getattr(now, field)
        if old != new:
            raise DataError(
                f"{was.directory}: another store: {field} is {old!r:.200}, not {new!r:.200}; "
                f"{_ANOTHER}."
            )


def _converted(
    name: str, given: Any, start: int, shape: tuple[int, ...], dtype: str, nan: bool
) -> np.ndarray:
    """An array of a shard as it goes to disk. Raises DataError where a value would be lost."""
    given = np.asarray(given)
    if given.shape != shape:
        raise DataError(f"{name}: expected shape {shape}, found {given.shape}.")
    array = np.empty(shape, dtype)
    if given.dtype.kind.replace("u", "i") != array.dtype.kind.replace("u", "i"):
        raise DataError(f"{name}: expected {dtype}, found {given.dtype}; convert it first.")
    with np.errstate(over="ignore"):
        array[...] = given
    if array.dtype.kind == "f":
        lost = np.isinf(array) if nan else ~np.isfinite(array)
    else:
        lost = array != given
    if lost.any():
        at = tuple(np.argwhere(lost)[0])
        raise DataError(f"{name}: example {start + at[0]}: {dtype} cannot hold {given[at]}.")
    return array


def _write_shard(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with atomic.directory(path) as aside:
        for name, array in arrays.items():
            with open(aside / f"{name}.npy", "wb") as file:
                form = np.lib.format.header_data_from_array_1_0(array)
                np.lib.format.write_array_header_1_0(file, form)
                file.write(array.data)  # np.save may lose the last bytes unnoticed on a full disk
        crcs = {name: _crc32(aside / f"{name}.npy", again=True) for name in arrays}
        (aside / _CHECKSUMS).write_text(json.dumps(crcs, indent=1))


@contextlib.contextmanager
def _writing(root: Path) -> Iterator[None]:
    """Turns a failure of the system into an error that names the store."""
    try:
        with atomic.naming(root, "written"):
            yield
    except DataError as error:
        if not isinstance(failure := error.__cause__, OSError):
            raise
        raise DataError(
            f"{root}: cannot be written ({failure.strerror or failure}); check path, permissions "
            "and free space, then run the same command again: finished shards are kept."
        ) from failure


def _load(root: Path, identity: str | None = None) -> Store:
    """What ``store.json`` says, checked; nothing else is read. Raises DataError."""
    path = root / _STORE
    try:
        store = _parse(root, json.loads(_read_json(path)))
    except FileNotFoundError:
        raise DataError(f"{root}: no store here; expected a directory with {_STORE}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable ({error}); {_ANOTHER}.") from None
    if identity is not None:
        _check_same(store, dataclasses.replace(store, identity=identity))
    return store


def _read_json(path: Path) -> bytes:
    if _status(path).st_size > _MAX_JSON:
        raise ValueError(f"more than {_MAX_JSON} bytes")
    return path.read_bytes()


def _status(path: Path) -> os.stat_result:
    """Raises ValueError for what may never end, such as a pipe."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    return status


def _crc32(path: Path, again: bool) -> int:
    """Of a file, measured once per process while it stays as it is, or `again`."""
    status, place = _status(path), os.path.abspath(path)
    found = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    before = _measured.pop(place, None)
    if not again and before and before[0] == found:
        _measured[place] = before
        return before[1]
    settled = time.time_ns() - status.st_ctime_ns > _TICK
    crc, block = 0, bytearray(_BLOCK)
    with open(path, "rb") as file:
        while count := file.readinto(block):
            crc = zlib.crc32(memoryview(block)[:count], crc)
    if settled:
        _measured[place] = found, crc
    return crc


def _crc32_of(said: Any) -> int:
    return zlib.crc32(json.dumps(said).encode())


def _parse(root: Path, said: Any) -> Store:
    """A store that files can be compared with. Raises ValueError."""
    match said:
        case {"crc32": crc, **rest} if crc != _crc32_of(rest):  # stores made earlier have none
            raise ValueError("not the text that was written")
    match said:
        case {
            "format": 1,
            "identity": str(identity),
            "count": int(count),
            "shard_size": int(size),
            "arrays": dict(arrays),
            "about": dict(about),
        } if arrays and 1 <= count <= size * _MAX_SHARDS:
            for name, entry in arrays.items():
                arrays[name] = _parse_array(name, entry)
            return Store(root, identity, count, size, arrays, about)
    raise ValueError(
        "expected format 1, identity (text), count and shard_size (positive, at most "
        f"{_MAX_SHARDS} shards), arrays and about; found {said!r:.300}"
    )


def _parse_array(name: str, entry: Any) -> tuple[tuple[int, ...], str]:
    match entry:
        case [[*shape], str(dtype)] if _NAME.fullmatch(name) and _DTYPE.fullmatch(dtype):
            if all(type(side) is int and side > 0 for side in shape):
                return tuple(shape), dtype
    raise ValueError(
        f"arrays: {name!r:.100}: expected a plain name, the shape of an example and a dtype of "
        f"bool, integers or floats; found {entry!r:.100}"
    )
