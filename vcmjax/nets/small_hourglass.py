"""A small hourglass per task: image to a bottleneck feature, feature to the task's output.

The shape follows the Taskonomy networks (image, 8-channel bottleneck, head), shrunk until it
trains in minutes on two CPU cores: 128×128×3 to 16×16×8.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vcmjax.nets.hourglass import CHANNELS, Hourglass
from vcmjax.nets.layers import ResidualBlock, space_to_depth, upsample
from vcmjax.tasks import Task

STRIDE = 8
"""Image pixels per feature position, along each side."""
OUTPUT_STRIDE = 4
"""Image pixels per position of a dense head's output."""


class Encoder(nn.Module):
    """Image (B, H, W, 3) in [0, 1] to feature (B, H/8, W/8, 8)."""

    width: int = 64

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Encode; H and W are multiples of `STRIDE`."""
        # Patches of 4×4 first: two strided convolutions here take 3.5 times as long on a CPU.
        x = space_to_depth((image - 0.5) * 4.0, 4)
        x = nn.leaky_relu(nn.Conv(48, (3, 3))(x))
        x = nn.Conv(self.width, (3, 3), strides=2)(x)
        for _ in range(3):
            x = ResidualBlock()(x)
        return nn.Conv(CHANNELS, (1, 1))(nn.GroupNorm(num_groups=8)(x))


class PixelHead(nn.Module):
    """Feature (B, h, w, 8) to output (B, 2h, 2w, channels), a quarter of the image's size."""

    channels: int
    width: int = 48

    @nn.compact
    def __call__(self, feature: jax.Array) -> jax.Array:
        """Decode to logits or regressed values."""
        x = nn.Conv(self.width, (3, 3))(feature)
        x = nn.leaky_relu(ResidualBlock(normalise=False)(x))
        x = nn.leaky_relu(upsample(nn.Conv(2 * self.width, (3, 3))(x)))
        x = nn.leaky_relu(nn.Conv(self.width // 2, (3, 3))(x))
        return nn.Conv(self.channels, (1, 1))(x)


class ClassHead(nn.Module):
    """Feature (B, h, w, 8) to logits (B, channels)."""

    channels: int
    width: int = 64

    @nn.compact
    def __call__(self, feature: jax.Array) -> jax.Array:
        """Decode to class logits."""
        x = nn.leaky_relu(nn.Conv(self.width, (3, 3))(feature))
        x = nn.leaky_relu(nn.Conv(self.width, (3, 3), strides=2)(x))
        pooled = jnp.concatenate([x.mean((1, 2)), x.max((1, 2))], axis=-1)
        return nn.Dense(self.channels)(nn.leaky_relu(nn.Dense(self.width)(pooled)))


def hourglass(task: Task) -> Hourglass:
    """The network of `task`, which takes images of any multiple of 8 pixels."""
    head = ClassHead(task.channels) if task.kind == "class" else PixelHead(task.channels)
    return Hourglass("small", Encoder(), head, STRIDE, OUTPUT_STRIDE)
