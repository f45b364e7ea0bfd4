"""The fully factorized density of Ballé et al. 2018: one learned CDF per channel.

With conditioning, the density of a channel is shifted and scaled by the caller (`affine`), so
that one model serves every rate.
"""

import itertools

import jax
import jax.numpy as jnp

from vcmjax.entropy.gaussian import LN2

_WIDTHS = (1, 3, 3, 3, 1)


def init(key: jax.Array, channels: int, init_scale: float = 10.0) -> dict:
    """Parameters of `channels` densities, each about `init_scale` steps wide."""
    params = {}
    scale = init_scale ** (1 / (len(_WIDTHS) - 1))
    for layer, (n_in, n_out) in enumerate(itertools.pairwise(_WIDTHS)):
        key, sub = jax.random.split(key)
        start = jnp.log(jnp.expm1(jnp.float32(1 / scale / n_out)))
        params[f"matrix_{layer}"] = jnp.full((channels, n_out, n_in), start, jnp.float32)
        params[f"bias_{layer}"] = jax.random.uniform(
            sub, (channels, n_out), jnp.float32, minval=-0.5, maxval=0.5
        )
        if layer < len(_WIDTHS) - 2:
            # Not zero, where the gradient of the matrices' sharpness would start without effect.
            params[f"factor_{layer}"] = jnp.full((channels, n_out), 0.01, jnp.float32)
    return params


def _logits(params: dict, x: jax.Array) -> jax.Array:
    """Logit of each channel's CDF at `x` (..., channels); monotone in `x`."""
    h = x[..., None]
    for layer in range(len(_WIDTHS) - 1):
        matrix = jax.nn.softplus(params[f"matrix_{layer}"])
        h = jnp.einsum("coi,...ci->...co", matrix, h)
        h = h + jnp.broadcast_to(params[f"bias_{layer}"], h.shape)
        if layer < len(_WIDTHS) - 2:
            h = h + jnp.broadcast_to(jnp.tanh(params[f"factor_{layer}"]), h.shape) * jnp.tanh(h)
    return h[..., 0]


def bits(params: dict, q: jax.Array, affine: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Information content of `q` under each channel's density, integrated over unit bins.

    Args:
      params: From `init`.
      q: (..., channels), integers or integers plus U(-1/2, 1/2) noise.
      affine: (gain > 0, shift), each broadcasting to `q`: the density is that of gain·q + shift.

    Returns:
      Bits (base 2) per element, shape of `q`. Masses over all integers sum to one.

    Source: Ballé et al. 2018, arXiv:1802.01436, appendix 6.1.
    """
    gain, shift = (jnp.broadcast_to(each, q.shape) for each in affine)
    upper = _logits(params, (q + 0.5) * gain + shift)
    lower = _logits(params, (q - 0.5) * gain + shift)
    # Mirror into the left tail, then subtract in logarithms: no cancellation in either tail.
    mirror = jnp.where(upper + lower > 0, -1.0, 1.0)
    near = jax.nn.log_sigmoid(jnp.maximum(mirror * upper, mirror * lower))
    far = jax.nn.log_sigmoid(jnp.minimum(mirror * upper, mirror * lower))
    return -(near + jnp.log(-jnp.expm1(jnp.minimum(far - near, -1e-7)))) / LN2
