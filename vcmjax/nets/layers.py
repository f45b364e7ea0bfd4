"""Small layers used by more than one network."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class ResidualBlock(nn.Module):
    """x + conv(act(conv(act(norm(x))))), width kept. (B, H, W, C) to the same."""

    normalise: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the block."""
        width = x.shape[-1]
        h = nn.GroupNorm(num_groups=8)(x) if self.normalise else x
        h = nn.Conv(width, (3, 3))(nn.leaky_relu(h))
        # Starts near the identity, yet with a gradient for every parameter.
        small = nn.initializers.variance_scaling(0.02, "fan_in", "truncated_normal")
        return x + nn.Conv(width, (3, 3), kernel_init=small)(nn.leaky_relu(h))


class Film(nn.Module):
    """x·exp(gain(t)) + shift(t): features modulated by the rate level t (Perez et al. 2018).

    Where priorities of tasks matter too, t is a vector.
    """

    @nn.compact
    def __call__(self, x: jax.Array, level: jax.Array) -> jax.Array:
        """Modulate `x` (B, ..., C) by `level` (B,) or (B, k), each about [-1, 1]."""
        hidden = nn.tanh(nn.Dense(16)(level.reshape(len(level), -1)))
        # Small, not zero: every parameter has a gradient from the first step.
        out = nn.Dense(2 * x.shape[-1], kernel_init=nn.initializers.normal(0.05))(hidden)
        out = out.reshape(out.shape[0], *(1,) * (x.ndim - 2), -1)
        gain, shift = jnp.split(out, 2, axis=-1)
        return x * jnp.exp(gain) + shift


def init(module: nn.Module, key: jax.Array, *inputs: jax.Array) -> Any:
    """As `module.init`, without running the module: of `inputs` only shapes and types count."""
    return module.lazy_init(key, *jax.eval_shape(lambda: inputs))


def upsample(x: jax.Array) -> jax.Array:
    """Depth to space: (B, H, W, 4C) to (B, 2H, 2W, C) (Shi et al. 2016)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, 2, 2, c // 4)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, c // 4)


def space_to_depth(x: jax.Array, side: int) -> jax.Array:
    """Patches of side × side positions to channels: (B, H, W, C) to (B, H/s, W/s, s²·C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // side, side, w // side, side, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // side, w // side, side * side * c)


def quadratic(slope: jax.Array, level: jax.Array) -> jax.Array:
    """slope[0]·t + slope[1]·t² for each rate level t: (2, k), (B,) to (B, k)."""
    return level[:, None] * slope[:1] + jnp.square(level)[:, None] * slope[1:]
