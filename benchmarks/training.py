"""Milliseconds per training step of the rooms codecs: one task, three, and all six in one stream.

Run:    python -m benchmarks.training [--repeats 30]
Prints: medians of a gradient step at batch 8: the whole, and as a share of it what running the
        head on what was sent would add, where its outputs were not kept; and Adam's part
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import rounds
from experiments import aggregation, joint
from vcmjax.evaluate import tables
from vcmjax.train import loop

KINDS = ("gradient", "references too", "Adam")
GROUPS = (("normal",), ("class_scene",), aggregation.SIX[3:], aggregation.SIX)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=30)
    given = parser.parse_args()
    works = {(group, kind): work for group in GROUPS for kind, work in _works(group).items()}
    seconds = rounds.medians(works, given.repeats)
    lines = [["tasks", "gradient, ms", "references too, ms", "ratio", "Adam, ms"]]
    lines.append(["---", *["---:"] * 4])
    for group in GROUPS:
        whole, both, adam = (1e3 * seconds[group, kind] for kind in KINDS)
        ratio = f"{both / whole:.2f}"
        lines.append([", ".join(group), f"{whole:.1f}", f"{both:.1f}", ratio, f"{adam:.1f}"])
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, batch {joint.Config.batch}")
    print(tables.piped(lines))


def _works(group: tuple[str, ...]) -> dict[str, Callable[[], object]]:
    """By kind: the gradient, the same with the head run on what was sent, and Adam."""
    config = aggregation.Config()
    _, at = joint.opened(config, group)
    codec, _, problem, train, _ = joint.posed(at, at, config)
    params = jax.jit(problem.init)(jax.random.key(0))
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[: config.batch]), train)
    run = loop.Runs(np.int32(0), np.array(codec.lams, np.float32))
    keys = jax.random.split(jax.random.key(1), config.batch)
    gradient = jax.jit(jax.grad(problem.loss, has_aux=True))
    adam = optax.adamw(config.learning_rate)
    moments, update = adam.init(params), jax.jit(adam.update)
    works = (
        lambda: gradient(params, keys, run, batch, 0.5),
        lambda: gradient(params, keys, run, batch._replace(reference=None), 0.5),
        lambda: update(params, moments, params),
    )
    waited = [lambda work=work: jax.block_until_ready(work()) for work in works]
    return dict(zip(KINDS, waited, strict=True))


if __name__ == "__main__":
    main()
