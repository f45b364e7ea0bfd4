"""After a run nothing that is only looked at is an error; of a file from elsewhere one line is."""

import copy
import importlib
import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from experiments import harness, plateau, readme, shown
from experiments.shown import View
from vcmjax import cli
from vcmjax.errors import DataError

SHOWN = {
    "plateau": "plateau_rooms",
    "efficacy": "plateau_all",
    "rate_performance": "plateau_all",
    "aggregation": "grouping_rooms",
    "human_vision": "human_vision_rooms",
    "transferability": "transferability_rooms",
    "unseen": "unseen_rooms",
    "variable_rate": "variable_rate_rooms",
    "refinement": "refinement_rooms",
    "feature_coding": "feature_coding_camvid",
    "image_vs_feature": "image_vs_feature_camvid",
}
"""Experiments, and results of each that are kept with the code."""


def results_of(name):
    return json.loads((readme.RESULTS / f"{SHOWN[name]}.json").read_text())


def redraw(name, path, capsys):
    """Status and what is said on stderr, and on stdout, by ``--draw``."""
    main = importlib.import_module(f"experiments.{name}").main
    status = 0
    try:
        harness.main(lambda: main(["--draw", str(path)]))
    except SystemExit as stop:
        status = stop.code
    said = capsys.readouterr()
    return status, said.err, said.out


@pytest.mark.parametrize("name", SHOWN)
def test_every_experiment_shows_a_results_file_without_a_run(name, tmp_path, capsys):
    path = tmp_path / "results.json"
    shutil.copy(readme.RESULTS / f"{SHOWN[name]}.json", path)
    status, error, out = redraw(name, path, capsys)
    assert (status, error) == (0, "") and len(out.splitlines()) > 4
    figures = list(tmp_path.glob("*.png"))
    assert figures
    for figure in figures:
        assert np.asarray(Image.open(figure).convert("L")).std() > 5


@pytest.mark.parametrize("name", SHOWN)
def test_results_of_another_experiment_are_refused_by_name(name, tmp_path, capsys):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results_of(name) | {"experiment": "another"}))
    status, error, _ = redraw(name, path, capsys)
    assert status == 2 and error.startswith(f"error: {path}: results of experiments.another; ")
    # Those of before the field are known by what they lack.
    other = "transferability" if name != "transferability" else "unseen"
    path.write_text(json.dumps(results_of(other)))
    status, error, _ = redraw(name, path, capsys)
    assert status == 2 and error.startswith(f"error: {path}: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"3", b"{}", b"\xff", b'{"schema": 1}', b'{"schema": 1, "tasks": {}}']
)
@pytest.mark.parametrize("name", SHOWN)
def test_what_is_no_results_file_is_refused_in_one_line(name, content, tmp_path, capsys):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    status, error, _ = redraw(name, path, capsys)
    assert status == 2 and error.startswith(f"error: {path}: ") and error.count("\n") == 1


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: None])
def test_a_folder_a_pipe_and_nothing_are_refused_in_one_line(make, tmp_path, capsys):
    path = tmp_path / "results.json"
    make(path)
    status, error, _ = redraw("plateau", path, capsys)
    assert status == 2 and error.startswith(f"error: {path}: ") and error.count("\n") == 1


VALUES = st.sampled_from(
    [None, True, 0, -1, 0.5, 1e308, 10**400, "", "x", "../../x", "$\\bad{", [], {}, [None], [[]],
     {"a": 1}, "\ud800", float("nan"), float("inf")]
)  # fmt: skip


def changed(draw, content):
    """`content` with one of its parts gone, twice there, or of another value."""
    at, key, parent = content, None, None
    for _ in range(draw(st.integers(1, 6))):
        if not isinstance(at, dict | list) or not at:
            break
        keys = list(at) if isinstance(at, dict) else range(len(at))
        parent, key = at, draw(st.sampled_from(keys))
        at = at[key]
    kind = draw(st.sampled_from(["gone", "another", "another", "twice"]))
    if kind == "gone":
        del parent[key]
    elif kind == "twice" and isinstance(parent, list):
        parent.append(copy.deepcopy(at))
    else:
        parent[key] = draw(VALUES)


