"""One process of a training, started by test_parallel: `parallel_worker.py WHAT DIRECTORY`."""

import contextlib
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
from vcmjax.train import checkpoint, loop, parallel

CASES = [("codebook", "arrays", [3]), ("spatial", "source", [3, 4])]


class Source:
    """The examples of `small.split`, one at a time."""

    def __init__(self):
        self.data = jax.tree.map(np.asarray, small.split())

    def __len__(self):
        return len(self.data.label)

    def __getitem__(self, index):
        return jax.tree.map(lambda leaf: leaf[index], self.data)


class Stop(Exception):
    pass


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def train(directory):
    """First gradient, and parameters after three steps in two calls, of every case."""
    for prior, kind, seeds in CASES:
        data = small.split() if kind == "arrays" else Source()
        problem = small.problem(prior, "mix")
        options = loop.Options(3, batch=16, chunk=1, validation_batch=5)
        runs = loop.Runs(np.array(seeds), np.array([[0.01, 1.0]] * len(seeds), np.float32))
        place = directory / prior

        def stop(step):
            if step == 1:
                raise Stop

        def fit(progress, data=data, problem=problem, options=options, runs=runs, place=place):
            return loop.fit(problem, data, small.split(1, 16), options, runs, place, progress)

        with contextlib.suppress(Stop):
            fit(stop)
        if jax.process_index() == 0:
            with arrays._checkpointer() as checkpointer:
                saved = checkpointer.restore((place / "1" / "default").absolute())
            leaves = jax.tree_util.tree_leaves_with_path(saved["optimiser"])
            # Adam's first moment is a tenth of the clipped gradient.
            moments = [leaf for path, leaf in leaves if "'mu'" in jax.tree_util.keystr(path)]
            gradient = 10 * flat(moments)
        results = fit(lambda step: None)
        if jax.process_index() == 0:
            np.savez(
                directory / f"{prior}.npz",
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


def occupied(directory):
    """What processes say when the first of them finds another training in its directory."""
    first = jax.process_index() == 0
    try:
        with checkpoint.opened(directory) if first else contextlib.nullcontext():
            test_loop.fit(directory)
        print("said nothing")
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
    elif what == "occupied":
        parallel.initialize()
        occupied(place)
    elif what == "alone":
        cli.guarded(lambda: parallel.initialize(timeout=2), "interrupted")
    else:
        killed(place, signal.Signals[what])
