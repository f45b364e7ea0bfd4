"""Analysis and synthesis: between a feature and its latent, both conditioned on the rate level.

The same transforms serve every method (codebook, spatial hyperprior, control), so that methods
differ in their entropy model alone.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vcmjax.nets.layers import Film, ResidualBlock, upsample

LATENT_GAIN = 4.0
"""Latents start with a spread of some quantisation steps, so that they carry bits at once."""


class Analysis(nn.Module):
    """Feature (B, H, W, C) to latent (B, H/stride, W/stride, latent_channels)."""

    latent_channels: int
    stride: int
    hidden: int = 64

    @nn.compact
    def __call__(self, feature: jax.Array, level: jax.Array) -> jax.Array:
        """Transform; H and W are multiples of `stride`, a power of two."""
        x = Film()(nn.Conv(self.hidden, (3, 3))(feature), level)
        for _ in range(self.stride.bit_length() - 1):
            x = nn.Conv(self.hidden, (3, 3), strides=2)(nn.leaky_relu(x))
            x = Film()(x, level)
        x = ResidualBlock(normalise=False)(x)
        return LATENT_GAIN * nn.Conv(self.latent_channels, (3, 3))(nn.leaky_relu(x))


class Synthesis(nn.Module):
    """Latent (B, h, w, latent_channels) to feature (B, h·stride, w·stride, channels)."""

    channels: int
    stride: int
    hidden: int = 64

    @nn.compact
    def __call__(self, latent: jax.Array, level: jax.Array) -> jax.Array:
        """Transform back."""
        x = Film()(nn.Conv(self.hidden, (3, 3))(latent / LATENT_GAIN), level)
        x = ResidualBlock(normalise=False)(x)
        ups = self.stride.bit_length() - 1
        for up in range(ups):
            # Half the width at full size, where most of the time goes.
            width = self.hidden // 2 if up == ups - 1 else self.hidden
            x = upsample(nn.Conv(4 * width, (3, 3))(nn.leaky_relu(x)))
            x = Film()(x, level)
        return nn.Conv(self.channels, (3, 3))(nn.leaky_relu(x))


class VectorAnalysis(nn.Module):
    """Feature (B, C) to latent (B, latent_channels)."""

    latent_channels: int
    hidden: int = 128

    @nn.compact
    def __call__(self, feature: jax.Array, level: jax.Array) -> jax.Array:
        """Transform."""
        x = Film()(nn.Dense(self.hidden)(feature), level)
        x = Film()(nn.Dense(self.hidden)(nn.leaky_relu(x)), level)
        return LATENT_GAIN * nn.Dense(self.latent_channels)(nn.leaky_relu(x))


class VectorSynthesis(nn.Module):
    """Latent (B, latent_channels) to feature (B, channels)."""

    channels: int
    hidden: int = 128

    @nn.compact
    def __call__(self, latent: jax.Array, level: jax.Array) -> jax.Array:
        """Transform back."""
        x = Film()(nn.Dense(self.hidden)(latent / LATENT_GAIN), level)
        x = Film()(nn.Dense(self.hidden)(nn.leaky_relu(x)), level)
        return nn.Dense(self.channels)(nn.leaky_relu(x))


def pad_to_multiple(feature: jax.Array, stride: int) -> jax.Array:
    """Repeat the last row and column of (B, H, W, C) until `stride` divides H and W."""
    _, h, w, _ = feature.shape
    return jnp.pad(feature, ((0, 0), (0, -h % stride), (0, -w % stride), (0, 0)), mode="edge")
