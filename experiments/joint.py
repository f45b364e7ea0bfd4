"""Codecs for groups of tasks, one stream each: trained, and measured by real bytes."""

import argparse
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from experiments import conventional, harness, plateau, ready, scored, shown, task_data
from experiments.kept import kept
from experiments.task_data import Reader, TaskData
from experiments.trained import CODED, PRIORS, loop_options, refinement
from vcmjax.codecs.feature import FeatureCodec, Tables
from vcmjax.codecs.frozen import FrozenCodec
from vcmjax.coding import range_coder
from vcmjax.errors import UsageError
from vcmjax.evaluate import measure, metrics
from vcmjax.evaluate import plateau as plateau_search
from vcmjax.evaluate.measure import Measurement
from vcmjax.train import codec as codec_training
from vcmjax.train import loop, parallel
from vcmjax.train.codec import Features, Goal, on_common_scale
from vcmjax.train.losses import Target

TARGET: Target = "network"
"""Distortion: the uncompressed network's output asks for no labels, and learns faster."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What experiments on several tasks have in common.

    Attributes:
      data: ``rooms`` or a Taskonomy copy.
      networks: As in `plateau.Config`.
      counts: Images in train, val and test, as in `plateau.Config`.
      size: Image side in pixels.
      lams: λ grid, per unit of the common scale: see `codec.on_common_scale`.
      method: Of `trained.PRIORS`.
      steps: Optimiser steps per codec.
      batch: Images per step.
      learning_rate: Peak.
      channels: Of the latent, per task sent.
      stride: Feature positions per latent position along each side.
      seeds: Of training.
      tolerance: Relative loss allowed at the plateau, of every task.
      refine: Rounds of encoder-side refinement; 0 for none.
    """

    data: str = "rooms"
    networks: str = ""
    counts: tuple[int, int, int] | tuple[()] = ()
    size: int = 128
    lams: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    method: str = "ours"
    steps: int = 1600
    batch: int = 8
    learning_rate: float = 3e-3
    channels: int = 16
    stride: int = 2
    seeds: tuple[int, ...] = (0,)
    tolerance: float = 0.02
    refine: int = 0


QUICK: dict[str, Any] = {
    "counts": (64, 16, 16),
    "lams": (0.03, 1.0),
    "steps": 100,
    "batch": 4,
    "channels": 8,
}


class Model(NamedTuple):
    """A group's codec, trained from one seed.

    Attributes:
      codec: Of the features of all tasks of the group.
      params: Trained.
      frozen: Integer tables; None for the Control Group.
      diverged: Whether training did.
      directory: Of its measurements.
      sent: The tasks whose features it codes.
      at: Those whose features come back.
      refined: Whether and how symbols are refined.
      weights: Of the tasks in `at`, where a model serves any.
    """

    codec: FeatureCodec
    params: dict
    frozen: Tables | None
    diverged: bool
    directory: Path
    sent: dict[str, TaskData]
    at: dict[str, TaskData]
    refined: measure.Refinement | None = None
    weights: tuple[float, ...] | None = None

    def received(self, level: int, split: str) -> tuple[dict[str, np.ndarray], Measurement]:
        """What comes back of each task's feature at a rate level, and what it cost."""
        features = {name: each.splits[split].feature for name, each in self.sent.items()}
        pixels = math.prod(next(iter(self.sent.values())).splits[split].image_shape)
        return measure.reconstruction(
            self.codec,
            self.params,
            self.frozen,
            features,
            pixels,
            level,
            self.refined,
            priority=None if self.weights is None else np.log(self.weights),
        )

    def measured(self, level: int, split: str) -> dict[str, Measurement]:
        """Of each task at a rate level, from disk if they are there; all have the same bytes."""
        received = functools.cache(functools.partial(self.received, level, split))

        def of(name: str) -> Measurement:
            (feature, cost), at = received(), self.at[name]
            label = at.splits[split].label
            statistics = measure.head_statistics(at.task, at.head, feature[name], label)
            return cost._replace(statistics=statistics)

        place = self.directory / (f"refined_{self.refined.rounds}" if self.refined else ".")
        if self.weights is not None:
            place /= "weights_" + "_".join(f"{weight:.4g}" for weight in self.weights)
        return {
            name: kept(place / f"{split}_{level}_{name}.npz", functools.partial(of, name))
            for name in self.at
        }


