"""Table 5 of CVR: pixels for people to look at, coded beside the tasks' features in one stream.

Run:    python -m experiments.human_vision [--group A+B+C ...] [--qp N ...] [--seeds N] [--out DIR]
                                           [--data rooms|DIR] [--networks DIR]
Cost:   four codecs of 1600 steps per seed, 5 to 8 minutes each on one CPU core, and 10 to measure
Expect: OUT/results.json, Table 5 on the screen, OUT/human_vision.png
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments import aggregation, harness, joint, scored, shown
from experiments.joint import Model
from experiments.kept import kept
from experiments.shown import View
from experiments.task_data import Reader, TaskData
from vcmjax.codecs import hevc
from vcmjax.codecs.image import ImageCodec
from vcmjax.data.loader import Source
from vcmjax.errors import UsageError
from vcmjax.evaluate import image_quality, measure, tables
from vcmjax.evaluate.drawing import new_figure
from vcmjax.evaluate.measure import Measurement
from vcmjax.evaluate.tables import title
from vcmjax.nets import pixels

PIXELS = pixels.TASK.name
QUALITIES = {"psnr": image_quality.psnr, "ms_ssim": image_quality.ms_ssim}


NAME = "human_vision"


@dataclasses.dataclass(frozen=True)
class Config(joint.Config):
    """What decides the numbers, besides what all have.

    Attributes:
      groups: Tasks, each group in one stream: alone, and with the pixels.
      qps: Of the image by HEVC intra, as BPG would code it.
    """

    groups: tuple[tuple[str, ...], ...] = (aggregation.SIX[:3], aggregation.SIX[3:])
    qps: tuple[int, ...] = (51, 47, 43)


QUICK = joint.QUICK | {"groups": (("reshading",),), "qps": (43,)}


class WithPixels:
    """A source whose examples carry their pixels, in [0, 1], as one more label."""

    def __init__(self, source: Source):
        """Wraps without reading."""
        self.source = source

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Example `index`."""
        example = dict(self.source[index])
        return example | {PIXELS: np.asarray(example["image"], np.float32) / 255}


def run(config: Config, out: Path, at_once: bool = False) -> dict[str, Any]:
    """Train every group without and with pixels; returns what ``results.json`` holds."""
    with harness.claimed(out, config):
        return _run(config, out, at_once)


def _run(config: Config, out: Path, at_once: bool) -> dict[str, Any]:
    names = list(dict.fromkeys(name for group in config.groups for name in group))
    reader, at = _opened(config, names, f"{NAME} into {out}")
    models: dict[tuple[tuple[str, ...], bool], dict[int, Model]] = {}
    for group in config.groups:
        for plus in (False, True):
            tasks = {name: at[name] for name in (*group, *((PIXELS,) if plus else ()))}
            folder = out / "models" / "+".join(tasks)
            models[group, plus] = joint.train(tasks, tasks, config, folder, at_once)
    before = scored.originals({name: at[name] for name in names}, "val")
    found = {}
    for (group, plus), trained in models.items():
        tasks = {name: at[name] for name in group}  # the plateau is that of the tasks alone
        own = {seed: model._replace(at=tasks) for seed, model in trained.items()}
        found[group, plus] = joint.search(own, before, config)
    joint.read_test(reader, at)
    originals = scored.originals({name: at[name] for name in names}, "test")
    images = functools.cache(lambda: reader.images(at[names[0]].task, "test"))
    columns = []
    for group in config.groups:
        tasks = {name: at[name] for name in group}
        for plus in (False, True):
            trained = models[group, plus]
            levels = {seed: one.level for seed, one in found[group, plus].items()}
            measured = [
                trained[seed].measured(level, "test")
                | ({"quality": _quality(trained[seed], level)} if plus else {})
                for seed, level in levels.items()
            ]
            name = "with pixels" if plus else "alone"
            status = joint.status(trained, found[group, plus])
            columns.append(
                {"tasks": list(group), "name": name, **status, **_means(measured, tasks, originals)}
            )
        for qp in config.qps:
            one = _image(tasks, images, qp, out / "models" / f"image, QP {qp}")
            name = f"image: HEVC, QP {qp}"
            columns.append({"tasks": list(group), "name": name, **_means([one], tasks, originals)})
    results = harness.results(
        NAME,
        config,
        config.seeds,
        tasks=scored.described({name: at[name] for name in names}),
        original=originals,
        columns=columns,
    )
    harness.write_json(out / "results.json", results)
    return results


