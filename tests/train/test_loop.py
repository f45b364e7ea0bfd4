"""The loop on linear regression, whose answer is known in closed form."""

import functools
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcmjax.errors import UsageError, VcmError
from vcmjax.train import checkpoint, loop
from vcmjax.train.loop import Options, Problem, Runs

TRUE = np.array([1.5, -2.0, 0.5], np.float32)


def data(count=64, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    return {"x": jnp.asarray(x), "y": jnp.asarray(x @ TRUE)}


def init(key):
    return {"w": jax.random.normal(key, (3,)), "b": jnp.ones(())}


def squares(params, batch):
    return jnp.square(batch["x"] @ params["w"] + params["b"] - batch["y"])


def loss(params, keys, run, batch, progress):
    noise = 1e-3 * jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
    noisy = batch | {"y": batch["y"] - (batch["x"] * noise).sum(-1)}
    total = squares(params, noisy).mean()
    # Runs whose least λ is 13 go wrong once they are close: the others must not notice.
    total = jnp.where((run.lams[0] == 13) & (total < 1.0), jnp.nan, total)
    return total, jnp.stack([total, params["b"]])


def validate(params, run, batch):
    return squares(params, batch)


PROBLEM = Problem(init, loss, validate, ("loss", "bias"))


def runs(seeds, lams=1.0):
    lams = np.broadcast_to(np.asarray(lams, np.float32)[..., None], (len(seeds), 2))
    return Runs(np.array(seeds), lams)


def fit(
    directory,
    steps=60,
    chunk=10,
    seeds=(0,),
    lams=1.0,
    progress=lambda step: None,
    problem=PROBLEM,
    train=None,
    **options,
):
    options = Options(steps, batch=8, chunk=chunk, **{"learning_rate": 0.05, **options})
    train = data() if train is None else train
    return loop.fit(problem, train, data(seed=1), options, runs(seeds, lams), directory, progress)


def test_the_step_is_compiled_once(tmp_path):
    traced = []

    def counted(*arguments):
        traced.append(1)
        return loss(*arguments)

    problem = PROBLEM._replace(loss=counted)
    options = Options(30, batch=8, chunk=10)
    loop.fit(problem, data(), data(seed=1), options, runs([0]), tmp_path)
    assert len(traced) == 1


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


class Killed(Exception):
    pass


def test_converges_to_the_closed_form_of_least_squares(tmp_path):
    (result,) = fit(tmp_path, 400, 200)
    x = np.asarray(data()["x"], np.float64)
    design = np.c_[x, np.ones(len(x))]
    expected = np.linalg.lstsq(design, np.asarray(data()["y"]), rcond=None)[0]
    np.testing.assert_allclose(result.params["w"], expected[:3], atol=5e-3)
    assert float(result.params["b"]) == pytest.approx(expected[3], abs=5e-3)
    assert not result.diverged


@pytest.mark.parametrize("after", [10, 30])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, after):
    def killed(step):
        if step == after:
            raise Killed

    whole = fit(tmp_path / "whole")
    with pytest.raises(Killed):
        fit(tmp_path / "cut", progress=killed)
    seen = []
    resumed = fit(tmp_path / "cut", progress=seen.append)
    assert seen[0] == after and seen == sorted(set(seen))
    assert set(range(after, 61, 10)) <= set(seen)
    assert_same(resumed, whole)


class Source:
    """The examples of `data`, one at a time."""

    @functools.cached_property
    def all(self):
        return jax.tree.map(np.asarray, data())

    def __len__(self):
        return len(self.all["y"])

    def __getitem__(self, index):
        return jax.tree.map(lambda leaf: leaf[index], self.all)


def cut_off(directory, after, **how):
    """A training that keeps a checkpoint of every step, until the step `after`."""

    def killed(step):
        if step >= after:
            raise Killed

    with pytest.raises(Killed):
        fit(directory, checkpoint_seconds=0, progress=killed, **how)


WAYS = {
    "arrays": {},
    "several runs, read as needed": {"train": Source(), "seeds": (0, 1)},
    "one that diverges": {"seeds": (0, 0), "lams": (1.0, 13.0), "steps": 100, "chunk": 50},
}


