"""Table 7 of CVR: a task that the codec was not trained for, finished from the same streams.

Run:    python -m experiments.unseen [--seeds N] [--out DIR] [--data rooms|DIR] [--networks DIR]
Cost:   four codecs and six branches of 1600 steps per seed, half an hour on one CPU core, and 10
        minutes to measure
Expect: OUT/results.json, Table 7 on the screen, OUT/unseen.png
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import conventional, harness, joint, method, scored, shown
from experiments.joint import Model
from experiments.shown import View
from experiments.task_data import Reader, TaskData
from vcmjax.evaluate import plots, tables
from vcmjax.evaluate.drawing import new_figure
from vcmjax.evaluate.tables import title

IMAGE = "image_hevc"


class Case(NamedTuple):
    """An unseen task, and what is known when the codec is trained.

    Attributes:
      unseen: The task.
      strategy: Of the paper: Internal, External or Source+.
      sent: Tasks whose features are coded.
      known: Those that the codec is trained for.
    """

    unseen: str
    strategy: str
    sent: tuple[str, ...]
    known: tuple[str, ...]


_CLASSES, _SURFACES = ("class_scene", "segment_semantic"), ("normal", "principal_curvature")
CASES = (
    Case("class_object", "Internal", _CLASSES, _CLASSES),
    Case("class_object", "External", _SURFACES, _SURFACES),
    Case("class_object", "Source+", (*_CLASSES, "class_object"), _CLASSES),
    Case("reshading", "Internal", _SURFACES, _SURFACES),
    Case("reshading", "External", _CLASSES, _CLASSES),
    Case("reshading", "Source+", (*_SURFACES, "reshading"), _SURFACES),
)


NAME = "unseen"


@dataclasses.dataclass(frozen=True)
class Config(joint.Config):
    """What decides the numbers, besides what all have.

    Attributes:
      cases: What is sent, trained for, and finished.
    """

    cases: tuple[Case, ...] = CASES


QUICK = joint.QUICK | {
    "cases": (
        Case("reshading", "Internal", ("normal",), ("normal",)),
        Case("reshading", "Source+", ("normal", "reshading"), ("normal",)),
    )
}


def run(config: Config, out: Path, at_once: bool = False) -> dict[str, Any]:
    """Train both stages of every case and measure; returns what ``results.json`` holds."""
    with harness.claimed(out, config):
        return _run(config, out, at_once)


def _run(config: Config, out: Path, at_once: bool) -> dict[str, Any]:
    names = list(dict.fromkeys(n for c in config.cases for n in (*c.sent, *c.known, c.unseen)))
    reader, at = joint.opened(config, names, f"{NAME} into {out}", IMAGE)
    unseen = list(dict.fromkeys(case.unseen for case in config.cases))
    models: dict[Case, dict[int, Model]] = {}
    for case in config.cases:
        sent, known = ({n: at[n] for n in group} for group in (case.sent, case.known))
        first = f"{'+'.join(case.sent)} for {'+'.join(case.known)}"
        stage = joint.train(sent, known, config, out / "models" / first, at_once)
        then = out / "models" / f"{first}, then {case.unseen}"
        models[case] = joint.extended(stage, at[case.unseen], config, then)
    before = scored.originals({name: at[name] for name in unseen}, "val")
    found = {case: joint.search(models[case], before, config) for case in config.cases}
    images, reached = {}, {}
    for name in unseen:
        images[name] = _image(reader, at[name], config, out / "models")
        pixels = math.prod(at[name].splits["val"].image_shape)
        reached[name] = method.search(
            images[name], at[name].task, pixels, before[name], config.tolerance
        )
    joint.read_test(reader, at)
    originals = scored.originals({name: at[name] for name in unseen}, "test")
    rows = []
    for case in config.cases:
        name = case.unseen
        point = joint.at_plateau(models[case], found[case], at[name], originals[name])
        rows.append(case._asdict() | point)
    for name in unseen:
        (seed, one), *_ = reached[name].items()
        measured = {seed: images[name].measured(seed, one.level, "test")}
        rows.append(
            {"unseen": name, "strategy": "Image: HEVC", "quality": images[name].setting(one.level)}
            | {"reached": {str(seed): one.reached}}
            | scored.pooled(measured, at[name], originals[name])
        )
    results = harness.results(
        NAME,
        config,
        config.seeds,
        tasks=scored.described({name: at[name] for name in unseen}),
        original=originals,
        rows=rows,
    )
    harness.write_json(out / "results.json", results)
    return results


def _image(reader: Reader, at: TaskData, config: Config, folder: Path) -> method.Method:
    """The image by HEVC, as BPG would be, and the unseen task's own network run on it."""
    images = functools.partial(reader.images, at.task)
    folder = folder / f"image for {at.task.name}"
    (found,) = conventional.opened((IMAGE,), at, config.seeds[0], folder, images, None)
    return found


