"""What every experiment needs around its run: errors in one line, a folder of its own, results."""

import contextlib
import dataclasses
import fcntl
import importlib.metadata
import json
import logging
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import vcmjax
from vcmjax import cli, terminal
from vcmjax.cli import steps
from vcmjax.errors import DataError, UsageError, VcmError
from vcmjax.evaluate import bootstrap, tables
from vcmjax.io import atomic
from vcmjax.train import parallel

log = logging.getLogger("vcmjax")
_ROOT = Path(__file__).parents[1]
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
_GIT_SECONDS = 20
_ROOM = 2**30


def main(run: Callable[[], None]) -> None:
    """Call `run`; bad input ends in one line and status 2, Ctrl-C in 130, SIGTERM in 143."""
    terminal.plain()
    cli.guarded(
        run, "interrupted; what is finished is kept, and the same command goes on from there"
    )


def cache_directory() -> Path:
    """Where task networks and features are kept: $VCMJAX_CACHE, else ~/.cache/vcmjax.

    Raises:
      UsageError: There is no such folder, and none can be made.
    """
    try:
        chosen = os.environ.get("VCMJAX_CACHE")
        folder = Path(chosen) if chosen else Path.home() / ".cache" / "vcmjax"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # the latter of a user who has no home
        raise UsageError(
            f"no folder to keep task networks and features in ({error}); name one in the "
            "environment: VCMJAX_CACHE=FOLDER."
        ) from None
    return folder


def procedural(data: str) -> bool:
    """Whether ``--data`` names the procedural rooms, and no folder; said where there are both."""
    if data == "rooms" and os.path.isdir(data):
        log.info("--data rooms: the procedural ones; for the folder here say --data ./rooms")
    return data == "rooms"


# The folder of a run


@contextlib.contextmanager
def claimed(out: Path, config: Any) -> Iterator[None]:
    """Folder `out` is that of a run of `config`, a dataclass, and its alone until the block ends.

    Of several processes of a run the first claims it for all. A claim ends with the process,
    however that ends. A run that is refused before it has kept anything leaves no trace.

    Raises:
      UsageError: `out` holds a run of another configuration, or another run is at work in it; or
        the disk is nearly full.
      DataError: It cannot be written.
    """
    if parallel.devices().process:
        yield
        return
    made, first, path = not out.exists(), False, out / "config.json"
    new = json.loads(json.dumps(dataclasses.asdict(config)))  # tuples as the lists they become
    handle = None
    try:
        with atomic.naming(f"--out {out}", "written"):
            out.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(out).free < _ROOM:
                raise UsageError(
                    f"--out {out}: less than 1 GiB free; expected room for models and features."
                )
            handle = _held(path)
            if first := not os.fstat(handle).st_size:
                os.write(handle, _json(new).encode())
                os.fsync(handle)
        if not first:
            _check_same(out, path, new)
        yield
    except VcmError:
        if first and os.listdir(out) == [path.name]:
            path.unlink()
        if made and out.exists() and not os.listdir(out):
            out.rmdir()
        raise
    finally:
        if handle is not None:
            os.close(handle)


