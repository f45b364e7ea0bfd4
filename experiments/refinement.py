"""Encoder-side refinement, beyond the papers: bits saved at equal score by round, of any method.

Run:    python -m experiments.refinement [--group A A+B ...] [--methods ours hyperprior]
                                         [--seeds N] [--data rooms|DIR] [--networks DIR] [--out DIR]
Cost:   eight codecs of 1600 steps per seed, 3 minutes each on one CPU core, and half an hour for
        their curves by number of rounds
Expect: OUT/results.json, a table on the screen, OUT/refinement.png
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import harness, joint, scored, shown, trained
from experiments.comparison import RESAMPLES
from experiments.joint import Model
from experiments.shown import View
from experiments.task_data import TaskData
from vcmjax.errors import UsageError
from vcmjax.evaluate import tables
from vcmjax.evaluate.drawing import new_figure
from vcmjax.tasks import TABLE_3

NAME = "refinement"


@dataclasses.dataclass(frozen=True)
class Config(joint.Config):
    """What decides the numbers, besides what all have; `method` and `refine` are not used.

    Attributes:
      groups: Tasks, each group in one stream.
      methods: Of `trained.PRIORS`.
      rounds: Numbers of rounds, each compared with none.
      images: Test images, the first, or as many as there are.
    """

    groups: tuple[tuple[str, ...], ...] = tuple((name,) for name in TABLE_3)
    methods: tuple[str, ...] = ("ours", "hyperprior")
    rounds: tuple[int, ...] = (1, 3, 10)
    images: int = 50


QUICK = joint.QUICK | {
    "groups": (("class_scene", "reshading"),),
    "methods": ("ours",),
    "rounds": (2,),
    "images": 8,
}


def run(config: Config, out: Path, at_once: bool = False) -> dict[str, Any]:
    """Train and measure; returns what ``results.json`` holds."""
    with harness.claimed(out, config):
        return _run(config, out, at_once)


def _run(config: Config, out: Path, at_once: bool) -> dict[str, Any]:
    names = list(dict.fromkeys(name for group in config.groups for name in group))
    reader, at = joint.opened(config, names, f"{NAME} into {out}")
    models = {}
    for method in config.methods:
        for group in config.groups:
            tasks = {name: at[name] for name in group}
            folder = out / "models" / method / "+".join(group)
            own = dataclasses.replace(config, method=method)
            models[method, group] = joint.train(tasks, tasks, own, folder, at_once)
    joint.read_test(reader, at)
    for each in at.values():
        test = each.splits["test"]
        few = slice(config.images)
        each.splits["test"] = test._replace(feature=test.feature[few], label=test.label[few])
    originals = scored.originals(at, "test")
    entries = []
    with harness.steps("refinement", len(models)) as progress:
        for done, ((method, group), by_seed) in enumerate(models.items(), 1):
            tasks = {name: at[name] for name in group}
            entry = _saved(by_seed, tasks, originals, config)
            entries.append({"method": method, "tasks": list(group), **entry})
            progress(done)
    results = harness.results(
        NAME, config, config.seeds, tasks=scored.described(at), original=originals, entries=entries
    )
    harness.write_json(out / "results.json", results)
    return results


def _saved(
    models: dict[int, Model],
    at: dict[str, TaskData],
    originals: dict[str, float],
    config: Config,
) -> dict[str, Any]:
    """By rounds: the curve of each seed, and the difference of bits from that of no rounds."""
    test = next(iter(at.values())).splits["test"]
    images = len(test.feature)
    goals = joint.goals_of(at, {})
    curves: dict[tuple[int, int], scored.Curve] = {}
    for rounds in (0, *config.rounds):
        refined = trained.refinement(goals, rounds)
        for seed, model in models.items():
            own = model._replace(refined=refined)
            curves[rounds, seed] = joint.curve([own], config)

    def statistic(rounds: int, seed: int):
        def resampled(weights: np.ndarray) -> dict[str, np.ndarray]:
            own, plain = curves[rounds, seed], curves[0, seed]
            return {"bd_rate": scored.bd_rate(own, plain, at, originals, weights)}

        return resampled

    by_rounds = {}
    ones = np.ones((1, images))
    for rounds in (0, *config.rounds):
        rows = [
            {
                "seed": seed,
                "lam": lam,
                "bytes": float(scored.bits(m, ones)[0] / 8),
                "kept": float(scored.kept(m, at, originals, ones)[0]),
            }
            for seed in models
            for lam, m in zip(config.lams, curves[rounds, seed], strict=True)
        ]
        entry: dict[str, Any] = {"rows": rows}
        if rounds:
            statistics = [statistic(rounds, seed) for seed in models]
            saved = harness.summary(statistics, images, RESAMPLES)
            entry |= {"bd_rate": saved["bd_rate"], "ci": saved["ci"]["bd_rate"]}
        by_rounds[str(rounds)] = entry
    return {"by_rounds": by_rounds}


def table(results: dict[str, Any]) -> str:
    """Markdown: methods and tasks down, difference of bits by number of rounds across."""
    rounds = results["config"]["rounds"]
    lines = [["Tasks", "Method", *(f"{r} round{'s' if r > 1 else ''}" for r in rounds)]]
    lines.append(["---", "---", *["---:"] * len(rounds)])
    for entry in results["entries"]:
        found = [entry["by_rounds"][str(r)] for r in rounds]
        cells = [tables.cell(each["bd_rate"], each["ci"], 1, 1) for each in found]
        lines.append([_names(entry), tables.METHODS[entry["method"]], *cells])
    seeds = len(results["seeds"])
    note = (
        "Bits at equal score (mean share of it kept) against no refinement, in per cent, over what "
        f"both curves cover; {results['config']['images']} test images. {tables.trainings(seeds)}. "
        f"{tables.brackets(seeds)}"
    )
    return tables.piped(lines) + f"\n\n{note}\n"


def _names(entry: dict[str, Any]) -> str:
    return ", ".join(tables.title(name) for name in entry["tasks"])


def draw(results: dict[str, Any], path: Path) -> None:
    """Bits saved at equal score against rounds, a panel per method; cut off at twice the bits."""
    methods = list(dict.fromkeys(entry["method"] for entry in results["entries"]))
    rounds = [0, *results["config"]["rounds"]]
    figure = new_figure(4.6 * len(methods), 3.8)
    panels = figure.subplots(1, len(methods), squeeze=False, sharey=True)[0]
    for axes, method in zip(panels, methods, strict=True):
        for entry in results["entries"]:
            if entry["method"] != method:
                continue
            found = [entry["by_rounds"][str(r)] for r in rounds[1:]]
            if any(each["bd_rate"] is None for each in found):
                continue
            values = np.array([0.0, *(each["bd_rate"] for each in found)])
            low, high = np.array([[0.0, 0.0], *(each["ci"] for each in found)]).T
            (line,) = axes.plot(rounds, values, marker="o", label=_names(entry))
            axes.fill_between(rounds, low, high, color=line.get_color(), alpha=0.15)
        axes.axhline(0, color="grey", ls=":")
        axes.set_xlabel("rounds")
        axes.set_title(tables.METHODS[method], fontsize=10)
        axes.legend(fontsize=7)
        axes.grid(alpha=0.25, lw=0.6)
        axes.set_ylim(-100, 100)
    panels[0].set_ylabel("bits at equal score, % against none")
    figure.savefig(path)


def views(results: dict[str, Any], out: Path) -> list[View]:
    """The table and the figure."""
    return [shown.printed(table, results), shown.drawn(draw, results, out / "refinement.png")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module docstring."""
    parser = joint.parser(__doc__, "refinement")
    parser.add_argument("--group", nargs="+", default=list(TABLE_3), help="tasks: A or A+B")
    parser.add_argument("--methods", nargs="+", choices=trained.CODED, default=Config.methods)
    parser.add_argument("--images", type=int, default=Config.images, help="test images")
    given = parser.parse_args(arguments)
    if given.draw:
        shown.redraw(NAME, views, given.draw)
        return
    if given.images < 1:
        raise UsageError(f"--images {given.images}: expected 1 or more.")
    config = Config(
        **joint.chosen(given),
        groups=tuple(dict.fromkeys(tuple(group.split("+")) for group in given.group)),
        methods=tuple(dict.fromkeys(given.methods)),
        images=given.images,
    )
    run(config, given.out, given.parallel)
    shown.show(NAME, views, given.out / "results.json")


if __name__ == "__main__":
    harness.main(main)