def fuzzed(name, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzzed") / "results.json"
    content = results_of(name)
    for _ in range(data.draw(st.integers(1, 3))):
        changed(data.draw, content)
    path.write_text(json.dumps(content))
    if not isinstance(content, dict):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, path: figure.draw_without_rendering())
        said = []
        patch.setattr(cli.CONSOLE, "print", lambda text="", **_: said.append(str(text)))
        main = importlib.import_module(f"experiments.{name}").main
        status = 0
        try:
            harness.main(lambda: main(["--draw", str(path)]))
        except SystemExit as stop:
            status = stop.code
    assert status in (0, 2)
    assert not status or (said[-1].startswith(f"error: {path}: ") and "\n" not in said[-1])


@pytest.mark.parametrize("name", SHOWN)
@settings(max_examples=5)
@given(data=st.data())
def test_any_change_of_a_results_file_is_shown_or_refused_in_one_line(name, tmp_path_factory, data):
    fuzzed(name, tmp_path_factory, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
@settings(max_examples=300)
@given(data=st.data())
def test_many_changes_of_a_results_file_are_shown_or_refused_in_one_line(
    name, tmp_path_factory, data
):
    fuzzed(name, tmp_path_factory, data)


# After a run


def broken(*_):
    raise KeyError("miou")


def test_what_fails_after_a_run_is_a_warning_with_the_reason_and_the_command(
    tmp_path, caplog, capsys
):
    path = tmp_path / "results.json"
    path.write_text("{}")
    made = []

    def views(results, out):
        yield View("first.png", broken)
        yield View("second.png", lambda: made.append(out))
        raise OSError(28, "No space left on device")

    shown.show("plateau", views, path)
    assert made == [tmp_path]
    first, last = (record.getMessage() for record in caplog.records if record.levelname != "DEBUG")
    assert first.startswith("first.png: not shown: lacks 'miou' (test_shown.py, line ")
    assert f"python -m experiments.plateau --draw {path}" in first
    assert last.startswith(f"{path}: not shown: [Errno 28] No space left on device")


def test_without_matplotlib_the_table_is_shown_and_the_figures_are_warned_of(
    tmp_path, monkeypatch, caplog, capsys
):
    path = tmp_path / "results.json"
    shutil.copy(readme.RESULTS / "plateau_rooms.json", path)

    def missing():
        raise DataError("no Matplotlib here")

    monkeypatch.setattr("vcmjax.evaluate.drawing.matplotlib", missing)
    shown.show("plateau", plateau.views, path)
    assert "Plateau bit-rate" in capsys.readouterr().out
    assert caplog.text.count("no Matplotlib here") == 2 and not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", "whole"])
def test_a_damaged_page_of_examples_leaves_the_other_figures(content, tmp_path, capsys):
    path = tmp_path / "results.json"
    shutil.copy(readme.RESULTS / "plateau_rooms.json", path)
    page = tmp_path / "examples_segment_semantic.npz"
    if content == "whole":
        shutil.copy(readme.RESULTS / "plateau_rooms_examples.npz", page)
    else:
        page.write_bytes(content)
    status, error, _ = redraw("plateau", path, capsys)
    drawn = {figure.name for figure in tmp_path.glob("*.png")}
    assert status == 0 and {"rate_performance.png", "plateau.png"} <= drawn
    assert (page.with_suffix(".png").name in drawn) == (content == "whole")
    assert ("expected arrays image" in " ".join(error.split())) == (content != "whole")


def test_a_task_that_is_a_path_leads_to_no_file_elsewhere(tmp_path, capsys):
    out = tmp_path / "in" / "out"
    out.mkdir(parents=True)
    content = results_of("plateau")
    content["tasks"]["../../esc"] = next(iter(content["tasks"].values()))
    (out / "results.json").write_text(json.dumps(content))
    redraw("plateau", out / "results.json", capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert all(path.suffix in (".png", ".json") for path in out.iterdir())
