import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcmjax.entropy import factorized
from vcmjax.entropy.gaussian import LN2

CHANNELS = 3
ONE = (jnp.ones(CHANNELS), jnp.zeros(CHANNELS))


def disturbed(seed, size=0.7):
    """Parameters as training might leave them: sharper, skewed, of several modes."""
    params = factorized.init(jax.random.key(seed), CHANNELS)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    return jax.tree.unflatten(
        tree,
        [x + size * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)],
    )


def sampled_affines():
    gain = jnp.asarray([0.3, 1.0, 8.0])
    return {"none": ONE, "affine": (gain, jnp.asarray([-20.0, 0.4, 7.0]))}


@pytest.mark.parametrize("affine", sampled_affines())
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_masses_over_the_integers_sum_to_one(seed, affine):
    q = jnp.arange(-4000.0, 4001.0)[:, None] * jnp.ones(CHANNELS)
    bits = factorized.bits(disturbed(seed), q, sampled_affines()[affine])
    mass = 2.0 ** -np.asarray(bits, np.float64)
    np.testing.assert_allclose(mass.sum(0), 1, atol=2e-3)
    assert np.all(np.asarray(bits) >= 0)


@given(st.floats(-1e5, 1e5, width=32), st.integers(0, 5), st.floats(-5, 5, width=32))
def test_bits_and_gradients_are_finite_everywhere(x, seed, log_gain):
    params = disturbed(seed)

    def cost(params, q, log_gain):
        return factorized.bits(params, q, (jnp.exp(log_gain), jnp.zeros(CHANNELS))).sum()

    q, log_gain = jnp.full(CHANNELS, x), jnp.full(CHANNELS, log_gain)
    value, gradient = jax.value_and_grad(cost, (0, 1, 2))(params, q, log_gain)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((value, gradient)))


def test_without_hidden_effect_the_density_is_a_logistic_in_closed_form():
    # One chain of widths 1-3-3-3-1 with factors 0 is affine: sigmoid(a·x + b) for some a, b.
    params = factorized.init(jax.random.key(0), CHANNELS)
    params = {
        k: jnp.zeros_like(v) if "factor" in k or "bias" in k else v for k, v in params.items()
    }
    slope = 1.0
    for layer, width in enumerate((1, 3, 3, 3)):
        slope *= width * float(jax.nn.softplus(params[f"matrix_{layer}"][0, 0, 0]))
    q = np.arange(-30, 31)
    upper, lower = (1 / (1 + np.exp(-slope * (q + half))) for half in (0.5, -0.5))
    got = factorized.bits(params, jnp.asarray(q, jnp.float32)[:, None] * jnp.ones(CHANNELS), ONE)
    for channel in range(CHANNELS):
        np.testing.assert_allclose(got[:, channel], -np.log2(upper - lower), rtol=1e-4, atol=1e-4)


def test_gain_and_shift_move_the_density_as_a_change_of_variable_does():
    # With gain 1 and an integer shift, the masses are those of the neighbours.
    params, q = disturbed(3), jnp.arange(-40.0, 41.0)[:, None] * jnp.ones(CHANNELS)
    shifted = factorized.bits(params, q, (jnp.ones(CHANNELS), jnp.full(CHANNELS, 5.0)))
    np.testing.assert_allclose(
        shifted[:-5], factorized.bits(params, q, ONE)[5:], rtol=1e-3, atol=1e-3
    )


def test_a_start_ten_steps_wide_costs_about_the_entropy_of_a_logistic_that_wide():
    params = factorized.init(jax.random.key(0), CHANNELS, init_scale=10.0)
    q = jnp.arange(-400.0, 401.0)[:, None] * jnp.ones(CHANNELS)
    bits = np.asarray(factorized.bits(params, q, ONE), np.float64)
    entropy = (2.0**-bits * bits).sum(0)
    np.testing.assert_allclose(entropy, (np.log(10.0) + 2) / LN2, atol=0.2)
