"""The toy example of MTC (2022): score against bits, sending the image or any layer's feature.

Run:    python -m experiments.image_vs_feature [--task NAME ...] [--images N]
                                             [--data rooms|DIR] [--networks DIR] [--out DIR]
                                               [--torchvision NAME --weights FILE]
Cost:   5 minutes on two CPU cores
Expect: OUT/results.json, a table on the screen, OUT/image_vs_feature.png
"""

import dataclasses
import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments import conventional, harness, layers, shown
from experiments.layers import Coder
from experiments.shown import View
from vcmjax.codecs import idfc
from vcmjax.codecs.idfc import Idfc
from vcmjax.codecs.image import ImageCodec
from vcmjax.evaluate import plots, tables
from vcmjax.evaluate.drawing import new_figure
from vcmjax.evaluate.plots import AXES
from vcmjax.evaluate.tables import METRICS, SCALES, title

NAME = "image_vs_feature"


@dataclasses.dataclass(frozen=True)
class Config(layers.Config):
    """What decides the numbers, besides what both experiments have.

    Attributes:
      qualities: Of each codec: JPEG's quality, of image and tiled features alike, and HEVC's QP.
    """

    images: int = 100
    qualities: tuple[tuple[str, tuple[int, ...]], ...] = (
        ("jpeg", (1, 5, 10, 20, 40, 75, 95)),
        ("hevc", (51, 47, 43, 37, 32, 27, 22)),
    )


QUICK = {
    "layers": ("encoder/Conv_2",),
    "qualities": (("jpeg", (10, 75)), ("hevc", (43, 27))),
    "images": 4,
}


class TiledJpeg:
    """A feature as a mosaic of 8-bit integers, that coded as a grey JPEG (MTC's way)."""

    def __init__(self, shape: tuple[int, int, int]):
        """Of features (H, W, C)."""
        self.shape = shape

    def encode(self, features: np.ndarray, quality: int) -> list[bytes]:
        """The range in 4 bytes, and a JPEG file, per image."""
        streams = []
        for feature in features:
            integers, ends = idfc.quantise(feature, 8, "minmax")
            out = io.BytesIO()
            Image.fromarray(idfc.tile(integers)).save(out, "JPEG", quality=quality, optimize=True)
            streams.append(ends.tobytes() + out.getvalue())
        return streams

    def decode(self, streams: list[bytes]) -> np.ndarray:
        """Features (N, H, W, C)."""
        decoded = []
        for stream in streams:
            with Image.open(io.BytesIO(stream[4:]), formats=["JPEG"]) as opened:
                integers = idfc.untile(np.asarray(opened), self.shape)
            ends = np.frombuffer(stream[:4], "<f2")
            decoded.append(idfc.dequantise(integers, ends, 8, "minmax"))
        return np.stack(decoded)


def coder(name: str, shape: tuple[int, ...], quality: int, image: bool) -> Coder:
    """JPEG or HEVC, of images or of features of `shape`."""
    if image:
        codec: Any = ImageCodec(name, (shape[0], shape[1]))
        return Coder(
            functools.partial(codec.encode, quality=quality), codec.decode, codec.stream_bytes
        )
    if name == "jpeg":
        jpeg = TiledJpeg(shape)  # type: ignore[arg-type]
        return Coder(functools.partial(jpeg.encode, quality=quality), jpeg.decode, len)
    codec = Idfc(shape)  # type: ignore[arg-type]
    return Coder(functools.partial(codec.encode, qp=quality), codec.decode, codec.stream_bytes)


def run(config: Config, out: Path) -> dict[str, Any]:
    """Measure every point, those in `out` excepted; returns what ``results.json`` holds."""
    with harness.claimed(out, config):
        return _run(config, out)


