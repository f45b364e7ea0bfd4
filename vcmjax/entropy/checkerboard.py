"""Checkerboard context: what half of the latent says about the other half.

    anchors  ■ □ ■ □   read first, by the hyperprior alone
             □ ■ □ ■
    others   read then, all at once, by the hyperprior and their decoded neighbours

Source: He et al. 2021, arXiv:2103.15306, whose context is that of an image's latent. Deviations: it
sees the quantised differences from the hyperprior's mean, which are integers and so the same on
every device, and corrects what the hyperprior says instead of replacing it.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vcmjax.entropy import integer
from vcmjax.nets.layers import Film


class Checkerboard(nn.Module):
    """Correction of the mean and log-scale of latents (B, h, w, channels) that are no anchors.

    Attributes:
      channels: Channels c of the latent.
      hidden: Channels of the hidden layers.
    """

    channels: int
    hidden: int = 64

    def setup(self) -> None:
        """Name the layers."""
        self.near = nn.Conv(self.hidden, (3, 3))
        self.deep = nn.Dense(self.hidden)
        self.film = [Film() for _ in range(2)]
        # Starts as no correction to speak of, yet with a gradient for every parameter.
        small = nn.initializers.variance_scaling(0.02, "fan_in", "truncated_normal")
        self.output = nn.Dense(2 * self.channels, kernel_init=small)

    def __call__(
        self, q: jax.Array, mean: jax.Array, log_scale: jax.Array, level: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Mean and log-scale in context; those of anchors are as given.

        Args:
          q: Latent less `mean`, rounded; of what are no anchors any value, which is not seen.
          mean: The hyperprior's, (B, h, w, channels).
          log_scale: The hyperprior's, likewise, within the grid of scales.
          level: (B,) rate level in [-1, 1].
        """
        anchor = jnp.asarray(anchors(q.shape[1], q.shape[2]))[None]
        x = jnp.concatenate([jnp.where(anchor, q, 0.0), log_scale], axis=-1)
        for layer, film in zip((self.near, self.deep), self.film, strict=True):
            x = nn.leaky_relu(film(layer(x), level))
        shift, log_gain = jnp.split(self.output(x), 2, axis=-1)
        return mean + jnp.where(anchor, 0.0, shift), log_scale + jnp.where(anchor, 0.0, log_gain)

    def integer_steps(self, params: dict, positions: np.ndarray) -> tuple[integer.Step, ...]:
        """The correction of the log-scale in exact integers, see `integer.ScaleNetwork.context`.

        Args:
          params: As `init` gives them.
          positions: (levels,) the rate levels that Film is tabulated for, each in [-1, 1].
        """
        p = params["params"]
        scale = {name: leaf[..., self.channels :] for name, leaf in p["output"].items()}
        return (
            integer.linear(**p["near"]),
            integer.film(p["film_0"], positions),
            integer.linear(**p["deep"]),
            integer.film(p["film_1"], positions),
            integer.linear(**scale),
        )


def anchors(height: int, width: int) -> np.ndarray:
    """Where the positions are that are read first: bool (height, width, 1)."""
    return (np.indices((height, width)).sum(0) % 2 == 0)[..., None]


def order(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Indexes of the anchors, then of the others, among the values of a latent (h, w, c)."""
    first = np.broadcast_to(anchors(*shape[:2]), shape).ravel()
    return np.flatnonzero(first), np.flatnonzero(~first)
