"""Beyond the papers: one model for any rate and any priority among its tasks.

Φ is told how much each task matters; Ψ, the entropy model and the stream are as ever, so that the
encoder can change its mind from image to image and no decoder need know. Compared with a model
trained for each priority alone, which itself serves any rate.

Run:    python -m experiments.variable_rate [--task NAME ...] [--favour X] [--seeds N] [--out DIR]
                                            [--data rooms|DIR] [--networks DIR]
Cost:   five codecs, one of them trained twice as long, per seed: 40 minutes on one CPU core
Expect: OUT/results.json, a table on the screen, OUT/variable_rate.png
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import harness, joint, scored, shown
from experiments.comparison import RESAMPLES
from experiments.joint import Model
from experiments.shown import View
from experiments.task_data import TaskData
from vcmjax.errors import UsageError
from vcmjax.evaluate import plots, tables
from vcmjax.evaluate.drawing import new_figure
from vcmjax.evaluate.measure import Measurement
from vcmjax.evaluate.tables import title
from vcmjax.train.codec import FAVOUR

EQUAL = "equal"


NAME = "variable_rate"


@dataclasses.dataclass(frozen=True)
class Config(joint.Config):
    """What decides the numbers, besides what all have.

    Attributes:
      tasks: In one stream.
      favoured: Each of these tasks is favoured in turn; empty for all.
      favour: How many times as much the favoured task matters as each of the others.
      longer: How many times as long the one model is trained as each of the others.
    """

    tasks: tuple[str, ...] = ("class_scene", "segment_semantic", "normal")
    favoured: tuple[str, ...] = ()
    favour: float = 8.0
    longer: int = 2


QUICK = joint.QUICK | {
    "tasks": ("class_scene", "reshading"),
    "favoured": ("reshading",),
    "longer": 1,
}


def priorities(config: Config) -> dict[str, dict[str, float]]:
    """Weights of the tasks, of mean one: all equal, and each task favoured in turn."""
    found = {EQUAL: dict.fromkeys(config.tasks, 1.0)}
    for favoured in config.favoured or config.tasks:
        raw = {name: config.favour if name == favoured else 1.0 for name in config.tasks}
        total = sum(raw.values())
        found[favoured] = {name: len(raw) * weight / total for name, weight in raw.items()}
    return found


def run(config: Config, out: Path, at_once: bool = False) -> dict[str, Any]:
    """Train the one model and those for each priority; returns what ``results.json`` holds."""
    with harness.claimed(out, config):
        return _run(config, out, at_once)


def _run(config: Config, out: Path, at_once: bool) -> dict[str, Any]:
    reader, at = joint.opened(config, config.tasks, f"{NAME} into {out}")
    longer = dataclasses.replace(config, steps=config.longer * config.steps)
    folder = out / "models"
    one = joint.train(at, at, longer, folder / "any priority", at_once, "any")
    models: dict[tuple[str, str], dict[int, Model]] = {}
    for name, weights in priorities(config).items():
        own = tuple(weights[task] for task in config.tasks)
        models["one", name] = {seed: model._replace(weights=own) for seed, model in one.items()}
        models["separate", name] = joint.train(at, at, config, folder / name, at_once, weights)
    joint.read_test(reader, at)
    originals = scored.originals(at, "test")
    curves = {}
    with harness.steps("measuring", len(models)) as progress:
        for done, (key, trained) in enumerate(models.items(), 1):
            curves[key] = {seed: joint.curve([model], config) for seed, model in trained.items()}
            progress(done)
    results = harness.results(
        NAME,
        config,
        config.seeds,
        tasks=scored.described(at),
        original=originals,
        steps={"one": longer.steps, "separate": config.steps * len(priorities(config))},
        rows=[
            {
                "model": model,
                "priority": name,
                "seed": seed,
                "lam": lam,
                **_row(point, at, originals),
            }
            for (model, name), by_seed in curves.items()
            for seed, curve in by_seed.items()
            for lam, point in zip(config.lams, curve, strict=True)
        ],
        comparisons=_compared(curves, at, originals, config),
    )
    harness.write_json(out / "results.json", results)
    return results


def _row(
    streams: Sequence[dict[str, Measurement]], at: dict[str, TaskData], originals: dict[str, float]
) -> dict[str, Any]:
    (point,) = streams
    total = next(iter(point.values())).total
    ones = np.ones((1, len(total)))
    return {
        "bytes": float(total.mean()),
        "kept": {
            name: float(scored.kept([{name: point[name]}], at, originals, ones)[0]) for name in at
        },
        "per_image": {"bytes": total.round(2).tolist()},
    }


def _compared(
    curves: dict[tuple[str, str], dict[int, scored.Curve]],
    at: dict[str, TaskData],
    originals: dict[str, float],
    config: Config,
) -> list[dict[str, Any]]:
    """BD-rate by task: of the one model against each separate one, and against its own equal."""
    test = next(iter(at.values())).splits["test"]
    images = len(test.feature)

    def rates(own: tuple[str, str], anchor: tuple[str, str], seed: int):
        def resampled(weights: np.ndarray) -> dict[str, np.ndarray]:
            found = {}
            for task in config.tasks:
                ours, theirs = (_of(task, curves[key][seed]) for key in (own, anchor))
                found[task] = scored.bd_rate(ours, theirs, at, originals, weights)
            return found

        return resampled

    entries = []
    for name in priorities(config):
        for anchor in (("separate", name), ("one", EQUAL)):
            if anchor == ("one", name):
                continue
            statistics = [rates(("one", name), anchor, seed) for seed in config.seeds]
            rate = harness.summary(statistics, images, RESAMPLES)
            ci = rate.pop("ci")
            entries.append({"priority": name, "anchor": anchor[0], "bd_rate": rate, "ci": ci})
    return entries


def _of(task: str, curve: scored.Curve) -> scored.Curve:
    """The curve of one of the tasks."""
    return [[{task: tasks[task]} for tasks in streams] for streams in curve]


def table(results: dict[str, Any]) -> str:
    """Markdown: priorities down, BD-rate of each task across, against both anchors."""
    tasks = list(results["tasks"])
    lines = [["Priority", "against", *(f"{title(task)}, bits %" for task in tasks)]]
    lines.append(["---", "---", *["---:"] * len(tasks)])
    for entry in results["comparisons"]:
        name = entry["priority"]
        cells = [tables.cell(entry["bd_rate"][t], entry["ci"][t], 1, 1) for t in tasks]
        anchor = "a model for it" if entry["anchor"] == "separate" else "itself, equal"
        lines.append([name if name == EQUAL else f"{title(name)} first", anchor, *cells])
    seeds, steps = len(results["seeds"]), results["steps"]
    note = (
        "Bits of the one model at equal share of each task's score, in per cent, over what both "
        "curves cover; negative is better. First: the task matters "
        f"{results['config']['favour']:g} times as much as each other. The one model was trained "
        f"for {steps['one']} steps, those for one priority each for {steps['separate']} together. "
        f"{tables.trainings(seeds)}. {tables.brackets(seeds)}"
    )
    return tables.piped(lines) + f"\n\n{note}\n"


def draw(results: dict[str, Any], path: Path) -> None:
    """Share of each task's score against bytes: a panel per task, a colour per priority."""
    tasks = list(results["tasks"])
    figure = new_figure(4.2 * len(tasks), 4.2)
    colours = ("#666666", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
    names = list(dict.fromkeys(row["priority"] for row in results["rows"]))
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for name, colour in zip(names, colours, strict=False):
            for model, style in (("one", "-o"), ("separate", "--s")):
                points: dict[float, list[tuple[float, float]]] = {}
                for row in results["rows"]:
                    if (row["model"], row["priority"]) == (model, name):
                        points.setdefault(row["lam"], []).append((row["bytes"], row["kept"][task]))
                means = np.array([np.mean(each, axis=0) for _, each in sorted(points.items())])
                first = name if name == EQUAL else f"{title(name)} first"
                label = f"{first}, {'one model' if model == 'one' else 'its own'}"
                axes.plot(means[:, 0], 100 * means[:, 1], style, color=colour, ms=3, label=label)
        axes.axhline(100, color="grey", ls=":")
        axes.set_xscale("log")
        plots.ticks(axes.xaxis, axes)
        axes.set_xlabel("bytes per image")
        axes.set_title(title(task), fontsize=10)
        axes.grid(alpha=0.25, lw=0.6)
    axes.legend(fontsize=6)
    figure.axes[0].set_ylabel("score kept, % of Original")
    figure.savefig(path)


def views(results: dict[str, Any], out: Path) -> list[View]:
    """The table and the figure."""
    return [shown.printed(table, results), shown.drawn(draw, results, out / "variable_rate.png")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module docstring."""
    parser = joint.parser(__doc__, "variable_rate")
    parser.add_argument("--task", nargs="+", default=Config.tasks, help="tasks, in one stream")
    parser.add_argument(
        "--favour", type=float, default=Config.favour, help="weight of the favoured"
    )
    given = parser.parse_args(arguments)
    if given.draw:
        shown.redraw(NAME, views, given.draw)
        return
    if not 1 < given.favour <= FAVOUR:
        raise UsageError(
            f"--favour {given.favour:g}: expected above 1, and up to {FAVOUR:g}, for "
            "which models are trained."
        )
    tasks = tuple(dict.fromkeys(given.task))
    if len(tasks) < 2:
        raise UsageError(f"--task {' '.join(tasks)}: expected two tasks or more.")
    config = Config(**joint.chosen(given), tasks=tasks, favour=given.favour)
    run(config, given.out, given.parallel)
    shown.show(NAME, views, given.out / "results.json")


if __name__ == "__main__":
    harness.main(main)
