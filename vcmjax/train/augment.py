"""Random views of a labelled image: flip, crop and scale, brightness and contrast."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class View(NamedTuple):
    """A random crop: where it starts and how large it is, in shares of the image."""

    top: jax.Array
    left: jax.Array
    share: jax.Array
    flip: jax.Array


def random_view(key: jax.Array, least: float = 0.55) -> View:
    """A view of at least `least` of each side, mirrored half the time."""
    keys = jax.random.split(key, 4)
    share = jax.random.uniform(keys[0], (), jnp.float32, least, 1.0)
    corner = jax.random.uniform(keys[1], (2,), jnp.float32) * (1.0 - share)
    return View(corner[0], corner[1], share, jax.random.bernoulli(keys[2]))


def _positions(view: View, size: int, start: jax.Array) -> jax.Array:
    return (start + view.share * (jnp.arange(size, dtype=jnp.float32) + 0.5) / size) * size - 0.5


def image_view(view: View, image: jax.Array) -> jax.Array:
    """The view of an image (H, W, C), resampled bilinearly to its own size; float32."""
    height, width, _ = image.shape
    image = jnp.where(view.flip, image[:, ::-1], image).astype(jnp.float32)
    for axis, size, start in ((0, height, view.top), (1, width, view.left)):
        at = jnp.clip(_positions(view, size, start), 0, size - 1)
        floor = jnp.floor(at)
        low = floor.astype(jnp.int32)
        high = jnp.minimum(low + 1, size - 1)
        part = jnp.expand_dims(at - floor, (1, 2) if axis == 0 else (0, 2))
        image = jnp.take(image, low, axis) * (1 - part) + jnp.take(image, high, axis) * part
    return image


def label_view(view: View, label: jax.Array) -> jax.Array:
    """The same view of a label map (H, W), by nearest neighbour."""
    height, width = label.shape
    label = jnp.where(view.flip, label[:, ::-1], label)
    for axis, size, start in ((0, height, view.top), (1, width, view.left)):
        at = jnp.clip(jnp.round(_positions(view, size, start)), 0, size - 1).astype(jnp.int32)
        label = jnp.take(label, at, axis)
    return label


def colour_jitter(key: jax.Array, image: jax.Array, strength: float = 0.25) -> jax.Array:
    """Random contrast, brightness and tint of an image (H, W, 3) on [0, 255]."""
    keys = jax.random.split(key, 3)
    contrast = jnp.exp(strength * jax.random.normal(keys[0], (), jnp.float32))
    shift = 255 * strength / 2 * jax.random.normal(keys[1], (), jnp.float32)
    tint = jnp.exp(strength / 3 * jax.random.normal(keys[2], (1, 1, 3), jnp.float32))
    mean = image.mean()
    return jnp.clip(((image - mean) * contrast + mean + shift) * tint, 0.0, 255.0)
