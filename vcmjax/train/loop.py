"""The training loop: one run or several at once, resumed from wherever it was cut off.

Where the data lie on the devices, about a second's steps are one compiled loop, and the host is
asked only in between: for a checkpoint, the progress bar and, after each chunk, validation. What is
too large for that is read ahead, a batch at a time. Either way the step is spread over all devices
and processes, see `parallel`, and ends with the same parameters on any number of them.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import time
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

_LOOK = 1.0
"""Seconds of steps between two looks at the clock."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How long and how fast to train.

    Attributes:
      steps: Optimiser steps.
      batch: Examples per step, over all devices and processes.
      learning_rate: Peak of Adam's warm-up and cosine decay.
      weight_decay: Decoupled, of matrices and kernels alone.
      chunk: Steps between validations, each followed by a checkpoint; divides `steps`.
      validation_batch: Examples validated at once by each device, which bounds memory.
      checkpoint_seconds: Longest time between checkpoints, but for one step and validation.
    """

    steps: int
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    chunk: int = 100
    validation_batch: int = 32
    checkpoint_seconds: float = checkpoint.SECONDS

    def __post_init__(self) -> None:
        """Refuse a chunk that does not divide the steps, and a time that is none."""
        if self.steps < 1 or self.steps % self.chunk:
            raise VcmError(f"steps is {self.steps}; expected a multiple of chunk={self.chunk}")
        if not self.checkpoint_seconds >= 0:
            raise VcmError(
                f"checkpoint_seconds is {self.checkpoint_seconds}; expected 0 (a checkpoint after "
                "every step) or more"
            )


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
    """All that a resumed run needs; leaves have a leading axis of runs.

    `since` counts the steps since the last validation, and `recorded` sums what they recorded.
    """

    params: Any
    optimiser: Any
    step: jax.Array
    best: Any
    best_cost: jax.Array
    healthy: jax.Array
    history: jax.Array
    since: jax.Array
    recorded: jax.Array


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
    last checkpoint in `directory` that is whole, and ends with the same parameters.

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
      progress: Told the number of steps done, about once a second and after each chunk.

    Raises:
      UsageError: The devices cannot share a batch equally, processes were called with different
        arguments, there are no examples, or another process trains in `directory`.
      DataError: `directory` cannot be written, or holds another training.
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
    program = _program(problem, options, count, devices, streamed)
    with contextlib.ExitStack() as open_until_done:
        with devices.together():
            kept = open_until_done.enter_context(
                checkpoint.opened(directory, options.checkpoint_seconds)
            )
            saved = kept.newest(like._asdict(), added=_start_of_chunk(problem, count))
        state = devices.broadcast(fresh() if saved is None else State(**saved))
        progress(int(state.step[0]))
        if streamed:
            batches = _stream(train, options, runs, devices, int(state.step[0]))
        else:
            batches = itertools.repeat(devices.everywhere(train))
        arrays, val = devices.everywhere((jax.tree.map(np.asarray, runs), val))
        given = arrays, val, _validation(validated, options, devices)
        state = _train(program, state, given, batches, options, devices, kept, progress)
    state = devices.one(state)
    return [
        Result(
            jax.tree.map(lambda leaf, i=i: leaf[i], state.best),
            not bool(state.healthy[i]),
            np.asarray(state.history[i]),
        )
        for i in range(count)
    ]


def _train(
    program: "_Program",
    state: State,
    given: tuple[Any, Any, list[tuple]],
    batches: Iterator[Any],
    options: Options,
    devices: Devices,
    kept: checkpoint.Checkpoints,
    progress: Callable[[int], None],
) -> State:
    """The last state, as `mapped` has it, of a training that goes on from `state`.

    `given` are runs, validation data and the parts of these, as `_Program` takes them.
    """
    done, since = int(state.step[0]), int(state.since[0])
    healthy = bool(state.healthy.any())
    state, (runs, *validation) = devices.everywhere(state), given
    at_once, seconds = 1, min(_LOOK, options.checkpoint_seconds)

    def on_host() -> State:
        return jax.tree.map(np.asarray, devices.one(state))

    while healthy and (done < options.steps or since):
        if since < options.chunk:
            begun = time.monotonic()
            steps = min(at_once, options.chunk - since)
            state = jax.block_until_ready(program.advance(state, runs, batches, steps))
            done, since = done + steps, since + steps
            # Doubled at most: that nothing need be compiled this time says little of the next. All
            # processes must take the same steps at once.
            fitting = steps * seconds / max(time.monotonic() - begun, 1e-6)
            at_once = max(1, min(2 * steps, int(fitting)))
            at_once = int(devices.broadcast(np.asarray(at_once, np.int32)))
            if kept.due():
                kept.save(done, on_host()._asdict())
        if since == options.chunk:
            state, since = program.judge(state, runs, *validation), 0
            now = on_host()
            healthy = bool(now.healthy.any())
            kept.save(done, now._asdict())
        progress(done)
    return state


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
    start = _start_of_chunk(problem, count)
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
        **jax.tree.map(jnp.asarray, start),
    )


def _start_of_chunk(problem: Problem, count: int) -> dict[str, np.ndarray]:
    """What `State` says of the steps since the last validation where there were none."""
    recorded = np.zeros((count, len(problem.recorded)), np.float32)
    return {"since": np.zeros(count, np.int32), "recorded": recorded}


def _step(
    problem: Problem,
    options: Options,
    devices: Devices,
    streamed: bool,
    state: State,
    run: Runs,
    data: Any,
    positions: jax.Array,
) -> State:
    """One optimiser step."""
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
    with jax.numpy_dtype_promotion("standard"):  # Optax raises floats to integers
        updates, moments = _optimiser(options).update(mean, moments, params)
        params = optax.apply_updates(params, updates)
    after = state._replace(
        params=params,
        optimiser=moments,
        step=step + 1,
        since=state.since + 1,
        recorded=state.recorded + recorded.astype(state.recorded.dtype),
    )
    return _typed(after, state)


def _typed(tree: Any, like: Any) -> Any:
    """With the types of `like`, in whichever precision the problem computes: else the next call
    would be of another program, and the checkpoint of another form.
    """
    return jax.tree.map(lambda leaf, other: leaf.astype(other.dtype), tree, like)


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
    part = devices.sum(jnp.where(weight > 0, weight * each, 0.0).sum())
    return total + part.astype(total.dtype)


def _judge(options: Options, state: State, cost: jax.Array) -> State:
    """The state after a chunk's validation; a run that has diverged keeps what was good."""
    better = cost < state.best_cost
    row = jnp.append(state.recorded / options.chunk, cost)
    judged = state._replace(
        best=jax.tree.map(functools.partial(jnp.where, better), state.params, state.best),
        best_cost=jnp.where(better, cost, state.best_cost),
        history=state.history.at[state.step // options.chunk - 1].set(row),
    )
    good = state.healthy & jnp.all(jnp.isfinite(state.recorded)) & jnp.isfinite(cost)
    stopped = state._replace(healthy=jnp.asarray(False))
    after = jax.tree.map(functools.partial(jnp.where, good), judged, stopped)
    none = jax.tree.map(jnp.zeros_like, (state.since, state.recorded))
    return after._replace(since=none[0], recorded=none[1])


class _Program(NamedTuple):
    """What runs on the devices.

    Attributes:
      advance: (state, runs, batches, steps) to the state so many steps on.
      judge: (state, runs, val, parts of it) to the state at the end of a chunk, validated.
    """

    advance: Callable[..., State]
    judge: Callable[..., State]


def _looped(streamed: bool) -> bool:
    """Whether steps are one compiled loop over data that lie on the devices.

    Not on CPU: there XLA runs the convolutions of a loop body by a generic path (measured with
    jaxlib 0.10.2, 2 cores: gradient of a 3×3×64×64 kernel 350 ms inside a loop, 6 ms outside), so
    the host calls one compiled step after another.
    """
    return not streamed and jax.default_backend() != "cpu"


@functools.lru_cache(maxsize=4)
def _program(
    problem: Problem, options: Options, count: int, devices: Devices, streamed: bool
) -> _Program:
    """Compiled at the first call, once for any number of steps."""
    axes = (0, 0, 0 if streamed else None, None)
    step = _over_runs(functools.partial(_step, problem, options, devices, streamed), axes, count)
    cost = _over_runs(functools.partial(_cost, problem, devices), (0, 0, 0, *[None] * 3), count)
    judge = devices.mapped(_over_runs(functools.partial(_judge, options), (0, 0), count))
    looped = _looped(streamed)

    def many(steps, state, *rest):
        return jax.lax.fori_loop(0, steps[0], lambda _, carry: step(carry, *rest), state)

    ahead, cost = devices.mapped(many if looped else step), devices.mapped(cost)
    positions = devices.mapped(lambda x: x)(devices.positions(options.batch))
    no_cost = devices.everywhere(np.zeros(count, np.float32))

    def advance(state, runs, batches, steps):
        if looped:
            number = devices.split(np.full(devices.local, steps, np.int32))
            return ahead(number, state, runs, next(batches), positions)
        for data in itertools.islice(batches, steps):
            before, state = state, ahead(state, runs, data, positions)
            if streamed:
                jax.block_until_ready(before.step)  # lest batches pile up on the device
        return state

    def judged(state, runs, val, parts):
        costs = no_cost
        for index, weight in parts:
            costs = cost(costs, state.params, runs, val, index, weight)
        return judge(state, costs)

    return _Program(advance, judged)


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