def deployed(model: Model, level: int) -> FrozenCodec:
    """The codec at a rate level, with the networks of all tasks it takes or gives."""
    if model.frozen is None:
        raise UsageError("the Control Group sends nothing; expected a method that does.")
    networks = {name: each.network for name, each in (model.sent | model.at).items()}
    lam = float(model.codec.lam_of(level))
    return FrozenCodec(model.codec, model.params, model.frozen, lam, networks)


def train(
    sent: dict[str, TaskData],
    at: dict[str, TaskData],
    config: Config,
    folder: Path,
    at_once: bool = False,
    weights: Mapping[str, float] | Literal["any"] | None = None,
) -> dict[int, Model]:
    """A model per seed that serves the tasks in `at`, trained now unless `folder` has it.

    Args:
      sent: The tasks whose features are coded, all of the same images.
      at: The tasks that are finished from them, and trained for.
      config: How to train.
      folder: Of checkpoints and measurements.
      at_once: Train all seeds in one program, by `vmap`.
      weights: Of the tasks in `at`, None for equal ones; ``"any"`` for a model that takes them.

    Raises:
      UsageError: The tasks' training images are not the same number, or do not fit in memory;
        symbols are to be refined towards a task whose feature is not sent.
    """
    if config.refine and not at.keys() <= sent.keys():
        raise UsageError(f"--refine: {_label(sent, at)}: expected the features of all tasks sent.")
    codec, goals, problem, train_, val = posed(sent, at, config, weights)
    options = loop_options(config.steps, config.batch, config.learning_rate)
    models = {}
    for group in [config.seeds] if at_once else [(seed,) for seed in config.seeds]:
        label = "-".join(map(str, group))
        runs = loop.Runs(np.array(group), np.array([codec.lams] * len(group), np.float32))
        with harness.steps(f"{_label(sent, at)}: {label}", config.steps) as progress:
            results = loop.fit(problem, train_, val, options, runs, folder / label, progress)
        for seed, result in zip(group, results, strict=True):
            frozen = codec.tables(result.params) if codec.prior else None
            place = folder / label / f"measured-{seed}"
            models[seed] = Model(
                codec,
                result.params,
                frozen,
                result.diverged,
                place,
                sent,
                at,
                refinement(goals, config.refine),
            )
    return models


def posed(
    sent: dict[str, TaskData],
    at: dict[str, TaskData],
    config: Config,
    weights: Mapping[str, float] | Literal["any"] | None = None,
) -> tuple[FeatureCodec, dict[str, Goal], loop.Problem, Features, Features]:
    """What `train` solves: codec, goals, problem, and its training and validation data.

    Arguments and errors as of `train`.
    """
    every, lams = sent | at, (min(config.lams), max(config.lams))
    shapes = {name: each.splits["val"].feature.shape[1:] for name, each in every.items()}
    codec = FeatureCodec(
        {name: shapes[name] for name in sent},
        lams=lams,
        latent_channels=config.channels * len(sent),
        stride=config.stride,
        outputs={name: shapes[name] for name in at},
        prioritised=weights == "any",
        **PRIORS[config.method],
    )
    train_, val = _together(every, at)
    goals = goals_of(at, weights if isinstance(weights, Mapping) else {})
    pixels = math.prod(next(iter(every.values())).splits["val"].image_shape)
    sample = {name: each.sample for name, each in every.items()}
    problem = codec_training.problem(codec, goals, pixels, sample)
    return codec, goals, problem, train_, val


def goals_of(at: dict[str, TaskData], weights: Mapping[str, float]) -> dict[str, Goal]:
    """What a codec for the tasks in `at` is trained for, all on one scale; weights 1 by default."""
    goals = {}
    for name, each in at.items():
        val = _validation(each)
        goal = each.goal(TARGET)._replace(weight=weights.get(name, 1.0))
        goals[name] = on_common_scale(goal, val.feature, val.label)
    return goals


