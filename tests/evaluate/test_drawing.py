"""Matplotlib for files works whatever a notebook, a settings file or a name says."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vcmjax.evaluate import drawing

DRAW = """
import os, sys
from vcmjax.evaluate import bd_rate, drawing
print(bd_rate.delta(([1, 2, 4], [30, 35, 40]), ([1, 2, 4], [31, 36, 41]), True).score)
figure = drawing.new_figure(2, 2)
figure.subplots().plot([1, 2])
figure.savefig(sys.argv[1])
print(os.environ.get("MPLBACKEND"))
import matplotlib
print(matplotlib.rcParams["backend"])
"""


def ran(tmp_path, **environment):
    """A delta and a figure in a process of its own, which needs no font cache of its own."""
    done = subprocess.run(
        [sys.executable, "-c", DRAW, str(tmp_path / "figure.png")],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert np.asarray(Image.open(tmp_path / "figure.png").convert("L")).std() > 5
    return done.stdout.split()


@pytest.mark.parametrize("backend", ["none.such", "module://", "module://none.such.module"])
def test_a_backend_that_is_not_there_is_no_obstacle_and_is_left_as_it_was(tmp_path, backend):
    score, left, _ = ran(tmp_path, MPLBACKEND=backend)
    assert float(score) == pytest.approx(1) and left == backend


def test_a_backend_that_is_there_is_the_users_own(tmp_path):
    assert ran(tmp_path, MPLBACKEND="svg")[1:] == ["svg", "svg"]


def test_a_matplotlib_that_cannot_be_imported_is_refused_with_the_reason(tmp_path):
    rc = tmp_path / "matplotlibrc"
    rc.write_bytes(b"# \xff\xfe\n")
    code = "from vcmjax.evaluate import drawing; drawing.matplotlib()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"MATPLOTLIBRC": str(rc)},
        capture_output=True,
        text=True,
    )
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert "UsageError: Matplotlib cannot be imported" in last and "matplotlibrc" in last


def test_a_users_settings_and_a_dollar_in_a_name_change_no_figure(tmp_path):
    library = drawing.matplotlib()
    with library.rc_context({"text.usetex": True, "figure.dpi": 7, "font.family": "none such"}):
        with drawing.settings():
            figure = drawing.new_figure(2, 2)
            figure.subplots().set_title("cost in $, \\bad{ and $^")
            figure.savefig(tmp_path / "figure.png")
            assert figure.axes[0].title.get_fontfamily() == ["sans-serif"]
        assert library.rcParams["figure.dpi"] == 7
    assert Image.open(tmp_path / "figure.png").size == (300, 300)
