"""What every experiment needs around its run: errors in one line, progress, and provenance."""

import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rich.console
import rich.logging
import rich.progress

from vcmjax.errors import DataError, VcmError

CONSOLE = rich.console.Console(stderr=True)
_PACKAGES = ("vcmjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def main(run: Callable[[], None]) -> None:
    """Call `run`; bad input ends in one line and status 2, Ctrl-C in status 130."""
    handler = rich.logging.RichHandler(console=CONSOLE, show_path=False, show_time=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    logging.getLogger("vcmjax").setLevel(logging.INFO)
    try:
        run()
    except (VcmError, OSError) as error:
        CONSOLE.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        CONSOLE.print(
            "interrupted; what is finished is kept, and the same command goes on from there"
        )
        # Threads of the data loader and of the checkpoint writer must not hold the exit up.
        os._exit(130)


def cache_directory() -> Path:
    """Where task networks and features are kept: $VCMJAX_CACHE, else ~/.cache/vcmjax."""
    return Path(os.environ.get("VCMJAX_CACHE") or Path.home() / ".cache" / "vcmjax")


@contextmanager
def steps(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar with ETA over `total` steps; yields a function told the steps done."""
    with _bar() as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.update(task, completed=done)


def tracked(description: str, total: int) -> Callable[[Iterable], Iterable]:
    """Wraps an iterable of `total` items in a progress bar with ETA."""

    def wrap(items: Iterable) -> Iterable:
        with _bar() as bar:
            yield from bar.track(items, total=total, description=description)

    return wrap


def _bar() -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description:<42}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("ETA"),
        rich.progress.TimeRemainingColumn(),
        console=CONSOLE,
    )


def provenance() -> dict[str, Any]:
    """Versions, machine and git revision, for a result file."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    versions["python"] = platform.python_version()
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {"versions": versions, "revision": done.stdout.strip() or "unknown"}


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
