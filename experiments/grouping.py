"""Which tasks belong in one stream, predicted from what each pair of them saves.

What a pair saves, the bits of two streams less those of one, stands for the information that the
two tasks share. Of a larger group the savings along its best tree of pairs count: Chow and Liu
(1968) approximate a joint distribution so, and what three tasks share is not counted three times.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse.csgraph import minimum_spanning_tree

from experiments import harness, joint, scored
from experiments.joint import Model
from experiments.task_data import TaskData
from vcmjax.evaluate.drawing import new_figure
from vcmjax.evaluate.plateau import Plateau
from vcmjax.evaluate.tables import title

Partition = tuple[tuple[str, ...], ...]
"""Groups of tasks; each group is one stream."""

Saved = Mapping[frozenset[str], float]
"""Of each pair of tasks: bits of two streams less those of one."""


def partitions(tasks: Sequence[str]) -> Iterator[Partition]:
    """Every way to put `tasks` into groups; a group's tasks stay in order."""
    if not tasks:
        yield ()
        return
    first, *rest = tasks
    for count in range(len(rest) + 1):
        for others in itertools.combinations(rest, count):
            left = [task for task in rest if task not in others]
            for more in partitions(left):
                yield ((first, *others), *more)


def predicted(partition: Partition, bits: Mapping[str, float], saved: Saved) -> float:
    """Bits of all streams of a partition.

    Args:
      partition: Groups.
      bits: Of each task in a stream of its own.
      saved: Of at least the pairs within a group.
    """
    total = 0.0
    for group in partition:
        pairs = np.array([[saved.get(frozenset({a, b}), 0.0) for b in group] for a in group])
        # SciPy takes an entry of zero for no edge: distances start at one.
        tree = minimum_spanning_tree(1 + pairs.max() - pairs)
        total += sum(bits[task] for task in group) - pairs[tree.nonzero()].sum()
    return total


def best(
    tasks: Sequence[str], bits: Mapping[str, float], saved: Saved, count: int
) -> list[Partition]:
    """The `count` partitions of fewest predicted bits, the fewest first."""
    return sorted(partitions(tasks), key=lambda each: predicted(each, bits, saved))[:count]


def savings(
    tasks: Sequence[str],
    models: Mapping[tuple[str, ...], dict[int, Model]],
    found: Mapping[tuple[str, ...], dict[int, Plateau]],
    at: dict[str, TaskData],
    config: joint.Config,
) -> tuple[dict[str, float], dict[frozenset[str], float]]:
    """Bits of each task alone, and what each pair of tasks saves, on validation images.

    The saving is taken at equal share of the scores, so as not to hang on where two plateaus are;
    curves that do not meet tell of none.

    Args:
      tasks: Of which every pair was trained, in this order.
      models: Of each task alone and of each pair.
      found: Their plateaus.
      at: Tasks.
      config: Grid and seeds.
    """
    bits, saved = {}, {}
    originals = scored.originals(at, "val")
    for name in tasks:
        pixels = math.prod(at[name].splits["val"].image_shape)
        bits[name] = pixels * float(np.mean([one.bpp for one in found[name,].values()]))
    ones = np.ones((1, len(at[tasks[0]].splits["val"].feature)))
    pairs = list(itertools.combinations(tasks, 2))
    for pair in harness.tracked("what pairs save", len(pairs))(pairs):
        rates = []
        for seed in config.seeds:
            apart = joint.curve([models[name,][seed] for name in pair], config, "val")
            together = joint.curve([models[pair][seed]], config, "val")
            rates += scored.bd_rate(together, apart, at, originals, ones).tolist()
        rate = 0.0 if np.isnan(rates).all() else float(np.nanmean(rates))
        saved[frozenset(pair)] = -rate / 100 * sum(bits[name] for name in pair)
    return bits, saved


def described(
    compared: Mapping[str, Partition], bits: Mapping[str, float], saved: Saved
) -> dict[str, Any]:
    """The entry ``search`` of a results file; in bytes."""
    pairs = itertools.combinations(bits, 2)
    return {
        "alone": {name: each / 8 for name, each in bits.items()},
        "pairs": [{"tasks": list(pair), "saved": saved[frozenset(pair)] / 8} for pair in pairs],
        "predicted": {
            name: predicted(partition, bits, saved) / 8 for name, partition in compared.items()
        },
    }


def rates(results: dict[str, Any]) -> dict[str, float]:
    """Predicted difference of bits from the first partition, in per cent, by partition."""
    sizes = results["search"]["predicted"]
    first = sizes[results["partitions"][0]["name"]]
    return {name: 100 * (size / first - 1) for name, size in sizes.items()}


def draw(results: dict[str, Any], path: Path) -> None:
    """What pairs of tasks save, and of each partition the bits predicted beside those measured."""
    search = results["search"]
    tasks = list(search["alone"])
    saved = np.full((len(tasks), len(tasks)), np.nan)
    for pair in search["pairs"]:
        i, j = map(tasks.index, pair["tasks"])
        alone = sum(search["alone"][name] for name in pair["tasks"])
        saved[i, j] = saved[j, i] = 100 * pair["saved"] / alone
    figure = new_figure(11.0, 4.6)
    left, right = figure.subplots(1, 2)
    limit = max(1.0, float(np.nanmax(np.abs(saved))))
    image = left.imshow(saved, cmap="RdBu", vmin=-limit, vmax=limit)
    for i, j in np.argwhere(~np.isnan(saved)):
        white = abs(saved[i, j]) > 0.6 * limit
        left.text(
            j, i, f"{saved[i, j]:.0f}", ha="center", va="center", color="white" if white else "k"
        )
    left.set_xticks(range(len(tasks)), [title(t) for t in tasks], rotation=30, ha="right")
    left.set_yticks(range(len(tasks)), [title(t) for t in tasks])
    left.set_title("bits that a pair saves in one stream, %", fontsize=10)
    figure.colorbar(image)
    guesses = rates(results)
    for place, entry in enumerate(results["partitions"]):
        if entry["bd_rate"] is None:
            continue
        x, y, (low, high) = guesses[entry["name"]], entry["bd_rate"], entry["ci"]["bd_rate"]
        ends = [[max(0.0, y - low)], [max(0.0, high - y)]]
        right.errorbar(x, y, yerr=ends, fmt="o", color=f"C{place}", label=entry["name"])
    right.axline((0, 0), slope=1, color="grey", ls=":")
    right.set_xlabel("predicted from pairs, %")
    right.set_ylabel("measured BD-rate, %")
    right.set_title(f"bits against {results['partitions'][0]['name']}", fontsize=10)
    right.grid(alpha=0.25, lw=0.6)
    if right.get_legend_handles_labels()[0]:
        right.legend(fontsize=8, loc="lower right")
    figure.savefig(path)
