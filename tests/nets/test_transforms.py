import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcmjax.nets import transforms
from vcmjax.nets.transforms import Analysis, Synthesis, VectorAnalysis, VectorSynthesis

PAIRS = {
    "stride 1": (Analysis(4, 1, 16), Synthesis(5, 1, 16), (8, 12, 5), (8, 12, 4)),
    "stride 4": (Analysis(4, 4, 16), Synthesis(5, 4, 16), (8, 12, 5), (2, 3, 4)),
    "stride 8": (Analysis(4, 8, 16), Synthesis(5, 8, 16), (8, 16, 5), (1, 2, 4)),
    "vector": (VectorAnalysis(4, 16), VectorSynthesis(5, 16), (5,), (4,)),
}
each_pair = pytest.mark.parametrize("name", PAIRS)


def passed(name, x, level):
    analysis, synthesis, *_ = PAIRS[name]
    params = jax.jit(analysis.init)(jax.random.key(1), x, level)
    latent = jax.jit(analysis.apply)(params, x, level)
    back = jax.jit(synthesis.init)(jax.random.key(2), latent, level)
    return params, back, latent, jax.jit(synthesis.apply)(back, latent, level)


@each_pair
def test_synthesis_restores_the_shape_that_analysis_shrinks_by_the_stride(name):
    *_, shape, latent_shape = PAIRS[name]
    x = jax.random.normal(jax.random.key(0), (3, *shape))
    _, _, latent, feature = passed(name, x, jnp.zeros(3))
    assert latent.shape == (3, *latent_shape)
    assert feature.shape == x.shape


@each_pair
def test_a_latent_of_a_normalised_feature_starts_some_steps_wide(name):
    x = jax.random.normal(jax.random.key(0), (8, *PAIRS[name][2]))
    _, _, latent, _ = passed(name, x, jnp.linspace(-1.0, 1.0, 8))
    assert 0.25 < float(jnp.std(latent)) < 20


@each_pair
def test_gradient_reaches_every_parameter_of_both_transforms(name):
    analysis, synthesis, shape, _ = PAIRS[name]
    x = jax.random.normal(jax.random.key(0), (4, *shape))
    level = jnp.linspace(-0.8, 0.6, 4)
    params, back, *_ = passed(name, x, level)

    def far(params, back):
        return jnp.square(synthesis.apply(back, analysis.apply(params, x, level), level) - x).sum()

    gradient = jax.jit(jax.grad(far, (0, 1)))(params, back)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.any(np.asarray(leaf) != 0), jax.tree_util.keystr(path)


@pytest.mark.parametrize(("h", "w", "stride"), [(13, 18, 4), (8, 8, 4), (1, 1, 8), (3, 5, 1)])
def test_padding_repeats_the_border_up_to_the_next_multiple(h, w, stride):
    x = np.random.default_rng(0).normal(size=(2, h, w, 3)).astype(np.float32)
    padded = transforms.pad_to_multiple(jnp.asarray(x), stride)
    high, wide = (-(-n // stride) * stride for n in (h, w))
    rows, columns = np.minimum(np.arange(high), h - 1), np.minimum(np.arange(wide), w - 1)
    np.testing.assert_array_equal(padded, x[:, rows][:, :, columns])
