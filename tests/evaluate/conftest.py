"""A made-up results file of four tasks, in the form that experiments.plateau writes."""

import math

import pytest

from vcmjax.tasks import ROOMS, TABLE_3

# Best score, worst score, bpp at which most of the way is gone.
CURVES = {
    "class_scene": (0.74, 0.2, 0.003),
    "segment_semantic": (0.35, 0.08, 0.006),
    "normal": (0.071, 0.16, 0.012),
    "reshading": (0.17, 0.28, 0.006),
}
GRID = (0.002, 0.004, 0.007, 0.012, 0.02, 0.035, 0.06)
SLOWER = {"hyperprior": 1.5, "ours": 1.0}


def _score(task, bpp, method="ours"):
    best, worst, knee = CURVES[task]
    return best + (worst - best) * math.exp(-bpp / (knee * SLOWER[method]))


def _row(task, method, split, score, bpp=None, lam=None, status="ok"):
    metric = ROOMS[task].metric
    score = score * (0.97 if split == "test" else 1)
    bytes_total = None if bpp is None else bpp * 128 * 128 / 8
    ci = {metric: [0.95 * score, 1.04 * score]}
    if bpp is not None:
        ci["bpp_real"] = [0.96 * bpp, 1.05 * bpp]
    return {
        "task": task, "method": method, "recipe": "conditioned/network", "lam": lam, "level": None,
        "split": split, "seed": None, "images": 200 if split == "val" else 300, "height": 128,
        "width": 128, "bpp_real": bpp, "bpp_estimated": bpp, "bytes_payload": bytes_total,
        "bytes_total": bytes_total, "metrics": {metric: score}, "ci": ci, "status": status,
    }  # fmt: skip


def _plateau(task, method, reached, bpp):
    def point(split):
        score = _score(task, bpp, method) * (0.97 if split == "test" else 1)
        return {
            "score": score,
            "bpp_real": bpp,
            "ci": {"score": [0.95 * score, 1.04 * score], "bpp_real": [0.96 * bpp, 1.05 * bpp]},
        }

    return {
        "task": task, "method": method, "seed": None, "reached": reached, "lam": None, "level": 90,
        "val": point("val"), "test": point("test"), "bytes_val": bpp * 2048,
        "bytes_test": bpp * 2048, "note": "",
    }  # fmt: skip


def _make_results(names=TABLE_3):
    """Results on 200 validation and 300 test images of 128×128; reshading's Hyperprior fails."""
    tasks, rows, plateau = {}, [], []
    for name in names:
        task = ROOMS[name]
        tasks[name] = {
            "kind": task.kind, "metric": task.metric, "higher_is_better": task.higher_is_better,
            "classes": list(task.classes), "tolerance": 0.02,
        }  # fmt: skip
        for split in ("val", "test"):
            worse = 0.98 if task.higher_is_better else 1.15
            rows.append(_row(name, "original", split, CURVES[name][0] * worse))
            rows.append(_row(name, "control", split, CURVES[name][0]))
            for method in SLOWER:
                rows += [
                    _row(name, method, split, _score(name, bpp, method), bpp, lam=1000 * bpp)
                    for bpp in GRID
                ]
        for method, factor in SLOWER.items():
            reached = (name, method) != ("reshading", "hyperprior")
            bpp = 4 * CURVES[name][2] * factor if reached else 0.06
            plateau.append(_plateau(name, method, reached, bpp))
    return {
        "schema": 1, "config": {}, "seeds": [0, 1, 2], "versions": {}, "revision": "0" * 40,
        "seconds": 1.0, "tasks": tasks, "rows": rows, "plateau": plateau,
    }  # fmt: skip


@pytest.fixture
def make_results():
    return _make_results


@pytest.fixture
def results():
    return _make_results()
