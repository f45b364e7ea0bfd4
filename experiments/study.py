"""Methods compared on one task after another: trained, measured by real bytes, and resumed.

Every measurement of a method at a rate level is kept in its own file, so that a run cut off
anywhere goes on from there; rows, intervals and plateaus follow from those files alone.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from experiments import comparison, conventional, method, shown, task_data, trained
from experiments.ready import Ready
from experiments.rows import Row
from experiments.task_data import TaskData
from experiments.trained import CODED, PRIORS, Recipe, Trained
from vcmjax.codecs.frozen import FrozenCodec
from vcmjax.coding import range_coder
from vcmjax.errors import UsageError, VcmError
from vcmjax.evaluate import measure, metrics
from vcmjax.evaluate.measure import Measurement
from vcmjax.io import atomic
from vcmjax.nets.pretrained import TaskNetwork
from vcmjax.tasks import Task
from vcmjax.train import parallel
from vcmjax.train.losses import Target

METHODS = (*PRIORS, *conventional.METHODS)
_EXAMPLES = 6


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
    _codecs: dict[str, FrozenCodec] = dataclasses.field(default_factory=dict)

    def results(self) -> dict[str, Any]:
        """``tasks``, ``rows``, ``plateau`` and ``comparisons`` of the tasks run so far."""
        return {
            "tasks": self._tasks,
            "rows": self._rows,
            "plateau": self._plateaus,
            "comparisons": self._comparisons,
            "skipped": self.reader.skipped,
        }

    def check(self, ready: Ready, lams: Sequence[float], stride: int, channels: int) -> None:
        """Refuses methods that cannot code the features or images of a task; trains nothing.

        Raises:
          UsageError: The latent does not fit the feature; a codec does not run here.
        """
        longest = max(ready.feature[:2])
        if not 1 <= stride <= longest or channels < 1:
            raise UsageError(
                f"--latent {stride} {channels}: the features of {ready.task.name} have {longest} "
                f"positions along a side; expected a stride of 1 to {longest}, and channels."
            )
        try:
            for name in (name for name in self.methods if name in PRIORS):
                trained.codecs(name, ready.feature, sorted(lams), self._recipe(stride, channels))
        except VcmError as error:
            raise UsageError(f"--latent {stride} {channels}: {error}") from error
        conventional.check(self.methods, ready.feature, ready.size)

    def save(self) -> None:
        """Writes the codecs of the tasks run so far, each at the plateau of its first seed."""
        for name, codec in self._codecs.items():
            codec.save(self.out / "codecs" / name)

    def run(
        self,
        task: Task,
        network: TaskNetwork,
        lams: Sequence[float],
        stride: int,
        latent_channels: int,
    ) -> None:
        """Compare the methods on `task`: validation decides, then the test split is read once."""
        at = self.reader.open(task, network, self.target)
        models = self._train(at, sorted(lams), stride, latent_channels)
        if parallel.devices().process:  # process 0 has the results
            return
        control = models.pop("control", None)
        folder = self.out / "models" / task.name
        images = functools.partial(self.reader.images, task)
        compared = [model.method() for model in models.values()] + conventional.opened(
            self.methods, at, self.seeds[0], folder, images, self.reader.dtype
        )
        wanted = self._wanted(at, control)
        pixels = math.prod(at.splits["val"].image_shape)
        found = {
            each.name: method.search(each, task, pixels, wanted, self.tolerance)
            for each in compared
        }
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
        for split, data in at.splits.items():
            shared = Row(task, "", split, data.image_shape)
            self._rows += self._uncompressed(at, shared, control)
            for each in compared:
                self._rows += method.curve_rows(each, shared._replace(recipe=each.recipe))
            curves = {each.name: method.curve(each, split, found[each.name]) for each in compared}
            self._compare(task, split, curves)
        for each in compared:
            rows = {s: Row(task, each.recipe, s, d.image_shape) for s, d in at.splits.items()}
            self._plateaus.append(method.plateau_entry(each, task, rows, found[each.name]))
        for name, model in models.items():
            level = found[name][self.seeds[0]].level
            self._codecs[f"{task.name}-{name}"] = model.frozen(level)
            if name == "ours":
                with shown.warning(f"examples of {task.name}: not kept"):
                    self._write_examples(model, level)

    # Steps

    def _train(
        self, at: TaskData, lams: Sequence[float], stride: int, latent_channels: int
    ) -> dict[str, Trained]:
        """The methods that are trained, the Control Group first if it is among them."""
        recipe = self._recipe(stride, latent_channels)
        refined = trained.refinement(at.goal("network"), self.refine)
        folder = self.out / "models" / at.task.name
        models = {}
        for name in sorted(self.methods, key=lambda name: name != "control"):
            if name in PRIORS:
                own = recipe if name in CODED else recipe._replace(separate=False)
                grid = lams if name in CODED else [1.0]
                models[name] = trained.train(name, at, grid, own, folder, refined)
        return models

    def _recipe(self, stride: int, latent_channels: int) -> Recipe:
        return Recipe(
            self.seeds,
            self.steps,
            self.batch,
            self.learning_rate,
            self.target,
            self.separate,
            stride,
            latent_channels,
            self.refine,
            self.at_once,
            self.reader.dtype,
            self.coder,
        )

    def _wanted(self, at: TaskData, control: Trained | None) -> float:
        """The score to come up to: the Control Group's on validation images, or Original's."""
        reference = [self._original(at, "val")]
        if control:
            reference = [control.measured(seed, 0, "val") for seed in self.seeds]
        return float(np.mean([metrics.headline(at.task, r.statistics) for r in reference]))

    def _uncompressed(self, at: TaskData, row: Row, control: Trained | None) -> list[dict]:
        """Rows of Original and Control Group."""
        rows = row.of("original", None, None, {self.seeds[0]: self._original(at, row.split)})
        if control:
            by_seed = {seed: control.measured(seed, 0, row.split) for seed in self.seeds}
            rows += row._replace(recipe=str(control.recipe)).of("control", None, None, by_seed)
        return rows

    def _original(self, at: TaskData, split: str) -> Measurement:
        """The uncompressed network, which sends nothing."""
        data = at.splits[split]
        none = np.zeros(len(data.feature))
        scored = measure.head_statistics(at.task, at.head, data.feature, data.label)
        return Measurement(none, none, none, none, scored)

    def _compare(self, task: Task, split: str, curves: dict[str, comparison.Curve]) -> None:
        """Ours against every other method."""
        if "ours" not in curves:
            return
        for anchor in (name for name in curves if name != "ours"):
            shared = {"task": task.name, "split": split, "method": "ours", "anchor": anchor}
            result = comparison.compare(task, curves["ours"], curves[anchor])
            self._comparisons.append(shared | result)

    def _write_examples(self, ours: Trained, level: int) -> None:
        """What Ours predicts on a few test images, for a page of examples."""
        at, (model, rate) = ours.at, ours.model(self.seeds[0], level)
        split = at.splits["test"]
        chosen = np.linspace(0, len(split.feature) - 1, _EXAMPLES).astype(int)
        part = split._replace(feature=split.feature[chosen], label=split.label[chosen])
        decoded, measured = measure.reconstruction(
            model.codec,
            model.result.params,
            model.frozen,
            part.feature,
            math.prod(part.image_shape),
            rate,
            ours.refinement,
        )
        source = self.reader.source(at.task, "test")
        original, received = (
            measure.prediction(at.task, at.head, feature, part.label)
            for feature in (part.feature, decoded)
        )
        images = np.stack([source[int(i)]["image"] for i in chosen])
        with atomic.file(self.out / f"examples_{at.task.name}.npz") as file:
            np.savez_compressed(
                file,
                image=images,
                label=part.label,
                original=original,
                ours=received,
                bytes=measured.bytes,
                task=at.task.name,
            )
