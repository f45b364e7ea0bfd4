"""The training loop: one run or several at once, resumed from wherever it was cut off.

Where the data lie on the devices, a chunk of steps is one compiled loop, and the host is asked
only between chunks: for validation, a checkpoint and the progress bar. What is too large for
that is read ahead, a batch at a time. Either way the step is spread over all devices and
processes, see `parallel`, and ends with the same parameters on any number of them.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vcmjax.data import loader
from vcmjax.errors import UsageError, VcmError
from vcmjax.train import checkpoint, parallel
from vcmjax.train.parallel import Devices


@dataclasses.dataclass(frozen=True)
class Options:
    """How long and how fast to train.

    Attributes:
      steps: Optimiser steps.
      batch: Examples per step, over all devices and processes.
      learning_rate: Peak of Adam's warm-up and cosine decay.
      weight_decay: Decoupled, of matrices and kernels alone.
      chunk: Steps between validations and checkpoints; divides `steps`.
      validation_batch: Examples validated at once by each device, which bounds memory.
    """

    steps: int
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    chunk: int = 100
    validation_batch: int = 32

    def __post_init__(self) -> None:
        """Refuse a chunk that does not divide the steps."""
        if self.steps < 1 or self.steps % self.chunk:
            raise VcmError(f"steps is {self.steps}; expected a multiple of chunk={self.chunk}")


class Problem(NamedTuple):
    """What is trained, as pure functions; `run` is this run's entry of `fit`'s `runs`.

    Attributes:
      init: key to parameters.
      loss: (params, keys (b,), run, batch, progress) to (mean loss of the batch, numbers to record
        (k,), means too). The batch is one device's share of a step's examples, with a key for
        each; progress is the share of the steps that is done, in [0, 1).
      validate: (params, run, batch) to the cost of each example (b,), by whose mean over the
        validation data the best checkpoint is chosen.
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

    Every process of `parallel.initialize` must make the same call; process 0 keeps the checkpoints
    and the others need not see them.

    Args:
      problem: What to train.
      train: Tree of arrays with a leading axis of examples, which must fit on each device; or a
        `loader.Source`, whose dictionaries or named tuples of arrays are read as they are needed.
      val: Tree of arrays with a leading axis of examples.
      options: How to train.
      runs: One entry per run.
      directory: Where checkpoints are kept.
      progress: Told the number of steps done, after each chunk.

    Raises:
      UsageError: The devices cannot share a batch equally, processes were called with different
        arguments, or there are no examples.
    """
    devices = parallel.devices()
    count = len(runs.seed)

    def fresh() -> State:
        with _hastily():
            params = [problem.init(jax.random.key(int(seed))) for seed in runs.seed]
        return jax.jit(functools.partial(_fresh, problem, options))(params)

    like = jax.eval_shape(fresh)
    streamed = not all(isinstance(a, np.ndarray | jax.Array) for a in jax.tree.leaves(train))
    examples = len(train) if streamed else len(jax.tree.leaves(train)[0])
    validated = len(jax.tree.leaves(val)[0])
    parallel.agree(_facts(examples, validated, options, runs, like, devices))
    devices.check(options.batch)
    if not examples or not validated:
        raise UsageError("fit: no training or no validation examples; expected at least one each")
    chunk = _chunk(problem, options, count, devices, streamed)
    parts = _validation(validated, options, devices)
    with checkpoint.opened(directory) as kept:
        saved = kept.newest(like)
        state = devices.broadcast(fresh() if saved is None else saved)
        done = int(state.step[0])
        healthy = bool(state.healthy.any())
        progress(done)
        state, arrays, val = devices.everywhere((state, jax.tree.map(np.asarray, runs), val))
        if streamed:
            batches = _stream(train, options, runs, devices, done)
        else:
            batches = itertools.repeat(devices.everywhere(train))
        while done < options.steps and healthy:
            state = chunk(state, arrays, batches, val, parts)
            now = jax.tree.map(np.asarray, devices.one(state))
            done, healthy = int(now.step[0]), bool(now.healthy.any())
            kept.save(done, now)
            progress(done)
    state = devices.one(state)
    return [
        Result(
            jax.tree.map(lambda leaf, i=i: leaf[i], state.best),
            not bool(state.healthy[i]),
            np.asarray(state.history[i]),
        )
        for i in range(count)
    ]


def _facts(
    examples: int, validated: int, options: Options, runs: Runs, state, devices: Devices
) -> dict:
    """What all processes must agree on."""
    shapes = [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(state.params)]
    return dataclasses.asdict(options) | {
        "number of training examples": examples,
        "number of validation examples": validated,
        "runs": [np.asarray(a).tolist() for a in runs],
        "problem (digest of parameter shapes)": hashlib.sha256(str(shapes).encode()).hexdigest(),
        "number of local devices": devices.local,
        "version of JAX": jax.__version__,
    }


def _stream(source, options: Options, runs: Runs, devices: Devices, done: int) -> Iterator[Any]:
    """Batches of `source` from step `done` on, for each run its own, one on its way ahead."""
    streams = [
        loader.batches(
            source,
            options.batch // devices.processes,
            seed=int(seed),
            shuffle=True,
            epochs=None,
            shard=(devices.process, devices.processes),
            start=done,
        )
        for seed in runs.seed
    ]
    put = devices.mapped(lambda batch: batch)
    axis = 1 if devices.several else 0

    def following():
        each = [devices.split(next(stream)) for stream in streams]
        return put(jax.tree.map(lambda *leaves: np.stack(leaves, axis), *each))

    batch = following()
    while True:
        ahead = following()
        yield batch
        batch = ahead


def _optimiser(options: Options) -> optax.GradientTransformation:
    warm = min(100, options.steps // 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, options.learning_rate, warm, options.steps)
    # As one vector: of hundreds of leaves it would be half of the program, and of its compilation.
    adam = optax.flatten(optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam()))
    decayed = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)  # noqa: E731
    decay = optax.add_decayed_weights(options.weight_decay, decayed)
    steps = [adam, decay] if options.weight_decay else [adam]
    return optax.chain(*steps, optax.scale_by_learning_rate(rate))


@contextlib.contextmanager
def _hastily() -> Iterator[None]:
    """On a CPU, what runs once is not worth optimising: 1 s for each shape of a random kernel."""
    option = "jax_disable_most_optimizations"
    before = jax.config.read(option)
    jax.config.update(option, before or jax.default_backend() == "cpu")
    try:
        yield
    finally:
        jax.config.update(option, before)


def _fresh(problem: Problem, options: Options, params: list[Any]) -> State:
    """The state before the first step, of the parameters of each run."""
    count, chunks = len(params), options.steps // options.chunk
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    return State(
        params=stacked,
        optimiser=jax.vmap(_optimiser(options).init)(stacked),
        step=jnp.zeros(count, jnp.int32),
        best=stacked,
        # Of a type as firm as what comes back: else the first chunk's program is compiled again.
        best_cost=jnp.full(count, jnp.inf, jnp.float32),
        healthy=jnp.full(count, True),
        history=jnp.full((count, chunks, len(problem.recorded) + 1), jnp.nan, jnp.float32),
    )


def _step(
    problem: Problem,
    options: Options,
    devices: Devices,
    streamed: bool,
    state: State,
    total: jax.Array,
    run: Runs,
    data: Any,
    positions: jax.Array,
) -> tuple[State, jax.Array]:
    """One optimiser step, and what it records added to `total`."""
    params, moments, step = state.params, state.optimiser, state.step
    # Keys follow from seed, step and position alone: a resumed run draws the same, on any devices.
    key = jax.random.fold_in(jax.random.key(run.seed), step)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
    if not streamed:
        examples = len(jax.tree.leaves(data)[0])
        beyond = jax.random.fold_in(key, options.batch)  # no example has this position
        index = jax.random.randint(beyond, (options.batch,), 0, examples)[positions]
        data = jax.tree.map(lambda leaf: leaf[index], data)
    gradient = jax.grad(problem.loss, has_aux=True)
    found = gradient(params, keys, run, data, step.astype(jnp.float32) / options.steps)
    mean, recorded = devices.mean(found)
    updates, moments = _optimiser(options).update(mean, moments, params)
    params = optax.apply_updates(params, updates)
    return state._replace(params=params, optimiser=moments, step=step + 1), total + recorded


def _validation(examples: int, options: Options, devices: Devices) -> list[tuple]:
    """Index of each validation batch, and the weight of each example in the mean of all."""
    spread = devices.local * devices.processes
    of = spread * min(options.validation_batch, -(-examples // spread))
    parts = []
    for start in range(0, examples, of):
        index = start + devices.positions(of)
        weight = np.where(index < examples, 1 / examples, 0).astype(np.float32)
        parts.append((np.minimum(index, examples - 1), weight))
    return parts


def _cost(problem: Problem, devices: Devices, total, params, run: Runs, val, index, weight):
    """The weighted costs of `val` at `index`, added to `total`."""
    each = problem.validate(params, run, jax.tree.map(lambda leaf: leaf[index], val))
    return total + devices.sum(jnp.where(weight > 0, weight * each, 0.0).sum())


def _judge(options: Options, before: State, after: State, recorded, cost):
    """The state after a chunk, given sums over it; a run that has diverged keeps what was good."""
    better = cost < before.best_cost
    row = jnp.append(recorded / options.chunk, cost)
    new = after._replace(
        best=jax.tree.map(functools.partial(jnp.where, better), after.params, before.best),
        best_cost=jnp.where(better, cost, before.best_cost),
        history=before.history.at[before.step // options.chunk].set(row),
    )
    good = before.healthy & jnp.all(jnp.isfinite(recorded)) & jnp.isfinite(cost)
    stopped = before._replace(healthy=jnp.asarray(False), step=after.step)
    return jax.tree.map(functools.partial(jnp.where, good), new, stopped)


@functools.lru_cache(maxsize=4)
def _chunk(
    problem: Problem, options: Options, count: int, devices: Devices, streamed: bool
) -> Callable:
    """(state, runs, batches, val, parts of it) to the state `options.chunk` steps on, validated.

    One compiled loop over data that lie on the devices, except on CPU: there XLA runs the
    convolutions of a loop body by a generic path (measured with jaxlib 0.10.2, 2 cores: gradient
    of a 3×3×64×64 kernel 350 ms inside a scan, 6 ms outside), so the host calls one compiled step
    after another.
    """
    axes = (0, 0, 0, 0 if streamed else None, None)
    step = _over_runs(functools.partial(_step, problem, options, devices, streamed), axes, count)
    cost = _over_runs(functools.partial(_cost, problem, devices), (0, 0, 0, *[None] * 3), count)
    judge = _over_runs(functools.partial(_judge, options), (0, 0, 0, 0), count)
    looped = not streamed and jax.default_backend() != "cpu"

    def steps(state, total, *rest):
        if not looped:
            return step(state, total, *rest)
        body = lambda _, carry: step(*carry, *rest)  # noqa: E731
        return jax.lax.fori_loop(0, options.chunk, body, (state, total))

    steps, cost, judge = map(devices.mapped, (steps, cost, judge))
    positions = devices.mapped(lambda x: x)(devices.positions(options.batch))
    nothing = devices.everywhere(np.zeros((count, len(problem.recorded)), np.float32))
    no_cost = devices.everywhere(np.zeros(count, np.float32))

    def chunk(state, runs, batches, val, parts):
        after, recorded = state, nothing
        for data in itertools.islice(batches, 1 if looped else options.chunk):
            before, (after, recorded) = recorded, steps(after, recorded, runs, data, positions)
            if streamed:
                jax.block_until_ready(before)  # lest batches pile up on the device
        costs = no_cost
        for index, weight in parts:
            costs = cost(costs, after.params, runs, val, index, weight)
        return judge(state, after, recorded, costs)

    return chunk


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
