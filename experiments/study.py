"""Methods compared on one task after another: trained, measured by real bytes, and resumed.

Every measurement of a model at a rate level is kept in its own file, so that a run cut off
anywhere goes on from there; rows, intervals and plateaus follow from those files alone.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import harness
from vcmjax.codecs.feature import FeatureCodec, Tables
from vcmjax.data import dataset, features, loader
from vcmjax.errors import DataError
from vcmjax.evaluate import bootstrap, measure, metrics, plateau
from vcmjax.evaluate.measure import Measurement
from vcmjax.nets.pretrained import TaskNetwork
from vcmjax.tasks import Task
from vcmjax.train import codec as codec_training
from vcmjax.train import loop, losses
from vcmjax.train.losses import Target

PRIORS = {"control": None, "hyperprior": "spatial", "ours": "codebook"}
"""Method to entropy model; all share transforms and training budget."""
_EXAMPLES = 6
_VALIDATED = 128


class Model(NamedTuple):
    """A trained codec of one method and seed, for one λ or a range of them."""

    codec: FeatureCodec
    result: loop.Result
    frozen: Tables | None
    directory: Path


@dataclasses.dataclass
class Study:
    """A comparison in progress; see `experiments.plateau.Config` for the fields that it copies."""

    data: dataset.Dataset
    out: Path
    cache: Path
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    tolerance: float
    steps: int
    learning_rate: float
    target: Target
    separate: bool
    views: int
    refine: int = 0
    parallel: bool = False
    skip_bad: bool = False
    _tasks: dict[str, Any] = dataclasses.field(default_factory=dict)
    _rows: list[dict] = dataclasses.field(default_factory=list)
    _plateaus: list[dict] = dataclasses.field(default_factory=list)
    _skipped: list[str] = dataclasses.field(default_factory=list)

    def results(self) -> dict[str, Any]:
        """``tasks``, ``rows`` and ``plateau`` of the tasks run so far."""
        return {
            "tasks": self._tasks,
            "rows": self._rows,
            "plateau": self._plateaus,
            "skipped": self._skipped,
        }

    def run(
        self, task: Task, network: TaskNetwork, lams: Sequence[float], latent_channels: int, stride: int
    ) -> None:
        """Compare the methods on `task`: validation decides, then the test split is read once."""
        head = lambda x: network.network.decode(network.params, x)  # noqa: E731
        splits = {split: self._features(task, network, split) for split in ("train", "val")}
        height, width = splits["val"].image_shape
        lams = sorted(lams)

        def train(method: str) -> dict[tuple[int, int], Model]:
            return self._train(method, task, head, splits, lams, latent_channels, stride)

        def measured(model: Model, split: str, level: int) -> Measurement:
            def compute() -> Measurement:
                refined = self._refinement(model, task, head, splits[split])
                return measure.measure(
                    model.codec, model.result.params, model.frozen, task, head, splits[split], level,
                    refined,
                )  # fmt: skip

            return _kept(model.directory / f"{split}_{level}.npz", compute)

        original = {"val": measure.head_statistics(task, head, splits["val"].feature, splits["val"].label)}
        control = list(train("control").values())
        on_val = [metrics.scores(task, measured(m, "val", 255).statistics) for m in control]
        wanted = float(np.mean([scores[task.metric] for scores in on_val]))

        models = {method: train(method) for method in self.methods}
        found: dict[tuple[str, int], plateau.Plateau] = {}
        grid = range(len(lams)) if self.separate else models_levels(models, lams)
        pixels = height * width
        with harness.steps(f"{task.name}: measuring", len(models) * len(self.seeds)) as progress:
            for method, trained in models.items():
                for seed in self.seeds:

                    def evaluate(level: int, trained=trained, seed=seed) -> tuple[float, float]:
                        model, at = self._at(trained, seed, level)
                        result = measured(model, "val", at)
                        bpp = 8 * result.bytes.mean() / pixels
                        return bpp, metrics.scores(task, result.statistics)[task.metric]

                    found[method, seed] = plateau.search(
                        evaluate, grid, wanted, self.tolerance, task.higher_is_better,
                        refine=not self.separate,
                    )  # fmt: skip
                    progress(len(found))

        # Every choice is made; only now is the test split read.
        splits["test"] = self._features(task, network, "test")
        original["test"] = measure.head_statistics(
            task, head, splits["test"].feature, splits["test"].label
        )
        self._tasks[task.name] = {
            "kind": task.kind,
            "metric": task.metric,
            "higher_is_better": task.higher_is_better,
            "classes": list(task.classes),
            "tolerance": self.tolerance,
            "network": network.fingerprint,
        }
        recipe = ("separate" if self.separate else "conditioned") + f"/{self.target}"
        for split in ("val", "test"):
            row = Row(task, recipe, split, (height, width))
            none = np.zeros(len(splits[split].feature))
            self._rows += row.of(
                "original", None, None, {None: Measurement(none, none, none, original[split])}
            )
            by_seed = {s: measured(m, split, 255) for s, m in zip(self.seeds, control, strict=True)}
            self._rows += row.of("control", None, None, by_seed)
            for method, trained in models.items():
                for lam, level in zip(lams, grid, strict=True):
                    chosen = {seed: self._at(trained, seed, level) for seed in self.seeds}
                    good = {s: measured(m, split, at) for s, (m, at) in chosen.items()}
                    status = "diverged" if any(m.result.diverged for m, _ in chosen.values()) else "ok"
                    self._rows += row.of(method, lam, level, good, status)
        for method, trained in models.items():
            entry: dict[str, Any] = {"task": task.name, "method": method}
            for split in ("val", "test"):
                by_seed = {}
                for seed in self.seeds:
                    model, at = self._at(trained, seed, found[method, seed].level)
                    by_seed[seed] = measured(model, split, at)
                row = Row(task, recipe, split, (height, width)).of(method, None, None, by_seed)
                pooled = row[-1]
                entry[split] = {
                    "score": pooled["metrics"][task.metric],
                    "bpp_real": pooled["bpp_real"],
                    "ci": {"score": pooled["ci"][task.metric], "bpp_real": pooled["ci"]["bpp_real"]},
                    "by_seed": [
                        {"score": r["metrics"][task.metric], "bpp_real": r["bpp_real"]} for r in row[:-1]
                    ],
                }
                entry[f"bytes_{split}"] = pooled["bytes_total"]
            levels = [found[method, seed].level for seed in self.seeds]
            codec = next(iter(trained.values())).codec
            lam_of = (lambda i: lams[i]) if self.separate else (lambda i, c=codec: float(c.lam_of(i)))
            entry |= {
                "seed": None,
                "reached": all(found[method, seed].reached for seed in self.seeds),
                "lam": float(np.exp(np.mean([math.log(lam_of(level)) for level in levels]))),
                "level": levels[0] if len(levels) == 1 else None,
                "levels": levels,
                "reached_by_seed": [found[method, seed].reached for seed in self.seeds],
                "note": "",
            }
            self._plateaus.append(entry)
        if "ours" in models:
            model, at = self._at(models["ours"], self.seeds[0], found["ours", self.seeds[0]].level)
            self._write_examples(task, network, head, splits["test"], model, at)

    # Steps

    def _at(self, trained: dict, seed: int, level: int) -> tuple[Model, int]:
        """The model for a grid level, and the rate level to run it at."""
        return (trained[seed, level], 0) if self.separate else (trained[seed, 0], level)

    def _refinement(
        self, model: Model, task: Task, head, split: features.Split
    ) -> measure.Refinement | None:
        """Symbols are refined towards the uncompressed output, which the encoder always has."""
        if not self.refine or not model.codec.prior:
            return None
        reference = jnp.asarray(split.output, jnp.float32)
        return measure.Refinement(
            self.refine,
            lambda feature, index: losses.to_network(task, head(feature), reference[index]),
        )

    def _features(self, task: Task, network: TaskNetwork, split: str) -> features.Split:
        source = self.data.open(split)
        if self.skip_bad:
            source, bad = loader.checked(
                source, True, lambda items, total: harness.tracked(f"checking {split}", total)(items)
            )
            self._skipped += [message for _, message in bad]
        training = split == "train"
        views = max(1, self.views // len(source)) if training and self.data.name != "rooms" else 1
        if task.kind == "dense":
            views = 1
        name = f"{self.data.identity}-{network.fingerprint}-{split}-{len(source)}x{views}.npz"
        path = self.cache / "features" / name
        bar = harness.tracked(f"{task.name}: {split} features", -(-len(source) // 32))
        return features.extract(
            source, network, path, training=training, views=views, progress=bar
        )

    def _train(self, method, task, head, splits, lams, latent_channels, stride) -> dict:
        """Models by (seed, grid index); a conditioned model has index 0."""
        prior = PRIORS[method]
        ranges = [(lams[0], lams[-1])] if not self.separate else [(lam, lam) for lam in lams]
        if not prior:
            ranges = [(1.0, 1.0)]
        height, width = splits["val"].image_shape
        train, val = (
            codec_training.Features(*map(jnp.asarray, _without_labels(splits[s], task, self.target)))
            for s in ("train", "val")
        )
        chunk = 200 if self.steps % 200 == 0 else 100
        options = loop.Options(self.steps, learning_rate=self.learning_rate, chunk=chunk)
        # Enough to choose a checkpoint by, in a tenth of the training time.
        few = np.linspace(0, len(val.feature) - 1, min(len(val.feature), _VALIDATED)).astype(int)
        val = jax.tree.map(lambda leaf: leaf[few], val)
        wanted = [(seed, i) for seed in self.seeds for i in range(len(ranges))]
        # Separate models of one method differ in λ alone, which training takes as an argument.
        groups = [wanted] if self.parallel else [[one] for one in wanted]
        models = {}
        for group in groups:
            codecs = [
                FeatureCodec(
                    train.feature.shape[1:], prior, ranges[i], latent_channels, stride
                )
                for _, i in group
            ]
            name = "all" if self.parallel else "-".join(map(str, group[0]))
            directory = self.out / "models" / task.name / method / name
            problem = codec_training.problem(
                codecs[0], task, head, self.target, height * width, train.feature[:4096]
            )
            runs = loop.Runs(
                np.array([seed for seed, _ in group]),
                np.array([ranges[i] for _, i in group], np.float32),
            )
            with harness.steps(f"{task.name}: {method} {name}", self.steps) as progress:
                results = loop.fit(problem, train, val, options, runs, directory, progress)
            for key, codec, result in zip(group, codecs, results, strict=True):
                place = directory / f"measured-{key[0]}-{key[1]}"
                frozen = codec.tables(result.params) if prior else None
                models[key] = Model(codec, result, frozen, place)
        return models

    def _write_examples(self, task, network, head, split, model: Model, level: int) -> None:
        chosen = np.linspace(0, len(split.feature) - 1, _EXAMPLES).astype(int)
        part = split._replace(feature=split.feature[chosen], label=split.label[chosen])
        refined = self._refinement(model, task, head, part)
        decoded, measured = measure.reconstruction(
            model.codec, model.result.params, model.frozen, part, level, refined
        )
        source = self.data.open("test")
        shown = [
            measure.prediction(task, head, feature, part.label) for feature in (part.feature, decoded)
        ]
        np.savez(
            self.out / f"examples_{task.name}.npz",
            image=np.stack([source[int(i)]["image"] for i in chosen]),
            label=part.label,
            original=shown[0],
            ours=shown[1],
            bytes=measured.bytes,
            task=task.name,
        )


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
        by_seed: dict[int | None, Measurement],
        status: str = "ok",
    ) -> list[dict[str, Any]]:
        """One row per seed, and the pooled one last, with intervals over seeds and images."""
        pixels = self.image_shape[0] * self.image_shape[1]
        coded = any(m.bytes.any() for m in by_seed.values())

        def statistic(m: Measurement) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
            def resampled(weights: np.ndarray) -> dict[str, np.ndarray]:
                bpp = 8 / pixels * (weights @ m.bytes) / weights.sum(1)
                return metrics.resampled_scores(self.task, m.statistics, weights) | {"bpp_real": bpp}

            return resampled

        def row(seed: int | None, chosen: list[Measurement]) -> dict[str, Any]:
            ci = bootstrap.interval([statistic(m) for m in chosen], len(chosen[0].bytes), seed=0)
            scores = [metrics.scores(self.task, m.statistics) for m in chosen]
            length = float(np.mean([m.bytes.mean() for m in chosen])) if coded else None
            bits = float(np.mean([m.estimated_bits.mean() for m in chosen])) if coded else None
            side = float(np.mean([m.side_bits.mean() for m in chosen])) if coded else None
            return {
                "task": self.task.name,
                "method": method,
                "recipe": self.recipe,
                "lam": lam,
                "level": level,
                "split": self.split,
                "seed": seed,
                "images": len(chosen[0].bytes),
                "height": self.image_shape[0],
                "width": self.image_shape[1],
                "bpp_real": None if length is None else 8 * length / pixels,
                "bpp_estimated": None if bits is None else bits / pixels,
                "side_bits_estimated": side,
                "bytes_payload": length,
                "bytes_total": length,
                "metrics": {key: float(np.mean([s[key] for s in scores])) for key in scores[0]},
                "ci": {key: list(map(float, ci[key])) for key in ci if coded or key != "bpp_real"},
                "status": status,
            }

        rows = [row(seed, [m]) for seed, m in by_seed.items() if seed is not None]
        for one, m in zip(rows, by_seed.values(), strict=False):
            one["per_image"] = _per_image(self.task, m, coded)
        return [*rows, row(None, list(by_seed.values()))]


def models_levels(models: dict[str, dict], lams: Sequence[float]) -> list[int]:
    """Rate levels of `lams` in the conditioned models, which all cover the same range."""
    codec = next(iter(next(iter(models.values())).values())).codec
    return [int(codec.level_of(lam)) for lam in lams]


def _per_image(task: Task, m: Measurement, coded: bool) -> dict[str, list]:
    """Bytes and headline score of each image by itself."""
    eye = np.eye(len(m.bytes), dtype=np.int64)
    score = metrics.resampled_scores(task, m.statistics, eye)[task.metric]
    out = {"score": [None if math.isnan(s) else round(float(s), 4) for s in score]}
    return out | ({"bytes": m.bytes.astype(int).tolist()} if coded else {})


def _without_labels(split: features.Split, task: Task, target: Target) -> tuple:
    """What training sees of a split; labels are left out where the target does not ask for them."""
    label = split.label
    if target == "network":
        label = np.zeros(len(label), np.uint8)
    elif task.kind != "class" and label.shape[1] != split.output.shape[1]:
        step = label.shape[1] // split.output.shape[1]
        label = label[:, step // 2 :: step, step // 2 :: step]
    return split.feature, split.output, label


def _kept(path: Path, compute: Callable[[], Measurement]) -> Measurement:
    """The measurement in `path`, or the one computed now and left there, whole or not at all."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        new = compute()
        named = {f"statistics/{key}": value for key, value in new.statistics.items()}
        aside = path.with_suffix(".part.npz")
        np.savez(aside, **named, **{k: v for k, v in new._asdict().items() if k != "statistics"})
        aside.replace(path)
    with np.load(path) as saved:
        if "bytes" not in saved:
            raise DataError(f"{path}: not a measurement; delete it and run again.")
        statistics = {k.removeprefix("statistics/"): saved[k] for k in saved if "/" in k}
        return Measurement(saved["bytes"], saved["estimated_bits"], saved["side_bits"], statistics)
