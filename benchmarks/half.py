"""What half precision costs on rooms: features stored as float16, and networks in bfloat16.

Run:    python -m benchmarks.half [--data rooms|DIR] [--networks DIR] [--task NAME ...]
Prints: per task, of the test images' features the greatest magnitude, the error of each precision
        as a share of their spread, and the head's score on features of float32, on the same as
        stored, and on those that encoder and head computed in bfloat16
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments import plateau
from experiments.task_data import stacked
from vcmjax.evaluate import measure, metrics, tables
from vcmjax.tasks import ROOMS

_BATCH = 16


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="rooms")
    parser.add_argument("--networks", default="")
    parser.add_argument("--task", nargs="+", default=list(ROOMS))
    given = parser.parse_args()
    config = plateau.Config(
        given.data, given.networks, tuple(given.task), size=256 if given.networks else 128
    )
    data = plateau.open_data(config)
    head = ["", "greatest", "float16, error/σ", "bfloat16, error/σ"]
    head += [f"score by {kind}" for kind in ("float32", "float16", "bfloat16")]
    lines = [head, ["---", *["---:"] * 6]]
    for name in given.task:
        task = data.tasks[name]
        task_network = plateau.network(config, data, task)
        network, params = task_network.network, task_network.params
        images, label = stacked(data.open("test", name), ("image", name))

        def features(dtype, network=network, params=params, images=images) -> np.ndarray:
            encode = jax.jit(functools.partial(network.encode, dtype=dtype))
            parts = [
                np.asarray(encode(params, images[i : i + _BATCH]), np.float32)
                for i in range(0, len(images), _BATCH)
            ]
            return np.concatenate(parts)

        exact, rounded = features(None), features(jnp.bfloat16)
        stored = exact.astype(np.float16).astype(np.float32)
        # IEEE 754: rounding to nearest errs by 2^-11 of a normal number, by 2^-25 below them.
        if np.any(np.abs(stored - exact) > np.maximum(2.0**-11 * np.abs(exact), 2.0**-25)):
            raise AssertionError(f"{name}: float16 errs by more than its precision")
        line = [tables.title(name), f"{np.abs(exact).max():.1f}"]
        for other in (stored, rounded):
            line.append(f"{np.sqrt(np.mean((other - exact) ** 2)) / exact.std():.1e}")
        for feature, dtype in ((exact, None), (stored, None), (rounded, jnp.bfloat16)):
            decode = functools.partial(network.decode, params, dtype=dtype)
            found = metrics.scores(task, measure.head_statistics(task, decode, feature, label))
            score = found[task.metric] * tables.SCALES.get(task.metric, 1)
            line.append(f"{score:.5g}")
        lines.append(line)
    print(tables.piped(lines))


if __name__ == "__main__":
    main()
