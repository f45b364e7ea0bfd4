"""The image itself as a feature: patches of pixels as channels, and nothing learned.

It lets a codec of several tasks send pixels, too: Φ and Ψ then learn to code them beside the rest.
"""

import flax.linen as nn
import jax

from vcmjax.nets.hourglass import Hourglass
from vcmjax.nets.layers import space_to_depth
from vcmjax.nets.pretrained import TaskNetwork
from vcmjax.tasks import Task

TASK = Task("autoencoding", "dense", 3)
"""Taskonomy's name; labels are pixels in [0, 1]."""


class Patches(nn.Module):
    """Image (B, H, W, 3) in [0, 1] to (B, H/stride, W/stride, 3·stride²)."""

    stride: int

    def __call__(self, image: jax.Array) -> jax.Array:
        """H and W are multiples of `stride`."""
        return space_to_depth(image, self.stride)


class Pixels(nn.Module):
    """Inverse of `Patches`."""

    stride: int

    def __call__(self, feature: jax.Array) -> jax.Array:
        """(B, h, w, 3·stride²) to (B, h·stride, w·stride, 3)."""
        b, h, w, _ = feature.shape
        s = self.stride
        x = feature.reshape(b, h, w, s, s, 3)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * s, w * s, 3)


def network(stride: int) -> TaskNetwork:
    """Pixels in patches of `stride` × `stride`, which gives as many positions as other features."""
    hourglass = Hourglass("pixels", Patches(stride), Pixels(stride), stride, 1)
    params: dict = {"encoder": {}, "head": {}}
    return TaskNetwork(TASK, hourglass, params, f"pixels{stride}", {})
