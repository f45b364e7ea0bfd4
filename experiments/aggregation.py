"""Table 4 and Figure 9 of CVR: tasks coded each alone, in groups, or all in one stream.

Run:    python -m experiments.aggregation [--seeds N] [--partition NAME=A+B,C+D ...] [--search N]
                                          [--refine N] [--data rooms|DIR] [--networks DIR]
                                          [--out DIR]
Cost:   eleven codecs of 1600 steps per seed and six of the Control Group, about 45 minutes on two
        CPU cores, and 10 to measure; with --search fifteen more of two tasks each, and those of the
        partitions found
Expect: OUT/results.json, Table 4 on the screen, OUT/aggregation.png; of each group a codec for
        ``vcmjax encode`` in OUT/codecs, of the first seed and at its plateau; with --search also
        OUT/grouping.png
"""

import argparse
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import grouping, harness, joint, plateau, scored, shown
from experiments.comparison import RESAMPLES
from experiments.grouping import Partition
from experiments.joint import Model
from experiments.shown import View
from experiments.task_data import TaskData
from vcmjax.errors import UsageError
from vcmjax.evaluate import metrics, plots, tables
from vcmjax.evaluate.drawing import new_figure
from vcmjax.evaluate.plateau import Plateau
from vcmjax.evaluate.tables import title

SIX = (
    "class_scene",
    "segment_semantic",
    "class_object",
    "normal",
    "reshading",
    "principal_curvature",
)
PARTITIONS: tuple[tuple[str, Partition], ...] = (
    ("Customized", tuple((name,) for name in SIX)),
    ("Trinity", (SIX[:3], SIX[3:])),
    # The paper prints the groups of Trinity again; this puts unlike tasks together.
    (
        "Trinity*",
        (
            ("class_scene", "normal", "principal_curvature"),
            ("segment_semantic", "class_object", "reshading"),
        ),
    ),
    ("Hex", (SIX,)),
)


NAME = "aggregation"


@dataclasses.dataclass(frozen=True)
class Config(joint.Config):
    """What decides the numbers, besides what all have.

    Attributes:
      partitions: By name; the first is what others are compared with.
      search: How many more to find, of the least bits by `grouping.predicted`.
    """

    partitions: tuple[tuple[str, Partition], ...] = PARTITIONS
    search: int = 0


QUICK = joint.QUICK | {
    "partitions": (
        ("Customized", (("class_scene",), ("reshading",))),
        ("Pair", (("class_scene", "reshading"),)),
    )
}


def run(config: Config, out: Path, at_once: bool = False) -> dict[str, Any]:
    """Train and measure every group once; returns what ``results.json`` holds."""
    with harness.claimed(out, config):
        return _run(config, out, at_once)


def _run(config: Config, out: Path, at_once: bool) -> dict[str, Any]:
    names = list(dict.fromkeys(n for _, groups in config.partitions for g in groups for n in g))
    for name, partition in config.partitions:
        if sorted(task for group in partition for task in group) != sorted(names):
            raise UsageError(f"--partition {name}: expected each of {', '.join(names)} once.")
    reader, at = joint.opened(config, names, f"{NAME} into {out}")
    models: dict[tuple[str, ...], dict[int, Model]] = {}
    found: dict[tuple[str, ...], dict[int, Plateau]] = {}

    def train(groups: Iterable[tuple[str, ...]]) -> None:
        for group in groups:
            if group not in models:
                tasks = {name: at[name] for name in group}
                folder = out / "models" / "+".join(group)
                models[group] = joint.train(tasks, tasks, config, folder, at_once)
                found[group] = joint.search(models[group], reference, config)

    control = {name: _control(at[name], config, out, at_once) for name in names}
    reference = {name: _reference(control[name], at[name]) for name in names}
    train(group for _, partition in config.partitions for group in partition)
    partitions, searched = dict(config.partitions), {}
    if config.search:
        train((name,) for name in names)
        train(itertools.combinations(names, 2))
        bits, saved = grouping.savings(names, models, found, at, config)
        for place, each in enumerate(grouping.best(names, bits, saved, config.search), 1):
            if not any(set(each) == set(known) for known in partitions.values()):
                partitions[f"Found {place}"] = each
                train(each)
        searched = {"search": grouping.described(partitions, bits, saved)}
    joint.read_test(reader, at)
    originals = scored.originals(at, "test")
    results = harness.results(
        NAME,
        config,
        config.seeds,
        tasks=scored.described(at),
        original=originals,
        reference=reference,
        control=_uncoded(control, at, originals),
        groups=[_entry(group, found[group], models[group], config) for group in models],
        partitions=_compared(partitions, config, models, found, at, originals),
        **searched,
    )
    harness.write_json(out / "results.json", results)
    for group in models:
        seed = config.seeds[0]
        codec = joint.deployed(models[group][seed], found[group][seed].level)
        codec.save(out / "codecs" / "+".join(group))
    return results