def _opened(config: Config, names: Sequence[str], about: str) -> tuple[Reader, dict[str, TaskData]]:
    """As `joint.opened`, with the pixels as a task whose feature has as many positions."""
    reader, at = joint.opened(config, names, about, "image_hevc")
    data, first = reader.data, at[names[0]]

    def opened(split: str, only: str | None = None) -> Source:
        return WithPixels(data.open(split, names[0] if only == PIXELS else only))

    reader.data = data._replace(tasks=data.tasks | {PIXELS: pixels.TASK}, open=opened)
    network = pixels.network(first.network.network.stride)
    reader.prepare(pixels.TASK, network)
    return reader, at | {PIXELS: reader.open(pixels.TASK, network, joint.TARGET)}


def _quality(model: Model, level: int) -> Measurement:
    """PSNR and MS-SSIM of the pixels received on the test split, from disk if they are there."""

    def compute() -> Measurement:
        received, cost = model.received(level, "test")
        images = np.asarray(model.at[PIXELS].head(jnp.asarray(received[PIXELS])))
        return cost._replace(statistics=_compared(model.at[PIXELS].splits["test"].label, images))

    return kept(model.directory / f"test_{level}_quality.npz", compute)


def _compared(images: np.ndarray, received: np.ndarray) -> dict[str, np.ndarray]:
    # What is shown has eight bits.
    shown = np.rint(255 * np.clip(received, 0, 1)) / 255
    return {name: function(images, shown) for name, function in QUALITIES.items()}


def _image(at: dict[str, TaskData], images, qp: int, folder: Path) -> dict[str, Measurement]:
    """The image by HEVC, each task's own network run on it, and its quality."""
    size = next(iter(at.values())).splits["test"].image_shape
    codec = ImageCodec("hevc", size)

    @functools.cache
    def received() -> tuple[np.ndarray, Measurement]:
        return measure.conventional_reconstruction(codec, images(), qp)

    def of(each: TaskData) -> Measurement:
        (decoded, cost), network = received(), each.network
        head = lambda x: each.head(network.network.encode(network.params, x))  # noqa: E731
        label = each.splits["test"].label
        return cost._replace(statistics=measure.head_statistics(each.task, head, decoded, label))

    def quality() -> Measurement:
        decoded, cost = received()
        return cost._replace(statistics=_compared(images() / 255, decoded / 255))

    measured = {
        name: kept(folder / f"test_{name}.npz", functools.partial(of, each))
        for name, each in at.items()
    }
    return measured | {"quality": kept(folder / "test_quality.npz", quality)}


def _means(
    seeds: list[dict[str, Measurement]], at: dict[str, TaskData], originals: dict[str, float]
) -> dict[str, Any]:
    """Bytes, scores and qualities, means over images and seeds, with 95 % bootstrap intervals."""
    test = next(iter(at.values())).splits["test"]
    count = math.prod(test.image_shape)

    def statistic(measured: dict[str, Measurement]):
        def resampled(weights: np.ndarray) -> dict[str, np.ndarray]:
            tasks = {name: measured[name] for name in at}
            bits = scored.bits([tasks], weights)
            quality = measured["quality"].statistics if "quality" in measured else {}
            return {
                "bytes": bits / 8,
                "bpp": bits / count,
                **scored.scores_and_kept([tasks], at, originals, weights),
                **{name: weights @ each / weights.sum(1) for name, each in quality.items()},
            }

        return resampled

    statistics = [statistic(measured) for measured in seeds]
    per_image = [next(iter(m.values())).total.round(2).tolist() for m in seeds]
    return harness.summary(statistics, len(test.feature)) | {"per_image": {"bytes": per_image}}


