"""Rows of a results file: one method at one λ on one split, by seed and pooled."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments import harness
from vcmjax.evaluate import bootstrap, metrics
from vcmjax.evaluate.measure import Measurement
from vcmjax.tasks import Task


class Row(NamedTuple):
    """What the rows of one task and split share."""

    task: Task
    recipe: str
    split: str
    image_shape: tuple[int, int]

    def of(
        self,
        method: str,
        lam: float | None,
        level: int | None,
        by_seed: dict[int, Measurement],
        status: str = "ok",
    ) -> list[dict[str, Any]]:
        """One row per seed with its per-image numbers, and the pooled one last.

        Intervals of the pooled row are over seeds as well as images.
        """
        shared = {
            "task": self.task.name,
            "method": method,
            "recipe": self.recipe,
            "lam": lam,
            "level": level,
            "split": self.split,
            "height": self.image_shape[0],
            "width": self.image_shape[1],
            "status": status,
        }
        rows = [
            shared | {"seed": seed} | self._numbers([m]) | {"per_image": self._per_image(m)}
            for seed, m in by_seed.items()
        ]
        return [*rows, shared | {"seed": None} | self._numbers(list(by_seed.values()))]

    def _numbers(self, chosen: list[Measurement]) -> dict[str, Any]:
        """Means over seeds and images, with intervals."""
        pixels = self.image_shape[0] * self.image_shape[1]
        images = len(chosen[0].bytes)
        coded = any(map(_coded, chosen))

        def statistic(m: Measurement) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
            def resampled(weights: np.ndarray) -> dict[str, np.ndarray]:
                bpp = 8 / pixels * (weights @ m.total) / weights.sum(1)
                return metrics.resampled_scores(self.task, m.statistics, weights) | {
                    "bpp_real": bpp
                }

            return resampled

        def mean(values: list[np.ndarray]) -> float | None:
            return float(np.mean(values)) if coded else None

        ci = bootstrap.interval([statistic(m) for m in chosen], images, seed=0)
        scores = [metrics.scores(self.task, m.statistics) for m in chosen]
        length = mean([m.total for m in chosen])
        modelled = any(m.estimated_bits.any() for m in chosen)
        estimate = mean([m.estimated_bits for m in chosen]) if modelled else None
        alone = [m.elementary for m in chosen if m.elementary.size]
        return {
            "images": images,
            "bpp_real": None if length is None else 8 * length / pixels,
            "bpp_estimated": None if estimate is None else estimate / pixels,
            "side_bits_estimated": mean([m.side_bits for m in chosen]) if modelled else None,
            "bytes_payload": mean([m.bytes for m in chosen]),
            "bytes_total": length,
            "bytes_elementary": float(np.mean(alone)) if alone else None,
            "metrics": {
                key: harness.defined(float(np.mean([s[key] for s in scores]))) for key in scores[0]
            },
            "ci": {
                key: list(map(harness.defined, ci[key])) for key in ci if coded or key != "bpp_real"
            },
        }

    def _per_image(self, m: Measurement) -> dict[str, list]:
        """Bytes and headline score of each image by itself; None where an image has no score."""
        eye = np.eye(len(m.bytes), dtype=np.int64)
        score = metrics.resampled_scores(self.task, m.statistics, eye)[self.task.metric]
        kept = {"score": [None if math.isnan(s) else round(float(s), 4) for s in score]}
        return kept | ({"bytes": m.bytes.astype(int).tolist()} if _coded(m) else {})


def _coded(m: Measurement) -> bool:
    """Whether the method has a rate; a model's streams may all be empty, its estimate never is."""
    return bool(m.estimated_bits.any() or m.bytes.any())
