"""What training a feature codec minimises: rate plus λ times the distortion of task or tasks."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vcmjax.codecs import refine
from vcmjax.codecs.feature import LEVELS, FeatureCodec
from vcmjax.nets import transfer
from vcmjax.tasks import Task
from vcmjax.train import losses
from vcmjax.train.loop import Problem, Runs

VALIDATION_LEVELS = (32, 96, 160, 224)
"""Rate levels of a conditioned model at which validation takes the R-D cost."""
FAVOUR = 8.0
PRIORITY = math.log(FAVOUR)
"""A codec that takes priorities is trained for weights of up to this ratio each way, in logarithms:
a task may matter up to 64 times as much as another."""
_REFERENCES = 1 << 30
"""Bytes of a head's outputs up to which they are kept beside the features."""
_BATCH = 16


class Features(NamedTuple):
    """Frozen features of one split, with what the distortion needs; leading axis images.

    Attributes:
      feature: (N, h, w, C), float32 or float16; of several tasks a dict.
      label: As in `vcmjax.tasks`, at the size the distortion is taken at; of several tasks a dict.
      reference: The head's output on `feature`, of several tasks a dict; None where it is to be
        computed when it is needed. See `with_reference`.
    """

    feature: Any
    label: Any
    reference: Any = None


class Goal(NamedTuple):
    """A task that a codec is trained for.

    Attributes:
      task: Form of outputs and labels.
      head: Frozen, feature (B, h, w, C) to output.
      target: Distortion, see `losses.distortion`.
      classes: Weights of the classes of a segmentation, from `losses.class_weights`.
      weight: Of its distortion among those of several tasks.
    """

    task: Task
    head: Callable[[jax.Array], jax.Array]
    target: losses.Target
    classes: np.ndarray | None = None
    weight: float = 1.0

    def distortion(
        self,
        received: jax.Array,
        feature: jax.Array,
        label: jax.Array,
        reference: jax.Array | None = None,
    ) -> jax.Array:
        """(B,), weighed: of the output on `received` from the label, or that on `feature`.

        `reference` is the latter, if it is known.
        """
        if reference is None:
            reference = jax.lax.stop_gradient(self.head(feature))
        output = self.head(received)
        return self.weight * losses.distortion(
            self.task, self.target, output, reference, label, self.classes
        )


def with_reference(data: Features, goal: Goal) -> Features:
    """`data` of one task with the head's outputs, if they are asked for and take up to 1 GiB.

    A step then need not run the head on what was sent; at full size they would fill a disk.
    """
    if goal.target == "labels":
        return data
    shape = jax.eval_shape(goal.head, jnp.zeros((1, *data.feature.shape[1:]), jnp.float32))
    if len(data.feature) * math.prod(shape.shape) * shape.dtype.itemsize > _REFERENCES:
        return data
    head = jax.jit(goal.head)
    parts = [
        np.asarray(head(jnp.asarray(data.feature[i : i + _BATCH], jnp.float32)))
        for i in range(0, len(data.feature), _BATCH)
    ]
    return data._replace(reference=np.concatenate(parts))


def refinement_target(goal: Goal | Mapping[str, Goal]) -> refine.Target:
    """What an encoder refines towards: the uncompressed outputs, which it always has.

    Args:
      goal: What the codec was trained for, by task where it has several; only heads, tasks and
        weights count.
    """

    def by_name(each: Any) -> Mapping[str, Any]:
        return {"": each} if isinstance(goal, Goal) else each

    goals: Mapping[str, Goal] = by_name(goal)

    def reference(features: Any) -> dict[str, jax.Array]:
        given = by_name(features)
        return {name: each.head(given[name]) for name, each in goals.items()}

    def distortion(received: Any, outputs: dict[str, jax.Array]) -> jax.Array:
        given = by_name(received)
        far = [
            each.weight * losses.to_network(each.task, each.head(given[name]), outputs[name])
            for name, each in goals.items()
        ]
        return jnp.stack(far).sum(0)

    return refine.Target(jax.jit(reference), distortion)


def on_common_scale(goal: Goal, feature: np.ndarray, label: np.ndarray) -> Goal:
    """`goal` so weighed that it is 1, on average, where nothing at all is sent.

    Nats per pixel, nats per image and absolute errors then add up: each counts as the share of
    what there is to lose. (MTC 2022 takes the loss relative to the Control Group's instead, which
    is close to 0, and so no unit, where the target is the network's own output.)

    Args:
      goal: Of one task.
      feature: (N, h, w, C), some examples.
      label: Theirs.
    """
    far = _unsent(goal._replace(weight=1.0), feature, label)
    return goal._replace(weight=goal.weight / max(far, 1e-9))


