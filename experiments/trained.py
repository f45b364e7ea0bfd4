"""Methods that are trained: one λ-conditioned model per seed, or one per seed and λ."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from experiments import harness, task_data
from experiments.kept import kept
from experiments.method import Method
from experiments.task_data import TaskData
from vcmjax.codecs.feature import FeatureCodec, Tables
from vcmjax.codecs.frozen import FrozenCodec
from vcmjax.evaluate import measure
from vcmjax.evaluate.measure import Measurement
from vcmjax.train import codec as codec_training
from vcmjax.train import loop
from vcmjax.train.codec import Goal
from vcmjax.train.losses import Target

PRIORS: dict[str, dict[str, Any]] = {
    "control": {"prior": None},
    "hyperprior": {"prior": "spatial"},
    "ours": {"prior": "codebook"},
    "hyperprior_context": {"prior": "spatial", "context": True},
    "ours_context": {"prior": "codebook", "context": True},
}
"""Method to entropy model, as `FeatureCodec` has it; all share transforms and training budget."""
CODED = tuple(name for name, model in PRIORS.items() if model["prior"])
"""Methods that send anything: all but the Control Group."""


class Recipe(NamedTuple):
    """How every method is trained and measured; see `experiments.plateau.Config`.

    Attributes:
      at_once: Train seeds, and separate λ, at once.
      dtype: That the frozen network computes in, None for float32.
      coder: What writes and reads the bytes.
    """

    seeds: tuple[int, ...]
    steps: int
    batch: int
    learning_rate: float
    target: Target
    separate: bool
    stride: int
    latent_channels: int
    refine: int
    at_once: bool
    dtype: Any
    coder: ModuleType

    def __str__(self) -> str:
        """As results files have it."""
        refined = f"/refined {self.refine}" if self.refine else ""
        return ("separate" if self.separate else "conditioned") + f"/{self.target}" + refined


class Model(NamedTuple):
    """A trained codec of one method and seed, for one λ or a range of them."""

    codec: FeatureCodec
    result: loop.Result
    frozen: Tables | None
    directory: Path


class Trained(NamedTuple):
    """One method on one task, trained.

    Attributes:
      name: Of `PRIORS`.
      at: The task.
      recipe: How.
      lams: λ grid, ascending.
      models: By seed and grid index; a conditioned one has index 0.
      refinement: What symbols are refined towards, if they are.
    """

    name: str
    at: TaskData
    recipe: Recipe
    lams: tuple[float, ...]
    models: dict[tuple[int, int], Model]
    refinement: measure.Refinement | None

    def method(self) -> Method:
        """As a study sees it."""
        codec = self.model(self.recipe.seeds[0], 0)[0].codec
        separate = self.recipe.separate
        levels = range(len(self.lams)) if separate else map(codec.level_of, self.lams)
        return Method(
            self.name,
            str(self.recipe),
            self.recipe.seeds,
            tuple(int(level) for level in levels),
            None if separate else codec.levels - 1,
            lambda level: {"lam": self.lam(level), "quality": None},
            self.measured,
            lambda level: any(self.model(s, level)[0].result.diverged for s in self.recipe.seeds),
        )

    def model(self, seed: int, level: int) -> tuple[Model, int]:
        """The model for a level of the method, and the rate level to run it at."""
        return (
            (self.models[seed, level], 0) if self.recipe.separate else (self.models[seed, 0], level)
        )

    def lam(self, level: int) -> float:
        """λ of a level of the method."""
        if self.recipe.separate:
            return self.lams[level]
        codec = self.models[self.recipe.seeds[0], 0].codec
        near = min(self.lams, key=lambda lam: abs(math.log(lam / codec.lam_of(level))))
        # A point of the grid keeps its name, a level between them has the λ that it stands for.
        return near if codec.level_of(near) == level else float(codec.lam_of(level))

    def measured(self, seed: int, level: int, split: str) -> Measurement:
        """Scores and bytes at a level, from disk if they are there."""
        model, rate = self.model(seed, level)
        return kept(
            model.directory / f"{split}_{rate}.npz",
            lambda: measure.measure(
                model.codec,
                model.result.params,
                model.frozen,
                self.at.task,
                self.at.head,
                self.at.splits[split],
                rate,
                self.refinement,
                self.recipe.coder,
            ),
        )

    def frozen(self, level: int) -> FrozenCodec:
        """The first seed's codec at a level, to be kept."""
        model, rate = self.model(self.recipe.seeds[0], level)
        assert model.frozen  # of a method that has a prior
        lam = float(model.codec.lam_of(rate))
        return FrozenCodec(model.codec, model.result.params, model.frozen, lam, self.at.network)


