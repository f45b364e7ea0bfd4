"""A task network split at any of its layers: what the device computes, and what the server does.

Both halves are the network's own forward pass. In front of the split the layer's output is taken
from it; behind it, that output is replaced, so that all before it is dead code, which the compiler
drops. No network is written twice, and one of any Flax modules can be split.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vcmjax.nets.hourglass import Hourglass


class Layer(NamedTuple):
    """A layer of a network for images of one size, and the two halves around its output.

    Attributes:
      name: ``encoder/NAME`` or ``head/NAME``, NAME being that of the Flax module.
      shape: Of its output, without the axis of images.
      front: uint8 images (B, H, W, 3) to its output (B, *shape), float32.
      back: Its output to the network's.
    """

    name: str
    shape: tuple[int, ...]
    front: Callable[[jax.Array], jax.Array]
    back: Callable[[jax.Array], jax.Array]


def layers(network: Hourglass, params: Any, size: tuple[int, int]) -> list[Layer]:
    """The direct submodules of both halves in the order they run.

    Args:
      network: Any.
      params: Its parameters.
      size: (H, W) of the images.
    """
    blank = jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8)
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str, output: jax.Array) -> jax.Array:
        found[name] = output.shape[1:]
        return output

    jax.eval_shape(lambda image: _run(network, params, image, note), blank)
    return [_layer(network, params, size, name, shape) for name, shape in found.items()]


def _layer(network, params, size, name, shape) -> Layer:
    def front(images: jax.Array) -> jax.Array:
        seen: list[jax.Array] = []

        def take(at: str, output: jax.Array) -> jax.Array:
            if at == name:
                seen.append(output)
            return output

        _run(network, params, images, take)
        return seen[0].astype(jnp.float32)

    def back(feature: jax.Array) -> jax.Array:
        blank = jnp.zeros((len(feature), *size, 3), jnp.uint8)
        replace = lambda at, output: feature.astype(output.dtype) if at == name else output  # noqa: E731
        return _run(network, params, blank, replace)

    return Layer(name, shape, jax.jit(front), jax.jit(back))


def _run(
    network: Hourglass, params: Any, images: jax.Array, visit: Callable[[str, jax.Array], jax.Array]
) -> jax.Array:
    """The forward pass, each direct submodule's output put through `visit`."""

    def half(name: str) -> Any:
        def intercept(call, args, kwargs, context):
            output = call(*args, **kwargs)
            direct = context.method_name == "__call__" and len(context.module.path) == 1
            return visit(f"{name}/{context.module.name}", output) if direct else output

        return nn.intercept_methods(intercept)

    with half("encoder"):
        feature = network.encode(params, images)
    with half("head"):
        return network.decode(params, feature)
