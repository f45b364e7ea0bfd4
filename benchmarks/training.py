"""Milliseconds per training step of the rooms codecs: one task, three, and all six in one stream.

Run:    python -m benchmarks.training [--repeats 30]
Prints: medians of a gradient step at batch 8: the whole, and as a share of it what running the
        head on what was sent would add, where its outputs were not kept; and Adam's part. Then what
        the compiler's levels cost: CPU seconds to compile the gradient at the level that training
        takes on a CPU and at JAX's own, and the step by each
"""

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import rounds
from experiments import aggregation, joint
from experiments.trained import loop_options
from vcmjax.evaluate import tables
from vcmjax.train import loop

KINDS = ("gradient", "references too", "Adam")
LEVELS = (1, 3)
GROUPS = (("normal",), ("class_scene",), aggregation.SIX[3:], aggregation.SIX)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=30)
    given = parser.parse_args()
    works, compiling = {}, {}
    for group in GROUPS:
        made, taken = _works(group)
        works |= {(group, kind): work for kind, work in made.items()}
        compiling |= {(group, level): cpu for level, cpu in taken.items()}
    seconds = rounds.medians(works, given.repeats)
    lines = [["tasks", "gradient, ms", "references too, ms", "ratio", "Adam, ms"]]
    lines.append(["---", *["---:"] * 4])
    for group in GROUPS:
        whole, both, adam = (1e3 * seconds[group, kind] for kind in KINDS)
        ratio = f"{both / whole:.2f}"
        lines.append([", ".join(group), f"{whole:.1f}", f"{both:.1f}", ratio, f"{adam:.1f}"])
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, batch {joint.Config.batch}")
    print(tables.piped(lines))
    lines = [["tasks", "to compile, s: level 1", "3", "ratio", "a step, ms: level 1", "3", "ratio"]]
    lines.append(["---", *["---:"] * 6])
    for group in GROUPS:
        low, high = (compiling[group, level] for level in LEVELS)
        fast, slow = (1e3 * seconds[group, level] for level in LEVELS)
        cells = [f"{x:.1f}" for x in (low, high)], [f"{x:.1f}" for x in (fast, slow)]
        ratios = f"{low / high:.2f}", f"{fast / slow:.2f}"
        lines.append([", ".join(group), *cells[0], ratios[0], *cells[1], ratios[1]])
    print(f"\n{tables.piped(lines)}")


def _works(
    group: tuple[str, ...],
) -> tuple[dict[str | int, Callable[[], object]], dict[int, float]]:
    """By kind: the gradient, the same with the head run on what was sent, and Adam.

    By level of the compiler the gradient once more, and the CPU seconds that it took to compile.
    """
    config = aggregation.Config()
    _, at = joint.opened(config, group)
    codec, _, problem, train, _ = joint.posed(at, at, config)
    params = jax.jit(problem.init)(jax.random.key(0))
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[: config.batch]), train)
    run = loop.Runs(np.int32(0), np.array(codec.lams, np.float32))
    keys = jax.random.split(jax.random.key(1), config.batch)
    gradient = jax.jit(jax.grad(problem.loss, has_aux=True))
    adam = loop._optimiser(loop_options(config.steps, config.batch, config.learning_rate))
    moments, update = adam.init(params), jax.jit(adam.update)
    works = (
        lambda: gradient(params, keys, run, batch, 0.5),
        lambda: gradient(params, keys, run, batch._replace(reference=None), 0.5),
        lambda: update(params, moments, params),
    )
    named: dict[str | int, Callable[[], object]] = dict(zip(KINDS, works, strict=True))
    arguments, taken = (params, keys, run, batch, 0.5), {}
    for level in LEVELS:
        before = time.process_time()
        compiled = gradient.lower(*arguments).compile({"xla_backend_optimization_level": level})
        taken[level] = time.process_time() - before
        named[level] = lambda compiled=compiled: compiled(*arguments)
    waited = {kind: lambda work=work: jax.block_until_ready(work()) for kind, work in named.items()}
    return waited, taken


if __name__ == "__main__":
    main()
