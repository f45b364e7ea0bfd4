"""One table of the two hyperpriors (the codebook also without positions), one set of laws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.signal
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmjax.entropy import codebook_hyperprior, gaussian
from vcmjax.entropy.codebook_hyperprior import VECTOR_GAIN, CodebookHyperprior, resample
from vcmjax.entropy.scale_hyperprior import ScaleHyperprior
from vcmjax.rounding import add_noise, straight_through

CHANNELS = 4
codebook = functools.partial(CodebookHyperprior, CHANNELS, dimension=3, maps=5, bases=6, hidden=16)
PRIORS = {
    "codebook": codebook(codebook_size=(4, 4)),
    "codebook of a vector": codebook(spatial=False),
    "spatial": ScaleHyperprior(CHANNELS, side_channels=3, hidden=16),
}
each_prior = pytest.mark.parametrize("name", PRIORS)


def size_of(name):
    return () if "vector" in name else (4, 4)


def latents(name, count, seed=0, size=None):
    shape = (count, *(size_of(name) if size is None else size), CHANNELS)
    return 3 * jax.random.normal(jax.random.key(seed), shape)


@functools.cache
def params_of(name):
    return jax.jit(PRIORS[name].init)(jax.random.key(1), latents(name, 1), jnp.zeros(1))


@functools.partial(jax.jit, static_argnums=(0, 1, 5))
def _apply(name, method, params, a, level, size):
    rest = [x for x in (level, size) if x is not None]
    return PRIORS[name].apply(params, a, *rest, method=method)


def call(name, method, *args):
    """A method of the prior on its initial parameters; `side_scale` asks for the level alone."""
    a, level, size = {1: (*args, None, None), 2: (*args, None), 3: args}[len(args)]
    return _apply(name, method, params_of(name), a, level, size)


def rate(prior, params, key, latent, level):
    """What training minimises: noisy side bits, and latent bits given the rounded side."""
    keys = jax.random.split(key)
    v = prior.apply(params, latent, level, method="analyse")
    side = prior.apply(params, add_noise(keys[0], v), level, method="side_bits")
    size = latent.shape[1:-1]
    mean, log_scale = prior.apply(params, straight_through(v), level, size, method="predict")
    bits = gaussian.bits(add_noise(keys[1], latent - mean), gaussian.bounded_scale(log_scale))
    return (side.sum() + bits.sum()) / len(latent)


@each_prior
def test_side_masses_sum_to_one_at_every_rate_level(name):
    level = jnp.linspace(-1.0, 1.0, 5)
    shape = PRIORS[name].side_shape(size_of(name))
    grid = np.repeat(np.arange(-600, 601, dtype=np.float32), 5)
    v = np.broadcast_to(grid.reshape(-1, *(1,) * len(shape)), (len(grid), *shape))
    bits = np.asarray(call(name, "side_bits", v, jnp.tile(level, 1201)), np.float64)
    np.testing.assert_allclose(np.exp2(-bits).reshape(1201, 5, -1).sum(0), 1, atol=2e-3)


@each_prior
def test_shapes_follow_the_latents_size_whatever_the_size_of_initialisation(name):
    sizes = [()] if "vector" in name else [(4, 4), (1, 1), (3, 5)]
    for size in sizes:
        latent, level = latents(name, 2, size=size), jnp.zeros(2)
        v = call(name, "analyse", latent, level)
        assert v.shape == (2, *PRIORS[name].side_shape(size))
        for part in call(name, "predict", v, level, size):
            assert part.shape == latent.shape and np.all(np.isfinite(part))


@each_prior
def test_an_image_is_modelled_without_regard_to_its_batch(name):
    latent, level = latents(name, 3), jnp.asarray([-1.0, 0.2, 1.0])
    v = call(name, "analyse", latent, level)
    together = call(name, "predict", v, level, size_of(name))
    for i in range(3):
        alone = slice(i, i + 1)
        v_alone = call(name, "analyse", latent[alone], level[alone])
        np.testing.assert_allclose(v_alone[0], v[i], rtol=1e-4, atol=1e-4)
        parts = call(name, "predict", v_alone, level[alone], size_of(name))
        for part, whole in zip(parts, together, strict=True):
            np.testing.assert_allclose(part[0], whole[i], rtol=1e-4, atol=1e-4)


@each_prior
def test_after_initialisation_the_gradient_reaches_every_parameter(name):
    latent, level = latents(name, 8), jnp.linspace(-0.9, 0.7, 8)
    gradient = jax.jit(jax.grad(functools.partial(rate, PRIORS[name])))(
        params_of(name), jax.random.key(0), latent, level
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.any(np.asarray(leaf) != 0), jax.tree_util.keystr(path)
        assert np.all(np.isfinite(leaf)), jax.tree_util.keystr(path)


@each_prior
def test_with_the_side_rounded_to_zero_the_decoder_still_learns(name):
    # The dead hyper-decoder: ReLU(0) with zero bias gives every image one constant, for ever.
    prior, level = PRIORS[name], jnp.asarray([0.3, 0.3])
    shape = (2, *prior.side_shape(size_of(name)))

    def cost(params, v):
        mean, log_scale = prior.apply(params, v, level, size_of(name), method="predict")
        scale = gaussian.bounded_scale(log_scale)
        return gaussian.bits(latents(name, 2) - mean, scale).sum()

    gradient, to_side = jax.jit(jax.grad(cost, (0, 1)))(params_of(name), jnp.zeros(shape))
    assert np.all(np.abs(np.asarray(to_side)).reshape(2, -1).max(1) > 0)
    after_first = {k: v for k, v in gradient["params"].items() if k in ("decoder_1", "output")}
    assert len(after_first) == 2
    for path, leaf in jax.tree_util.tree_leaves_with_path(after_first):
        assert np.any(np.asarray(leaf) != 0), jax.tree_util.keystr(path)


SPREADS = (0.3, 10.0)


@pytest.mark.usefixtures("full_speed")
@pytest.mark.parametrize(
    "name", [n if n == "codebook" else pytest.param(n, marks=pytest.mark.slow) for n in PRIORS]
)
def test_the_side_carries_bits_and_saves_more_where_images_differ_in_spread(name):
    prior = PRIORS[name]
    size, steps = (4, 4), 400 if "vector" in name else 200
    if "vector" in name:  # as many elements per image, all of them channels
        prior, size = CodebookHyperprior(64, spatial=False, dimension=3, hidden=32), ()
    channels = 64 if "vector" in name else CHANNELS

    def source(key, count):
        keys = jax.random.split(key)
        which = jax.random.bernoulli(keys[0], 0.5, (count, *(1,) * len(size), 1))
        spread = jnp.where(which, SPREADS[0], SPREADS[1])
        return spread * jax.random.normal(keys[1], (count, *size, channels))

    level = jnp.zeros(32)
    params = jax.jit(prior.init)(jax.random.key(0), source(jax.random.key(0), 1), level[:1])
    optimiser = optax.adam(optax.cosine_decay_schedule(1e-2, steps))

    @jax.jit
    def step(params, moments, key):
        keys = jax.random.split(key)
        gradient = jax.grad(functools.partial(rate, prior))(
            params, keys[0], source(keys[1], 32), level
        )
        updates, moments = optimiser.update(gradient, moments)
        return optax.apply_updates(params, updates), moments

    moments = optimiser.init(params)
    for i in range(steps):
        params, moments = step(params, moments, jax.random.key(i + 10))

    latent = source(jax.random.key(5), 256)
    level = jnp.zeros(256)
    v = jnp.round(jax.jit(lambda p: prior.apply(p, latent, level, method="analyse"))(params))
    side = prior.apply(params, v, level, method="side_bits")

    @jax.jit
    def latent_bits(v):
        mean, log_scale = prior.apply(params, v, level, size, method="predict")
        bits = gaussian.bits(jnp.round(latent - mean), gaussian.bounded_scale(log_scale))
        return bits.sum() / 256

    side_bits = float(side.sum() / 256)
    total = side_bits + float(latent_bits(v))
    zeroed = float(latent_bits(jnp.zeros_like(v)))
    assert side_bits > 0.5
    assert total < 0.9 * zeroed
    # Between two closed forms: an ideal coder told the spread for nothing, and the best Gaussian
    # of one scale for all, as a hyper-decoder that has died gives.
    q = np.arange(-120, 121)[:, None]
    ends = [scipy.special.ndtr((q + h) / gaussian.SCALES) for h in (0.5, -0.5)]
    coded = -np.log2(np.maximum(ends[0] - ends[1], 1e-300))
    mass = [np.diff(scipy.special.ndtr(np.arange(-120.5, 121) / s)) for s in SPREADS]
    oracle = 64 * np.mean([scipy.stats.entropy(m, base=2) for m in mass])
    no_side = 64 * min(np.mean(mass, axis=0) @ coded)
    assert oracle < total < no_side


# The codebook alone


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7), st.integers(0, 9))
def test_resampling_is_exact_at_the_bases_own_size(bases, height, width, seed):
    codebook = np.random.default_rng(seed).normal(size=(bases, height, width)).astype(np.float32)
    np.testing.assert_array_equal(resample(jnp.asarray(codebook), height, width), codebook)


@settings(max_examples=8)
@given(st.integers(1, 9), st.integers(1, 9))
def test_resampling_is_linear_keeps_constants_and_invents_no_extremes(height, width):
    a, b = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    resampled = resample(jnp.asarray(a), height, width)
    assert resampled.shape == (3, height, width)
    low, high = a.min((1, 2)), a.max((1, 2))
    assert np.all(resampled.min((1, 2)) >= low - 1e-5)
    assert np.all(resampled.max((1, 2)) <= high + 1e-5)
    both = resample(jnp.asarray(2 * a - b), height, width)
    np.testing.assert_allclose(
        both, 2 * resampled - resample(jnp.asarray(b), height, width), atol=1e-5
    )
    constant = resample(jnp.full((1, 4, 4), 0.7), height, width)
    np.testing.assert_allclose(constant, 0.7, rtol=1e-6)


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def dense(layer, x):
    return x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)


def film(layer, x, level):
    out = dense(layer["Dense_1"], np.tanh(dense(layer["Dense_0"], np.array([level]))))
    gain, shift = np.split(out, 2)
    return x * np.exp(gain) + shift


def conv(layer, x):
    """3×3, zero padding, by SciPy: (h, w, C) to (h, w, D)."""
    kernel = np.asarray(layer["kernel"], np.float64)
    out = np.zeros((*x.shape[:2], kernel.shape[3])) + np.asarray(layer["bias"], np.float64)
    for c in range(kernel.shape[2]):
        for d in range(kernel.shape[3]):
            out[..., d] += scipy.signal.correlate2d(x[..., c], kernel[:, :, c, d], "same")
    return out


@pytest.mark.parametrize("name", ["codebook", "codebook of a vector"])
def test_prediction_is_equation_11_recomputed_in_numpy(name):
    p = params_of(name)["params"]
    v, level = np.array([3.0, -7.0, 1.0]), 0.4
    x = v / VECTOR_GAIN
    for i in range(2):
        x = leaky(film(p[f"decoder_film_{i}"], dense(p[f"decoder_{i}"], x), level))
    if name == "codebook":
        sequences = dense(p["coefficients"], x).reshape(5, 6)
        bases = np.asarray(p["codebook"], np.float64)
        maps = np.zeros((4, 4, 5))
        for n in range(5):  # Ẑ^l = Σ_i a^l_i C_i
            for i in range(6):
                maps[:, :, n] += sequences[n, i] * bases[i]
        x = conv(p["prediction"], maps / np.sqrt(6))
    else:
        x = dense(p["prediction"], x)
    expected = dense(p["output"], leaky(film(p["prediction_film"], x, level)))
    mean, log_scale = call(
        name, "predict", jnp.asarray(v, jnp.float32)[None], jnp.full(1, level), size_of(name)
    )
    got = np.concatenate([mean[0], log_scale[0]], axis=-1)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_side_scales_are_of_the_grid_and_side_bits_their_gaussians():
    level = jnp.asarray([-1.0, 0.0, 1.0])
    scale = np.asarray(call("codebook", "side_scale", level), np.float64)
    assert np.all((scale >= 0.1099) & (scale <= 64.01))
    v = np.array([[0, 1, -2], [4, 0, 0], [-1, -1, 9]])
    below, above = (scipy.special.ndtr((v + half) / scale) for half in (-0.5, 0.5))
    bits = call("codebook", "side_bits", jnp.asarray(v, jnp.float32), level)
    np.testing.assert_allclose(bits, -np.log2(above - below), rtol=1e-3, atol=1e-3)
    p = params_of("codebook")["params"]
    trend = p["log_scale"] + p["log_scale_slope"][0] + p["log_scale_slope"][1]
    expected = np.exp(codebook_hyperprior.SCALE_GAIN * np.asarray(trend))
    np.testing.assert_allclose(scale[2], np.clip(expected, 0.11, 64), rtol=1e-4)


def test_v_forgets_where_in_the_latent_something_is():
    # Pooling: a patch that stays clear of the border gives the same v wherever it lies.
    level, patch = jnp.zeros(1), latents("codebook", 1, size=(2, 2))
    placed = [
        call(
            "codebook",
            "analyse",
            jnp.zeros((1, 12, 12, CHANNELS)).at[:, r : r + 2, c : c + 2].set(patch),
            level,
        )
        for r, c in [(4, 4), (4, 6), (6, 5)]
    ]
    nothing = call("codebook", "analyse", jnp.zeros((1, 12, 12, CHANNELS)), level)
    assert np.abs(placed[0] - nothing).max() > 1e-2
    for v in placed[1:]:
        np.testing.assert_allclose(v, placed[0], rtol=1e-3, atol=1e-4)
