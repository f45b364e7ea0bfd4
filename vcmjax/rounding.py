"""Ways to round while a gradient still passes."""

import jax
import jax.numpy as jnp


def straight_through(x: jax.Array) -> jax.Array:
    """Round half to even; the gradient is that of the identity.

    Source: Bengio et al. 2013, arXiv:1308.3432; Theis et al. 2017, arXiv:1703.00395.
    """
    return x + jax.lax.stop_gradient(jnp.round(x) - x)


def add_noise(key: jax.Array, x: jax.Array) -> jax.Array:
    """`x` plus noise uniform on [-1/2, 1/2): the differentiable stand-in for rounding.

    Source: Ballé et al. 2017, arXiv:1611.01704.
    """
    return x + jax.random.uniform(key, x.shape, x.dtype, -0.5, 0.5)


def lower_bound(x: jax.Array, bound: float) -> jax.Array:
    """max(x, bound), whose gradient still passes below the bound when it would raise `x`.

    Source: Ballé et al. 2018, arXiv:1802.01436, appendix 6.1 (as in tensorflow-compression).
    """
    return _lower_bound(x, bound)


@jax.custom_vjp
def _lower_bound(x, bound):
    return jnp.maximum(x, bound)


def _lower_bound_forward(x, bound):
    return jnp.maximum(x, bound), (x, bound)


def _lower_bound_backward(saved, gradient):
    x, bound = saved
    passes = (x >= bound) | (gradient < 0)
    return jnp.where(passes, gradient, 0.0), None


_lower_bound.defvjp(_lower_bound_forward, _lower_bound_backward)