def extended(
    models: dict[int, Model], at: TaskData, config: Config, folder: Path
) -> dict[int, Model]:
    """Each of `models` with a branch for one more task, trained alone, everything else frozen.

    Args:
      models: From `train`; their streams stay as they are.
      at: The task that was not trained for.
      config: How to train.
      folder: Of checkpoints and measurements.
    """
    name, shape = at.task.name, at.splits["val"].feature.shape[1:]
    options = loop_options(config.steps, config.batch, config.learning_rate)
    extended = {}
    for seed, model in models.items():
        codec = dataclasses.replace(model.codec, outputs={name: shape})
        train_, val = _together(model.sent | {name: at}, {name: at})
        statistics = codec.transfer.statistics({name: at.sample.astype(np.float32)})
        params = model.params | {"statistics": statistics | model.params["statistics"]}
        problem = codec_training.branch(codec, params, name, at.goal(TARGET))
        runs = loop.Runs(np.array([seed]), np.array([codec.lams], np.float32))
        place = folder / str(seed)
        about = f"{'+'.join(model.sent)}, then {name}: {seed}"
        with harness.steps(about, config.steps) as progress:
            (result,) = loop.fit(problem, train_, val, options, runs, place, progress)
        extended[seed] = model._replace(
            codec=codec,
            params=codec_training.with_branch(params, name, result.params),
            diverged=model.diverged or result.diverged,
            directory=place / "measured",
            at={name: at},
        )
    return extended


def _label(sent: dict[str, TaskData], at: dict[str, TaskData]) -> str:
    return "+".join(sent) + (f" to {'+'.join(at)}" if at.keys() != sent.keys() else "")


def opened(
    config: Config, names: Sequence[str], about: str = "tasks", image: str = ""
) -> tuple[Reader, dict[str, TaskData]]:
    """The tasks of the data set that `config` names, each with its network and features.

    All that can be known to fail is refused here, before anything is trained.

    Args:
      config: Data, networks and method.
      names: Of the tasks.
      about: What will be run, in words.
      image: A method of `conventional` that will code something besides, if any.

    Raises:
      UsageError: An unknown task; a λ ≤ 0; tasks whose images or features do not go together; a
        package that is missing.
      DataError: Data or networks that are missing or damaged.
    """
    study = plateau.Config(
        config.data,
        config.networks,
        tuple(names),
        counts=config.counts,
        size=config.size,
        lams=config.lams,
    )
    cache, data = harness.cache_directory(), plateau.open_data(study)
    parallel.devices().check(config.batch)
    plateau.check_coder(range_coder)
    reader = Reader(data, cache, views=0)
    tasks = [data.tasks[name] for name in names]
    about = f"{about}: {config.steps} steps of each codec"
    found = ready.check(about, reader, tasks, functools.partial(plateau.origin, study, data))
    _check_together(found, config)
    conventional.check([image] if image else [], found[0].feature, found[0].size)
    networks = {task.name: plateau.network(study, data, task) for task in tasks}
    for task in tasks:
        reader.prepare(task, networks[task.name])
    return reader, {task.name: reader.open(task, networks[task.name], TARGET) for task in tasks}


def _check_together(found: Sequence[ready.Ready], config: Config) -> None:
    """Refuses tasks that one codec cannot serve; trains nothing."""
    for what in ("counts", "size"):
        each = {one.task.name: getattr(one, what) for one in found}
        if len(set(each.values())) > 1:
            raise UsageError(f"{what} of images by task: {each}; expected the same ones for all.")
    shapes = {one.task.name: one.feature for one in found}
    for method in {config.method, *getattr(config, "methods", ())}:
        FeatureCodec(
            shapes,
            lams=(min(config.lams), max(config.lams)),
            latent_channels=config.channels * len(shapes),
            stride=config.stride,
            **PRIORS[method],
        )


def read_test(reader: Reader, at: dict[str, TaskData]) -> None:
    """Adds the test split to every task: once, after every choice is made."""
    for each in at.values():
        each.splits["test"] = reader.read(each.task, each.network, "test")