def hint(received: jax.Array, feature: jax.Array, scale: jax.Array) -> jax.Array:
    """(B,): squared error of a feature, about 1 where its mean is received.

    The few numbers of a class say little of how to give a whole feature back, and so does any task
    of one that was not sent: without a hint training stays for long where it began (FitNets, Romero
    et al. 2015). Pixels whose own feature is sent took more bits with it, and have none.

    Args:
      received: (B, h, w, C).
      feature: What was to be received, of the task itself, likewise.
      scale: (C,) deviation of each channel.
    """
    far = jnp.square((received - feature) / jnp.broadcast_to(scale, received.shape))
    return far.reshape(len(far), -1).mean(1)


def _unsent(goal: Goal, feature: Any, label: np.ndarray | None) -> float:
    """Distortion, weighed, where nothing at all of features (N, h, w, C) is sent."""
    mean = np.broadcast_to(np.asarray(feature, np.float32).mean(0), feature.shape)
    far = jax.jit(goal.distortion)(jnp.asarray(mean), jnp.asarray(feature, jnp.float32), label)
    return float(far.mean())


def anneal(
    kind: str, progress: jax.Array, lam: jax.Array, greatest: jax.Array
) -> tuple[jax.Array | float, jax.Array]:
    """Weight of the rate, and λ, at `progress` in [0, 1) through training for a `kind` of task.

    Full rate from the start empties the latent before the task has taught it anything, and what
    is empty stays so. Pixel tasks learn fast, and a rate that grows linearly over nine tenths of
    the steps serves them best. A class is learnt late: there every image starts from one λ, so
    great that rate is free, and reaches its own at half time; a linear rate left it at chance.
    """
    if kind == "class":
        own = jnp.minimum(progress / 0.5, 1.0)
        return 1.0, lam**own * (1000.0 * greatest) ** (1.0 - own)
    return 1.0 - _early(progress), lam


def _early(progress: jax.Array) -> jax.Array:
    """1 at the start of training, 0 for its last tenth, linear in between."""
    return jnp.maximum(1.0 - progress / 0.9, 0.0)


def _drawn(keys: jax.Array, run: Runs) -> tuple[jax.Array, jax.Array]:
    """λ of each image, its logarithm uniform over the run's range, and its key for the noise."""
    lam_keys, noise_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    span = jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32))(lam_keys)
    least, greatest = _ends(run)
    return least * (greatest / least) ** span, noise_keys


def _ends(run: Runs) -> jax.Array:
    """Least and greatest λ."""
    return jnp.asarray(run.lams, jnp.float32)


def _weights(keys: jax.Array, tasks: int) -> jax.Array:
    """Weights (B, tasks) of the tasks of each image, of mean one, for a codec that takes any."""
    draw = lambda key: jax.random.uniform(jax.random.fold_in(key, 1), (tasks,), jnp.float32)  # noqa: E731
    own = jax.vmap(draw)(keys)
    return tasks * jax.nn.softmax((2 * own - 1) * PRIORITY, axis=1)


def _arrays(batch: Features) -> Features:
    return jax.tree.map(jnp.asarray, batch._replace(feature=_float(batch.feature)))


def _of(name: str, data: Features) -> Features:
    """What is known of one of several tasks; "" names the only one."""
    if not name:
        return data
    reference = (data.reference or {}).get(name)
    return Features(data.feature[name], data.label[name], reference)


def _float(features: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), features)


