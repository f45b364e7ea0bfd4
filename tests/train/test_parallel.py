"""The same training on one device, on two, and in two processes that talk over loopback."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from vcmjax.errors import UsageError
from vcmjax.train import parallel
from vcmjax.train.parallel import Devices

WORKER = Path(__file__).with_name("parallel_worker.py")
TWO = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def started(what, directory, processes=1, of=None, **environment):
    """Processes that do `what`."""
    port = free_port()
    found = []
    for process in range(processes):
        joined = os.environ | environment | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        if (of or processes) > 1:
            values = f"127.0.0.1:{port}", str(of or processes), str(process)
            joined |= dict(zip(VARIABLES, values, strict=True))
        found.append(
            subprocess.Popen(
                [sys.executable, str(WORKER), what, str(directory)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=joined,
            )
        )
    return found


def finished(processes, status=0):
    """(standard output, standard error) of each."""
    try:
        said = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, error) in zip(processes, said, strict=True):
        assert process.returncode == status, error
    return said


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Directory of what each spread of one training left."""
    places = {name: tmp_path_factory.mktemp(name) for name in ("one", "devices", "processes")}
    finished(started("train", places["one"]) + started("train", places["devices"], XLA_FLAGS=TWO))
    finished(started("train", places["processes"], 2))
    return places


@pytest.mark.parametrize("prior", ["codebook", "spatial"])  # data: arrays; read, two runs at once
@pytest.mark.parametrize("spread", ["devices", "processes"])
def test_gradient_and_parameters_do_not_depend_on_the_spread(trained, spread, prior):
    expected, got = (np.load(trained[name] / f"{prior}.npz") for name in ("one", spread))
    assert expected["history"].shape[1:] == (3, 4) and np.isfinite(expected["history"]).all()
    np.testing.assert_allclose(got["history"], expected["history"], rtol=1e-5)
    for name in ("gradient", "params"):
        size = np.linalg.norm(expected[name])
        assert size > 0.1
        assert np.linalg.norm(got[name] - expected[name]) <= 1e-6 * size, name


def test_processes_that_were_told_different_things_all_say_so(tmp_path):
    (first, _), (second, _) = finished(started("disagree", tmp_path, 2))
    lines = [line for line in first.splitlines() if not line.startswith("[Gloo]")]
    assert [line.split(";")[0] for line in lines] == [
        "number of training examples is 64 in process 0 and 48 in process 1",
        "number of training examples is 64 in process 0 and 0 in process 1",
        "fit: no training or no validation examples",
        "batch is 8 in process 0 and 16 in process 1",
        "steps is 20 in process 0 and 40 in process 1",
        "batch is 7",
        "process 1 of 2 did not start training within 1 s",
    ]
    assert [line for line in second.splitlines() if not line.startswith("[Gloo]")] == lines[:-1]


def test_where_the_first_process_cannot_begin_the_others_do_not_wait_for_it(tmp_path):
    said = [
        [line for line in text.splitlines() if not line.startswith("[Gloo]")]
        for text, _ in finished(started("occupied", tmp_path, 2))
    ]
    assert said == [
        [
            f"{tmp_path}: another process is training here; wait until it has ended, or name "
            "another directory"
        ],
        ["process 0 could not begin; see what it says"],
    ]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_ended_on_two_devices_goes_on_on_one_to_the_same_parameters(
    number, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(WORKER.parent)
    import test_loop

    ended = started(number.name, tmp_path / "cut", XLA_FLAGS=TWO)
    ((_, said),) = finished(ended, -9 if number == signal.SIGKILL else 143)
    assert number == signal.SIGKILL or ("interrupted" in said and "Traceback" not in said)
    seen = []
    (resumed,) = test_loop.fit(tmp_path / "cut", progress=seen.append)
    assert seen[0] in (30, 40) if number == signal.SIGKILL else seen[0] == 40
    (whole,) = test_loop.fit(tmp_path / "whole")
    for a, b in zip(jax.tree.leaves(resumed.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_a_process_whose_fellows_do_not_come_says_so_in_one_line(tmp_path):
    ((_, said),) = finished(started("alone", tmp_path, 1, of=2), 2)
    assert "processes [1] of 2 did not come" in said
    assert "Traceback" not in said and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a:1", None, None), r"processes \(JAX_NUM_PROCESSES\), process_id .*: not given"),
        ((None, 2, 0), r"coordinator \(JAX_COORDINATOR_ADDRESS\): not given"),
        (("a:1", 2, 2), "process_id is 2; expected 0 to 1 of 2 processes"),
        (("a:1", 2, -1), "process_id is -1; expected 0 to 1"),
        (("a", 2, 1), "coordinator is 'a'; expected host:port"),
        (("127.0.0.1:1", 2, 1, 0), "127.0.0.1:1 does not answer within 0 s"),
    ],
)
def test_what_cannot_be_joined_is_refused_in_words(arguments, message):
    with pytest.raises(UsageError, match=message):
        parallel.initialize(*arguments)


def test_the_environment_stands_in_for_what_is_not_given(monkeypatch):
    assert parallel.initialize() == Devices(1, 1, 0)
    for name, value in zip(VARIABLES, ("a:1", "2", "two"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="JAX_PROCESS_ID is 'two'; expected an integer"):
        parallel.initialize()
    with pytest.raises(UsageError, match="process_id is 3; expected 0 to 1"):
        parallel.initialize(process_id=3)


def test_positions_of_all_processes_and_devices_make_up_the_batch():
    parts = np.stack([Devices(2, 3, process).positions(12) for process in range(3)])
    assert parts.shape == (3, 2, 2)
    assert sorted(parts.ravel()) == list(range(12))
    np.testing.assert_array_equal(parts[1], [[1, 4], [7, 10]])
    np.testing.assert_array_equal(Devices(1, 1, 0).positions(3), [0, 1, 2])


def test_a_batch_that_devices_cannot_share_is_refused():
    with pytest.raises(UsageError, match="batch is 6; expected a multiple of 4 devices"):
        Devices(2, 2, 0).check(6)