@pytest.mark.parametrize("way", WAYS)
def test_cut_off_within_chunks_a_run_equals_the_uninterrupted_bit_for_bit(tmp_path, way):
    whole = fit(tmp_path / "whole", **WAYS[way])
    for after in (3, 14):
        cut_off(tmp_path / "cut", after, **WAYS[way])
        assert listing(tmp_path / "cut")[-1] == f"{after}"
    seen = []
    assert_same(fit(tmp_path / "cut", progress=seen.append, **WAYS[way]), whole)
    assert seen[0] == 14
    assert any(result.diverged for result in whole) == (way == "one that diverges")


def listing(directory):
    return sorted((path.name for path in directory.iterdir()), key=int)


def test_a_compiled_loop_takes_the_steps_that_the_host_would_however_they_are_cut(
    tmp_path, monkeypatch
):
    host = fit(tmp_path / "host")
    monkeypatch.setattr(loop, "_looped", lambda streamed: True)
    # Another problem to the cache of programs.
    traced = []

    def counted(*arguments):
        traced.append(1)
        return loss(*arguments)

    problem = PROBLEM._replace(loss=counted)
    whole = fit(tmp_path / "whole", problem=problem)
    assert len(traced) == 1
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(host), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for after in (3, 12):
        cut_off(tmp_path / "cut", after, problem=problem)
    assert_same(fit(tmp_path / "cut", problem=problem), whole)


def test_killed_while_it_validates_a_run_goes_on_with_the_validation(tmp_path, monkeypatch):
    saved = []
    save = checkpoint.Checkpoints.save

    def dying(self, step, state):
        if saved[-1:] == [10]:  # the second of this step, by then validated
            raise Killed
        saved.append(step)
        save(self, step, state)

    whole = fit(tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.Checkpoints, "save", dying)
        with pytest.raises(Killed):
            fit(tmp_path / "cut", checkpoint_seconds=0)
    assert saved == list(range(1, 11))
    seen = []
    assert_same(fit(tmp_path / "cut", progress=seen.append), whole)
    assert seen[:2] == [10, 10]


def test_steps_taken_at_once_double_and_end_with_the_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_LOOK", 1e9)  # as if a step took no time
    seen = []
    fit(tmp_path, steps=40, chunk=20, progress=seen.append, checkpoint_seconds=1e9)
    assert seen == [0, 1, 3, 7, 15, 20, 30, 40]


