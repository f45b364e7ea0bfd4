"""Figures 7 and 8 of CVR: rate against performance, and what Ours saves against each method.

Run:    python -m experiments.rate_performance [options of experiments.plateau]
        python -m experiments.rate_performance --draw RESULTS.json
Cost:   as experiments.plateau --methods all: with one seed about 15 minutes on two CPU cores a task
Expect: OUT/results.json, the deltas on the screen, OUT/rate_performance.png (Figure 7) and
        OUT/bubbles.png (Figure 8)
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import harness, plateau, shown
from experiments.shown import View
from vcmjax.errors import DataError
from vcmjax.evaluate import plots, tables
from vcmjax.evaluate.drawing import new_figure
from vcmjax.evaluate.plots import COLOURS, MARKERS
from vcmjax.evaluate.tables import METHODS, SCALES, Results, title
from vcmjax.tasks import Task

QUICK = ("--preset", "smoke")
_AREA = 6.0
"""Square points of a bubble per byte."""


def deltas(results: Results, split: str = "test") -> str:
    """Markdown: Ours against each method, with 95 % intervals over images and seeds."""
    head = [
        "Task",
        "Ours against",
        "Bits at the plateau, ratio",
        "BD-rate, %",
        "BD-score",
        "Plateaus",
    ]
    lines = [head, ["---", "---", "---:", "---:", "---:", "---"]]
    before = ""
    for entry in results.get("comparisons", []):
        if entry["split"] != split:
            continue
        spec = results["tasks"][entry["task"]]
        scale = SCALES.get(spec["metric"], 1)
        ci = entry["ci"]
        task = title(entry["task"])
        lines.append(
            [
                "" if task == before else f"{task} ({tables.METRICS[spec['metric']]})",
                METHODS[entry["anchor"]],
                tables.cell(entry["bits_ratio"], ci["bits_ratio"], 1, 2),
                tables.cell(entry["bd_rate"], ci["bd_rate"], 1, 0),
                tables.cell(entry["bd_score"], ci["bd_score"], scale, 2 if scale > 1 else 4),
                _reached(*entry["reached"]),
            ]
        )
        before = task
    if len(lines) == 2:
        raise DataError(f"deltas: no comparison on the split {split}; run with --methods all")
    note = (
        "Ratio: bytes of Ours at its plateau over the other's; below 1, Ours sends less. BD: mean "
        "difference over the range of score, or of bits, that both upper envelopes cover; – where "
        "they share none."
    )
    return tables.piped(lines) + f"\n\n{note}\n"


def _reached(ours: bool, other: bool) -> str:
    if ours and other:
        return "both reached"
    return "only Ours reached" if ours else "only the other reached" if other else "neither reached"


def bubbles(results: Results, path: Path, split: str = "test") -> None:
    """Draws Figure 8: performance at the plateau by task; the area of a bubble is its bytes."""
    entries = [e for e in results["plateau"] if e["seed"] is None]
    if not entries:
        raise DataError("bubbles: results hold no plateau")
    tasks = list(results["tasks"])
    figure = new_figure(max(5.5, 2.0 + 2.4 * len(tasks)), 4.6)
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axes, task in zip(panels, tasks, strict=True):
        spec = results["tasks"][task]
        scale = SCALES.get(spec["metric"], 1)
        for method, style in (("original", "--"), ("control", "-")):
            for row in tables.pooled(results, task=task, method=method, split=split):
                y = scale * row["metrics"][spec["metric"]]
                axes.axhline(y, color=COLOURS[method], ls=style, lw=1.2)
        methods = [
            m for m in MARKERS if any((e["task"], e["method"]) == (task, m) for e in entries)
        ]
        for place, method in enumerate(methods):
            entry = next(e for e in entries if (e["task"], e["method"]) == (task, method))
            y, size = scale * entry[split]["score"], entry[f"bytes_{split}"]
            face = COLOURS[method] if entry["reached"] else "none"
            axes.scatter(place, y, s=_AREA * size, c=face, edgecolors=COLOURS[method], alpha=0.7)
            axes.annotate(f"{size:.0f}", (place, y), ha="center", va="center", fontsize=7)
        axes.set_xticks(range(len(methods)), [METHODS[m] for m in methods], rotation=90, fontsize=7)
        axes.set_xlim(-0.8, len(methods) - 0.2)
        axes.margins(y=0.25)
        axes.set_title(title(task), fontsize=10)
        axes.set_ylabel(plots.AXES.get(spec["metric"], spec["metric"]))
        axes.grid(alpha=0.25, lw=0.6)
    figure.suptitle(
        "Score at the plateau; area and number: bytes per image; hollow: not reached;\n"
        "lines: Control Group (black), Original (grey, dashed)",
        fontsize=9,
    )
    figure.savefig(path)


def views(results: Results, out: Path) -> list[View]:
    """The deltas and both figures."""
    return [
        shown.printed(deltas, results),
        shown.drawn(plots.rate_performance, results, out / "rate_performance.png"),
        shown.drawn(bubbles, results, out / "bubbles.png"),
    ]


def needs(config: plateau.Config, tasks: Sequence[Task]) -> None:
    """Raise UsageError where `views` would have nothing to show."""
    del tasks
    plateau.needs_ours(config)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module docstring."""
    given = sys.argv[1:] if arguments is None else arguments
    every = ["--task", "all", "--methods", "all", *given]
    plateau.completed(every, "rate_performance", views, needs)


if __name__ == "__main__":
    harness.main(main)