def _control(at: TaskData, config: Config, out: Path, at_once: bool) -> dict[int, Model]:
    """The Control Group of a task: its own codec, without quantisation and rate."""
    tasks, folder = {at.task.name: at}, out / "models" / "control" / at.task.name
    config = dataclasses.replace(config, method="control", lams=(1.0,), refine=0)
    return joint.train(tasks, tasks, config, folder, at_once)


def _reference(control: dict[int, Model], at: TaskData) -> float:
    """The Control Group's score on validation images, mean over seeds."""
    measured = [model.measured(0, "val")[at.task.name] for model in control.values()]
    return float(np.mean([metrics.headline(at.task, m.statistics) for m in measured]))


def _uncoded(
    control: dict[str, dict[int, Model]], at: dict[str, TaskData], originals: dict[str, float]
) -> dict[str, Any]:
    """The Control Group's scores on the test split."""

    def statistic(seed: int):
        measured = [models[seed].measured(0, "test") for models in control.values()]
        return lambda weights: scored.scores_and_kept(measured, at, originals, weights)

    seeds = next(iter(control.values()))
    images = len(next(iter(at.values())).splits["test"].feature)
    return harness.summary([statistic(seed) for seed in seeds], images, RESAMPLES)


def _entry(group, found, models: dict[int, Model], config: Config) -> dict[str, Any]:
    """A group's curve on the test split by seed and λ, and where its plateau is."""
    rows = []
    for seed, model in models.items():
        grid = [(lam, int(model.codec.level_of(lam))) for lam in config.lams]
        for lam, level in [*grid, (None, found[seed].level)]:
            measured = model.measured(level, "test")
            total = next(iter(measured.values())).total
            scores = {
                n: metrics.scores(model.at[n].task, m.statistics) for n, m in measured.items()
            }
            rows.append(
                {
                    "seed": seed,
                    "lam": lam,
                    "level": level,
                    "bytes": float(total.mean()),
                    "metrics": scores,
                    "per_image": {"bytes": total.round(2).tolist()},
                }
            )
    return {
        "tasks": list(group),
        **joint.status(models, found),
        "rows": rows,
    }


def _compared(
    partitions: dict[str, Partition],
    config: Config,
    models,
    found,
    at: dict[str, TaskData],
    originals: dict[str, float],
) -> list[dict[str, Any]]:
    """Each partition on the test split: its groups' plateaus, and its curve beside the first's."""
    first = next(iter(partitions.values()))
    test = next(iter(at.values())).splits["test"]
    pixels, images = math.prod(test.image_shape), len(test.feature)

    @functools.cache
    def curve(partition: Partition, seed: int) -> scored.Curve:
        return joint.curve([models[group][seed] for group in partition], config)

    def statistic(partition: Partition, seed: int):
        best = [
            models[group][seed].measured(found[group][seed].level, "test") for group in partition
        ]

        def resampled(weights: np.ndarray) -> dict[str, np.ndarray]:
            curves = curve(partition, seed), curve(first, seed)
            return {
                "bpp": scored.bits(best, weights) / pixels,
                "bytes": scored.bits(best, weights) / 8,
                "bd_rate": scored.bd_rate(*curves, at, originals, weights),
                **scored.scores_and_kept(best, at, originals, weights),
            }

        return resampled

    entries = []
    for name, partition in partitions.items():
        statistics = [statistic(partition, seed) for seed in config.seeds]
        entries.append(
            {
                "name": name,
                "groups": [list(group) for group in partition],
                "reached": all(found[g][s].reached for g in partition for s in config.seeds),
                **harness.summary(statistics, images, RESAMPLES),
            }
        )
    return entries


def table(results: dict[str, Any]) -> str:
    """Markdown of Table 4: scores, bits and BD-rate by partition."""
    control, partitions = results["control"], results["partitions"]
    lines = [
        ["", "Original", "Control Group", *(p["name"] for p in partitions)],
        ["---", *["---:"] * (2 + len(partitions))],
    ]
    for name, spec in results["tasks"].items():
        cells = [
            scored.cell(results, name, p[f"score/{name}"], p["ci"][f"score/{name}"])
            for p in [control, *partitions]
        ]
        original = scored.cell(results, name, results["original"][name], None)
        lines.append([f"{title(name)} ({tables.metric(spec)})", original, *cells])
    kept = [_cell(p, "kept", 100, 1) for p in [control, *partitions]]
    lines.append(["Scores kept, mean, %", "100", *kept])
    lines.append(["Bytes, sum", "–", "–", *(_cell(p, "bytes", 1, 1) for p in partitions)])
    lines.append(["Bpp, sum", "–", "–", *(_cell(p, "bpp", 1, 4) for p in partitions)])
    first = partitions[0]["name"]
    rates = [_cell(p, "bd_rate", 1, 0) for p in partitions[1:]]
    lines.append([f"BD-rate against {first}, %", "–", "–", "0", *rates])
    if "search" in results:
        predicted = grouping.rates(results)
        cells = [f"{predicted[p['name']]:.0f}" for p in partitions]
        lines.append(["The same, predicted from pairs, %", "–", "–", *cells])
    lines.append(
        ["Plateau", "–", "–", *("reached" if p["reached"] else "not reached" for p in partitions)]
    )
    seeds = len(results["seeds"])
    note = (
        "Test images, each group at its own plateau: the fewest bits at which every task of it is "
        f"within {100 * results['config']['tolerance']:g} % of the Control Group on validation "
        "images; else where the worst task is best. Control Group: each task's codec without "
        "quantisation and rate. BD-rate: difference of bits at equal mean share of the "
        "scores kept, over the curves' common range. "
        f"{tables.trainings(seeds)}. {tables.brackets(seeds)}"
    )
    given = {name for name, _ in results["config"]["partitions"]}
    found = [f"{p['name']}: {_named(p['groups'])}." for p in partitions if p["name"] not in given]
    return tables.piped(lines) + f"\n\n{' '.join([note, *found])}\n"


