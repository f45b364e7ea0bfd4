"""A run's folder is its alone, its results are written whatever is missing, and say what is."""

import dataclasses
import functools
import importlib.metadata
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import harness, kept
from vcmjax.errors import DataError, UsageError
from vcmjax.evaluate.measure import Measurement

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Config:
    data: str = "rooms"
    steps: int = 100
    lams: tuple[float, ...] = (0.1, 1.0)


# Provenance


def fake_git(folder, script):
    path = folder / "git"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(
    "script",
    [None, "exit 128", "echo", "printf '\\377'", "kill -9 $$", "sleep 60 & sleep 60"],
    ids=["absent", "fails", "silent", "no text", "killed", "hangs"],
)
def test_where_git_cannot_tell_the_revision_is_unknown_and_said(
    script, tmp_path, monkeypatch, caplog
):
    if script:
        fake_git(tmp_path, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin" if script else str(tmp_path))
    monkeypatch.setattr(harness, "_GIT_SECONDS", 0.5 if script and "sleep" in script else 60)
    found = harness.provenance()
    assert found["revision"] == "unknown"
    assert "git revision" in caplog.text
    assert found["versions"]["numpy"] == np.__version__


def test_the_revision_is_that_of_the_checkout_and_of_no_repository_around_it(
    tmp_path, monkeypatch, caplog
):
    inner = tmp_path / "copied"
    inner.mkdir()
    for command in ("init -q", "-c user.name=a -c user.email=b commit -q --allow-empty -m c"):
        subprocess.run(["git", "-C", tmp_path, *command.split()], check=True)
    monkeypatch.setattr(harness, "_ROOT", inner)
    assert harness.provenance()["revision"] == "unknown"
    monkeypatch.setenv("GIT_DIR", str(inner / ".git"))  # as a hook sets it
    monkeypatch.setattr(harness, "_ROOT", tmp_path)
    head = ["git", f"--git-dir={tmp_path / '.git'}", "rev-parse", "--short", "HEAD"]
    expected = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
    assert harness.provenance()["revision"].removesuffix("-dirty") == expected


def test_packages_without_metadata_have_unknown_versions(monkeypatch, caplog):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    versions = harness.provenance()["versions"]
    assert versions["orbax-checkpoint"] == "unknown" and "orbax-checkpoint" in caplog.text
    assert versions["vcmjax"] != "unknown"


@pytest.mark.parametrize(
    ("data", "name"), [("rooms", "rooms"), ("here/rooms", "./rooms"), ("/a/camvid", "camvid")]
)
def test_results_tell_a_folder_called_rooms_from_the_procedural_ones(data, name):
    results = harness.results("plateau", Config(data), (0,))
    assert results["config"]["data"] == name and results["experiment"] == "plateau"


# The cache


def test_without_a_home_an_error_names_the_variable_that_helps(monkeypatch, tmp_path):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("VCMJAX_CACHE")
    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(UsageError, match="VCMJAX_CACHE=FOLDER"):
        harness.cache_directory()
    (tmp_path / "file").touch()
    monkeypatch.setenv("VCMJAX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UsageError, match="VCMJAX_CACHE=FOLDER"):
        harness.cache_directory()
    monkeypatch.setenv("VCMJAX_CACHE", str(tmp_path / "cache"))
    assert harness.cache_directory().is_dir()


# The claim

HOLD = """
import sys
from pathlib import Path
from experiments import harness
from tests.experiments.test_harness import Config

def run():
    with harness.claimed(Path(sys.argv[1]), Config()):
        print("claimed", flush=True)
        sys.stdin.read()

harness.main(run)
"""


def holder(out):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_second_run_in_a_folder_is_refused_until_the_first_is_gone(tmp_path):
    out = tmp_path / "out"
    first = holder(out)
    try:
        assert first.stdout.readline() == "claimed\n"
        with pytest.raises(UsageError, match=f"--out {out}: another run is at work in it"):
            harness.claimed(out, Config()).__enter__()
        assert json.loads((out / "config.json").read_text())["steps"] == 100
    finally:
        first.kill()
        first.wait()
    with harness.claimed(out, Config()):
        pass
    assert [path.name for path in out.iterdir()] == ["config.json"]


def test_of_runs_that_start_at_once_one_has_the_folder_and_the_others_are_refused(tmp_path):
    started = [holder(tmp_path / "out") for _ in range(4)]
    said = []
    for process in started:
        line = process.stdout.readline()
        said.append(line.strip())
    winners = [p for p, line in zip(started, said, strict=True) if line == "claimed"]
    assert len(winners) == 1
    for process in started:
        _, error = process.communicate("")
        expected = 0 if process in winners else 2
        assert process.returncode == expected, error
        assert expected == 0 or error.count("another run is at work in it") == 1


def test_a_refused_run_leaves_no_trace_and_one_that_has_begun_keeps_its_folder(tmp_path):
    out = tmp_path / "out"

    def refused():
        with harness.claimed(out, Config()):
            raise DataError("no such data")

    with pytest.raises(DataError):
        refused()
    assert not out.exists()
    out.mkdir()
    with pytest.raises(DataError):
        refused()
    assert out.is_dir() and not any(out.iterdir())
    (out / "models").mkdir()
    with pytest.raises(DataError):
        refused()
    assert (out / "config.json").exists()
    with pytest.raises(UsageError, match=r"other settings \(lams, steps\)"):
        harness.claimed(out, Config(steps=200, lams=(0.1,))).__enter__()


@pytest.mark.parametrize("content", ["{", "[1]", "null", "\udcff", '{"steps": NaN}'])
def test_settings_that_are_none_are_refused_in_one_line_that_names_the_file(tmp_path, content):
    (tmp_path / "config.json").write_bytes(os.fsencode(content))
    with pytest.raises(DataError, match=r"config\.json: .*"):
        harness.claimed(tmp_path, Config()).__enter__()
    assert (tmp_path / "config.json").read_bytes() == os.fsencode(content)


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def flock(handle, kind):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(harness.fcntl, "flock", flock)
    with harness.claimed(tmp_path / "out", Config()), harness.alone(tmp_path / "cache"):
        pass


def test_a_second_run_waits_for_what_the_first_one_trains_in_the_cache(tmp_path):
    code = """
import sys
from pathlib import Path
from experiments import harness
with harness.alone(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
    Path(sys.argv[1], sys.argv[2]).touch()
"""
    start = functools.partial(
        subprocess.Popen, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    first = start([sys.executable, "-c", code, str(tmp_path), "trained"])
    assert first.stdout.readline() == "in\n"
    second = start([sys.executable, "-c", code, str(tmp_path), "too"])
    first.communicate("")
    assert second.stdout.readline() == "in\n" and (tmp_path / "trained").exists()
    second.communicate("")
    assert second.returncode == 0


# Files

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_any_results_can_be_written_and_a_number_that_is_none_is_null(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "results.json"
    harness.write_json(path, content)

    def expected(value):
        if isinstance(value, dict):
            return {key: expected(each) for key, each in value.items()}
        if isinstance(value, list):
            return [expected(each) for each in value]
        return None if isinstance(value, float) and not np.isfinite(value) else value

    assert json.loads(path.read_text()) == expected(content)
    assert harness.read_json(path) == expected(content)


def test_numpy_numbers_are_written_as_numbers(tmp_path):
    content = {"a": np.float32(0.5), "b": np.arange(3), "c": (np.bool_(True), np.nan), 1: np.inf}
    harness.write_json(tmp_path / "a.json", content)
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "a": 0.5,
        "b": [0, 1, 2],
        "c": [True, None],
        "1": None,
    }


WRITE = """
import os, sys
from pathlib import Path
from experiments import harness
from vcmjax.io import atomic
replace = os.replace
os.replace = lambda *_: os.kill(os.getpid(), 9)
harness.write_json(Path(sys.argv[1]), {"a": 1})
"""


def test_what_a_killed_writer_leaves_is_gone_after_the_next(tmp_path):
    path = tmp_path / "results.json"
    harness.write_json(path, {"a": 0})
    killed = subprocess.run([sys.executable, "-c", WRITE, str(path)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2 and json.loads(path.read_text()) == {"a": 0}
    harness.write_json(path, {"a": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_a_measurement_that_cannot_be_read_is_not_called_damaged(tmp_path):
    none = np.zeros(2)
    measured = Measurement(none, none, none, none, {"correct": none})
    (tmp_path / "val_3.npz").mkdir()
    with pytest.raises(DataError, match=r"val_3\.npz: cannot be read: Is a directory"):
        kept.kept(tmp_path / "val_3.npz", lambda: measured)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"val_3\.npz: cannot be written: (Not a dir|File exists)"):
        kept.kept(tmp_path / "file" / "val_3.npz", lambda: measured)
