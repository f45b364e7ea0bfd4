"""The spatial mean-scale hyperprior: the baseline that the codebook is compared with.

    z ──conv, stride 2── w ──round── ŵ ──conv, up 2── mean, scale

ŵ keeps its spatial dimensions and has a factorized prior, learned per channel.

Source: Ballé et al. 2018, arXiv:1802.01436; Minnen et al. 2018, arXiv:1809.02736 (means, no
autoregression). The prior of ŵ is shifted and scaled by the rate level, as the codebook's is.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vcmjax.entropy import factorized, integer
from vcmjax.nets.layers import Film, quadratic, upsample

HYPER_GAIN = 8.0
"""As `codebook_hyperprior.VECTOR_GAIN`."""


class ScaleHyperprior(nn.Module):
    """The model as a whole, with the interface of `CodebookHyperprior`.

    Attributes:
      channels: Channels c of the latent (B, h, w, c).
      side_channels: Channels k of the hyper-latent ŵ (B, ⌈h/2⌉, ⌈w/2⌉, k).
    """

    channels: int
    side_channels: int = 16
    hidden: int = 64

    def setup(self) -> None:
        """Name the layers."""
        self.analysis = [nn.Conv(self.hidden, (3, 3)), nn.Conv(self.hidden, (3, 3), strides=2)]
        self.analysis_film = [Film() for _ in range(2)]
        self.projection = nn.Conv(self.side_channels, (1, 1))

        self.density = self.param("density", factorized.init, self.side_channels)
        self.density_slope = self.param(
            "density_slope",
            nn.initializers.normal(0.1),
            (2, 2 * self.side_channels),
            jnp.float32,
        )

        self.decoder = [nn.Conv(self.hidden, (3, 3)), nn.Conv(4 * self.hidden, (3, 3))]
        self.decoder_film = [Film() for _ in range(2)]
        self.output = nn.Conv(2 * self.channels, (1, 1))

    def analyse(self, latent: jax.Array, level: jax.Array) -> jax.Array:
        """The hyper-latent w of `latent`, before rounding."""
        for layer, film in zip(self.analysis, self.analysis_film, strict=True):
            latent = nn.leaky_relu(film(layer(latent), level))
        return HYPER_GAIN * self.projection(latent)

    def side_bits(self, w: jax.Array, level: jax.Array) -> jax.Array:
        """Bits of each element of w (B, ..., k), rounded or noisy."""
        trend = 5.0 * quadratic(self.density_slope, level)
        trend = trend.reshape(-1, *(1,) * (w.ndim - 2), 2 * self.side_channels)
        log_gain, shift = jnp.split(trend, 2, axis=-1)
        return factorized.bits(self.density, w, (jnp.exp(jnp.clip(log_gain, -5, 5)), shift))

    def predict(
        self, w: jax.Array, level: jax.Array, size: tuple[int, ...]
    ) -> tuple[jax.Array, jax.Array]:
        """Mean and log-scale, each (B, *size, channels)."""
        x = nn.leaky_relu(self.decoder_film[0](self.decoder[0](w / HYPER_GAIN), level))
        x = upsample(self.decoder[1](x))[:, : size[0], : size[1]]
        x = nn.leaky_relu(self.decoder_film[1](x, level))
        mean, log_scale = jnp.split(self.output(x), 2, axis=-1)
        return mean, log_scale

    def integer_steps(self, params: dict, positions: np.ndarray) -> tuple[integer.Step, ...]:
        """`predict`'s log-scale in exact integers, as `CodebookHyperprior.integer_steps`."""
        p = params["params"]
        scale = {name: leaf[..., self.channels :] for name, leaf in p["output"].items()}
        return (
            integer.linear(**p["decoder_0"]),
            integer.film(p["decoder_film_0"], positions),
            integer.linear(**p["decoder_1"]),
            integer.Upsample(),
            integer.film(p["decoder_film_1"], positions),
            integer.linear(**scale),
        )

    def side_shape(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one image's ŵ for a latent of `size` (h, w)."""
        return (-(-size[0] // 2), -(-size[1] // 2), self.side_channels)

    def __call__(self, latent: jax.Array, level: jax.Array) -> jax.Array:
        """Touch every parameter, for `init`."""
        w = self.analyse(latent, level)
        mean, log_scale = self.predict(w, level, latent.shape[1:-1])
        return mean.sum() + log_scale.sum() + self.side_bits(w, level).sum()