def _held(path: Path) -> int:
    """A file, made if need be, that no other process holds; it is never replaced by another."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle, f"--out {path.parent}: another run is at work in it; wait for it to end, "
                          "or name another folder.")  # fmt: skip
        except UsageError:
            os.close(handle)
            raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)  # removed by a run that was refused, just before it was locked


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Waits until no other process is in such a block on `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, None, f"{folder}: another run is at work in it; waiting for that to end")
        yield
    finally:
        os.close(handle)


def _lock(handle: int, refusal: str | None, waiting: str = "") -> None:
    """Locks an open file or folder, as far as its file system knows locks; they end with it."""
    with contextlib.suppress(OSError):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if refusal:
                raise UsageError(refusal) from None
            log.info(waiting)
            fcntl.flock(handle, fcntl.LOCK_EX)


def _check_same(out: Path, path: Path, new: dict[str, Any]) -> None:
    old = tables.load(path)
    if not isinstance(old, dict):
        raise DataError(f"{path}: expected the settings of a run; name another folder by --out.")
    differ = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    if differ:
        raise UsageError(
            f"--out {out} holds a run with other settings ({', '.join(differ)}); "
            "name another folder, or delete this one."
        )


# Progress


def tracked(description: str, total: int) -> Callable[[Iterable], Iterable]:
    """Wraps an iterable of `total` items in a progress bar with ETA."""

    def wrap(items: Iterable) -> Iterable:
        with steps(description, total) as progress:
            for done, item in enumerate(items, 1):
                yield item
                progress(done)

    return wrap


# Results


def provenance() -> dict[str, Any]:
    """Versions, machine and git revision, for a result file; "unknown" where they are not known."""
    versions = {"vcmjax": vcmjax.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # not installed by pip, but copied
            versions[name] = "unknown"
    missing = [name for name, version in versions.items() if version == "unknown"]
    try:
        revision = _revision()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        revision = "unknown"
        missing.append(f"git revision ({error})")
    if missing:
        log.warning("the results do not say, as it is unknown: %s", ", ".join(missing))
    return {"versions": versions, "revision": revision}


def _revision() -> str:
    """Of this checkout. Raises OSError, ValueError or SubprocessError where git cannot tell."""
    # Named, lest it be that of a repository around the checkout, or of a hook that started us.
    here = ["git", f"--git-dir={_ROOT / '.git'}", f"--work-tree={_ROOT}"]
    done = subprocess.run(
        [*here, "describe", "--always", "--dirty"],
        env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_GIT_SECONDS,
        check=True,
    )
    if not (revision := done.stdout.decode().strip()):
        raise ValueError("git says nothing")
    return revision


def results(name: str, config: Any, seeds: Sequence[int], **content: Any) -> dict[str, Any]:
    """What a results file holds: `config`, a dataclass, its folder of data by name, and `content`.

    The paths of a machine stay out of it.

    Args:
      name: Of the experiment.
      config: What was run.
      seeds: Of training.
      content: What was found.
    """
    data = config.data
    if data != "rooms":
        folder = Path(data).resolve().name
        data = "./rooms" if folder == "rooms" else folder
    return {
        "schema": 1,
        "experiment": name,
        "config": dataclasses.asdict(config) | {"data": data},
        "seeds": list(seeds),
        **provenance(),
        **content,
    }


def summary(
    statistics: bootstrap.Statistic | Sequence[bootstrap.Statistic],
    images: int,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Scores with 95 % bootstrap intervals as results files hold them: each by name, and ``ci``.

    Args:
      statistics: As of `bootstrap.interval`, with names.
      images: As of `bootstrap.interval`.
      resamples: As of `bootstrap.interval`.
    """
    ci = bootstrap.interval(statistics, images, seed=0, resamples=resamples)
    means = bootstrap.means(statistics, images)
    return {
        **{name: defined(value) for name, value in means.items()},
        "ci": {name: list(map(defined, ends)) for name, ends in ci.items()},
    }


def defined(value: float) -> float | None:
    """None for what JSON has no word for: a score of no pixel, curves that do not meet, x / 0."""
    return float(value) if math.isfinite(value) else None


def read_json(path: Path) -> Any:
    """What `write_json` wrote.

    Raises:
      DataError: Not readable as JSON.
    """
    try:
        return tables.load(path)
    except DataError as error:
        raise DataError(f"{error}; delete it and run again.") from None


def write_json(path: Path, content: Any) -> None:
    """Write `content` under `path`, whole or not at all; numbers that are none become null."""
    atomic.write(path, _json(content))


def _json(content: Any) -> str:
    try:
        return json.dumps(content, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError):  # NaN, or NumPy's numbers: no reason to lose hours of training
        return json.dumps(_plain(content), indent=1, allow_nan=False) + "\n"


def _plain(content: Any) -> Any:
    """`content` in JSON's own types."""
    if isinstance(content, dict):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, np.ndarray | np.generic):
        return _plain(content.tolist())
    return defined(content) if isinstance(content, float) else content