def _run(config: Config, out: Path) -> dict[str, Any]:
    rows, pristine = [], {}
    cases = layers.cases(config, f"{NAME} into {out}")
    methods = ["idfc_tiling", *(f"image_{name}" for name, _ in config.qualities)]
    for case in cases:
        conventional.check(methods, (16, 16, 8), case.image.shape[1:3])
    for case in cases:
        name = case.task.name
        pristine[name] = layers.pristine(case)
        splits = [("image", lambda images: images, case.whole)]
        splits += [
            (one.name, layers.batched(one.front), layers.batched(one.back)) for one in case.layers
        ]
        points = [(codec, quality) for codec, each in config.qualities for quality in each]
        with harness.steps(name, len(splits) * len(points)) as progress:
            for at, (place, front, back) in enumerate(splits):
                items = front(case.image)
                for done, (codec, quality) in enumerate(points, 1):
                    by = coder(codec, items.shape[1:], quality, place == "image")
                    file = f"{name}-{place.replace('/', '-')}-{codec}-{quality}.json"
                    measure = functools.partial(layers.point, case, items, back, by)
                    row = layers.kept(out / "points" / file, measure)
                    about = {"task": name, "metric": case.task.metric, "split": place}
                    rows.append(about | {"codec": codec, "quality": quality, **row})
                    progress(at * len(points) + done)
    results = harness.results(NAME, config, (0,), pristine=pristine, rows=rows)
    harness.write_json(out / "results.json", results)
    return results


def table(results: dict[str, Any]) -> str:
    """Markdown: by split point and codec, the fewest bytes of a point within 2 % of no coding."""
    tasks = layers.tasks(results)
    codecs = [name for name, _ in results["config"]["qualities"]]
    head = ["Sent", *(f"{title(t)}, {c.upper()}" for t in tasks for c in codecs)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for place in dict.fromkeys(row["split"] for row in results["rows"]):
        cells = []
        for task in tasks:
            wanted = 0.98 * results["pristine"][task]
            for codec in codecs:
                good = [
                    row["bytes"]
                    for row in results["rows"]
                    if (row["task"], row["codec"], row["split"]) == (task, codec, place)
                    and row["score"] >= wanted
                ]
                cells.append(f"{min(good):.0f}" if good else "–")
        lines.append([place, *cells])
    note = "Bytes per image; –: no quality tried comes within 2 %."
    return tables.piped(lines) + f"\n\n{note}\n"


def draw(results: dict[str, Any], path: Path) -> None:
    """Score against bytes: a panel per task and codec, a line per split point."""
    tasks = layers.tasks(results)
    codecs = [name for name, _ in results["config"]["qualities"]]
    figure = new_figure(5.6 * len(codecs), 4.2 * len(tasks))
    panels = figure.subplots(len(tasks), len(codecs), squeeze=False)
    for i, task in enumerate(tasks):
        (metric,) = {row["metric"] for row in results["rows"] if row["task"] == task}
        for j, codec in enumerate(codecs):
            axes = panels[i, j]
            rows = [r for r in results["rows"] if (r["task"], r["codec"]) == (task, codec)]
            places = list(dict.fromkeys(row["split"] for row in rows))
            for number, place in enumerate(places):
                points = sorted((r["bytes"], r["score"]) for r in rows if r["split"] == place)
                x, y = np.array(points).T
                colour = layers.colour(number, len(places))
                look: dict[str, Any] = {"color": colour, "ls": "-" if "enc" in place else "--"}
                if place == "image":
                    look = {"color": "#D55E00", "lw": 2.4}
                axes.plot(x, SCALES[metric] * y, marker="o", ms=3.5, label=place, **look)
            axes.axhline(SCALES[metric] * results["pristine"][task], color="grey", ls=":")
            axes.set_xscale("log")
            plots.ticks(axes.xaxis, axes)
            axes.set_xlabel("bytes per image")
            axes.set_ylabel(AXES[metric])
            axes.set_title(f"{title(task)}, {METRICS[metric]}: {codec.upper()}", fontsize=10)
            axes.grid(alpha=0.25, lw=0.6)
            axes.legend(fontsize=7)
    figure.savefig(path)


def views(results: dict[str, Any], out: Path) -> list[View]:
    """The table and the figure."""
    return [shown.printed(table, results), shown.drawn(draw, results, out / "image_vs_feature.png")]


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
