"""Both halves of a split network, put together, are the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcmjax.nets import hourglass, pretrained
from vcmjax.nets.split import layers
from vcmjax.tasks import ROOMS

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), np.uint8)


@pytest.mark.parametrize("task", ["class_scene", "segment_semantic"])
def test_front_and_back_of_every_layer_are_the_network(task):
    network = pretrained.shipped(ROOMS[task])
    whole = network.network
    expected = whole.decode(network.params, whole.encode(network.params, IMAGES))
    split = layers(whole, network.params, IMAGES.shape[1:3])
    assert len(split) >= 10 and split[0].name == "encoder/Conv_0"
    for layer in split:
        feature = layer.front(IMAGES)
        assert feature.shape == (2, *layer.shape) and feature.dtype == jnp.float32
        np.testing.assert_allclose(layer.back(feature), expected, rtol=1e-4, atol=1e-4)


def test_the_bottleneck_is_the_feature():
    network = pretrained.shipped(ROOMS["normal"])
    (bottleneck,) = [
        layer
        for layer in layers(network.network, network.params, IMAGES.shape[1:3])
        if layer.name == "encoder/Conv_2"
    ]
    expected = network.network.encode(network.params, IMAGES)
    np.testing.assert_allclose(bottleneck.front(IMAGES), expected, rtol=1e-5, atol=1e-5)


def test_what_lies_before_the_split_is_not_computed():
    network = pretrained.shipped(ROOMS["class_scene"])
    split = {x.name: x for x in layers(network.network, network.params, (64, 48))}
    cost = []
    for name in ("encoder/Conv_0", "encoder/Conv_2", "head/Conv_1"):
        feature = jnp.zeros((2, *split[name].shape))
        # Optimised, as for users: the tests compile without.
        compiled = (
            split[name]
            .back.lower(feature)
            .compile(
                {"xla_backend_optimization_level": 2, "xla_llvm_disable_expensive_passes": False}
            )
        )
        cost.append(compiled.cost_analysis()["flops"])
    assert cost[0] > 5 * cost[1] > 5 * cost[2]


def test_a_released_network_splits_too():
    network = hourglass.released("class_scene")
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), hourglass.SIZE))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    split = layers(network, params, (hourglass.SIZE, hourglass.SIZE))
    names = [layer.name for layer in split]
    assert names[0] == "encoder/conv1" and "encoder/compress1" in names and names[-1] == "head/fc2"
    assert dict(zip(names, split, strict=True))["encoder/compress1"].shape == (16, 16, 8)
