"""Table 3 and Figure 7 of CVR: the fewest bits at which a task does as well as uncompressed.

Run:    python -m experiments.plateau [--preset smoke|default|full] [--task NAME ...|all]
                                      [--data rooms|DIR] [--out DIR]
Cost:   default 8 minutes and 2.5 GB; on two CPU cores (AMD EPYC)
Expect: OUT/results.json, its table on the screen, its figures beside it
"""

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import jax.numpy as jnp
import numpy as np

from experiments import conventional, harness, ready, shown, task_data, task_networks
from experiments.shown import View, Views
from experiments.study import METHODS, Study
from vcmjax.coding import range_coder, tfc
from vcmjax.coding.tables import CdfTables
from vcmjax.data import dataset
from vcmjax.data.taskonomy import PAPER_COUNTS
from vcmjax.data.taskonomy_lists import SUBSETS
from vcmjax.errors import UsageError, VcmError
from vcmjax.evaluate import plots, tables
from vcmjax.nets.pretrained import TaskNetwork
from vcmjax.tasks import TABLE_3, Task
from vcmjax.train import parallel
from vcmjax.train.losses import Target

NAME = "plateau"
Needs = Callable[["Config", Sequence[Task]], None]
"""Raises UsageError where what is to be shown needs another configuration, or other tasks."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides the numbers.

    Attributes:
      data: ``rooms`` or a folder.
      networks: Folder of converted networks of the Taskonomy release; empty for the shipped ones of
        the rooms, or small ones trained on the folder.
      tasks: Task names; empty for those of CVR Table 3 that the data set labels, or all it has.
      methods: Those compared with Original; without control, the plateau is relative to Original.
      counts: Images in train, val and test; empty for all there are, of the rooms for `ROOMS`.
        Fewer than a Taskonomy copy has are drawn from it at random; other folders are used whole.
      subset: Official subset of Taskonomy by whose list buildings are split; empty for the smallest
        that has all buildings found.
      size: Image side in pixels.
      lams: λ grid, ascending; empty for the task's own (`LAMS`).
      separate: One model per λ, as the paper has it, instead of one conditioned on λ.
      target: Distortion: ``network`` (KL or L1 to the uncompressed output), ``labels``, ``mix``.
      steps: Optimiser steps per model.
      batch: Features per step.
      learning_rate: Peak.
      latent: (stride, channels): feature positions per latent position along each side, and
        channels of the latent; empty for the task's own (`LATENT`).
      refine: Rounds of encoder-side refinement, for every method; 0 for none.
      views: Training views of a folder's images in all, at most; the rooms have one each.
      seeds: Training seeds.
      tolerance: Relative loss allowed at the plateau.
      void: Class index of a folder that is not scored, besides 255.
      network_steps: Optimiser steps of a folder's task network.
      bfloat16: Whether the frozen network computes in bfloat16, in extraction and training.
    """

    data: str = "rooms"
    networks: str = ""
    tasks: tuple[str, ...] = ("segment_semantic",)
    methods: tuple[str, ...] = ("control", "hyperprior", "ours")
    counts: tuple[int, int, int] | tuple[()] = ()
    subset: str = ""
    size: int = 128
    lams: tuple[float, ...] = ()
    separate: bool = False
    target: Target = "network"
    steps: int = 3200
    batch: int = 8
    learning_rate: float = 3e-3
    latent: tuple[int, int] | tuple[()] = ()
    refine: int = 0
    views: int = 3000
    seeds: tuple[int, ...] = (0,)
    tolerance: float = 0.02
    void: int | None = None
    network_steps: int = 3000
    bfloat16: bool = False


ROOMS = (3000, 300, 300)
"""Rooms in train, val and test."""

PRESETS = {
    "smoke": {"counts": (256, 64, 64), "steps": 100, "views": 400, "network_steps": 200},
    "default": {},
    # CVR §4.1 as far as it says: sizes, labels as target, all four tasks. What it leaves open is
    # ours: steps, batch, seeds, and one model for all λ (--separate-models is the paper's way).
    "full": {
        "tasks": (),
        "counts": PAPER_COUNTS,
        "size": 256,
        "target": "labels",
        "steps": 48000,
        "batch": 16,
        "seeds": (0, 1, 2),
    },
}

EVERY = (
    *Config.methods,
    *(name for name in conventional.METHODS if name not in conventional.SLOW),
)
CODERS = {"vcmjax": range_coder, "tfc": tfc}