def _named(groups: list[list[str]]) -> str:
    return " | ".join(", ".join(map(title, group)) for group in groups)


def _cell(entry: dict[str, Any], key: str, scale: float, digits: int) -> str:
    return tables.cell(entry[key], entry["ci"][key], scale, digits)


def draw(results: dict[str, Any], path: Path) -> None:
    """Figure 9: a radar of scores kept at the plateau, every partition beside the first.

    All axes have one scale, so that a task whose score hardly moves looks so. A partition alone is
    drawn alone.
    """
    partitions = results["partitions"]
    names = list(results["tasks"])
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)

    def kept(entry: dict[str, Any], name: str) -> float:
        better = results["tasks"][name]["higher_is_better"]
        return 100 * scored.share(better, entry[f"score/{name}"], results["original"][name])

    shown = np.array([[kept(entry, name) for name in names] for entry in partitions])
    least = 5 * (math.floor(shown.min() / 5) - 1)
    pairs: list[tuple[int, ...]] = [(0, other) for other in range(1, len(partitions))] or [(0,)]
    figure = new_figure(4.0 * len(pairs), 4.2)
    for place, pair in enumerate(pairs, 1):
        axes: Any = figure.add_subplot(1, len(pairs), place, polar=True)
        for index, colour in zip(pair, ("#0072B2", "#D55E00"), strict=False):
            label = f"{partitions[index]['name']}, {partitions[index]['bytes']:.0f} bytes"
            plots.ring(axes, angles, shown[index], colour, label)
        axes.set_xticks(angles, map(title, names), fontsize=7)
        axes.tick_params(axis="x", pad=14)
        axes.set_ylim(least, max(100.0, shown.max()))
        rings = range(least, 101, 5 * math.ceil((100 - least) / 25))
        axes.set_yticks(rings, [f"{ring} %" for ring in rings])
        axes.tick_params(axis="y", labelsize=6)
        axes.set_rlabel_position(180 / len(names))
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16))
        about = f"{partitions[pair[-1]]['name']}: score kept of Original's"
        axes.set_title(about, fontsize=9, pad=12)
    figure.savefig(path)


def _partition(text: str) -> tuple[str, Partition]:
    """``NAME=A+B,C`` as a name and its groups."""
    name, _, groups = text.partition("=")
    if not name or not groups:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=TASK+TASK,TASK")
    return name, tuple(tuple(group.split("+")) for group in groups.split(","))


def views(results: dict[str, Any], out: Path) -> list[View]:
    """The table, the radar, and what a search for groups went by."""
    found = [shown.printed(table, results), shown.drawn(draw, results, out / "aggregation.png")]
    if "search" in results:
        found.append(shown.drawn(grouping.draw, results, out / "grouping.png"))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module docstring."""
    parser = joint.parser(__doc__, "aggregation")
    parser.add_argument(
        "--partition",
        nargs="+",
        type=_partition,
        default=PARTITIONS,
        metavar="NAME=A+B,C",
        help="groups of tasks, the partition to compare with first (default: the paper's four)",
    )
    parser.add_argument(
        "--search", type=int, default=0, help="partitions to find, by what pairs of tasks save"
    )
    parser.add_argument("--refine", type=int, default=0, help="rounds of encoder-side refinement")
    given = parser.parse_args(arguments)
    if given.draw:
        shown.redraw(NAME, views, given.draw)
        return
    plateau.check_refine(given.refine)
    if given.search < 0:
        raise UsageError(f"--search {given.search}: expected 0 or more.")
    config = Config(
        **joint.chosen(given),
        refine=given.refine,
        partitions=tuple(given.partition),
        search=given.search,
    )
    run(config, given.out, given.parallel)
    shown.show(NAME, views, given.out / "results.json")


if __name__ == "__main__":
    harness.main(main)
