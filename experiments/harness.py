"""What every experiment needs around its run: errors in one line, progress, and provenance."""

import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from vcmjax import cli
from vcmjax.cli import steps
from vcmjax.errors import DataError, UsageError
from vcmjax.evaluate import bootstrap

_PACKAGES = ("vcmjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def main(run: Callable[[], None]) -> None:
    """Call `run`; bad input ends in one line and status 2, Ctrl-C in 130, SIGTERM in 143."""
    cli.guarded(
        run, "interrupted; what is finished is kept, and the same command goes on from there"
    )


def cache_directory() -> Path:
    """Where task networks and features are kept: $VCMJAX_CACHE, else ~/.cache/vcmjax."""
    return Path(os.environ.get("VCMJAX_CACHE") or Path.home() / ".cache" / "vcmjax")


def claim(out: Path, config: Any) -> None:
    """Make folder `out` that of a run of `config`, a dataclass, or refuse.

    Raises:
      UsageError: `out` holds a run of another, or the disk is nearly full.
    """
    path = out / "config.json"
    new = json.loads(json.dumps(dataclasses.asdict(config)))  # tuples as the lists they become
    if path.exists():
        old = read_json(path)
        differ = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        if differ:
            raise UsageError(
                f"--out {out} holds a run with other settings ({', '.join(differ)}); "
                "name another folder, or delete this one."
            )
    out.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(out).free < 2**30:
        raise UsageError(
            f"--out {out}: less than 1 GiB free; expected room for models and features."
        )
    write_json(path, new)


def tracked(description: str, total: int) -> Callable[[Iterable], Iterable]:
    """Wraps an iterable of `total` items in a progress bar with ETA."""

    def wrap(items: Iterable) -> Iterable:
        with steps(description, total) as progress:
            for done, item in enumerate(items, 1):
                yield item
                progress(done)

    return wrap


def provenance() -> dict[str, Any]:
    """Versions, machine and git revision, for a result file."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    versions["python"] = platform.python_version()
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {"versions": versions, "revision": done.stdout.strip() or "unknown"}


def results(config: Any, seeds: Sequence[int], **content: Any) -> dict[str, Any]:
    """What a results file holds: `config`, a dataclass, its folder of data by name, and `content`.

    The paths of a machine stay out of it.
    """
    return {
        "schema": 1,
        "config": dataclasses.asdict(config) | {"data": Path(config.data).resolve().name},
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
    """None for NaN, which JSON has no word for: a score of no pixel, curves that do not meet."""
    return None if math.isnan(value) else float(value)


def read_json(path: Path) -> Any:
    """What `write_json` wrote.

    Raises:
      DataError: Not readable as JSON.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); delete it and run again.") from None


def write_json(path: Path, content: Any) -> None:
    """Write `content` under `path`, whole or not at all."""
    aside = path.with_name(path.name + ".part")
    aside.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    os.replace(aside, path)
