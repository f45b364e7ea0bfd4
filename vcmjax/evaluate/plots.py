"""Rate-performance curves and plateau bars, drawn from a results file alone.

Run: python -m vcmjax.evaluate.plots RESULTS.json [--out DIR]

Every ``examples_TASK.npz`` beside the results is drawn too. matplotlib is imported on first use.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcmjax import terminal
from vcmjax.errors import DataError, VcmError
from vcmjax.evaluate import drawing
from vcmjax.evaluate.drawing import new_figure
from vcmjax.evaluate.example_page import examples
from vcmjax.evaluate.tables import METHODS, SCALES, SPLITS, Results, naming, pooled, read, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colour-blind safe palette.
COLOURS = {"original": "#999999", "control": "#000000", "hyperprior": "#D55E00", "ours": "#0072B2",
           "hyperprior_context": "#F0A67D", "ours_context": "#6FC3F2",
           "idfc_tiling": "#009E73", "idfc_concatenation": "#66C2A5", "idfc_descending": "#1B5E4A",
           "idfc_vvc": "#00C853",
           "image_hevc": "#CC79A7", "image_jpeg": "#E69F00", "image_jpeg2000": "#A6761D",
           "image_webp": "#56B4E9", "image_avif": "#8A5A9E", "image_jxl": "#B5B100"}  # fmt: skip
MARKERS = {"hyperprior": "s", "ours": "o", "hyperprior_context": "*", "ours_context": "H",
           "idfc_tiling": "^", "idfc_concatenation": "<",
           "idfc_descending": ">", "idfc_vvc": "h", "image_hevc": "D",
           "image_jpeg": "v", "image_jpeg2000": "P", "image_webp": "X",
           "image_avif": "d", "image_jxl": "p"}  # fmt: skip
"""Methods that send bytes, in the order drawn."""
LINES = ("-", "--", ":", "-.")
AXES = {"accuracy": "Accuracy (%)", "miou": "mIoU (%)", "l1": "L1 distance"}


def ring(
    axes: Axes, angles: np.ndarray, values: np.ndarray, colour: str, label: str | None = None
) -> None:
    """Draws a closed, filled ring of a radar chart.

    Args:
      axes: Polar.
      angles: (N,) of the chart's axes, in radians.
      values: (N,), on one scale.
      colour: Of line and filling.
      label: In the legend.
    """
    around, out = np.append(angles, angles[0]), np.append(values, values[0])
    axes.plot(around, out, color=colour, lw=1.6, label=label)
    axes.fill(around, out, color=colour, alpha=0.15)


def rate_performance(results: Results, path: Path | str) -> None:
    """Draws performance against real bits, CVR Fig. 7: a panel per task and split.

    Args:
      results: As read by `tables.read`; only rows pooled over seeds are drawn.
      path: Image to write; its suffix names the format.

    Raises:
      DataError: No pooled row of a coded method has bits.
    """
    coded = [row for method in MARKERS for row in pooled(results, method=method) if _usable(row)]
    if not coded:
        raise DataError("rate_performance: results hold no pooled row with real bits")
    tasks = [task for task in results["tasks"] if any(row["task"] == task for row in coded)]
    splits = [split for split in SPLITS if any(row["split"] == split for row in coded)]
    across = 1 < len(tasks) <= 4
    rows, columns = (len(splits), len(tasks)) if across else (len(tasks), len(splits))
    width = max(3.8 * columns, 6.5)
    figure = new_figure(width, 3.5 * rows + 0.6)
    panels = figure.subplots(rows, columns, squeeze=False)
    for i, task in enumerate(tasks):
        for j, split in enumerate(splits):
            _rate_panel(panels[j, i] if across else panels[i, j], results, task, split)
    handles: dict[str, Any] = {}
    for axes in panels.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if "Plateau" in handles:
        handles["Plateau"] = handles.pop("Plateau")  # Last, below the lines it rings.
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=3 if width < 10 else 6
    )
    figure.savefig(path)


def plateau_bars(results: Results, path: Path | str, split: str = "val") -> None:
    """Draws the bits of each method at its plateau; hatched where it was not reached.

    Args:
      results: As read by `tables.read`.
      path: Image to write.
      split: ``val`` or ``test``; the plateau's level was chosen on the former.

    Raises:
      DataError: No plateau pooled over seeds has this split.
    """
    drawing.matplotlib()
    from matplotlib.patches import Patch

    entries = {
        (entry["task"], entry["method"]): entry
        for entry in results["plateau"]
        if entry["seed"] is None and (entry.get(split) or {}).get("bpp_real") is not None
    }
    if not entries:
        raise DataError(f"plateau_bars: results hold no pooled plateau of split {split}")
    tasks = [task for task in results["tasks"] if any(key[0] == task for key in entries)]
    methods = [method for method in MARKERS if any(key[1] == method for key in entries)]
    group = max(1.9, 0.8 * len(methods))  # inches
    figure = new_figure(max(5.5, 1.5 + group * len(tasks)), 4.2)
    axes = figure.subplots()
    width = 0.8 / len(methods)
    for (task, method), entry in entries.items():
        x = tasks.index(task) + (methods.index(method) - (len(methods) - 1) / 2) * width
        _bar(axes, x, 0.92 * width, method, entry, split)
    axes.set_xticks(range(len(tasks)), [title(task).replace(" ", "\n", 1) for task in tasks])
    axes.set_xlim(-0.6, len(tasks) - 0.4)
    axes.margins(y=0.18)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("bits per pixel at the plateau")
    text = f"Fewest bits that do as well as the Control Group ({SPLITS[split]})"
    axes.set_title(text, fontsize=10)
    handles = [Patch(color=COLOURS[method], label=METHODS[method]) for method in methods]
    if not all(entry["reached"] for entry in entries.values()):
        text = "not reached: best point shown"
        handles.append(Patch(facecolor="white", edgecolor="black", hatch="///", label=text))
    figure.legend(handles=handles, loc="outside lower center", ncols=3 if len(methods) < 5 else 4)
    figure.savefig(path)


def _rate_panel(axes: Axes, results: Results, task: str, split: str) -> None:
    """One task and split: a line per method and recipe, the uncompressed scores, the plateaus."""
    spec = results["tasks"][task]
    metric, scale = spec["metric"], SCALES.get(spec["metric"], 1)
    everything = pooled(results, task=task, split=split)
    for method, style in (("original", "--"), ("control", "-")):
        for row in everything:
            if row["method"] == method and row["status"] == "ok":
                y = scale * row["metrics"][metric]
                axes.axhline(y, color=COLOURS[method], ls=style, lw=1.3, label=METHODS[method])
                if method == "control":
                    loss = -spec["tolerance"] if spec["higher_is_better"] else spec["tolerance"]
                    label = f"Control Group, {100 * spec['tolerance']:g} % tolerance"
                    axes.axhline(y * (1 + loss), color="black", ls=":", lw=1, label=label)
    coded = [row for row in everything if row["method"] in MARKERS and _usable(row)]
    for method, marker in MARKERS.items():
        recipes = sorted({row.get("recipe") or "" for row in coded if row["method"] == method})
        for recipe, line in zip(recipes, LINES, strict=False):
            points = [
                (row["bpp_real"], *_with_interval(row["metrics"], row.get("ci"), metric, scale))
                for row in coded
                if row["method"] == method and (row.get("recipe") or "") == recipe
            ]
            x, y, below, above = np.array(sorted(points)).T
            name = METHODS[method] + (f" ({recipe})" if len(recipes) > 1 else "")
            axes.errorbar(x, y, (below, above), color=COLOURS[method], marker=marker, ms=4.5,
                          ls=line, lw=1.6, elinewidth=0.7, capsize=1.5, label=name)  # fmt: skip
    for entry in results["plateau"]:
        point = entry.get(split)
        if entry["task"] == task and entry["seed"] is None and entry["reached"] and point:
            x, y = point["bpp_real"], scale * point["score"]
            axes.plot(x, y, MARKERS[entry["method"]], color=COLOURS[entry["method"]], ms=4.5)
            axes.plot(x, y, "o", ms=13, mfc="none", mew=1.8, color=COLOURS[entry["method"]])
    if any(entry["reached"] for entry in results["plateau"]):
        axes.plot([], [], "o", ms=11, mfc="none", mew=1.8, color="dimgrey", label="Plateau")
    every = [row["bpp_real"] for row in pooled(results, task=task) if _usable(row)]
    every += [
        entry[each]["bpp_real"]
        for entry in results["plateau"]
        for each in SPLITS
        if entry["task"] == task and entry["seed"] is None and entry.get(each)
    ]
    _rate_axes(axes, [bpp for bpp in every if bpp is not None], spec)
    count = {row["images"] for row in everything}
    if count:
        text = f"{title(task)}, {SPLITS[split]} ({max(count)} images)"
        axes.set_title(text, fontsize=10)
    if coded:
        size = coded[0]["height"] * coded[0]["width"] / 8
        functions = (lambda bpp: bpp * size, lambda count: count / size)
        top = axes.secondary_xaxis("top", functions=functions)
        top.set_xlabel("bytes per image")
        ticks(top.xaxis, axes)


def _rate_axes(axes: Axes, bpp: list[float], spec: dict[str, Any]) -> None:
    """Scales and labels; `bpp` is every rate of the task, so that its splits share a range."""
    if max(bpp) > 10 * min(bpp) > 0:
        axes.set_xscale("log")
        axes.set_xlim(min(bpp) / 1.2, max(bpp) * 1.2)
    else:
        axes.set_xlim(0, max(bpp) * 1.08)
    ticks(axes.xaxis, axes)
    axes.set_xlabel("bits per pixel")
    worse = "" if spec["higher_is_better"] else " (lower is better)"
    axes.set_ylabel(AXES.get(spec["metric"], spec["metric"]) + worse)
    axes.grid(alpha=0.25, lw=0.6)


def ticks(axis: Any, axes: Axes) -> None:
    """Plain numbers; on a logarithmic axis at 1, 2 and 5, or 1 and 3 where it is long.

    Args:
      axis: Whose ticks.
      axes: Of the scale and the limits, with everything drawn.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if axes.get_xscale() == "log":
        low, high = axes.get_xlim()
        subs = (1, 3) if high > 200 * low else (1, 2, 5)
        axis.set_major_locator(LogLocator(subs=subs, numticks=30))
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(5))