def problem(
    codec: FeatureCodec, goal: Goal | Mapping[str, Goal], pixels: int, sample: Any
) -> Problem:
    """Training `codec` through frozen heads: L = bpp + λ·Σ distortion (CVR eq. 12).

    The way there differs from the end, see `anneal` and `hint`. A codec that takes priorities
    sees others for each image, and is validated where all are equal.

    Args:
      codec: What to train.
      goal: What for; by task where the codec has several.
      pixels: Image pixels, height × width, by which bits are divided.
      sample: (N, h, w, C) features for the codec's normalisation; by task where it has several.
    """
    goals: Mapping[str, Goal] = codec.transfer.by_name(goal)
    samples = codec.transfer.by_name(sample)
    kind = "class" if all(each.task.kind == "class" for each in goals.values()) else "pixels"

    def added(of_each: list[jax.Array], weights: jax.Array | None) -> jax.Array:
        each = jnp.stack(of_each, axis=1)
        return (each if weights is None else weights * each).sum(1)

    def distortion(received: Any, sent: Features, weights: jax.Array | None = None) -> jax.Array:
        back = codec.transfer.by_name(received)
        far = [g.distortion(back[name], *_of(name, sent)) for name, g in goals.items()]
        return added(far, weights)

    hints = {  # towards the network: a sample has no labels
        name: _unsent(each._replace(target="network"), samples[name][:64], None)
        for name, each in goals.items()
        if each.task.kind == "class" or name not in codec.transfer.sent
    }

    def hinted(received: Any, sent: Features, fixed: Any, weights: jax.Array | None) -> jax.Array:
        back, fixed = codec.transfer.by_name(received), codec.transfer.by_name(fixed)
        none = jnp.zeros(transfer.count(received), jnp.float32)
        near = [
            hints[name] * hint(back[name], _of(name, sent).feature, fixed[name]["scale"])
            if name in hints
            else none
            for name in goals
        ]
        return added(near, weights)

    def lagrangian(bits: jax.Array, lam: jax.Array, far: jax.Array) -> jax.Array:
        if not codec.prior:
            return far
        # Over √λ, so that neither end of the range of λ drowns the other.
        return (bits / pixels + lam * far) / jnp.sqrt(lam)

    def loss(params, keys, run: Runs, batch: Features, progress):
        sent = _arrays(batch)
        lam, noise_keys = _drawn(keys, run)
        weights = _weights(keys, len(goals)) if codec.prioritised else None
        priority = None if weights is None else jnp.log(weights)
        output = codec.apply(params, noise_keys, sent.feature, lam, priority)
        far = distortion(output.feature, sent, weights)
        near = _early(progress) * hinted(output.feature, sent, params["statistics"], weights)
        weight, annealed = anneal(kind, progress, lam, _ends(run)[1])
        total = lagrangian(weight * output.bits, annealed, far + near).mean()
        return total, jnp.stack([total, output.bits.mean() / pixels, far.mean()])

    def cost(params, run: Runs, sent: Features, level: jax.Array):
        levels = jnp.full(transfer.count(sent.feature), level, jnp.int32)
        if codec.prior:
            output = codec.quantise(params, sent.feature, levels).output
        else:
            output = codec.apply(params, jax.random.key(0), sent.feature, codec.lams[1])
        least, greatest = _ends(run)
        lam = least * (greatest / least) ** (level.astype(jnp.float32) / (LEVELS - 1))
        return lagrangian(output.bits, lam, distortion(output.feature, sent))

    def validate(params, run: Runs, batch: Features):
        sent = _arrays(batch)
        conditioned = codec.prior and not math.isclose(*codec.lams)
        levels = VALIDATION_LEVELS if conditioned else (LEVELS - 1,)
        each = jax.vmap(functools.partial(cost, params, run, sent))(jnp.array(levels, jnp.int32))
        return each.mean(axis=0)

    statistics = codec.statistics(_float(sample))

    def init(key: jax.Array) -> dict:
        return codec.init(key) | {"statistics": statistics}

    return Problem(init, loss, validate, ("loss", "bpp", "distortion"))


def branch(codec: FeatureCodec, params: dict, name: str, goal: Goal) -> Problem:
    """Training the branch of Ψ for one more task, everything else frozen (CVR §3.3, stage 2).

    What is sent does not change by a bit, as neither Φ nor the entropy model does.

    Args:
      codec: With `name` among its outputs.
      params: Trained for the other tasks, their ``statistics`` with those of the task's feature.
      name: Of the task.
      goal: What for.

    Returns:
      A problem whose parameters are the branch's; `with_branch` puts them in their place.
    """

    def received(own, keys, sent: Features, lam):
        return codec.apply(with_branch(params, name, own), keys, sent.feature, lam).feature[name]

    def loss(own, keys, run: Runs, batch: Features, progress):
        sent = _arrays(batch)
        lam, noise_keys = _drawn(keys, run)
        back, wanted = received(own, noise_keys, sent, lam), _of(name, sent)
        far = goal.distortion(back, *wanted).mean()
        near = hint(back, wanted.feature, params["statistics"][name]["scale"]).mean()
        return far + _early(progress) * near, far[None]

    def validate(own, run: Runs, batch: Features):
        sent = _arrays(batch)
        levels = VALIDATION_LEVELS if codec.levels > 1 else (0,)
        costs = []
        for level in levels:
            lam = jnp.full(transfer.count(sent.feature), codec.lam_of(level), jnp.float32)
            back = received(own, jax.random.key(0), sent, lam)
            costs.append(goal.distortion(back, *_of(name, sent)))
        return jnp.mean(jnp.stack(costs), axis=0)

    def init(key: jax.Array) -> dict:
        return codec.init(key)["synthesis"][name]

    return Problem(init, loss, validate, ("distortion",))


def with_branch(params: dict, name: str, own: Any) -> dict:
    """`params` with the branch `own` of Ψ for the task `name`."""
    return params | {"synthesis": params["synthesis"] | {name: own}}
