"""A method that sends bytes, as a study sees it: trained or not, rates numbered by levels."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments import harness
from experiments.comparison import Curve
from experiments.rows import Row
from vcmjax.evaluate import metrics, plateau
from vcmjax.evaluate.measure import Measurement
from vcmjax.evaluate.plateau import Plateau
from vcmjax.tasks import Task


class Method(NamedTuple):
    """A method on one task.

    Attributes:
      name: On the command line.
      recipe: Its parameters, in words.
      seeds: Training seeds; one where nothing is trained.
      grid: Levels of its curve, fewest bits first.
      highest: Greatest level, if those between the grid's may be tried; None if there are none.
      setting: Level to ``{"lam": λ, "quality": the codec's own}``, either of them None.
      measured: (seed, level, split) to its measurement.
      diverged: Level to whether a training of it diverged.
    """

    name: str
    recipe: str
    seeds: tuple[int, ...]
    grid: tuple[int, ...]
    highest: int | None
    setting: Callable[[int], dict[str, Any]]
    measured: Callable[[int, int, str], Measurement]
    diverged: Callable[[int], bool] = lambda level: False


Found = dict[int, Plateau]
"""The plateau of each seed."""


def search(method: Method, task: Task, pixels: int, wanted: float, tolerance: float) -> Found:
    """Where each seed reaches `wanted` up to `tolerance`, on the validation split."""
    between = 0 if method.highest is None else 1 + math.ceil(math.log2(method.highest + 1))
    most = len(method.grid) + between
    found: Found = {}
    with harness.steps(f"{task.name}: plateau of {method.name}", most * len(method.seeds)) as bar:
        for number, seed in enumerate(method.seeds):
            done = number * most

            def evaluate(level: int, seed=seed) -> tuple[float, float]:
                nonlocal done
                result = method.measured(seed, level, "val")
                bar(done := done + 1)
                bpp = 8 * float(result.total.mean()) / pixels
                return bpp, metrics.headline(task, result.statistics)

            found[seed] = plateau.search(
                evaluate,
                method.grid,
                wanted,
                tolerance,
                task.higher_is_better,
                high=method.highest or 0,
                refine=method.highest is not None,
            )
            bar((number + 1) * most)
    return found


def curve_rows(method: Method, row: Row) -> list[dict[str, Any]]:
    """Rows of a results file over the grid, by seed and pooled."""
    rows = []
    for level in method.grid:
        setting = method.setting(level)
        by_seed = {seed: method.measured(seed, level, row.split) for seed in method.seeds}
        status = "diverged" if method.diverged(level) else "ok"
        of_level = row.of(method.name, setting["lam"], level, by_seed, status)
        rows += [each | {"quality": setting["quality"]} for each in of_level]
    return rows


def curve(method: Method, split: str, found: Found) -> Curve:
    """All that a comparison needs of a method on a split."""

    def at(levels: dict[int, int]) -> dict[int, Measurement]:
        return {seed: method.measured(seed, level, split) for seed, level in levels.items()}

    points = [at(dict.fromkeys(method.seeds, level)) for level in method.grid]
    best = at({seed: one.level for seed, one in found.items()})
    return Curve(points, best, all(one.reached for one in found.values()))


def plateau_entry(method: Method, task: Task, rows: dict[str, Row], found: Found) -> dict[str, Any]:
    """The entry of a results file: each seed at its own plateau, pooled.

    Args:
      method: Whose.
      task: Of which.
      rows: What its rows share, by split.
      found: From `search`.
    """
    settings = [method.setting(one.level) for one in found.values()]
    lams = [setting["lam"] for setting in settings]
    levels = [one.level for one in found.values()]
    entry: dict[str, Any] = {
        "task": task.name,
        "method": method.name,
        "seed": None,
        "reached": all(one.reached for one in found.values()),
        "reached_by_seed": [one.reached for one in found.values()],
        "lam": None if None in lams else float(np.exp(np.mean(np.log(lams)))),
        "lam_by_seed": lams,
        "level": levels[0] if len(levels) == 1 else None,
        "level_by_seed": levels,
        "quality": settings[0]["quality"],
        "note": method.recipe,
    }
    for split, row in rows.items():
        by_seed = {seed: method.measured(seed, one.level, split) for seed, one in found.items()}
        *each, pooled = row.of(method.name, None, None, by_seed)
        entry[split] = _point(pooled, task) | {"by_seed": [_point(r, task) for r in each]}
        entry[f"bytes_{split}"] = pooled["bytes_total"]
        entry[f"bytes_elementary_{split}"] = pooled["bytes_elementary"]
    return entry


def _point(row: dict[str, Any], task: Task) -> dict[str, Any]:
    """Score and rate of a row, as a plateau entry keeps them."""
    ci = {"score": row["ci"][task.metric], "bpp_real": row["ci"].get("bpp_real")}
    score, bpp = row["metrics"][task.metric], row["bpp_real"]
    return {"score": score, "bpp_real": bpp, "ci": ci, "metrics": row["metrics"]}