SETTINGS = {
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_is_cut_off_and_goes_on_whatever_the_settings_of_jax(tmp_path, name):
    before = getattr(jax.config, name)
    traced = []

    def counted(*arguments):
        traced.append(1)
        return loss(*arguments)

    problem = PROBLEM._replace(loss=counted)
    jax.config.update(name, SETTINGS[name])
    try:
        cut_off(tmp_path, 3, steps=20, problem=problem)
        (result,) = fit(tmp_path, steps=20, problem=problem)
    finally:
        jax.config.update(name, before)
    assert len(traced) == 2  # once for each of the two options
    assert result.history.dtype == np.float32 and np.isfinite(result.history).all()


def test_a_second_training_in_the_same_directory_is_refused(tmp_path):
    with (
        checkpoint.opened(tmp_path),
        pytest.raises(UsageError, match=f"{tmp_path}: another process is training here"),
    ):
        fit(tmp_path)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_time_between_checkpoints_that_is_none_is_refused(seconds):
    with pytest.raises(VcmError, match=f"checkpoint_seconds is {seconds}; expected 0"):
        Options(100, checkpoint_seconds=seconds)


def test_a_finished_run_is_read_back_without_a_step(tmp_path):
    first, seen = fit(tmp_path), []
    assert_same(fit(tmp_path, progress=seen.append), first)
    assert seen == [60]


ONE = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
import test_loop

def progress(step):
    print(step, flush=True)
    time.sleep(0.02)

(result,) = test_loop.fit(Path(sys.argv[2]), 120, 40, checkpoint_seconds=0, progress=progress)
np.savez(sys.argv[3], history=result.history, **result.params)
"""


@pytest.mark.slow
def test_a_run_killed_at_random_moments_loses_little_and_ends_with_the_same_parameters(tmp_path):
    def start(name):
        return subprocess.Popen(
            [
                *(sys.executable, "-c", ONE, os.path.dirname(__file__)),
                *(tmp_path / name, tmp_path / f"{name}.npz"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )

    def finished(process):
        said, _ = process.communicate()
        assert process.returncode == 0
        return [int(line) for line in said.split()]

    moments = np.random.default_rng(0).uniform(0, 0.8, 5)
    begun, last = [], 0
    for moment in moments:
        with start("cut") as process:
            begun.append(int(process.stdout.readline()))
            assert begun[-1] == last
            process.stdout.readline()  # compiled
            time.sleep(moment)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        found = [path.name for path in (tmp_path / "cut").iterdir()]
        last = max((int(name) for name in found if name.isdecimal()), default=0)
    seen = finished(start("cut"))
    assert 0 < last == seen[0] < 120
    assert begun == sorted(begun) and seen == sorted(seen)
    assert len(finished(start("whole"))) > 1
    cut, whole = (np.load(tmp_path / f"{name}.npz") for name in ("cut", "whole"))
    for name in whole:
        np.testing.assert_array_equal(cut[name], whole[name])
    # Checkpoints, and nothing that the killed have left.
    assert len(listing(tmp_path / "cut")) == 2
    assert listing(tmp_path / "cut")[-1] == "120"


def test_several_runs_at_once_equal_the_runs_alone(tmp_path):
    together = fit(tmp_path / "all", seeds=(0, 1, 2))
    for seed in range(3):
        (alone,) = fit(tmp_path / str(seed), seeds=(seed,))
        for a, b in zip(jax.tree.leaves(together[seed]), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_a_run_that_meets_nan_stops_with_what_was_good_while_the_others_go_on(tmp_path):
    good, bad = fit(tmp_path / "both", 200, 20, seeds=(0, 0), lams=(1.0, 13.0))
    (alone,) = fit(tmp_path / "alone", 200, 20, seeds=(0,))
    assert bad.diverged and not good.diverged
    np.testing.assert_allclose(good.params["w"], alone.params["w"], atol=1e-3)
    reached = np.isfinite(bad.history).all(1)
    cut = int(reached.sum())
    assert 0 < cut < 10, "the loss falls below 1 in the first or last chunk; choose another rate"
    assert np.all(np.isnan(bad.history[cut:]))
    np.testing.assert_allclose(bad.history[:cut], good.history[:cut], rtol=1e-4)
    # The parameters kept are those that validation liked best before the NaN.
    best = min(bad.history[:cut, -1])
    assert float(squares(bad.params, data(seed=1)).mean()) == pytest.approx(best, rel=1e-3)


def test_when_all_runs_have_diverged_training_ends_early_and_stays_ended(tmp_path):
    seen = []
    (bad,) = fit(tmp_path, 200, 20, lams=13.0, progress=seen.append)
    assert bad.diverged and seen[-1] < 200
    again = []
    (same,) = fit(tmp_path, 200, 20, lams=13.0, progress=again.append)
    assert again == seen[-1:]
    assert_same(same, bad)


def test_history_holds_chunk_means_and_the_validation_cost(tmp_path):
    (result,) = fit(tmp_path)
    assert result.history.shape == (6, 3)
    assert np.all(np.isfinite(result.history))
    best = float(squares(result.params, data(seed=1)).mean())
    assert best == pytest.approx(result.history[:, -1].min(), rel=1e-4)


def test_seeds_differ_and_the_same_seed_does_not(tmp_path):
    a, b = fit(tmp_path / "a", seeds=(0, 1))
    assert np.any(np.asarray(a.params["w"]) != np.asarray(b.params["w"]))
    again, _ = fit(tmp_path / "b", seeds=(0, 1))
    assert_same(again, a)


def test_weight_decay_shrinks_matrices_and_leaves_vectors_alone(tmp_path):
    # A loss without gradient: decay is all that acts.
    def flat(params, keys, run, batch, progress):
        return jnp.zeros(()), jnp.zeros(1)

    start = {"matrix": jnp.ones((2, 2)), "vector": jnp.ones(2)}
    cost = lambda params, run, batch: jnp.full(len(batch["y"]), params["matrix"].sum())  # noqa: E731
    problem = Problem(lambda key: start, flat, cost, ("loss",))
    options = Options(50, learning_rate=0.1, weight_decay=0.5, chunk=50)
    (result,) = loop.fit(problem, data(), data(), options, runs([0]), tmp_path)
    np.testing.assert_array_equal(result.params["vector"], 1)
    assert np.all(np.asarray(result.params["matrix"]) < 0.9)


@pytest.mark.parametrize(("steps", "chunk"), [(0, 100), (150, 100), (-100, 100)])
def test_steps_that_are_no_multiple_of_a_chunk_are_refused(steps, chunk):
    with pytest.raises(VcmError, match=f"steps is {steps}; expected a multiple of chunk={chunk}"):
        Options(steps, chunk=chunk)