LAMS = {
    "class": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    "segment": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    "dense": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
}
"""λ grids by kind of task: nats per image, nats per pixel, absolute error per element."""
LATENT = {"class": (4, 64), "segment": (2, 24), "dense": (2, 24)}
"""(stride, channels) by kind of task. On CamVid 4×4×64 scores better than 8×8×24 to about 150 bits
an image (0.402 against 0.353 mIoU below 60), yet falls short of the plateau; a scene class is
learnt better from fewer positions."""


def run(
    config: Config,
    out: Path,
    at_once: bool = False,
    skip_bad: bool = False,
    coder: ModuleType = range_coder,
    needs: Needs = lambda config, tasks: None,
) -> dict:
    """Train, measure, and find each method's plateau; returns what `results.json` holds.

    Args:
      config: What to run. Another run of the same config in `out` goes on where it stopped.
      out: Folder of results, created if need be.
      at_once: Train seeds, and separate λ, at once; for accelerators.
      skip_bad: Leave out examples that cannot be read, with a count, instead of stopping.
      coder: What writes and reads the bytes: `coding.range_coder` or `coding.tfc`.
      needs: See `Needs`.

    Raises:
      UsageError: `out` holds another configuration, or another run is at work in it; an unknown
        task; a λ ≤ 0; a network or a latent that does not fit; a package that is missing.
      DataError: Data that are missing, damaged or empty.
    """
    with harness.claimed(out, config):
        return _run(config, out, at_once, skip_bad, coder, needs)


def _run(config, out, at_once, skip_bad, coder, needs) -> dict:
    started, cache = time.monotonic(), harness.cache_directory()
    data = open_data(config)
    tasks = [data.tasks[name] for name in chosen_tasks(config, data)]
    needs(config, tasks)
    check_coder(coder)
    parallel.devices().check(config.batch)
    dtype = jnp.bfloat16 if config.bfloat16 else None
    reader = task_data.Reader(
        data,
        cache,
        config.views,
        skip_bad,
        dtype,
        "Or leave such examples out with --skip-bad.",
    )
    study = Study(
        reader,
        out,
        methods=config.methods,
        seeds=config.seeds,
        tolerance=config.tolerance,
        steps=config.steps,
        batch=config.batch,
        learning_rate=config.learning_rate,
        target=config.target,
        separate=config.separate,
        refine=config.refine,
        at_once=at_once,
        coder=coder,
    )
    about = f"{', '.join(config.methods)}, {config.steps} steps each, into {out}"
    for each in ready.check(about, reader, tasks, functools.partial(origin, config, data)):
        study.check(each, *_grid(config, each.task))
    networks = {task.name: network(config, data, task) for task in tasks}
    for task in tasks:
        reader.prepare(task, networks[task.name])
    for task in tasks:
        study.run(task, networks[task.name], *_grid(config, task))
    seconds = round(time.monotonic() - started, 1)
    results = harness.results(NAME, config, config.seeds, seconds=seconds, **study.results())
    if not parallel.devices().process:  # the others extract and train with it
        harness.write_json(out / "results.json", results)
        study.save()
    return results


def _grid(config: Config, task: Task) -> tuple[tuple[float, ...], int, int]:
    """λ grid, and stride and channels of the latent, of a task."""
    return (config.lams or LAMS[task.kind], *(config.latent or LATENT[task.kind]))


def open_data(config: Config) -> dataset.Dataset:
    """The data set that `config` names, its tasks checked."""
    for lam in config.lams:
        if not (0 < lam < float("inf")):
            raise UsageError(f"--lams {lam:g}: expected every λ finite and above 0.")
    if harness.procedural(config.data):
        data = dataset.rooms(config.counts or ROOMS, config.size)
    else:
        data = dataset.directory(
            Path(config.data),
            config.size,
            config.tasks,
            config.void,
            subset=config.subset or None,
            counts=config.counts or None,
        )
    dataset.check_tasks(config.tasks, data.tasks, data.name)
    return data


def origin(config: Config, data: dataset.Dataset, task: Task) -> task_networks.Origin:
    """Where the task network that `config` names comes from."""
    if config.networks:
        given = task_networks.given(Path(config.networks), task)
        return task_networks.Origin(f"of {config.networks}", given)
    return task_networks.origin(data, task, _own(config), harness.cache_directory())


def network(config: Config, data: dataset.Dataset, task: Task) -> TaskNetwork:
    """The task network that `config` names, trained now if need be."""
    if config.networks:
        return task_networks.given(Path(config.networks), task)
    return task_networks.network_for(data, task, _own(config), harness.cache_directory())