def _bar(axes: Axes, x: float, width: float, method: str, entry: Results, split: str) -> None:
    """A method's bits on one task, with interval and bytes."""
    y, below, above = _with_interval(entry[split], entry[split].get("ci"), "bpp_real", 1)
    look: dict[str, Any] = {"color": COLOURS[method]}
    size = entry.get(f"bytes_{split}")
    label = "" if size is None else f"{size:.1f}\nbytes"
    if not entry["reached"]:
        look = {"color": "white", "edgecolor": COLOURS[method], "hatch": "///"}
        label = f"not\nreached\n({label.replace(chr(10), ' ')})" if label else "not\nreached"
    axes.bar(x, y, width, yerr=[[below], [above]], capsize=3, ecolor="#444444", **look)
    axes.annotate(label, (x, y + above), (0, 3), textcoords="offset points", ha="center",
                  va="bottom", fontsize=8)  # fmt: skip


def _with_interval(
    values: dict[str, float], ci: dict[str, Any] | None, name: str, scale: float
) -> tuple[float, float, float]:
    """A value and the lengths of its interval below and above, 0 where there is none."""
    value = values[name]
    low, high = (ci or {}).get(name) or (value, value)
    # A percentile interval may, rarely, leave out its own centre: no bar on that side then.
    return scale * value, scale * max(0.0, value - low), scale * max(0.0, high - value)


def _usable(row: dict[str, Any]) -> bool:
    return row["status"] == "ok" and row["bpp_real"] is not None


def main(arguments: list[str] | None = None) -> int:
    """Redraws the figures of a results file; exit status 2 if it cannot be used."""
    parser = argparse.ArgumentParser(description="Redraw the figures of a results file.")
    parser.add_argument("results", type=Path, help="results.json of experiments.plateau")
    parser.add_argument("--out", type=Path, help="folder for the figures; default: beside RESULTS")
    terminal.plain()
    options = parser.parse_args(arguments)
    out = options.out or options.results.parent
    try:
        results = read(options.results)
        out.mkdir(parents=True, exist_ok=True)
        with naming(options.results), drawing.settings():
            rate_performance(results, out / "rate_performance.png")
            plateau_bars(results, out / "plateau_bars.png")
            for npz in sorted(options.results.parent.glob("examples_*.npz")):
                examples(npz, results, out / f"{npz.stem}.png")
    except (VcmError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
