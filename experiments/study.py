"""Methods compared on one task after another: trained, measured by real bytes, and resumed.

Every measurement of a model at a rate level is kept in its own file, so that a run cut off
anywhere goes on from there; rows, intervals and plateaus follow from those files alone.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from experiments import comparison, conventional, harness, task_data
from experiments.comparison import Curve
from experiments.conventional import Conventional
from experiments.rows import Row
from experiments.task_data import TaskData
from vcmjax.codecs.feature import FeatureCodec, Tables
from vcmjax.codecs.frozen import FrozenCodec
from vcmjax.codecs.refine import Target as RefinementTarget
from vcmjax.coding import range_coder
from vcmjax.errors import DataError
from vcmjax.evaluate import measure, metrics, plateau
from vcmjax.evaluate.measure import Measurement
from vcmjax.nets.pretrained import TaskNetwork
from vcmjax.tasks import Task
from vcmjax.train import codec as codec_training
from vcmjax.train import loop, losses, parallel
from vcmjax.train.losses import Target

PRIORS: dict[str, Literal["codebook", "spatial"] | None] = {
    "control": None,
    "hyperprior": "spatial",
    "ours": "codebook",
}
"""Method to entropy model; all share transforms and training budget."""
METHODS = (*PRIORS, *conventional.METHODS)
_EXAMPLES = 6


class Model(NamedTuple):
    """A trained codec of one method and seed, for one λ or a range of them."""

    codec: FeatureCodec
    result: loop.Result
    frozen: Tables | None
    directory: Path


Models = dict[tuple[int, int], Model]
"""Trained codecs of one method by seed and grid index; a conditioned one has index 0."""


@dataclasses.dataclass
class Study:
    """A comparison in progress; see `experiments.plateau.Config` for the fields that it copies."""

    reader: task_data.Reader
    out: Path
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    tolerance: float
    steps: int
    batch: int
    learning_rate: float
    target: Target
    separate: bool
    refine: int = 0
    at_once: bool = False
    coder: ModuleType = range_coder
    _tasks: dict[str, Any] = dataclasses.field(default_factory=dict)
    _rows: list[dict] = dataclasses.field(default_factory=list)
    _plateaus: list[dict] = dataclasses.field(default_factory=list)
    _comparisons: list[dict] = dataclasses.field(default_factory=list)
    _targets: dict[str, RefinementTarget] = dataclasses.field(default_factory=dict)

    def results(self) -> dict[str, Any]:
        """``tasks``, ``rows``, ``plateau`` and ``comparisons`` of the tasks run so far."""
        return {
            "tasks": self._tasks,
            "rows": self._rows,
            "plateau": self._plateaus,
            "comparisons": self._comparisons,
            "skipped": self.reader.skipped,
        }

    def run(
        self,
        task: Task,
        network: TaskNetwork,
        lams: Sequence[float],
        stride: int,
        latent_channels: int,
    ) -> None:
        """Compare the methods on `task`: validation decides, then the test split is read once."""
        lams = sorted(lams)
        at = self.reader.open(task, network, self.target)
        control = []
        if "control" in self.methods:
            control = list(self._train("control", at, [1.0], stride, latent_channels).values())
        coded = [method for method in self.methods if PRIORS.get(method)]
        models = {m: self._train(m, at, lams, stride, latent_channels) for m in coded}
        if parallel.devices().process:  # process 0 has the results, and this one its share of this:
            self.reader.extract(task, network, "test")
            return
        reference = [self._measured(model, 0, at, "val").statistics for model in control]
        reference = reference or [self._original(at, "val").statistics]
        wanted = float(np.mean([metrics.scores(task, r)[task.metric] for r in reference]))
        grid = list(range(len(lams))) if self.separate else _levels(models, lams)
        found = self._search(models, at, grid, wanted)
        images = functools.partial(self._images, task)
        others = conventional.opened(self.methods, at, images, self.reader.dtype)
        best = {other.name: self._searched(other, at, wanted) for other in others}
        # Every choice is made; only now is the test split read.
        at.splits["test"] = self.reader.read(task, network, "test")
        self._tasks[task.name] = {
            "kind": task.kind,
            "metric": task.metric,
            "higher_is_better": task.higher_is_better,
            "classes": list(task.classes),
            "tolerance": self.tolerance,
            "reference": "control" if control else "original",
            "network": network.fingerprint,
        }
        for split in ("val", "test"):
            self._record_curves(at, split, control, models, lams, grid)
            for other in others:
                self._record_conventional(other, at, split)
        for method, trained in models.items():
            levels = [found[method, seed] for seed in self.seeds]
            self._plateaus.append(self._plateau(at, method, trained, levels, lams))
            model, level = self._at(trained, self.seeds[0], levels[0].level)
            lam = float(model.codec.lam_of(level))
            assert model.frozen  # of a method that has a prior
            kept = FrozenCodec(model.codec, model.result.params, model.frozen, lam, network)
            kept.save(self.out / "codecs" / f"{task.name}-{method}")
            if method == "ours":
                self._write_examples(at, model, level)
        for other in others:
            self._plateaus.append(self._conventional_plateau(other, at, best[other.name]))
        for split in ("val", "test"):
            curves = {m: self._curve(at, split, models[m], m, grid, found) for m in models}
            curves |= {
                other.name: self._conventional_curve(other, at, split, best[other.name])
                for other in others
            }
            self._compare(at, split, curves)

    # Steps

    def _search(
        self, models: dict[str, Models], at: TaskData, grid: list[int], wanted: float
    ) -> dict[tuple[str, int], plateau.Plateau]:
        """The plateau of each method and seed, on the validation split."""
        pixels = math.prod(at.splits["val"].image_shape)
        found: dict[tuple[str, int], plateau.Plateau] = {}
        total = len(models) * len(self.seeds)
        with harness.steps(f"{at.task.name}: plateau search", total) as progress:
            for method, trained in models.items():
                for seed in self.seeds:

                    def evaluate(level: int, trained=trained, seed=seed) -> tuple[float, float]:
                        result = self._measured(*self._at(trained, seed, level), at=at, split="val")
                        score = metrics.scores(at.task, result.statistics)[at.task.metric]
                        return 8 * float(result.total.mean()) / pixels, score

                    found[method, seed] = plateau.search(
                        evaluate,
                        grid,
                        wanted,
                        self.tolerance,
                        at.task.higher_is_better,
                        high=next(iter(trained.values())).codec.levels - 1,
                        refine=not self.separate,
                    )
                    progress(len(found))
        return found

    def _images(self, task: Task, split: str) -> np.ndarray:
        """Images uint8 (N, H, W, 3) of a split."""
        source = self.reader.source(task, split)
        return np.stack([source[i]["image"] for i in range(len(source))])

    def _searched(self, other: Conventional, at: TaskData, wanted: float) -> plateau.Plateau:
        """The plateau of a conventional method, on the validation split."""
        pixels, levels = math.prod(at.splits["val"].image_shape), len(other.qualities)
        most = len(other.grid) + 1 + math.ceil(math.log2(levels))
        with harness.steps(f"{at.task.name}: {other.name}", most) as progress:
            done = 0

            def evaluate(level: int) -> tuple[float, float]:
                nonlocal done
                result = self._coded(other, at, "val", level)
                progress(done := done + 1)
                score = metrics.scores(at.task, result.statistics)[at.task.metric]
                return 8 * float(result.total.mean()) / pixels, score

            best = plateau.search(
                evaluate,
                other.grid,
                wanted,
                self.tolerance,
                at.task.higher_is_better,
                high=levels - 1,
            )
            progress(most)
        return best

    def _coded(self, other: Conventional, at: TaskData, split: str, level: int) -> Measurement:
        path = self.out / "models" / at.task.name / other.name / f"{split}_{level}.npz"
        return _kept(path, lambda: other.measure(split, level))

    def _row(self, at: TaskData, split: str) -> Row:
        recipe = ("separate" if self.separate else "conditioned") + f"/{self.target}"
        recipe += f"/refined {self.refine}" if self.refine else ""
        return Row(at.task, recipe, split, at.splits[split].image_shape)

    def _record_curves(self, at, split, control, models, lams, grid) -> None:
        """Rows of Original, Control Group, and each method over the λ grid."""
        row = self._row(at, split)
        self._rows += row.of("original", None, None, {self.seeds[0]: self._original(at, split)})
        by_seed = {
            seed: self._measured(model, 0, at, split)
            for seed, model in zip(self.seeds, control, strict=False)
        }
        if by_seed:
            self._rows += row.of("control", None, None, by_seed)
        for method, trained in models.items():
            for lam, level in zip(lams, grid, strict=True):
                chosen = {seed: self._at(trained, seed, level) for seed in self.seeds}
                diverged = any(model.result.diverged for model, _ in chosen.values())
                self._rows += row.of(
                    method,
                    lam,
                    level,
                    {
                        seed: self._measured(*one, at=at, split=split)
                        for seed, one in chosen.items()
                    },
                    "diverged" if diverged else "ok",
                )

    def _record_conventional(self, other: Conventional, at: TaskData, split: str) -> None:
        row = self._row(at, split)._replace(recipe=other.recipe)
        for level in other.grid:
            measured = {self.seeds[0]: self._coded(other, at, split, level)}
            rows = row.of(other.name, None, level, measured)
            self._rows += [each | {"quality": other.qualities[level]} for each in rows]

    def _curve(self, at: TaskData, split: str, trained: Models, method: str, grid, found) -> Curve:
        """What a trained method does on a split."""

        def measured(levels: dict[int, int]) -> dict[int, Measurement]:
            return {
                seed: self._measured(*self._at(trained, seed, level), at=at, split=split)
                for seed, level in levels.items()
            }

        best = {seed: found[method, seed].level for seed in self.seeds}
        reached = all(found[method, seed].reached for seed in self.seeds)
        points = [measured(dict.fromkeys(self.seeds, level)) for level in grid]
        return Curve(points, measured(best), reached)

    def _conventional_curve(
        self, other: Conventional, at: TaskData, split: str, best: plateau.Plateau
    ) -> Curve:
        first = self.seeds[0]
        points = [{first: self._coded(other, at, split, level)} for level in other.grid]
        return Curve(points, {first: self._coded(other, at, split, best.level)}, best.reached)

    def _compare(self, at: TaskData, split: str, curves: dict[str, Curve]) -> None:
        """Ours against every other method."""
        for anchor in curves:
            if anchor != "ours" and "ours" in curves:
                shared = {"task": at.task.name, "split": split, "method": "ours", "anchor": anchor}
                result = comparison.compare(at.task, curves["ours"], curves[anchor])
                self._comparisons.append(shared | result)

    def _original(self, at: TaskData, split: str) -> Measurement:
        """The uncompressed network, which sends nothing."""
        data = at.splits[split]
        none = np.zeros(len(data.feature))
        scored = measure.head_statistics(at.task, at.head, data.feature, data.label)
        return Measurement(none, none, none, none, scored)

    def _plateau(
        self, at: TaskData, method: str, trained: Models, found: list[plateau.Plateau], lams
    ) -> dict[str, Any]:
        """The entry of one method: each seed at its own plateau, pooled."""
        chosen = [
            self._at(trained, seed, one.level) for seed, one in zip(self.seeds, found, strict=True)
        ]
        used = [
            lams[one.level] if self.separate else float(model.codec.lam_of(one.level))
            for one, (model, _) in zip(found, chosen, strict=True)
        ]
        entry: dict[str, Any] = {
            "task": at.task.name,
            "method": method,
            "seed": None,
            "reached": all(one.reached for one in found),
            "reached_by_seed": [one.reached for one in found],
            "lam": float(np.exp(np.mean(np.log(used)))),
            "lam_by_seed": used,
            "level": found[0].level if len(found) == 1 else None,
            "level_by_seed": [one.level for one in found],
            "note": "",
        }
        for split in ("val", "test"):
            by_seed = {
                seed: self._measured(*one, at=at, split=split)
                for seed, one in zip(self.seeds, chosen, strict=True)
            }
            *each, pooled = self._row(at, split).of(method, None, None, by_seed)
            entry[split] = _point(pooled, at.task) | {"by_seed": [_point(r, at.task) for r in each]}
            entry[f"bytes_{split}"] = pooled["bytes_total"]
        return entry

    def _conventional_plateau(
        self, other: Conventional, at: TaskData, found: plateau.Plateau
    ) -> dict[str, Any]:
        """The entry of a conventional method, in the form of `_plateau`."""
        entry: dict[str, Any] = {
            "task": at.task.name,
            "method": other.name,
            "seed": None,
            "reached": found.reached,
            "reached_by_seed": [found.reached],
            "lam": None,
            "lam_by_seed": [None],
            "level": found.level,
            "level_by_seed": [found.level],
            "quality": other.qualities[found.level],
            "note": other.recipe,
        }
        for split in ("val", "test"):
            by_seed = {self.seeds[0]: self._coded(other, at, split, found.level)}
            *each, pooled = self._row(at, split).of(other.name, None, None, by_seed)
            entry[split] = _point(pooled, at.task) | {"by_seed": [_point(r, at.task) for r in each]}
            entry[f"bytes_{split}"] = pooled["bytes_total"]
            entry[f"bytes_elementary_{split}"] = pooled["bytes_elementary"]
        return entry

    def _measured(self, model: Model, level: int, at: TaskData, split: str) -> Measurement:
        def compute() -> Measurement:
            refined = self._refinement(model, at)
            return measure.measure(
                model.codec,
                model.result.params,
                model.frozen,
                at.task,
                at.head,
                at.splits[split],
                level,
                refined,
                self.coder,
            )

        return _kept(model.directory / f"{split}_{level}.npz", compute)

    def _at(self, trained: Models, seed: int, level: int) -> tuple[Model, int]:
        """The model for a grid level, and the rate level to run it at."""
        return (trained[seed, level], 0) if self.separate else (trained[seed, 0], level)

    def _refinement(self, model: Model, at: TaskData) -> measure.Refinement | None:
        """Symbols are refined towards the uncompressed output, which the encoder always has."""
        if not self.refine or not model.codec.prior:
            return None
        if at.task.name not in self._targets:  # one object, so that it is compiled once
            far = lambda feature, output: losses.to_network(at.task, at.head(feature), output)  # noqa: E731
            self._targets[at.task.name] = RefinementTarget(jax.jit(at.head), far)
        return measure.Refinement(self.refine, self._targets[at.task.name])

    def _train(
        self, method: str, at: TaskData, lams: Sequence[float], stride: int, latent_channels: int
    ) -> Models:
        """Models by (seed, grid index); a conditioned model has index 0."""
        task, split = at.task, at.splits["val"]
        prior = PRIORS[method]
        ranges = [(lam, lam) for lam in lams] if self.separate else [(lams[0], lams[-1])]
        network = at.network.network
        val = task_data.validation(split, network.output_stride, self.target)
        chunk = 200 if self.steps % 200 == 0 else 100
        options = loop.Options(self.steps, self.batch, self.learning_rate, chunk=chunk)
        shape = split.feature.shape[1:]
        codecs = [FeatureCodec(shape, prior, lams_, latent_channels, stride) for lams_ in ranges]
        # Separate models of one method differ in λ alone, which training takes from `runs`.
        problem = codec_training.problem(
            codecs[0],
            task,
            functools.partial(network.decode, at.network.params, dtype=self.reader.dtype),
            self.target,
            math.prod(split.image_shape),
            at.sample,
            at.weights,
        )
        wanted = [(seed, i) for seed in self.seeds for i in range(len(ranges))]
        models = {}
        for group in [wanted] if self.at_once else [[one] for one in wanted]:
            name = "all" if self.at_once else "-".join(map(str, group[0]))
            directory = self.out / "models" / task.name / method / name
            runs = loop.Runs(
                np.array([seed for seed, _ in group]),
                np.array([ranges[i] for _, i in group], np.float32),
            )
            with harness.steps(f"{task.name}: {method} {name}", self.steps) as progress:
                results = loop.fit(problem, at.train, val, options, runs, directory, progress)
            for (seed, i), result in zip(group, results, strict=True):
                frozen = codecs[i].tables(result.params) if prior else None
                place = directory / f"measured-{seed}-{i}"
                models[seed, i] = Model(codecs[i], result, frozen, place)
        return models

    def _write_examples(self, at: TaskData, model: Model, level: int) -> None:
        split = at.splits["test"]
        chosen = np.linspace(0, len(split.feature) - 1, _EXAMPLES).astype(int)
        part = split._replace(feature=split.feature[chosen], label=split.label[chosen])
        refined = self._refinement(model, at)
        decoded, measured = measure.reconstruction(
            model.codec, model.result.params, model.frozen, part, level, refined
        )
        source = self.reader.source(at.task, "test")
        original, ours = (
            measure.prediction(at.task, at.head, feature, part.label)
            for feature in (part.feature, decoded)
        )
        np.savez_compressed(
            self.out / f"examples_{at.task.name}.npz",
            image=np.stack([source[int(i)]["image"] for i in chosen]),
            label=part.label,
            original=original,
            ours=ours,
            bytes=measured.bytes,
            task=at.task.name,
        )


def _point(row: dict[str, Any], task: Task) -> dict[str, Any]:
    """Score and rate of a row, as a plateau entry keeps them."""
    ci = {"score": row["ci"][task.metric], "bpp_real": row["ci"].get("bpp_real")}
    score, bpp = row["metrics"][task.metric], row["bpp_real"]
    return {"score": score, "bpp_real": bpp, "ci": ci, "metrics": row["metrics"]}


def _levels(models: dict[str, Models], lams: Sequence[float]) -> list[int]:
    """Rate levels of `lams` in the conditioned models, which all cover the same range."""
    if not models:
        return []
    codec = next(iter(next(iter(models.values())).values())).codec
    return [int(codec.level_of(lam)) for lam in lams]


def _kept(path: Path, compute: Callable[[], Measurement]) -> Measurement:
    """The measurement in `path`, or the one computed now and left there, whole or not at all."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        new = compute()
        named = {f"statistics/{key}": value for key, value in new.statistics.items()}
        plain = {k: v for k, v in new._asdict().items() if k != "statistics"}
        aside = path.with_suffix(".part.npz")
        np.savez(aside, allow_pickle=False, **named, **plain)
        aside.replace(path)
    try:
        with np.load(path) as file:
            saved = dict(file)
        statistics = {k.removeprefix("statistics/"): v for k, v in saved.items() if "/" in k}
        plain = {k: v for k, v in saved.items() if "/" not in k}
        return Measurement(**plain, statistics=statistics)
    except Exception as error:  # damaged archives raise from EOFError to NotImplementedError
        raise DataError(f"{path}: not a measurement ({error}); delete it and run again.") from error
