"""The training loop: one run or several at once, resumed from wherever it was cut off.

The data lie on the device and a chunk of steps is one jitted `lax.scan`, so the host is asked
only between chunks: for validation, a checkpoint and the progress bar.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vcmjax.errors import VcmError
from vcmjax.train import checkpoint


@dataclasses.dataclass(frozen=True)
class Options:
    """How long and how fast to train.

    Attributes:
      steps: Optimiser steps.
      batch: Examples per step.
      learning_rate: Peak of Adam's warm-up and cosine decay.
      weight_decay: Decoupled, of matrices and kernels alone.
      chunk: Steps between validations and checkpoints; divides `steps`.
    """

    steps: int
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    chunk: int = 100

    def __post_init__(self) -> None:
        """Refuse a chunk that does not divide the steps."""
        if self.steps < 1 or self.steps % self.chunk:
            raise VcmError(f"steps is {self.steps}; expected a multiple of chunk={self.chunk}")


class Problem(NamedTuple):
    """What is trained, as pure functions; `run` is this run's entry of `fit`'s `runs`.

    Attributes:
      init: key to parameters.
      loss: (params, key, run, train, index (batch,), progress) to (scalar loss, numbers to record
        (k,)); progress is the share of the steps that is done, in [0, 1).
      validate: (params, run, val) to the scalar cost by which the best checkpoint is chosen.
      recorded: Names of what `loss` records.
    """

    init: Callable[[jax.Array], Any]
    loss: Callable[..., tuple[jax.Array, jax.Array]]
    validate: Callable[..., jax.Array]
    recorded: tuple[str, ...]


class State(NamedTuple):
    """All that a resumed run needs; leaves have a leading axis of runs."""

    params: Any
    optimiser: Any
    step: jax.Array
    best: Any
    best_cost: jax.Array
    healthy: jax.Array
    history: jax.Array


class Runs(NamedTuple):
    """What tells runs apart: seeds (R,) and least and greatest λ (R, 2), unused without a rate."""

    seed: np.ndarray
    lams: np.ndarray


class Result(NamedTuple):
    """The outcome of one run.

    Attributes:
      params: Those of the least validation cost.
      diverged: Whether loss or cost became NaN; `params` are then the last good ones.
      history: (chunks, recorded + 1): chunk means of what the loss records, then the validation
        cost; NaN where not reached.
    """

    params: Any
    diverged: bool
    history: np.ndarray


def fit(
    problem: Problem,
    train: Any,
    val: Any,
    options: Options,
    runs: Runs,
    directory: Path,
    progress: Callable[[int], None] = lambda step: None,
) -> list[Result]:
    """Train once per entry of `runs`; several entries train at once, by `vmap`.

    Interrupted anywhere, even by kill -9, a later call with the same arguments goes on from the
    last checkpoint in `directory` and ends with the same parameters.

    Args:
      problem: What to train.
      train: Tree of arrays with a leading axis of examples.
      val: Tree of arrays, passed to `problem.validate`.
      options: How to train.
      runs: One entry per run.
      directory: Where checkpoints are kept.
      progress: Told the number of steps done, after each chunk.
    """
    count = len(runs.seed)
    fresh = [_fresh(problem, options, int(seed)) for seed in runs.seed]
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *fresh)
    chunk = _chunk(problem, options, count)
    arrays = jax.tree.map(jnp.asarray, runs)
    with checkpoint.opened(directory) as kept:
        saved = kept.newest(state)
        state = state if saved is None else saved
        done = int(state.step[0])
        progress(done)
        while done < options.steps and bool(jnp.any(state.healthy)):
            state = chunk(state, arrays, train, val)
            done = int(state.step[0])
            kept.save(done, jax.tree.map(np.asarray, state))
            progress(done)
    return [
        Result(
            jax.tree.map(lambda leaf, i=i: leaf[i], state.best),
            not bool(state.healthy[i]),
            np.asarray(state.history[i]),
        )
        for i in range(count)
    ]


def _optimiser(options: Options) -> optax.GradientTransformation:
    warm = min(100, options.steps // 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, options.learning_rate, warm, options.steps)
    decayed = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)  # noqa: E731
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(rate, weight_decay=options.weight_decay, mask=decayed),
    )


def _fresh(problem: Problem, options: Options, seed: int) -> State:
    # Compiled as a whole, the forward pass that Flax runs to find shapes is left out; on a CPU
    # optimising what runs once costs more than it saves (13 s against 5 s for a codec).
    hasty = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    compiler = hasty if jax.default_backend() == "cpu" else None
    params = jax.jit(problem.init, compiler_options=compiler)(jax.random.key(seed))
    return State(
        params=params,
        optimiser=_optimiser(options).init(params),
        step=jnp.zeros((), jnp.int32),
        best=params,
        best_cost=jnp.asarray(jnp.inf),
        healthy=jnp.asarray(True),
        history=jnp.full((options.steps // options.chunk, len(problem.recorded) + 1), jnp.nan),
    )


def _step(
    problem: Problem, options: Options, state: State, run: Runs, train
) -> tuple[State, jax.Array]:
    """One optimiser step: what a scan carries, and what it records."""
    params, moments, step = state.params, state.optimiser, state.step
    examples = len(jax.tree.leaves(train)[0])
    # Keys follow from seed and step alone, so that a resumed run draws the same batches.
    index_key, key = jax.random.split(jax.random.fold_in(jax.random.key(run.seed), step))
    index = jax.random.randint(index_key, (options.batch,), 0, examples)
    loss = jax.grad(problem.loss, has_aux=True)
    gradient, recorded = loss(params, key, run, train, index, step / options.steps)
    updates, moments = _optimiser(options).update(gradient, moments, params)
    params = optax.apply_updates(params, updates)
    return state._replace(params=params, optimiser=moments, step=step + 1), recorded


def _judge(problem: Problem, options: Options, before: State, after: State, recorded, run, val):
    """Validation after a chunk. A run that has diverged keeps what was good."""
    cost = problem.validate(after.params, run, val)
    better = cost < before.best_cost
    row = jnp.append(recorded.mean(0), cost)
    new = after._replace(
        best=jax.tree.map(functools.partial(jnp.where, better), after.params, before.best),
        best_cost=jnp.where(better, cost, before.best_cost),
        history=before.history.at[before.step // options.chunk].set(row),
    )
    good = before.healthy & jnp.all(jnp.isfinite(recorded)) & jnp.isfinite(cost)
    stopped = before._replace(healthy=jnp.asarray(False), step=after.step)
    return jax.tree.map(functools.partial(jnp.where, good), new, stopped)


@functools.lru_cache(maxsize=4)
def _chunk(problem: Problem, options: Options, count: int) -> Callable:
    """(state, runs, train, val) to the state `options.chunk` steps on, validated.

    One jitted scan, except on CPU: there XLA runs the convolutions of a loop body by a generic
    path (measured with jaxlib 0.10.2, 2 cores: gradient of a 3×3×64×64 kernel 350 ms inside a
    scan, 6 ms outside), so the host calls one jitted step after another.
    """
    step = _over_runs(functools.partial(_step, problem, options), (0, 0, None), count)
    judge = _over_runs(functools.partial(_judge, problem, options), (0, 0, 0, 0, None), count)
    if jax.default_backend() == "cpu":
        step, judge = jax.jit(step), jax.jit(judge)

        def chunk(state, runs, train, val):
            after, rows = state, []
            for _ in range(options.chunk):
                after, recorded = step(after, runs, train)
                rows.append(recorded)
            return judge(state, after, jnp.stack(rows, axis=1), runs, val)

        return chunk

    def scanned(state, runs, train, val):
        after, recorded = jax.lax.scan(
            lambda carry, _: step(carry, runs, train), state, None, options.chunk
        )
        return judge(state, after, jnp.swapaxes(recorded, 0, 1), runs, val)

    return jax.jit(scanned)


def _over_runs(function: Callable, axes: tuple[int | None, ...], count: int) -> Callable:
    """`function` over a leading axis of runs; a single run keeps its unbatched convolutions."""
    if count > 1:
        return jax.vmap(function, in_axes=axes)

    def alone(*arguments):
        first = [
            jax.tree.map(lambda leaf: leaf[0], a) if axis == 0 else a
            for a, axis in zip(arguments, axes, strict=True)
        ]
        return jax.tree.map(lambda leaf: leaf[None], function(*first))

    return alone
