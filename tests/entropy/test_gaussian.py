import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from vcmjax.entropy import gaussian
from vcmjax.entropy.gaussian import LN2, SCALES


def reference(q, scale):
    """Bits in float64, from SciPy's logarithms of the normal CDF."""
    distance = np.abs(np.asarray(q, np.float64))
    upper = scipy.special.log_ndtr((0.5 - distance) / scale)
    lower = scipy.special.log_ndtr((-0.5 - distance) / scale)
    return -(upper + np.log1p(-np.exp(lower - upper))) / LN2


@pytest.mark.parametrize("scale", SCALES[[0, 20, 40, 63]])
def test_bits_are_the_log_of_scipys_cdf_differences(scale):
    q = np.arange(-3, 4) * max(1, round(scale))
    mass = scipy.stats.norm.cdf((q + 0.5) / scale) - scipy.stats.norm.cdf((q - 0.5) / scale)
    near = mass > 1e-12  # differences of CDFs lose all their digits beyond
    got = gaussian.bits(jnp.asarray(q, jnp.float32), jnp.float32(scale))
    np.testing.assert_allclose(np.asarray(got)[near], -np.log2(mass[near]), rtol=1e-4, atol=1e-4)


@given(st.floats(-3e4, 3e4, width=32), st.sampled_from(SCALES.tolist()))
def test_bits_are_right_far_into_the_tails(q, scale):
    got = float(gaussian.bits(jnp.float32(q), jnp.float32(scale)))
    assert got == pytest.approx(float(reference(q, scale)), rel=1e-3, abs=1e-4)


@given(st.floats(-1e5, 1e5, width=32), st.floats(-4, 6, width=32))
def test_gradients_are_finite_everywhere_and_lead_to_the_mean(q, log_scale):
    def cost(q, log_scale):
        return gaussian.bits(q, gaussian.bounded_scale(log_scale))

    gradient = jax.grad(cost, (0, 1))(jnp.float32(q), jnp.float32(log_scale))
    assert np.all(np.isfinite(gradient))
    assert float(gradient[0]) * np.sign(q) >= -1e-5


def test_masses_over_the_integers_sum_to_one_for_every_scale():
    q = jnp.arange(-600.0, 601.0)[:, None]
    mass = 2.0 ** -np.asarray(gaussian.bits(q, jnp.asarray(SCALES, jnp.float32)[None]), np.float64)
    np.testing.assert_allclose(mass.sum(0), 1, atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 4.0, 16.0])
def test_noise_costs_what_rounding_costs_where_the_density_is_smooth(scale):
    # z + U(-1/2, 1/2) has the density 2^-bits, so its expected bits are an integral of bits alone.
    x = np.linspace(-8 * scale - 1, 8 * scale + 1, 40_001)
    mass = 2.0 ** -reference(x, scale)
    bits = np.asarray(gaussian.bits(jnp.asarray(x, jnp.float32), jnp.float32(scale)))
    noisy = scipy.integrate.trapezoid(mass * bits, x)
    q = np.arange(-200, 201)
    rounded = np.sum(
        2.0 ** -reference(q, scale)
        * np.asarray(gaussian.bits(jnp.asarray(q, jnp.float32), jnp.float32(scale)))
    )
    assert noisy == pytest.approx(rounded, abs=0.01)
    assert noisy == pytest.approx(
        scipy.stats.norm(0, np.hypot(scale, 12**-0.5)).entropy() / LN2, abs=0.01
    )


@given(st.floats(-1e3, 1e3, width=32))
def test_bounded_scale_stays_within_the_grid_with_a_gradient_back_into_it(log_scale):
    value = float(gaussian.bounded_scale(jnp.float32(log_scale)))
    assert SCALES[0] * (1 - 1e-5) <= value <= SCALES[-1] * (1 + 1e-5)
    wanted = {True: SCALES[-1] * 1.5, False: SCALES[0] / 1.5}[log_scale < 1]
    distance = lambda x: jnp.square(jnp.log(gaussian.bounded_scale(x)) - np.log(wanted).item())  # noqa: E731
    if not np.log(SCALES[0]) < log_scale < np.log(SCALES[-1]):
        assert float(jax.grad(distance)(jnp.float32(log_scale))) * np.sign(log_scale) > 0


@given(st.floats(2**-7, 1000))
def test_thresholds_lead_to_the_table_nearest_in_logarithm(scale):
    distance = np.abs(np.log(SCALES) - np.log(scale))
    index = np.searchsorted(gaussian.LOG_THRESHOLDS, np.log(scale))
    assert distance[index] <= distance.min() + 1e-9
