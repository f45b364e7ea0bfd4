"""The codebook hyperprior: a pooled vector describes the statistics of the whole latent.

    z ──conv──pool──dense── v ──round── v̂ ──MLP── n×τ coefficients
                                                     │  Ẑ^l = Σ_i a^l_i C_i   (codebook of τ bases)
                                        mean, scale ── prediction network ── n maps

Source: CVR (Yang et al. 2021) §3.2.3, eq. 11. Deviations, each measured in the project's study or
needed for rate conditioning: gain 8 before rounding and leaky ReLU keep the hyper-decoder alive
when v̂ = 0; the prediction network and the scales of v also see the rate level.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vcmjax.entropy import gaussian, integer
from vcmjax.nets.layers import Film, quadratic

VECTOR_GAIN = 8.0
"""v before rounding, per unit of the hyper-analysis output: without it v̂ starts, and stays, 0."""
SCALE_GAIN = 5.0
"""Gain on directly learned log-scales, which Adam moves by only the learning rate a step."""


def resample(codebook: jax.Array, height: int, width: int) -> jax.Array:
    """Bases (τ, Hc, Wc) resampled bilinearly to (τ, height, width); exact at their own size."""
    return jax.image.resize(codebook, (codebook.shape[0], height, width), "linear")


class CodebookHyperprior(nn.Module):
    """The model as a whole; latents are (B, h, w, channels), or (B, channels) without positions.

    Attributes:
      channels: Channels c of the latent.
      spatial: Whether latents have positions; without, an MLP predicts straight from v̂.
      dimension: d, the length of v.
      maps: n, the spatial maps decoded from the vector.
      bases: τ, the spatial bases in the codebook.
      codebook_size: (Hc, Wc), the bases' own size; other latent sizes resample them.
    """

    channels: int
    spatial: bool = True
    dimension: int = 16
    maps: int = 32
    bases: int = 16
    codebook_size: tuple[int, int] = (4, 4)
    hidden: int = 64

    def setup(self) -> None:
        """Name the layers; `predict`, `analyse` and `side_bits` share none but the rate level."""
        layer = (lambda n: nn.Conv(n, (3, 3))) if self.spatial else nn.Dense
        self.analysis = [layer(self.hidden) for _ in range(2)]
        self.analysis_film = [Film() for _ in range(2)]
        self.projection = nn.Dense(self.dimension)

        self.log_scale = self.param(
            "log_scale", nn.initializers.constant(1.0 / SCALE_GAIN), (self.dimension,), jnp.float32
        )
        self.log_scale_slope = self.param(
            "log_scale_slope", nn.initializers.normal(0.1), (2, self.dimension), jnp.float32
        )

        self.decoder = [nn.Dense(self.hidden) for _ in range(2)]
        self.decoder_film = [Film() for _ in range(2)]
        if self.spatial:
            self.coefficients = nn.Dense(self.maps * self.bases)
            self.codebook = self.param(
                "codebook",
                nn.initializers.normal(0.5),
                (self.bases, *self.codebook_size),
                jnp.float32,
            )
        self.prediction = layer(self.hidden)
        self.prediction_film = Film()
        self.output = nn.Dense(2 * self.channels)

    def analyse(self, latent: jax.Array, level: jax.Array) -> jax.Array:
        """The vector v (B, dimension) of `latent`, before rounding."""
        for layer, film in zip(self.analysis, self.analysis_film, strict=True):
            latent = nn.leaky_relu(film(layer(latent), level))
        pooled = latent.mean((1, 2)) if self.spatial else latent
        return VECTOR_GAIN * self.projection(pooled)

    def side_scale(self, level: jax.Array) -> jax.Array:
        """Standard deviations of v's zero-mean Gaussians: (B,) levels to (B, dimension)."""
        trend = quadratic(self.log_scale_slope, level)
        return gaussian.bounded_scale(SCALE_GAIN * (self.log_scale[None] + trend))

    def side_bits(self, v: jax.Array, level: jax.Array) -> jax.Array:
        """Bits of each element of v, rounded or noisy: (B, dimension)."""
        return gaussian.bits(v, self.side_scale(level))

    def predict(
        self, v: jax.Array, level: jax.Array, size: tuple[int, ...]
    ) -> tuple[jax.Array, jax.Array]:
        """Mean and log-scale, each (B, *size, channels); `size` is (h, w), or () for vectors."""
        x = v / VECTOR_GAIN
        for layer, film in zip(self.decoder, self.decoder_film, strict=True):
            x = nn.leaky_relu(film(layer(x), level))
        if self.spatial:
            sequences = self.coefficients(x).reshape(-1, self.maps, self.bases)
            x = jnp.einsum("bnt,thw->bhwn", sequences, resample(self.codebook, *size))
            x = x / math.sqrt(self.bases)
        x = nn.leaky_relu(self.prediction_film(self.prediction(x), level))
        mean, log_scale = jnp.split(self.output(x), 2, axis=-1)
        return mean, log_scale

    def integer_steps(self, params: dict, positions: np.ndarray) -> tuple[integer.Step, ...]:
        """`predict`'s log-scale in exact integers; see `integer.ScaleNetwork`.

        Args:
          params: As `init` gives them.
          positions: (levels,) the rate levels that Film is tabulated for, each in [-1, 1].
        """
        p = params["params"]
        steps: list[integer.Step] = []
        for i in range(2):
            steps.append(integer.linear(**p[f"decoder_{i}"]))
            steps.append(integer.film(p[f"decoder_film_{i}"], positions))
        if self.spatial:
            steps.append(integer.linear(**p["coefficients"]))
            bases = np.asarray(p["codebook"]) / math.sqrt(self.bases)
            steps.append(integer.Expand(integer.rounded(bases, integer.WEIGHT_FRACTION)))
        steps.append(integer.linear(**p["prediction"]))
        steps.append(integer.film(p["prediction_film"], positions))
        scale = {name: leaf[..., self.channels :] for name, leaf in p["output"].items()}
        return (*steps, integer.linear(**scale))

    def side_shape(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one image's v, whatever the latent's size."""
        del size
        return (self.dimension,)

    def __call__(self, latent: jax.Array, level: jax.Array) -> jax.Array:
        """Touch every parameter, for `init`."""
        v = self.analyse(latent, level)
        mean, log_scale = self.predict(v, level, latent.shape[1:-1])
        return mean.sum() + log_scale.sum() + self.side_bits(v, level).sum()