def _own(config: Config) -> task_networks.Config:
    return task_networks.Config(ROOMS, config.network_steps, size=config.size)


def chosen_tasks(config: Config, data: dataset.Dataset) -> tuple[str, ...]:
    """Names of the tasks to run."""
    known = tuple(name for name in TABLE_3 if name in data.tasks)
    return config.tasks or known or tuple(data.tasks)


def draw(out: Path) -> None:
    """Draw the figures of ``out/results.json``, from that file and the examples beside it."""
    for view in figures(tables.read(out / "results.json"), out):
        view.make()


def figures(results: dict, out: Path) -> list[View]:
    """Those of Figure 7, the plateaus, and a page of examples where Ours was run."""
    pages = [
        shown.drawn(functools.partial(_examples, page), results, page.with_suffix(".png"))._replace(
            beside=True
        )
        for page in sorted(out.glob("examples_*.npz"))
    ]
    return [
        shown.drawn(plots.rate_performance, results, out / "rate_performance.png"),
        shown.drawn(plots.plateau_bars, results, out / "plateau.png"),
        *pages,
    ]


def _examples(page: Path, results: dict, path: Path) -> None:
    plots.examples(page, results, path)


def views(results: dict, out: Path) -> list[View]:
    """The table and the figures."""
    return [shown.printed(tables.table, results), *figures(results, out)]


def check_coder(coder: ModuleType) -> None:
    """Writes and reads a few symbols: the package behind a coder may be missing, or not work."""
    symbols, indexes = np.array([0, 3, 1]), np.zeros(3, np.int32)
    four = CdfTables.from_rows([[2, 0, 1, 2, 3, 4]])
    try:
        found = coder.decode(coder.encode(symbols, indexes, four), indexes, four)
    except VcmError:
        raise
    except Exception as error:  # of a library that does not fit the system
        raise UsageError(f"{coder.__name__} does not work here: {error}") from error
    if not np.array_equal(found, symbols):
        raise UsageError(f"{coder.__name__} does not work here: {found} was {symbols}.")


def needs_ours(config: Config) -> None:
    """Refuse methods of which none could be compared with Ours."""
    others = set(config.methods) - {"ours", "control"}
    if "ours" not in config.methods or not others:
        raise UsageError(
            f"--methods {' '.join(config.methods)}: expected ours, and one to compare it with."
        )


def check_steps(steps: int) -> None:
    """Refuse what training cannot be cut into chunks of."""
    if steps < 1 or steps % 100:
        raise UsageError(f"--steps {steps}: expected a positive multiple of 100.")


def check_refine(rounds: int) -> None:
    """Refuse a negative number of rounds."""
    if rounds < 0:
        raise UsageError(f"--refine {rounds}: expected 0 or more rounds.")


