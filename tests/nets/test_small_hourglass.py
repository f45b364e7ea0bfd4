import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcmjax.nets.hourglass import CHANNELS
from vcmjax.nets.small_hourglass import OUTPUT_STRIDE, STRIDE, hourglass
from vcmjax.tasks import ROOMS

KINDS = ("class_scene", "segment_semantic", "normal")
each_kind = pytest.mark.parametrize("name", KINDS)


@functools.cache
def made(name):
    network = hourglass(ROOMS[name])
    return network, jax.jit(lambda: network.init(jax.random.key(0), 32))()


def images(count=2, size=32):
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8))


@each_kind
def test_feature_and_output_have_the_stated_strides(name):
    network, params = made(name)
    feature = network.encode(params, images())
    assert feature.shape == (2, 32 // STRIDE, 32 // STRIDE, CHANNELS)
    output = network.decode(params, feature)
    task = ROOMS[name]
    side = 32 // OUTPUT_STRIDE
    assert output.shape == (
        (2, task.channels) if task.kind == "class" else (2, side, side, task.channels)
    )


@each_kind
def test_parameters_do_not_depend_on_the_image_size(name):
    network, params = made(name)
    other = jax.eval_shape(lambda: network.init(jax.random.key(0), 64))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda leaf: leaf.shape, other)
    assert np.all(np.isfinite(network.decode(params, network.encode(params, images(1, 64)))))


@each_kind
def test_gradient_reaches_every_parameter(name):
    network, params = made(name)

    def size(params):
        return jnp.square(network.decode(params, network.encode(params, images()))).sum()

    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(size))(params)):
        assert np.any(np.asarray(leaf) != 0), jax.tree_util.keystr(path)


def test_bytes_and_floats_of_the_same_pixels_give_the_same_feature():
    network, params = made("normal")
    image = images()
    np.testing.assert_array_equal(
        network.encode(params, image), network.encode(params, image.astype(jnp.float32))
    )