def codecs(
    name: str, shape: tuple[int, ...], lams: Sequence[float], recipe: Recipe
) -> list[FeatureCodec]:
    """The untrained codecs of a method: one for the whole grid, or one per λ.

    Args:
      name: Of `PRIORS`.
      shape: Of the feature.
      lams: λ grid, ascending.
      recipe: How they are trained.

    Raises:
      VcmError: Such a codec cannot be made.
    """
    ranges = [(lam, lam) for lam in lams] if recipe.separate else [(lams[0], lams[-1])]
    return [
        FeatureCodec(
            shape,
            lams=ends,
            latent_channels=recipe.latent_channels,
            stride=recipe.stride,
            **PRIORS[name],
        )
        for ends in ranges
    ]


def refinement(goal: Goal | Mapping[str, Goal], rounds: int) -> measure.Refinement | None:
    """Symbols are refined towards the uncompressed output, which the encoder always has."""
    if not rounds:
        return None
    return measure.Refinement(rounds, codec_training.refinement_target(goal))


def loop_options(steps: int, batch: int, learning_rate: float) -> loop.Options:
    """How long a codec is trained; `steps` is a multiple of 100."""
    chunk = 200 if steps % 200 == 0 else 100
    # Of each of so many images all rate levels at once.
    at_once = 32 // len(codec_training.VALIDATION_LEVELS)
    return loop.Options(steps, batch, learning_rate, chunk=chunk, validation_batch=at_once)


def train(
    name: str,
    at: TaskData,
    lams: Sequence[float],
    recipe: Recipe,
    folder: Path,
    refined: measure.Refinement | None,
) -> Trained:
    """Train the method `name` on a task, or go on where that stopped.

    Args:
      name: Of `PRIORS`.
      at: The task.
      lams: λ grid, ascending.
      recipe: How to train.
      folder: Of checkpoints and measurements, in a folder per method.
      refined: From `refinement`, one for all methods, so that it is compiled once.
    """
    task, split = at.task, at.splits["val"]
    network = at.network.network
    val = task_data.validation(split, network.output_stride, recipe.target)
    options = loop_options(recipe.steps, recipe.batch, recipe.learning_rate)
    made = codecs(name, split.feature.shape[1:], lams, recipe)
    # Separate models of one method differ in λ alone, which training takes from `runs`.
    problem = codec_training.problem(
        made[0],
        at.goal(recipe.target, recipe.dtype),
        math.prod(split.image_shape),
        at.sample,
    )
    wanted = [(seed, i) for seed in recipe.seeds for i in range(len(made))]
    models: dict[tuple[int, int], Model] = {}
    for group in [wanted] if recipe.at_once else [[one] for one in wanted]:
        label = "all" if recipe.at_once else "-".join(map(str, group[0]))
        directory = folder / name / label
        runs = loop.Runs(
            np.array([seed for seed, _ in group]),
            np.array([made[i].lams for _, i in group], np.float32),
        )
        with harness.steps(f"{task.name}: {name} {label}", recipe.steps) as progress:
            results = loop.fit(problem, at.train, val, options, runs, directory, progress)
        for (seed, i), result in zip(group, results, strict=True):
            frozen = made[i].tables(result.params) if name in CODED else None
            place = directory / f"measured-{seed}-{i}"
            models[seed, i] = Model(made[i], result, frozen, place)
    return Trained(name, at, recipe, tuple(lams), models, refined if name in CODED else None)
