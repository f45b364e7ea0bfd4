"""Table 6 of CVR: the feature of one task sent, and another task finished from it.

Run:    python -m experiments.transferability [--task NAME ...] [--seeds N] [--out DIR]
                                              [--data rooms|DIR] [--networks DIR]
Cost:   sixteen codecs of 1600 steps per seed, 3 minutes each on one CPU core, and 10 to measure
Expect: OUT/results.json, Table 6 on the screen, OUT/transferability.png
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import harness, joint, scored, shown
from experiments.shown import View
from vcmjax.evaluate import tables
from vcmjax.evaluate.drawing import new_figure
from vcmjax.evaluate.tables import title
from vcmjax.tasks import TABLE_3

NAME = "transferability"


@dataclasses.dataclass(frozen=True)
class Config(joint.Config):
    """What decides the numbers, besides what all have.

    Attributes:
      tasks: Each is source and target in turn.
    """

    tasks: tuple[str, ...] = TABLE_3


QUICK = joint.QUICK | {"tasks": ("class_scene", "reshading")}


def run(config: Config, out: Path, at_once: bool = False) -> dict[str, Any]:
    """Train and measure a codec per pair of tasks; returns what ``results.json`` holds."""
    with harness.claimed(out, config):
        return _run(config, out, at_once)


def _run(config: Config, out: Path, at_once: bool) -> dict[str, Any]:
    reader, at = joint.opened(config, config.tasks, f"{NAME} into {out}")
    pairs = [(source, target) for source in config.tasks for target in config.tasks]
    models = {
        (source, target): joint.train(
            {source: at[source]},
            {target: at[target]},
            config,
            out / "models" / f"{source} to {target}",
            at_once,
        )
        for source, target in pairs
    }
    before = scored.originals(at, "val")
    found = {pair: joint.search(models[pair], before, config) for pair in pairs}
    joint.read_test(reader, at)
    originals = scored.originals(at, "test")
    results = harness.results(
        NAME,
        config,
        config.seeds,
        tasks=scored.described(at),
        original=originals,
        cells=[
            {"source": source, "target": target}
            | joint.at_plateau(
                models[source, target], found[source, target], at[target], originals[target]
            )
            for source, target in pairs
        ],
    )
    harness.write_json(out / "results.json", results)
    return results


def table(results: dict[str, Any]) -> str:
    """Markdown of Table 6: sources down, targets across, score and bytes in each cell."""
    tasks = list(results["tasks"])
    cells = {(cell["source"], cell["target"]): cell for cell in results["cells"]}
    head = [
        "Feature sent",
        *(f"{title(t)} ({tables.metric(spec)})" for t, spec in results["tasks"].items()),
    ]
    lines = [head, ["---", *["---:"] * len(tasks)]]
    lines.append(
        ["Original", *(scored.cell(results, t, results["original"][t], None) for t in tasks)]
    )
    for source in tasks:
        line = [title(source)]
        for target in tasks:
            cell = cells[source, target]
            score = scored.cell(results, target, cell["score"], cell["ci"]["score"])
            size = tables.cell(cell["bytes"], cell["ci"]["bytes"], 1, 1)
            line.append(f"{score} at {size} B{scored.star(cell)}")
        lines.append(line)
    note = scored.at_the_plateau(results)
    return tables.piped(lines) + f"\n\n{note}\n"


def draw(results: dict[str, Any], path: Path) -> None:
    """A heat map: colour and first number the share of the score kept, second number the bytes.

    A star marks what is not at its plateau.
    """
    tasks = list(results["tasks"])
    names = [title(task) for task in tasks]
    cells = {(cell["source"], cell["target"]): cell for cell in results["cells"]}
    kept = np.array([[cells[s, t]["kept"] for t in tasks] for s in tasks])
    figure = new_figure(2.2 + 1.4 * len(tasks), 1.6 + 1.0 * len(tasks))
    axes = figure.subplots()
    low = min(0.5, float(kept.min()))
    image = axes.imshow(100 * kept, cmap="viridis", vmin=100 * low, vmax=100, aspect="auto")
    for i, source in enumerate(tasks):
        for j, target in enumerate(tasks):
            cell = cells[source, target]
            text = f"{100 * cell['kept']:.0f} %\n{cell['bytes']:.0f} B{scored.star(cell)}"
            dark = cell["kept"] < (1 + low) / 2
            axes.text(j, i, text, ha="center", va="center", color="white" if dark else "black")
    axes.set_xticks(range(len(tasks)), names, rotation=20, ha="right")
    axes.set_yticks(range(len(tasks)), names)
    axes.set_xlabel("task finished")
    axes.set_ylabel("feature sent")
    figure.colorbar(image, label="score kept, % of Original")
    figure.savefig(path)


def views(results: dict[str, Any], out: Path) -> list[View]:
    """The table and the figure."""
    return [shown.printed(table, results), shown.drawn(draw, results, out / "transferability.png")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module docstring."""
    parser = joint.parser(__doc__, "transferability")
    parser.add_argument("--task", nargs="+", default=TABLE_3, help="default: CVR's four")
    given = parser.parse_args(arguments)
    if given.draw:
        shown.redraw(NAME, views, given.draw)
        return
    config = Config(**joint.chosen(given), tasks=tuple(dict.fromkeys(given.task)))
    run(config, given.out, given.parallel)
    shown.show(NAME, views, given.out / "results.json")


if __name__ == "__main__":
    harness.main(main)
