"""Zero-mean Gaussians integrated over unit bins, on a fixed grid of scales.

Latents are coded as ``q = round(z - mean)``, so a table needs the scale alone: sixty-four
scales serve every element of every image, and the decoder needs only the scale's index exactly.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vcmjax.rounding import lower_bound

LN2 = float(np.log(2.0))
SCALES = np.exp(np.linspace(np.log(0.11), np.log(64.0), 64))
"""The standard deviations, in quantisation steps, for which tables exist; float64 (64,)."""

LOG_THRESHOLDS = np.log(SCALES[:-1] * SCALES[1:]) / 2
"""Log-scales halfway between neighbouring tables; float64 (63,)."""

_LOG_FIRST = float(np.log(SCALES[0]))


def bits(q: jax.Array, scale: jax.Array) -> jax.Array:
    """Information content of `q` under N(0, scale²) integrated over [q - 1/2, q + 1/2].

    Args:
      q: Integers, or integers plus U(-1/2, 1/2) noise; any shape.
      scale: Standard deviation, in steps, > 0; broadcasts to `q`.

    Returns:
      Bits (base 2) per element, shape of `q`, not summed. Noisy input gives the training
      surrogate; only integers predict coded length.

    Source: Ballé et al. 2018, arXiv:1802.01436, eq. 10.
    """
    # Both ends on the negative side, and the difference in logarithms: exact far into the tail.
    distance = jnp.abs(q)
    upper = jax.scipy.stats.norm.logcdf((0.5 - distance) / scale)
    lower = jax.scipy.stats.norm.logcdf((-0.5 - distance) / scale)
    return -(upper + jnp.log1p(-jnp.exp(lower - upper))) / LN2


def bounded_scale(log_scale: jax.Array) -> jax.Array:
    """exp(log_scale) kept within the grid `SCALES`, with a gradient that leads back into it."""
    low = lower_bound(log_scale, _LOG_FIRST)
    return jnp.exp(-lower_bound(-low, -float(np.log(SCALES[-1]))))
