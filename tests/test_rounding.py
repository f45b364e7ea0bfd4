import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcmjax.rounding import add_noise, lower_bound, straight_through

# No subnormals: XLA flushes them to zero, NumPy does not.
FLOATS = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
BOUNDS = st.floats(-10, 10, width=32, allow_subnormal=False)


@given(FLOATS)
def test_straight_through_rounds_half_to_even_with_the_identitys_gradient(x):
    value, gradient = jax.value_and_grad(straight_through)(jnp.float32(x))
    assert value == np.rint(np.float32(x))
    assert gradient == 1


def test_noise_is_uniform_on_the_unit_bin_and_passes_the_gradient():
    x = jnp.linspace(-3.0, 3.0, 40_000)
    noise = np.asarray(add_noise(jax.random.key(0), x) - x)
    assert noise.min() >= -0.5 - 1e-6 and noise.max() <= 0.5 + 1e-6
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.var() == pytest.approx(1 / 12, rel=0.03)
    gradient = jax.grad(lambda x: add_noise(jax.random.key(0), x).sum())(x)
    np.testing.assert_array_equal(gradient, 1)


@given(FLOATS, BOUNDS, st.sampled_from([-1.0, 1.0]))
def test_lower_bound_is_max_and_lets_only_gradients_that_lead_back_pass(x, bound, direction):
    value, gradient = jax.value_and_grad(lambda x: direction * lower_bound(x, bound))(
        jnp.float32(x)
    )
    assert value == direction * max(np.float32(x), np.float32(bound))
    # Descent moves against the gradient: below the bound only a negative one raises x.
    assert gradient == (direction if x >= np.float32(bound) or direction < 0 else 0)
