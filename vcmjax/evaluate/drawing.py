"""Matplotlib as what draws to files: without a window, a notebook, or settings of a user's."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vcmjax.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BACKEND = "MPLBACKEND"


def matplotlib() -> Any:
    """Matplotlib, imported whatever ``MPLBACKEND`` says.

    A notebook sets it for the commands that it starts, too; in an environment that lacks the
    backend, Matplotlib refuses to be imported, and ever after in that process. One that it knows is
    set afterwards, so that a notebook's own figures are shown as they would be.

    Raises:
      UsageError: It is not installed, or cannot be imported for another reason.
    """
    if "matplotlib" in sys.modules:
        return sys.modules["matplotlib"]
    backend = os.environ.pop(_BACKEND, None)
    try:
        import matplotlib
    except Exception as error:  # a settings file that is no text, no folder for its own files
        raise UsageError(
            f"Matplotlib cannot be imported ({error}); check that it is installed, and the file "
            "matplotlibrc if there is one."
        ) from error
    finally:
        if backend is not None:
            os.environ[_BACKEND] = backend
    if backend:
        with contextlib.suppress(ValueError):  # unknown here, and what we draw asks for none
            matplotlib.rcParams["backend"] = backend
    return matplotlib


def new_figure(width: float, height: float) -> Figure:
    """A figure of that many inches, free of pyplot's global state; Agg draws it to a file."""
    matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


@contextlib.contextmanager
def settings() -> Iterator[None]:
    """Matplotlib's own settings instead of a user's, and ``$`` in a name is a dollar."""
    library = matplotlib()
    with library.rc_context():
        library.rcdefaults()
        library.rcParams["text.parse_math"] = False
        yield
