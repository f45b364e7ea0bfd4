"""What is only looked at: tables on the screen and figures, drawn from a results file alone.

After a run the results are on disk before anything is shown, and what cannot be shown is a warning.
"""

import argparse
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import rich.console
import rich.markdown

from vcmjax.errors import DataError
from vcmjax.evaluate import drawing, tables

log = logging.getLogger("vcmjax")


class View(NamedTuple):
    """A table or a figure.

    Attributes:
      name: In a warning.
      make: Prints or draws it.
      beside: Whether it needs another file than the results, which may be damaged by itself.
    """

    name: str
    make: Callable[[], object]
    beside: bool = False


Views = Callable[[dict[str, Any], Path], Iterable[View]]
"""Of results, and the folder to draw into."""


def printed(table: Callable[[dict[str, Any]], Any], results: dict[str, Any]) -> View:
    """What `table` makes of results, Markdown or something that Rich prints, on the screen."""

    def make() -> None:
        made = table(results)
        shown = rich.markdown.Markdown(made) if isinstance(made, str) else made
        rich.console.Console().print(shown)

    return View("table", make)


def drawn(
    draw: Callable[[dict[str, Any], Path], None], results: dict[str, Any], path: Path
) -> View:
    """The figure that `draw` makes of results, in the file `path`."""

    def make() -> None:
        with drawing.settings():
            draw(results, path)

    return View(path.name, make)


def option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--draw``."""
    parser.add_argument(
        "--draw",
        type=Path,
        metavar="RESULTS.json",
        help="show these results, with figures beside the file, and run nothing",
    )


def show(name: str, views: Views, path: Path) -> None:
    """Shows the results that a run of the experiment `name` has just written to `path`."""
    remedy = f"the results are whole; to show them: python -m experiments.{name} --draw {path}"
    with warning(f"{path}: not shown", remedy):
        for view in views(tables.load(path), path.parent):
            with warning(f"{view.name}: not shown", remedy):
                view.make()


def redraw(name: str, views: Views, path: Path, of: str = "") -> None:
    """Shows a results file, which may have come from anywhere and hold anything.

    Args:
      name: Of the experiment that shows it.
      views: What it shows.
      path: The file.
      of: The experiment that wrote it, unless it is the same.

    Raises:
      DataError: It is missing, or not such a file.
    """
    results, of = tables.load(path), of or name
    if not isinstance(results, dict) or results.get("schema") != 1:
        raise DataError(f"{path}: expected results of schema 1, as experiments.{of} writes them.")
    if (other := results.get("experiment", of)) != of:
        raise DataError(f"{path}: results of experiments.{other}; expected of experiments.{of}.")
    with tables.naming(path, f"results of experiments.{of}"):
        for view in views(results, path.parent):
            with warning(f"{view.name}: not shown") if view.beside else contextlib.nullcontext():
                view.make()


@contextlib.contextmanager
def warning(what: str, remedy: str = "") -> Iterator[None]:
    """Makes any error a warning that says `what`, why and where."""
    try:
        yield
    except Exception as error:
        log.warning("%s", "; ".join(filter(None, [f"{what}: {tables.reason(error)}", remedy])))
        log.debug("", exc_info=True)