def search(
    models: dict[int, Model], reference: dict[str, float], config: Config
) -> dict[int, plateau_search.Plateau]:
    """By seed: the fewest bits at which every task is within tolerance on validation images.

    Args:
      models: By seed.
      reference: Scores on validation images to come up to: the Control Group's, where an experiment
        trains one, else the uncompressed networks'.
      config: Grid and tolerance.
    """
    found = {}
    at = next(iter(models.values())).at
    height, width = next(iter(at.values())).splits["val"].image_shape
    label = _label(next(iter(models.values())).sent, at)
    for seed, model in harness.tracked(f"{label}: plateau", len(models))(models.items()):

        def evaluate(level: int, model=model) -> tuple[float, float]:
            measured = model.measured(level, "val")
            shares = []
            for name, one in measured.items():
                task = at[name].task
                score = metrics.headline(task, one.statistics)
                shares.append(scored.share(task.higher_is_better, score, reference[name]))
            total = next(iter(measured.values())).total
            return 8 * float(total.mean()) / (height * width), min(shares)

        top = model.codec.levels - 1
        levels = [int(model.codec.level_of(lam)) for lam in config.lams]
        found[seed] = plateau_search.search(
            evaluate, levels, 1.0, config.tolerance, True, high=top, refine=top > 0
        )
    return found


def curve(models: Sequence[Model], config: Config, split: str = "test") -> scored.Curve:
    """By λ: the measurements of every model, each of which sends a stream."""
    return [
        [model.measured(int(model.codec.level_of(lam)), split) for model in models]
        for lam in config.lams
    ]


def status(
    models: dict[int, Model], found: dict[int, plateau_search.Plateau]
) -> dict[str, dict[str, Any]]:
    """By seed: the level of the plateau, whether it was reached, and whether training diverged."""
    return {
        "level": {str(seed): one.level for seed, one in found.items()},
        "reached": {str(seed): one.reached for seed, one in found.items()},
        "diverged": {str(seed): model.diverged for seed, model in models.items()},
    }


def at_plateau(
    models: dict[int, Model],
    found: dict[int, plateau_search.Plateau],
    at: TaskData,
    original: float,
) -> dict[str, Any]:
    """One task on the test split, each seed at its plateau: `status` and `scored.pooled`."""
    measured = {
        seed: model.measured(found[seed].level, "test")[at.task.name]
        for seed, model in models.items()
    }
    return status(models, found) | scored.pooled(measured, at, original)


def parser(doc: str, name: str) -> argparse.ArgumentParser:
    """Options that all have; ``--out`` defaults to ``runs/NAME``."""
    made = argparse.ArgumentParser(description=doc.split("\n")[0])
    shown.option(made)
    made.add_argument("--data", default="rooms", help="'rooms' (default) or a Taskonomy copy")
    made.add_argument("--networks", default="", help="folder that vcmjax convert wrote")
    made.add_argument("--method", choices=CODED, default=Config.method)
    made.add_argument("--steps", type=int, default=Config.steps, help="per codec")
    made.add_argument("--seeds", type=int, default=1, help="number of training seeds")
    made.add_argument("--parallel", action="store_true", help="train all seeds at once")
    made.add_argument("--out", type=Path, default=Path("runs", name))
    return made


def chosen(given: argparse.Namespace) -> dict[str, Any]:
    """Fields of a `Config` from the options of `parser`."""
    if given.seeds < 1:
        raise UsageError(f"--seeds {given.seeds}: expected 1 or more.")
    plateau.check_steps(given.steps)
    return {
        "data": given.data,
        "networks": given.networks,
        "size": 256 if given.networks else Config.size,
        "method": given.method,
        "steps": given.steps,
        "seeds": tuple(range(given.seeds)),
    }


def _together(every: dict[str, TaskData], at: dict[str, TaskData]) -> tuple[Features, Features]:
    """Training and validation data of all tasks, image by image, for those in `at` as targets."""
    train_, val = {}, {}
    for name, each in every.items():
        if not isinstance(each.train, Features):
            raise UsageError(f"{name}: too many labels for memory; expected --target network.")
        train_[name] = each.train if name in at else each.train._replace(reference=None)
        val[name] = _validation(each)
    counts = {name: len(part.feature) for name, part in train_.items()}
    if len(set(counts.values())) > 1:
        raise UsageError(f"training images by task: {counts}; expected the same ones for all.")
    return _joined(train_), _joined(val)


def _validation(each: TaskData) -> Features:
    stride = each.network.network.output_stride
    return task_data.validation(each.splits["val"], stride, TARGET)


def _joined(parts: dict[str, Features]) -> Features:
    return Features(
        {name: part.feature for name, part in parts.items()},
        {name: part.label for name, part in parts.items()},
        {name: part.reference for name, part in parts.items() if part.reference is not None},
    )