def table(results: dict[str, Any]) -> str:
    """Markdown of Table 5: a table per group, representations across."""
    parts = []
    for group in dict.fromkeys(tuple(column["tasks"]) for column in results["columns"]):
        columns = [c for c in results["columns"] if tuple(c["tasks"]) == group]
        lines = [["", "Original", *(c["name"] for c in columns)]]
        lines.append(["---", *["---:"] * (1 + len(columns))])
        for name in group:
            spec, key = results["tasks"][name], f"score/{name}"
            cells = [scored.cell(results, name, c[key], c["ci"][key]) for c in columns]
            original = scored.cell(results, name, results["original"][name], None)
            lines.append([f"{title(name)} ({tables.metric(spec)})", original, *cells])
        for key, label, digits in (
            ("psnr", "PSNR, dB ↑", 2),
            ("ms_ssim", "MS-SSIM ↑", 3),
            ("bytes", "Bytes ↓", 1),
            ("bpp", "Bpp ↓", 4),
        ):
            cells = [
                tables.cell(c[key], c["ci"][key], 1, digits) if key in c else "–" for c in columns
            ]
            lines.append([label, "–", *cells])
        stars = [
            "–" if "reached" not in c else "yes" if all(c["reached"].values()) else "no"
            for c in columns
        ]
        lines.append(["Plateau reached", "–", *stars])
        parts.append(tables.piped(lines))
    note = scored.at_the_plateau(results, starred=False)
    note += " The plateau is that of the tasks; the image is not tuned towards it."
    return "\n\n".join([*parts, note]) + "\n"


def draw(results: dict[str, Any], path: Path) -> None:
    """Share of the tasks' scores kept against bytes, and PSNR against bytes, a column per group."""
    groups = list(dict.fromkeys(tuple(column["tasks"]) for column in results["columns"]))
    figure = new_figure(4.6 * len(groups), 6.4)
    panels = figure.subplots(2, len(groups), squeeze=False, sharex="col")
    for place, group in enumerate(groups):
        above, below = panels[:, place]
        for column in results["columns"]:
            if tuple(column["tasks"]) != group:
                continue
            above.plot(column["bytes"], 100 * column["kept"], "o", label=column["name"])
            shown = column.get("psnr", math.nan)
            below.plot(column["bytes"], shown, "o", label=column["name"])
        above.axhline(100, color="grey", ls=":")
        above.set_title(", ".join(map(title, group)), fontsize=8)
        above.legend(fontsize=7)
        below.set_xlabel("bytes per image")
        for axes in (above, below):
            axes.grid(alpha=0.25, lw=0.6)
    panels[0, 0].set_ylabel("scores kept, mean, % of Original")
    panels[1, 0].set_ylabel("PSNR, dB")
    figure.savefig(path)


def views(results: dict[str, Any], out: Path) -> list[View]:
    """The table and the figure."""
    return [shown.printed(table, results), shown.drawn(draw, results, out / "human_vision.png")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module docstring."""
    parser = joint.parser(__doc__, "human_vision")
    both = ["+".join(group) for group in Config.groups]
    parser.add_argument("--group", nargs="+", default=both, help="tasks: A+B+C")
    parser.add_argument("--qp", nargs="+", type=int, default=Config.qps, help="of the image")
    given = parser.parse_args(arguments)
    if given.draw:
        shown.redraw(NAME, views, given.draw)
        return
    if bad := [qp for qp in given.qp if qp not in hevc.QPS]:
        raise UsageError(f"--qp {bad[0]}: expected 0 to 51.")
    config = Config(
        **joint.chosen(given),
        groups=tuple(dict.fromkeys(tuple(group.split("+")) for group in given.group)),
        qps=tuple(dict.fromkeys(given.qp)),
    )
    run(config, given.out, given.parallel)
    shown.show(NAME, views, given.out / "results.json")


if __name__ == "__main__":
    harness.main(main)
