"""Table 2 and Figure 6 of CVR: every measure of a segmentation, by every method at its plateau.

Run:    python -m experiments.efficacy [options of experiments.plateau]
        python -m experiments.efficacy --draw RESULTS.json
Cost:   as experiments.plateau --methods all: with one seed about 15 minutes on two CPU cores
Expect: OUT/results.json, Table 2 on the screen, OUT/radar.png
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import harness, plateau, shown
from experiments.shown import View
from vcmjax.errors import DataError, UsageError
from vcmjax.evaluate import tables
from vcmjax.evaluate.drawing import new_figure
from vcmjax.evaluate.plots import COLOURS, ring
from vcmjax.evaluate.tables import METHODS, Results
from vcmjax.tasks import Task

MEASURES = {
    "cross_entropy": ("CE ↓", 1, 3),
    "accuracy": ("Acc., % ↑", 100, 2),
    "non_background_accuracy": ("Non-bg. acc., % ↑", 100, 2),
    "miou": ("mIoU, % ↑", 100, 2),
}
"""Printed name, factor and digits."""
QUICK = ("--preset", "smoke")


def table(results: Results, split: str = "test") -> str:
    """Markdown of Table 2: methods down, bits and measures across.

    Raises:
      DataError: The results hold no segmentation.
    """
    task = _segmentation(results)
    measures = _measures(results, task, split)
    head = ["Method", "bytes", "bpp", *(MEASURES[name][0] for name in measures)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for label, size, metrics in _points(results, task, split):
        rate = [] if size is None else [f"{size[0]:.1f}", f"{size[1]:.4f}"]
        cells = [_number(metrics[name], *MEASURES[name][1:]) for name in measures]
        lines.append([label, *(rate or ["–", "–"]), *cells])
    return tables.piped(lines) + "\n"


def radar(results: Results, path: Path, split: str = "test") -> None:
    """Draws Figure 6: Ours beside each other method, outer is better on every axis.

    An axis spans what the methods drawn reach, so that it shows differences and not their size.
    """
    task = _segmentation(results)
    measures = _measures(results, task, split)
    points = {label: (size, metrics) for label, size, metrics in _points(results, task, split)}
    ours = METHODS["ours"]
    if ours not in points:
        raise DataError("radar: results without Ours; run with --methods all")
    others = [label for label, (size, _) in points.items() if size and label != ours]
    names = ["bytes ↓", *(MEASURES[name][0].replace(", %", "") for name in measures)]
    table = {
        label: np.array(
            [-np.log(points[label][0][0]), *(_signed(points[label][1][n], n) for n in measures)]
        )
        for label in (ours, *others)
    }
    every = np.stack(list(table.values()))
    low, high = every.min(0), every.max(0)
    span = np.where(high > low, high - low, 1)
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    columns = min(4, len(others))
    figure = new_figure(3.1 * columns, 3.2 * -(-len(others) // columns))
    by_name = {name: method for method, name in METHODS.items()}
    for place, label in enumerate(others, 1):
        axes: Any = figure.add_subplot(-(-len(others) // columns), columns, place, polar=True)
        for each in (label, ours):
            values = 0.15 + 0.85 * (table[each] - low) / span
            colour = COLOURS[by_name.get(each.split(" at ")[0], "control")]
            ring(axes, angles, values, colour)
        axes.set_xticks(angles, names, fontsize=7)
        axes.set_yticks([0.15, 1.0], [])
        axes.set_ylim(0, 1.05)
        axes.set_title(f"{label}\nand Ours", fontsize=9)
    figure.savefig(path)


def _segmentation(results: Results) -> str:
    for task, spec in results["tasks"].items():
        if spec["kind"] == "segment":
            return task
    raise DataError("efficacy: results without a segmentation; run with --task segment_semantic")


def _measures(results: Results, task: str, split: str) -> list[str]:
    known = tables.pooled(results, task=task, split=split)[0]["metrics"]
    return [name for name in MEASURES if name in known]


def _points(results: Results, task: str, split: str):
    """(label, (bytes, bpp) or None, metrics): uncompressed, each plateau, IDFC at its fewest."""
    rows = tables.pooled(results, task=task, split=split)
    for row in rows:
        if row["method"] in ("original", "control"):
            yield METHODS[row["method"]], None, row["metrics"]
    entries = {e["method"]: e for e in results["plateau"] if e["task"] == task}
    for method, entry in sorted(entries.items(), key=lambda e: list(METHODS).index(e[0])):
        if method == "idfc_tiling":
            first = min((r for r in rows if r["method"] == method), key=lambda r: r["bytes_total"])
            label = f"{METHODS[method]} at QP {first['quality']}"
            yield label, (first["bytes_total"], first["bpp_real"]), first["metrics"]
        point = entry[split]
        size = (entry[f"bytes_{split}"], point["bpp_real"])
        yield METHODS[method], size, point["metrics"]


def _signed(value: float | None, name: str) -> float:
    value = float("nan") if value is None else value
    return -value if name == "cross_entropy" else value


def _number(value: float | None, factor: float, digits: int) -> str:
    return "–" if value is None else f"{factor * value:.{digits}f}"


def views(results: Results, out: Path) -> list[View]:
    """The table and the radar."""
    return [shown.printed(table, results), shown.drawn(radar, results, out / "radar.png")]


def needs(config: plateau.Config, tasks: Sequence[Task]) -> None:
    """Raise UsageError where `views` would have nothing to show."""
    if not any(task.kind == "segment" for task in tasks):
        raise UsageError(
            f"--task {' '.join(task.name for task in tasks)}: expected a segmentation among them."
        )
    plateau.needs_ours(config)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module docstring."""
    given = ["--methods", "all", *(sys.argv[1:] if arguments is None else arguments)]
    plateau.completed(given, "efficacy", views, needs)


if __name__ == "__main__":
    harness.main(main)
