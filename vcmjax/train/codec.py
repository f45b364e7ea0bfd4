"""What training a feature codec minimises: rate plus λ times the distortion of the task."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vcmjax.codecs.feature import LEVELS, FeatureCodec
from vcmjax.tasks import Task
from vcmjax.train import losses
from vcmjax.train.loop import Problem, Runs

VALIDATION_LEVELS = (32, 96, 160, 224)
"""Rate levels of a conditioned model at which validation takes the R-D cost."""


class Features(NamedTuple):
    """Frozen features of one split, with what the distortion needs; leading axis images.

    Attributes:
      feature: (N, h, w, C), float32 or float16.
      label: As in `vcmjax.tasks`, at the size the distortion is taken at.
    """

    feature: jax.Array | np.ndarray
    label: jax.Array | np.ndarray


def anneal(
    task: Task, progress: jax.Array, lam: jax.Array, greatest: jax.Array
) -> tuple[jax.Array | float, jax.Array]:
    """Weight of the rate, and λ, at `progress` in [0, 1) through training.

    Full rate from the start empties the latent before the task has taught it anything, and what
    is empty stays so. Pixel tasks learn fast, and a rate that grows linearly over nine tenths of
    the steps serves them best. A class is learnt late: there every image starts from one λ, so
    great that rate is free, and reaches its own at half time; a linear rate left it at chance.
    """
    if task.kind == "class":
        own = jnp.minimum(progress / 0.5, 1.0)
        return 1.0, lam**own * (1000.0 * greatest) ** (1.0 - own)
    return jnp.minimum(progress / 0.9, 1.0), lam


def problem(
    codec: FeatureCodec,
    task: Task,
    head: Callable[[jax.Array], jax.Array],
    target: losses.Target,
    pixels: int,
    sample: jax.Array | np.ndarray,
    weights: np.ndarray | None = None,
) -> Problem:
    """Training `codec` through the frozen `head`: L = bpp + λ·distortion (CVR eq. 12).

    Args:
      codec: What to train.
      task: Form of outputs and labels.
      head: Frozen, feature (B, h, w, C) to output.
      target: Distortion, see `losses.distortion`.
      pixels: Image pixels, height × width, by which bits are divided.
      sample: (N, h, w, C) features for the codec's normalisation.
      weights: Of the classes of a segmentation, from `losses.class_weights`.
    """

    def distortion(output: jax.Array, feature: jax.Array, label: jax.Array) -> jax.Array:
        # Cheaper than it looks, and never stored: at full size it would fill a disk.
        reference = jax.lax.stop_gradient(head(feature))
        return losses.distortion(task, target, head(output), reference, label, weights)

    def lagrangian(bits: jax.Array, lam: jax.Array, far: jax.Array) -> jax.Array:
        if not codec.prior:
            return far
        # Over √λ, so that neither end of the range of λ drowns the other.
        return (bits / pixels + lam * far) / jnp.sqrt(lam)

    def loss(params, keys, run: Runs, batch: Features, progress):
        feature, label = jnp.asarray(batch.feature, jnp.float32), jnp.asarray(batch.label)
        lam_keys, noise_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        span = jax.vmap(jax.random.uniform)(lam_keys)
        lam = run.lams[0] * (run.lams[1] / run.lams[0]) ** span
        output = codec.apply(params, noise_keys, feature, lam)
        far = distortion(output.feature, feature, label)
        weight, annealed = anneal(task, progress, lam, run.lams[1])
        total = lagrangian(weight * output.bits, annealed, far).mean()
        return total, jnp.stack([total, output.bits.mean() / pixels, far.mean()])

    def cost(params, run: Runs, feature: jax.Array, label: jax.Array, level: int):
        levels = jnp.full(len(feature), level, jnp.int32)
        if codec.prior:
            output = codec.quantise(params, feature, levels).output
        else:
            lam = jnp.asarray(codec.lams[1])
            output = codec.apply(params, jax.random.key(0), feature, lam)
        lam = run.lams[0] * (run.lams[1] / run.lams[0]) ** (level / (LEVELS - 1))
        return lagrangian(output.bits, lam, distortion(output.feature, feature, label))

    def validate(params, run: Runs, batch: Features):
        feature, label = jnp.asarray(batch.feature, jnp.float32), jnp.asarray(batch.label)
        conditioned = codec.prior and not math.isclose(*codec.lams)
        levels = VALIDATION_LEVELS if conditioned else (LEVELS - 1,)
        costs = [cost(params, run, feature, label, level) for level in levels]
        return jnp.mean(jnp.stack(costs), axis=0)

    statistics = codec.statistics(jnp.asarray(sample, jnp.float32))

    def init(key: jax.Array) -> dict:
        return codec.init(key) | {"statistics": statistics}

    return Problem(init, loss, validate, ("loss", "bpp", "distortion"))
