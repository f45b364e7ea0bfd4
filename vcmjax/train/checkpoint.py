"""Checkpoints of one training: by the clock, whole or not at all, and checked before they are used.

    100/default/         the state after 100 steps, by Orbax
    100/checkpoint.json  shape and type of each array, and the CRC-32 of each file

Each is written aside and renamed, so that kill -9 leaves the last one whole. A lock on the
directory, which ends with the process, keeps a second training out.
"""

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from vcmjax import arrays
from vcmjax.errors import DataError, UsageError
from vcmjax.io import atomic

log = logging.getLogger(__name__)

SECONDS = 15.0
"""Between checkpoints: half of what may be lost, as the step at hand and the writing take time."""
_FIRST = 1.0
"""Seconds to the first; then the time doubles, so that a job killed early has gained something."""
_ARRAYS, _RECORD = "default", "checkpoint.json"
_EARLIER = "_CHECKPOINT_METADATA"
"""What versions before had beside the arrays, and no record."""
_LEFT = re.compile(r"(\d+)\.(?:(?:part|was)-[0-9a-f]+|orbax-checkpoint-tmp.*)")


class Checkpoints:
    """The two newest states of one training run; kept by process 0 alone, where there are several.

    They then need no folder that all can see, and any number of processes goes on from them.
    """

    def __init__(self, directory: Path | None, seconds: float, writer: ThreadPoolExecutor) -> None:
        """Use `opened` instead."""
        self._directory, self._writer = directory, writer
        self._pending: Future[None] | None = None
        self._damaged: set[int] = set()
        self._longest, self._wait = seconds, min(_FIRST, seconds)
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Whether the last one is old enough for the next."""
        return self._directory is not None and time.monotonic() - self._saved >= self._wait

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write `state`, trees of NumPy arrays by name, in the background.

        Raises:
          DataError: It, or the one before, cannot be written.
        """
        if self._directory is None:
            return
        self.finish()
        self._pending = self._writer.submit(self._write, self._directory, step, state)
        self._saved = time.monotonic()
        self._wait = min(2 * self._wait, self._longest)

    def finish(self) -> None:
        """Wait until all is written. Raises DataError if it cannot be."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def newest(
        self, like: Mapping[str, Any], added: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """The newest state that is whole, of the shapes and types in `like`; None if there is none.

        What is damaged is passed over with a warning, and stays until it is replaced or older than
        two that are whole. If nothing is whole, training starts anew: it would have to in any case,
        and a job of many trainings then goes on.

        Args:
          like: Trees by name.
          added: What the checkpoints of earlier versions have not, and the values it then takes.

        Raises:
          DataError: The newest is of another form: of another training, or another version's.
        """
        if self._directory is None:
            return None
        passed = []
        state = None
        outcome = f"nothing in {self._directory} can be used, and training starts anew"
        for step in _steps(self._directory):
            path = self._directory / str(step)
            try:
                state = _read(path, like, added or {})
            except _Damaged as error:
                passed.append(f"{path}: damaged checkpoint ({error})")
                self._damaged.add(step)
                continue
            outcome = f"training goes on from step {step}"
            break
        for each in passed:
            log.warning("%s; %s", each, outcome)
        return state

    def _write(self, directory: Path, step: int, state: Mapping[str, Any]) -> None:
        path = directory / str(step)
        with atomic.naming(path, "written"):
            if not path.is_dir():  # whatever has the name instead
                path.unlink(missing_ok=True)
            with atomic.directory(path) as aside:
                _save(aside / _ARRAYS, dict(state))
                files = {str(p.relative_to(aside)): _crc32(p) for p in _files(aside)}
                body = {"arrays": _form(state), "files": files}
                text = {"crc32": _crc32_of(body), **body}
                (aside / _RECORD).write_text(json.dumps(text, indent=1))
        self._damaged.discard(step)
        older = [other for other in _steps(directory) if other < step]
        whole = [other for other in older if other not in self._damaged]
        for other in older:
            if other not in whole[:1]:
                _remove(directory / str(other))


@contextlib.contextmanager
def opened(directory: Path, seconds: float = SECONDS) -> Iterator[Checkpoints]:
    """Checkpoints under `directory`, created if need be; pending writes finish on leaving.

    Args:
      directory: Of this training alone.
      seconds: Longest time after which the next one is due.

    Raises:
      UsageError: Another process trains there.
      DataError: It cannot be written.
    """
    with contextlib.ExitStack() as closing:
        mine = None
        if not jax.process_index():
            mine = Path(directory).absolute()
            with atomic.naming(directory, "written"):
                mine.mkdir(parents=True, exist_ok=True)
                closing.enter_context(_alone(mine))
                _clear(mine)
        writer = closing.enter_context(ThreadPoolExecutor(1, "checkpoint"))
        kept = Checkpoints(mine, seconds, writer)
        yield kept
        kept.finish()


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Holds the lock of `directory`."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems lock no directories
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"{directory}: another process is training here; wait until it has ended, or "
                    "name another directory"
                ) from None
        yield
    finally:
        os.close(handle)


def _save(path: Path, state: dict[str, Any]) -> None:
    """Raises OSError for whatever Orbax raises; it logs that at length too, hence the question."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    if size > (free := shutil.disk_usage(path.parent).free):
        raise OSError(f"{size / 1e6:.1f} MB to write, {free / 1e6:.1f} MB free")
    try:
        arrays.save(path, state)
    except Exception as error:
        raise OSError(" ".join(str(error).split())[:300]) from error


