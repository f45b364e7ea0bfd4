"""Milliseconds per training step of the rooms codecs: one task, three, and all six in one stream.

Run:    python -m benchmarks.training [--repeats 30]
Prints: medians of a gradient step at batch 8: the whole, and as a share of it what running the
        head on what was sent would add, where its outputs were not kept; and Adam's part
"""

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.progress

from experiments import aggregation, joint
from vcmjax.codecs.feature import FeatureCodec
from vcmjax.evaluate import tables
from vcmjax.train import codec as codec_training
from vcmjax.train import loop
from vcmjax.train.codec import Features, with_reference

_BATCH = 8
GROUPS = (("normal",), ("class_scene",), aggregation.SIX[3:], aggregation.SIX)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=30)
    given = parser.parse_args()
    works = {}
    for group in GROUPS:
        works[group] = dict(zip(("whole", "with references", "Adam"), _works(group), strict=True))
    seconds = {(group, kind): [] for group, kinds in works.items() for kind in kinds}
    for _ in rich.progress.track(range(given.repeats), "rounds"):  # in turn: noise is shared
        for (group, kind), times in seconds.items():
            start = time.perf_counter()
            jax.block_until_ready(works[group][kind]())
            times.append(1e3 * (time.perf_counter() - start))
    lines = [["tasks", "gradient, ms", "references too, ms", "ratio", "Adam, ms"]]
    lines.append(["---", *["---:"] * 4])
    for group in GROUPS:
        whole, both, adam = (float(np.median(seconds[group, kind])) for kind in works[group])
        ratio = f"{both / whole:.2f}"
        lines.append([", ".join(group), f"{whole:.1f}", f"{both:.1f}", ratio, f"{adam:.1f}"])
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, batch {_BATCH}")
    print(tables.piped(lines))


def _works(group: tuple[str, ...]) -> tuple[Callable[[], object], ...]:
    """The gradient with kept references, the same with the head run on what was sent, and Adam."""
    config = aggregation.Config()
    _, at = joint.opened(config, group)
    shapes = {name: each.splits["val"].feature.shape[1:] for name, each in at.items()}
    lams = (min(config.lams), max(config.lams))
    codec = FeatureCodec(shapes, "codebook", lams, config.channels * len(at), config.stride)
    goals = {name: each.goal(joint.TARGET) for name, each in at.items()}
    sample = {name: each.sample for name, each in at.items()}
    problem = codec_training.problem(codec, goals, config.size**2, sample)
    params = jax.jit(problem.init)(jax.random.key(0))
    parts = {}
    for name, each in at.items():
        few = jax.tree.map(lambda leaf: leaf[:_BATCH], each.train)
        parts[name] = with_reference(few, goals[name])
    feature, label, reference = (
        {name: jnp.asarray(part[i]) for name, part in parts.items()} for i in range(3)
    )
    run = loop.Runs(np.int32(0), np.array(lams, np.float32))
    keys = jax.random.split(jax.random.key(1), _BATCH)
    gradient = jax.jit(jax.grad(problem.loss, has_aux=True))
    adam = optax.adamw(1e-3)
    moments = adam.init(params)
    update = jax.jit(adam.update)
    works = (
        lambda: gradient(params, keys, run, Features(feature, label, reference), 0.5),
        lambda: gradient(params, keys, run, Features(feature, label), 0.5),
        lambda: update(params, moments, params),
    )
    for work in works:
        jax.block_until_ready(work())  # compiled
    return works


if __name__ == "__main__":
    main()
