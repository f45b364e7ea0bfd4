"""One process of a training, started by test_parallel: `parallel_worker.py WHAT DIRECTORY`."""

import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import test_codec_training as small
import test_loop

from vcmjax import arrays, cli
from vcmjax.errors import UsageError
from vcmjax.train import loop, parallel


class Source:
    """Examples, one at a time."""

    def __init__(self, data):
        self.data = jax.tree.map(np.asarray, data)

    def __len__(self):
        return len(jax.tree.leaves(self.data)[0])

    def __getitem__(self, index):
        return jax.tree.map(lambda leaf: leaf[index], self.data)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def train(directory):
    """First gradient, and parameters after two steps, of every case."""
    # A codec on examples that are read as they are needed, and two regressions at once on arrays.
    codec = small.problem("codebook", "mix"), Source(small.split()), small.split(1, 16), [3]
    regression = test_loop.PROBLEM, test_loop.data(48), test_loop.data(16, 1), [3, 4]
    for case, (problem, data, val, seeds) in {"codec": codec, "regression": regression}.items():
        options = loop.Options(2, batch=16, chunk=1, validation_batch=5)
        runs = loop.Runs(np.array(seeds), np.array([[0.01, 1.0]] * len(seeds), np.float32))
        place = directory / case
        results = loop.fit(problem, data, val, options, runs, place)
        if jax.process_index() == 0:
            with arrays._checkpointer() as checkpointer:
                saved = checkpointer.restore((place / "1" / "default").absolute())
            leaves = jax.tree_util.tree_leaves_with_path(saved["optimiser"])
            # Adam's first moment is a tenth of the clipped gradient.
            moments = [leaf for path, leaf in leaves if "'mu'" in jax.tree_util.keystr(path)]
            gradient = 10 * flat(moments)
            np.savez(
                directory / f"{case}.npz",
                gradient=gradient,
                params=flat([result.params for result in results]),
                history=np.stack([result.history for result in results]),
            )


def disagree(directory):
    """What processes say that were started with different arguments; a line each."""
    process = jax.process_index()
    many, few = test_loop.data(64), test_loop.data(48)
    none = test_loop.data(0)
    for batch, steps, data in [
        (8, 20, (many, few)[process]),
        (8, 20, (many, none)[process]),
        (8, 20, none),
        ((8, 16)[process], 20, many),
        (8, (20, 40)[process], many),
        (7, 20, many),
    ]:
        options = loop.Options(steps, batch, chunk=10)
        try:
            loop.fit(
                test_loop.PROBLEM,
                data,
                many,
                options,
                test_loop.runs([0]),
                directory / str(process),
            )
            print("said nothing")
        except UsageError as error:
            print(error)
    if process == 0:
        try:
            parallel.agree({}, timeout=1)
        except UsageError as error:
            print(error)


def killed(directory, number):
    def at_forty(step):
        if step == 40:
            os.kill(os.getpid(), number)

    cli.guarded(lambda: test_loop.fit(directory, progress=at_forty), "interrupted")


if __name__ == "__main__":
    what, place = sys.argv[1], Path(sys.argv[2])
    if what == "train":
        parallel.initialize()
        train(place)
    elif what == "disagree":
        parallel.initialize()
        disagree(place)
    elif what == "alone":
        cli.guarded(lambda: parallel.initialize(timeout=2), "interrupted")
    else:
        killed(place, signal.Signals[what])
