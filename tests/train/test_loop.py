"""The loop on linear regression, whose answer is known in closed form."""

import os
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcmjax.errors import VcmError
from vcmjax.train import loop
from vcmjax.train.loop import Options, Problem, Runs

TRUE = np.array([1.5, -2.0, 0.5], np.float32)


def data(count=64, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    return {"x": jnp.asarray(x), "y": jnp.asarray(x @ TRUE)}


def init(key):
    return {"w": jax.random.normal(key, (3,)), "b": jnp.ones(())}


def squares(params, batch):
    return jnp.square((batch["x"] * params["w"]).sum(-1) + params["b"] - batch["y"])


def loss(params, keys, run, batch, progress):
    noise = 1e-3 * jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
    total = squares({**params, "w": params["w"] + noise}, batch).mean()
    # Runs whose least λ is 13 go wrong once they are close: the others must not notice.
    total = jnp.where((run.lams[0] == 13) & (total < 1.0), jnp.nan, total)
    return total, jnp.stack([total, params["b"]])


def validate(params, run, batch):
    return squares(params, batch)


PROBLEM = Problem(init, loss, validate, ("loss", "bias"))


def runs(seeds, lams=1.0):
    lams = np.broadcast_to(np.asarray(lams, np.float32)[..., None], (len(seeds), 2))
    return Runs(np.array(seeds), lams)


def fit(directory, steps=60, chunk=10, seeds=(0,), lams=1.0, progress=lambda step: None, **options):
    options = Options(steps, batch=8, chunk=chunk, **{"learning_rate": 0.05, **options})
    return loop.fit(PROBLEM, data(), data(seed=1), options, runs(seeds, lams), directory, progress)


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
    assert seen == list(range(after, 61, 10))
    assert_same(resumed, whole)


def test_a_finished_run_is_read_back_without_a_step(tmp_path):
    first, seen = fit(tmp_path), []
    assert_same(fit(tmp_path, progress=seen.append), first)
    assert seen == [60]


@pytest.mark.slow
def test_a_run_killed_by_signal_9_ends_with_the_same_parameters(tmp_path):
    script = textwrap.dedent(f"""
        import os, signal, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import test_loop

        def kill(step):
            if step == 40:
                os.kill(os.getpid(), signal.SIGKILL)

        test_loop.fit({str(tmp_path / "cut")!r}, progress=kill)
    """)
    compiled_alike = os.environ | {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": str(jax.config.read("jax_disable_most_optimizations"))
    }
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, env=compiled_alike
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    seen = []
    resumed = fit(tmp_path / "cut", progress=seen.append)
    assert seen[0] < 60
    assert_same(resumed, fit(tmp_path / "whole"))


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