def table(results: dict[str, Any]) -> str:
    """Markdown of Table 7: representations down, bytes and score of each unseen task across."""
    tasks = list(results["tasks"])
    by = {(row["unseen"], row["strategy"]): row for row in results["rows"]}
    head = ["Representation"]
    original = ["Original"]
    for task, spec in results["tasks"].items():
        head += ["bytes ↓", f"{title(task)} ({tables.metric(spec)})"]
        original += ["–", scored.cell(results, task, results["original"][task], None)]
    lines = [head, ["---", *["---:"] * (2 * len(tasks))], original]
    for strategy in dict.fromkeys(row["strategy"] for row in results["rows"]):
        line = [strategy]
        for task in tasks:
            row = by.get((task, strategy))
            if row is None:
                line += ["–", "–"]
                continue
            line += [
                tables.cell(row["bytes"], row["ci"]["bytes"], 1, 1) + scored.star(row),
                scored.cell(results, task, row["score"], row["ci"]["score"]),
            ]
        lines.append(line)
    note = (
        "Internal: the codec was trained for like tasks; External: for unlike ones; Source+: the "
        "unseen task's feature is sent too, but the codec not trained for it. Then a decoder "
        "branch alone is trained for the unseen task. "
    )
    note += scored.at_the_plateau(results)
    return tables.piped(lines) + f"\n\n{note}\n"


def draw(results: dict[str, Any], path: Path) -> None:
    """Share of the score kept against bytes, a panel per unseen task."""
    tasks = list(results["tasks"])
    figure = new_figure(4.6 * len(tasks), 3.8)
    colours = ("#0072B2", "#D55E00", "#009E73", "#666666")
    strategies = list(dict.fromkeys(row["strategy"] for row in results["rows"]))
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for row in results["rows"]:
            if row["unseen"] != task:
                continue
            ends = np.array(
                [[row[k] - row["ci"][k][0], row["ci"][k][1] - row[k]] for k in ("bytes", "kept")]
            )
            axes.errorbar(
                row["bytes"],
                100 * row["kept"],
                xerr=np.maximum(ends[0], 0)[:, None],
                yerr=100 * np.maximum(ends[1], 0)[:, None],
                fmt="o",
                color=colours[strategies.index(row["strategy"]) % len(colours)],
                label=row["strategy"],
            )
        axes.axhline(100, color="grey", ls=":")
        axes.set_xscale("log")
        plots.ticks(axes.xaxis, axes)
        axes.set_xlabel("bytes per image")
        axes.set_ylabel("score kept, % of Original")
        axes.set_title(title(task), fontsize=10)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.25, lw=0.6)
    figure.savefig(path)


def views(results: dict[str, Any], out: Path) -> list[View]:
    """The table and the figure."""
    return [shown.printed(table, results), shown.drawn(draw, results, out / "unseen.png")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module docstring."""
    given = joint.parser(__doc__, "unseen").parse_args(arguments)
    if given.draw:
        shown.redraw(NAME, views, given.draw)
        return
    run(Config(**joint.chosen(given)), given.out, given.parallel)
    shown.show(NAME, views, given.out / "results.json")


if __name__ == "__main__":
    harness.main(main)
