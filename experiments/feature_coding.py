"""Tables I and II of VCM (2020): features of a task network by layer, QP and packing, through HEVC.

Run:    python -m experiments.feature_coding [--task NAME ...] [--layers NAME ...]
                                           [--data rooms|DIR] [--networks DIR] [--out DIR]
                                             [--torchvision NAME --weights FILE]
Cost:   6 minutes on two CPU cores
Expect: OUT/results.json, both tables on the screen, OUT/feature_coding.png
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import conventional, harness, layers, shown
from experiments.layers import Case, Coder
from experiments.shown import View
from vcmjax.codecs.idfc import Idfc, Packing
from vcmjax.evaluate import plots, tables
from vcmjax.evaluate.drawing import new_figure
from vcmjax.evaluate.tables import title
from vcmjax.nets.split import Layer

LABELS: dict[Packing, str] = {
    "concatenation": "channels as frames",
    "descending": "nearest first",
    "tiling": "tiled",
}


NAME = "feature_coding"


@dataclasses.dataclass(frozen=True)
class Config(layers.Config):
    """What decides the numbers, besides what both experiments have.

    Attributes:
      qps: Of HEVC.
      packings: Of `Idfc`; channels as frames are predicted from each other, as in the paper.
    """

    qps: tuple[int, ...] = (12, 22, 32, 42, 51)
    packings: tuple[Packing, ...] = tuple(LABELS)


QUICK = {"layers": ("encoder/Conv_2", "head/Conv_0"), "qps": (22, 42), "images": 4}


def run(config: Config, out: Path) -> dict[str, Any]:
    """Measure every point, those in `out` excepted; returns what ``results.json`` holds."""
    with harness.claimed(out, config):
        return _run(config, out)


def _run(config: Config, out: Path) -> dict[str, Any]:
    rows = []
    cases = layers.cases(config, f"{NAME} into {out}")
    for layer in (layer for case in cases for layer in case.layers):
        for packing in config.packings:
            blank = np.zeros((1, *layer.shape), np.float32)
            conventional.probe(layer.name, _codec(layer, packing), blank, config.qps)
    for case in cases:
        count = len(case.layers) * len(config.packings) * len(config.qps)
        done = 0
        with harness.steps(case.task.name, count) as progress:
            for layer in case.layers:
                for row in _of_layer(case, layer, config, out / "points"):
                    rows.append(row)
                    progress(done := done + 1)
    results = harness.results(NAME, config, (0,), rows=rows)
    harness.write_json(out / "results.json", results)
    return results


def _codec(layer: Layer, packing: Packing) -> Idfc:
    return Idfc(layer.shape, packing, inter=packing != "tiling")  # type: ignore[arg-type]


def _of_layer(case: Case, layer: Layer, config: Config, points: Path) -> Iterator[dict[str, Any]]:
    feature, finish = layers.batched(layer.front)(case.image), layers.batched(layer.back)
    raw = 4 * feature[0].size
    for packing in config.packings:
        codec = _codec(layer, packing)
        for qp in config.qps:
            place = f"{case.task.name}-{layer.name.replace('/', '-')}-{packing}-{qp}.json"
            coder = Coder(functools.partial(codec.encode, qp=qp), codec.decode, codec.stream_bytes)
            measure = functools.partial(layers.point, case, feature, finish, coder)
            row = layers.kept(points / place, measure)
            yield {
                "task": case.task.name,
                "metric": case.task.metric,
                "layer": layer.name,
                "shape": list(layer.shape),
                "packing": packing,
                "qp": qp,
                "raw_bytes": raw,
                "compression_rate": row["bytes"] / raw,
                **row,
            }


def table_1(results: dict[str, Any]) -> str:
    """Markdown of Table I: by layer, tiled, at every QP."""
    config = results["config"]
    return _table(results, [(config["packings"][-1], qp) for qp in config["qps"]])


def table_2(results: dict[str, Any]) -> str:
    """Markdown of Table II: by layer and packing, at the least QP and a great one."""
    config = results["config"]
    qps = (config["qps"][0], config["qps"][max(1, len(config["qps"]) - 2)])
    return _table(results, [(packing, qp) for packing in config["packings"] for qp in qps])


def _table(results: dict[str, Any], columns: Sequence[tuple[Packing, int]]) -> str:
    """A table per task: a line per layer, a column per packing and QP."""
    parts = []
    for task in layers.tasks(results):
        lines = [
            [title(task), "shape", *(f"{LABELS[packing]}, QP {qp}" for packing, qp in columns)],
            ["---", "---", *["---:"] * len(columns)],
        ]
        rows = [row for row in results["rows"] if row["task"] == task]
        found = {(row["layer"], row["packing"], row["qp"]): row for row in rows}
        shapes = {row["layer"]: "×".join(map(str, row["shape"])) for row in rows}
        for layer, shape in shapes.items():
            cells = [found[layer, packing, qp] for packing, qp in columns]
            lines.append([layer, shape, *(_cell(row) for row in cells)])
        parts.append(tables.piped(lines))
    note = "Bytes over those of the feature in float32 / fidelity."
    return "\n\n".join([*parts, note]) + "\n"


def _cell(row: dict[str, Any]) -> str:
    return f"{row['compression_rate']:.4f} / {row['fidelity']:.3f}"


def draw(results: dict[str, Any], path: Path) -> None:
    """Fidelity against bits: a panel per task, a line per layer, tiled."""
    tasks = layers.tasks(results)
    figure = new_figure(6.2 * len(tasks), 4.8)
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axes, task in zip(panels, tasks, strict=True):
        rows = [
            r
            for r in results["rows"]
            if r["task"] == task and r["packing"] == results["config"]["packings"][-1]
        ]
        names = list(dict.fromkeys(row["layer"] for row in rows))
        for place, name in enumerate(names):
            points = sorted((r["bytes"], r["fidelity"]) for r in rows if r["layer"] == name)
            x, y = zip(*points, strict=True)
            style = "-" if name.startswith("encoder") else "--"
            colour = layers.colour(place, len(names))
            axes.plot(x, y, style, marker="o", ms=3.5, color=colour, label=name)
        axes.set_xscale("log")
        plots.ticks(axes.xaxis, axes)
        axes.set_xlabel("bytes per image")
        axes.set_ylabel("fidelity: agreement with the uncompressed output")
        axes.set_title(title(task), fontsize=10)
        axes.grid(alpha=0.25, lw=0.6)
        axes.legend(fontsize=7)
    figure.savefig(path)


def views(results: dict[str, Any], out: Path) -> list[View]:
    """Both tables and the figure."""
    return [
        shown.printed(table_1, results),
        shown.printed(table_2, results),
        shown.drawn(draw, results, out / "feature_coding.png"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module docstring."""
    config, given = layers.parse(__doc__, Config, arguments)
    if given.draw:
        shown.redraw(NAME, views, given.draw)
        return
    run(config, given.out)
    shown.show(NAME, views, given.out / "results.json")


if __name__ == "__main__":
    harness.main(main)