class _Damaged(Exception):
    """A checkpoint that is not what was written."""


def _read(path: Path, like: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """Raises _Damaged, or DataError if another form was written."""
    earlier = not os.path.lexists(path / _RECORD) and os.path.exists(path / _EARLIER)
    if earlier:
        like = {name: tree for name, tree in like.items() if name not in added}
    else:
        written, wanted = _verified(path), _form(like)
        for place in written | wanted:
            if written.get(place) != wanted.get(place):
                raise _another(path, f"{place} is {written.get(place)}, not {wanted.get(place)}")
    try:
        state = arrays.load(path / _ARRAYS, like)
    except Exception as error:  # of many types; of an earlier version's, damage is one reason
        raise _another(path, f"{type(error).__name__} of Orbax") from error
    return {**added, **state} if earlier else state


def _verified(path: Path) -> dict[str, list]:
    """The form of what was written at `path`, if it is still that. Raises _Damaged."""
    try:
        if not path.is_dir():
            raise ValueError("no directory")
        found = {str(p.relative_to(path)): p for p in _files(path) if p.is_file()}
        if _RECORD not in found:
            raise ValueError(f"no file {_RECORD}")
        record = json.loads(found[_RECORD].read_bytes())
        body = {"arrays": record["arrays"], "files": record["files"]}
        if record["crc32"] != _crc32_of(body):
            raise ValueError(f"{_RECORD} is not as it was written")
        for name, crc in body["files"].items():
            if name not in found:
                raise ValueError(f"no file {name}")
            if _crc32(found[name]) != crc:
                raise ValueError(f"{name} is not as it was written")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise _Damaged(error) from None
    return body["arrays"]


def _another(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path}: a checkpoint of another form than what is trained now ({reason}); expected one "
        f"by this version of vcmjax and of the same model. Remove {path.parent} to train anew."
    )


def _form(state: Mapping[str, Any]) -> dict[str, list]:
    """Shape and type of each array, by its place in the tree, as JSON gives it back."""
    leaves = jax.tree_util.tree_leaves_with_path(dict(state))
    return {
        jax.tree_util.keystr(place): [list(leaf.shape), str(leaf.dtype)] for place, leaf in leaves
    }


def _crc32_of(body: Any) -> int:
    return zlib.crc32(json.dumps(body).encode())


def _crc32(path: Path) -> int:
    return zlib.crc32(path.read_bytes())


def _files(folder: Path) -> list[Path]:
    """All that is below `folder` and no directory."""
    return [Path(root, name) for root, _, names in os.walk(folder) for name in sorted(names)]


def _steps(directory: Path) -> list[int]:
    """Newest first."""
    numbers = [name for name in os.listdir(directory) if re.fullmatch("0|[1-9][0-9]*", name)]
    return sorted(map(int, numbers), reverse=True)


def _clear(directory: Path) -> None:
    """Removes what killed writers have left; there is none that lives, as the lock is held."""
    for name in os.listdir(directory):
        if left := _LEFT.fullmatch(name):
            atomic.recover(directory / left[1])
            _remove(directory / name)


def _remove(path: Path) -> None:
    """As well as it goes: what stays does no harm."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
