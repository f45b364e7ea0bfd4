import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmjax.nets.layers import Film, ResidualBlock, quadratic, space_to_depth, upsample


@settings(max_examples=8)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))
def test_upsample_and_space_to_depth_are_inverses(height, width, channels):
    x = np.random.default_rng(0).normal(size=(2, 2 * height, 2 * width, channels))
    x = jnp.asarray(x, jnp.float32)
    np.testing.assert_array_equal(upsample(space_to_depth(x, 2)), x)
    y = jnp.asarray(np.random.default_rng(1).normal(size=(2, height, width, 4 * channels)))
    np.testing.assert_array_equal(space_to_depth(upsample(y), 2), y)


def test_space_to_depth_lists_each_patch_row_by_row():
    x = np.arange(2 * 6 * 3).reshape(1, 6, 6, 1)
    patches = np.asarray(space_to_depth(jnp.asarray(x), 3))
    for i in range(2):
        for j in range(2):
            expected = x[0, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3, 0].ravel()
            np.testing.assert_array_equal(patches[0, i, j], expected)


def test_film_is_one_scale_and_shift_per_channel_set_by_the_level_alone():
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
    level = jnp.asarray([-1.0, 0.6])
    params = Film().init(jax.random.key(1), x, level)
    shift = Film().apply(params, jnp.zeros_like(x), level)
    gain = Film().apply(params, jnp.ones_like(x), level) - shift
    assert np.all(np.asarray(gain) > 0)
    for field in (shift, gain):  # nothing depends on the position
        np.testing.assert_allclose(field, jnp.broadcast_to(field[:, :1, :1], x.shape), atol=1e-6)
    np.testing.assert_allclose(Film().apply(params, x, level), gain * x + shift, atol=1e-5)
    assert np.abs(shift[0] - shift[1]).max() > 0


def test_residual_block_starts_near_the_identity_with_a_gradient_for_every_parameter():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 16))
    for block in (ResidualBlock(), ResidualBlock(normalise=False)):
        params = block.init(jax.random.key(1), x)
        change = block.apply(params, x) - x
        assert 0 < float(jnp.std(change)) < 0.3
        gradient = jax.grad(lambda p, b=block: jnp.square(b.apply(p, x)).sum())(params)
        assert all(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(gradient))


@given(st.floats(-1, 1, width=32))
def test_quadratic_is_the_polynomial_without_constant(t):
    slope = np.array([[1.0, -2.0, 0.5], [3.0, 0.25, -1.0]], np.float32)
    got = quadratic(jnp.asarray(slope), jnp.full(1, t))
    expected = [np.polyval([b, a, 0], np.float64(t)) for a, b in slope.T]
    np.testing.assert_allclose(got[0], expected, rtol=1e-5, atol=1e-6)