def parse(arguments: Sequence[str] | None) -> tuple[Config, argparse.Namespace]:
    """The command line as a `Config`, and the options that do not decide numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        epilog="Examples: python -m experiments.plateau --preset smoke;  "
        "python -m experiments.plateau --data my_images --out runs/mine",
    )
    parser.add_argument("--preset", choices=PRESETS, default="default")
    parser.add_argument("--data", help="'rooms' (default) or a folder of labelled images")
    parser.add_argument("--networks", help="folder that vcmjax convert wrote; implies --size 256")
    parser.add_argument("--task", nargs="+", help="task names, or all (the four of CVR Table 3)")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=("all", *METHODS),
        metavar="METHOD",
        help=f"what to compare: all ({', '.join(EVERY)}), or some of {', '.join(METHODS)}",
    )
    parser.add_argument("--out", type=Path, help="folder of results (default runs/PRESET)")
    parser.add_argument("--size", type=int, help="image side in pixels (default 128)")
    parser.add_argument(
        "--counts",
        nargs=3,
        type=int,
        metavar=("TRAIN", "VAL", "TEST"),
        help="images per split, of the rooms or drawn from a Taskonomy copy",
    )
    parser.add_argument("--subset", choices=SUBSETS, help="official subset of a Taskonomy copy")
    parser.add_argument("--batch", type=int, help="images per optimiser step, over all devices")
    parser.add_argument("--lams", nargs="+", type=float, help="λ grid")
    parser.add_argument("--seed", type=int, help="first training seed")
    parser.add_argument("--seeds", type=int, help="number of training seeds")
    parser.add_argument("--steps", type=int, help="optimiser steps per model")
    parser.add_argument("--target", choices=("network", "labels", "mix"), help="distortion")
    parser.add_argument(
        "--latent",
        nargs=2,
        type=int,
        metavar=("STRIDE", "CHANNELS"),
        help="feature positions per latent position along each side, and channels",
    )
    parser.add_argument("--refine", type=int, help="rounds of encoder-side refinement (default 0)")
    parser.add_argument("--separate-models", action="store_true", help="one model per λ")
    parser.add_argument("--tolerance", type=float, help="relative loss allowed at the plateau")
    parser.add_argument("--void", type=int, help="class index not scored, besides 255")
    parser.add_argument("--parallel", action="store_true", help="train at once what is independent")
    parser.add_argument("--bfloat16", action="store_true", help="frozen networks in bfloat16")
    parser.add_argument(
        "--coordinator", metavar="HOST:PORT", help="process 0 of several, see README"
    )
    parser.add_argument("--processes", type=int, help="how many of them there are")
    parser.add_argument("--process-id", type=int, help="which one this is, from 0")
    parser.add_argument("--skip-bad", action="store_true", help="count unreadable files, go on")
    parser.add_argument(
        "--coder",
        choices=CODERS,
        default="vcmjax",
        help="what writes the bytes; tfc is tensorflow-compression itself, from the extra [tfc]",
    )
    shown.option(parser)
    options = parser.parse_args(arguments)
    preset = PRESETS[options.preset]
    chosen = {
        "data": options.data,
        "networks": options.networks,
        "size": options.size or (256 if options.networks else None),
        "subset": options.subset,
        "counts": options.counts and tuple(options.counts),
        "batch": options.batch,
        "methods": options.methods
        and (EVERY if "all" in options.methods else tuple(dict.fromkeys(options.methods))),
        "lams": options.lams and tuple(sorted(set(options.lams))),
        "steps": options.steps,
        "target": options.target,
        "latent": options.latent and tuple(options.latent),
        "refine": options.refine,
        "tolerance": options.tolerance,
        "void": options.void,
    }
    chosen = {name: value for name, value in chosen.items() if value is not None}
    config = dataclasses.replace(Config(), **{**preset, **chosen})
    if options.task:
        tasks = () if options.task == ["all"] else tuple(dict.fromkeys(options.task))
        config = dataclasses.replace(config, tasks=tasks)
    elif config.data != "rooms":
        config = dataclasses.replace(config, tasks=())
    first = options.seed if options.seed is not None else config.seeds[0]
    number = options.seeds if options.seeds is not None else len(config.seeds)
    if first < 0 or number < 1:
        raise UsageError(f"--seed {first} --seeds {number}: expected 0 or more, and 1 or more.")
    check_steps(config.steps)
    if config.methods == ("control",):
        raise UsageError("--methods control: expected a method that sends bytes besides.")
    if config.size < 8 or config.size % 8:
        raise UsageError(f"--size {config.size}: expected a positive multiple of 8.")
    if config.counts and min(config.counts) < 1:
        raise UsageError(f"--counts {' '.join(map(str, config.counts))}: expected 1 or more each.")
    if config.batch < 1:
        raise UsageError(f"--batch {config.batch}: expected 1 or more.")
    check_refine(config.refine)
    if not 0 <= config.tolerance < 1:
        raise UsageError(f"--tolerance {config.tolerance}: expected a share from 0 to below 1.")
    if options.coder == "tfc":
        tfc.check()
    seeds = tuple(range(first, first + number))
    config = dataclasses.replace(
        config, seeds=seeds, separate=options.separate_models, bfloat16=options.bfloat16
    )
    options.out = options.out or Path("runs") / options.preset
    return config, options


def completed(
    arguments: Sequence[str] | None, name: str, views: Views, needs: Needs = lambda *_: None
) -> None:
    """The command line of this experiment, or of one that shows something else from its results.

    Args:
      arguments: Options; with ``--draw RESULTS.json`` nothing is run.
      name: Of the experiment.
      views: What it shows.
      needs: See `Needs`.
    """
    config, options = parse(arguments)
    if options.draw:
        shown.redraw(name, views, options.draw, NAME)
        return
    devices = parallel.initialize(options.coordinator, options.processes, options.process_id)
    coder = CODERS[options.coder]
    results = run(config, options.out, options.parallel, options.skip_bad, coder, needs)
    if not devices.process:
        path = options.out / "results.json"
        last = f"{path} and its figures, after {results['seconds']:.0f} s"
        told = View("summary", lambda: print(last))
        shown.show(name, lambda *given: [*views(*given), told], path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module docstring."""
    completed(arguments, NAME, views)


if __name__ == "__main__":
    harness.main(main)
