import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcmjax.errors import UsageError
from vcmjax.nets import hourglass
from vcmjax.tasks import Task

DECODED = sorted(name for name, head in hourglass.RELEASED.items() if head.kind)


@pytest.mark.parametrize("name", DECODED)
def test_every_released_decoder_maps_a_feature_to_its_tasks_output(name):
    network, head = hourglass.released(name), hourglass.RELEASED[name]
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), 256))
    images = jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.uint8)
    feature = jax.eval_shape(network.encode, params, images)
    output = jax.eval_shape(network.decode, params, feature)
    assert feature.shape == (2, 16, 16, 8)
    assert output.shape == (
        (2, head.channels) if head.kind == "mlp" else (2, 256, 256, head.channels)
    )


@pytest.mark.parametrize("name", [*sorted(set(hourglass.RELEASED) - set(DECODED)), "vision"])
def test_a_network_without_a_released_decoder_is_refused_by_name(name):
    with pytest.raises(UsageError, match=f"'{name}'; expected one of autoencoding, class_object"):
        hourglass.released(name)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task("class_scene", "class", 10), "63 outputs; expected the 10"),
        (Task("depth_zbuffer", "dense", 1), "logarithm of depth"),
        (Task("room_layout", "dense", 9), "no released Taskonomy decoder"),
    ],
)
def test_a_task_whose_labels_the_release_does_not_predict_is_refused(task, message):
    with pytest.raises(UsageError, match=message):
        hourglass.hourglass(task)


def test_a_class_head_refuses_features_of_another_image_size():
    network = hourglass.released("class_scene")
    with pytest.raises(UsageError, match=r"\(8, 8, 8\); expected \(16, 16, 8\).*--size 256"):
        jax.eval_shape(lambda: network.head.init(jax.random.key(0), jnp.zeros((1, 8, 8, 8))))


def test_outputs_are_in_the_labels_units():
    # At the ends of tanh: reshading v/255; curvature code c as (c − 127)/127, the release having
    # trained on (c − mean)/deviation with the means and deviations below (Taskonomy, task bank).
    ends = jnp.array([-1.0, 1.0])
    for name, code in (
        ("reshading", ends * 127.5 + 127.5),
        ("curvature", ends[:, None] * np.array([31.922, 21.658]) + np.array([123.572, 120.1])),
    ):
        network = hourglass.released(name)
        got = ends[:, None] * np.asarray(network.scale) + np.asarray(network.shift)
        wanted = code[:, None] / 255 if name == "reshading" else (code - 127) / 127
        np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (3, 5)])
def test_deconvolution_is_the_transposed_convolution_cut_to_twice_the_size(shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *shape, 3)).astype(np.float32)
    module = hourglass.Deconv(5)
    kernel = rng.normal(size=(3, 3, 3, 5)).astype(np.float32)
    bias = rng.normal(size=5).astype(np.float32)
    # By definition: y[2i + k] += x[i]·w[k].
    wanted = np.zeros((2, 2 * shape[0] + 1, 2 * shape[1] + 1, 5))
    for i in range(shape[0]):
        for j in range(shape[1]):
            patch = np.einsum("bc,klcd->bkld", x[:, i, j], kernel)
            wanted[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += patch
    got = module.apply({"params": {"kernel": kernel, "bias": bias}}, x)
    np.testing.assert_allclose(got, wanted[:, :-1, :-1] + bias, atol=1e-5)


def test_bfloat16_gives_float32_within_a_few_parts_in_a_hundred():
    network = hourglass.released("segment_semantic")
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), 32))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: (
            rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(np.float32)
            if len(leaf.shape) > 1
            else np.zeros(leaf.shape, np.float32)
        ),
        shapes,
    )
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)

    def both(dtype):
        feature = network.encode(params, image, dtype)
        return feature, network.decode(params, feature, dtype)

    exact, rounded = (jax.jit(both, static_argnums=0)(d) for d in (None, jnp.bfloat16))
    for one, other in zip(exact, rounded, strict=True):
        assert other.dtype == jnp.float32
        error = np.sqrt(np.mean(np.square(one - other)) / np.mean(np.square(one)))
        assert 1e-4 < error < 0.03
