"""The Hyperprior baseline against CompressAI's mean-scale hyperprior, on the same weights."""

import importlib.machinery
import importlib.util
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcmjax.entropy import gaussian
from vcmjax.entropy.scale_hyperprior import ScaleHyperprior
from vcmjax.nets.layers import quadratic

torch = pytest.importorskip("torch", reason="needs torch and compressai, see .ci/run")


@pytest.fixture(scope="module")
def entropy_models():
    """`compressai.entropy_models` alone: all of CompressAI needs an older NumPy and torchvision."""
    found = importlib.util.find_spec("compressai")
    if found is None:
        pytest.skip("needs compressai, see .ci/run")
    whole = types.ModuleType("compressai")
    whole.__path__ = list(found.submodule_search_locations)
    whole.__spec__ = importlib.machinery.ModuleSpec("compressai", None, is_package=True)
    whole.get_entropy_coder = lambda: "ans"
    whole.available_entropy_coders = lambda: ["ans"]
    before = set(sys.modules)
    sys.modules["compressai"] = whole
    yield importlib.import_module("compressai.entropy_models")
    for name in set(sys.modules) - before:
        if name.startswith("compressai"):
            del sys.modules[name]


CHANNELS, SIDE = 12, 5
LEVEL = np.array([0.0, 0.5, 1.0], np.float32)


@pytest.fixture(scope="module")
def prior():
    """The baseline with parameters as far from their start as training takes them."""
    module = ScaleHyperprior(CHANNELS, SIDE, hidden=16)
    latent, level = jnp.zeros((1, 4, 4, CHANNELS)), jnp.zeros(1)
    params = jax.jit(module.init)(jax.random.key(0), latent, level)
    rng = np.random.default_rng(0)
    moved = lambda leaf: leaf + rng.normal(0, 0.3, leaf.shape).astype(np.float32)  # noqa: E731
    return module, jax.tree.map(moved, params)


def test_likelihoods_of_the_side_latent_agree(prior, entropy_models):
    module, params = prior
    w = np.random.default_rng(1).integers(-15, 16, (3, 4, 4, SIDE)).astype(np.float32)
    density = params["params"]["density"]
    # CompressAI knows no rate level, so its first layer takes the level's gain and shift.
    trend = 5.0 * quadratic(params["params"]["density_slope"], LEVEL)
    log_gain, shift = np.split(np.asarray(trend, np.float64), 2, axis=-1)
    wanted = np.empty_like(w)
    for i in range(3):
        model = entropy_models.EntropyBottleneck(SIDE, filters=(3, 3, 3))
        weights = dict(model.named_parameters())
        for layer in range(4):
            matrix = np.asarray(density[f"matrix_{layer}"], np.float64)
            bias = np.asarray(density[f"bias_{layer}"], np.float64)[..., None]
            if layer == 0:
                slope = np.logaddexp(0, matrix)
                bias = bias + slope * shift[i][:, None, None]
                matrix = np.log(np.expm1(slope * np.exp(log_gain[i])[:, None, None]))
            values = {"matrices": matrix, "biases": bias}
            if layer < 3:
                values["factors"] = np.asarray(density[f"factor_{layer}"])[..., None]
            for name, value in values.items():
                assert weights[f"{name}.{layer}"].shape == value.shape
                weights[f"{name}.{layer}"].data = torch.from_numpy(value.astype(np.float32))
        column = torch.from_numpy(w[i].reshape(-1, SIDE).T[:, None].copy())
        likelihood, *_ = model._likelihood(column)
        wanted[i] = likelihood.detach().numpy()[:, 0].T.reshape(4, 4, SIDE)
    got = np.exp2(-module.apply(params, w, LEVEL, method="side_bits"))
    assert wanted.max() > 0.05 and wanted.min() < 1e-3
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_likelihoods_of_the_latent_agree_given_mean_and_scale(prior, entropy_models):
    module, params = prior
    rng = np.random.default_rng(2)
    w = rng.integers(-15, 16, (3, 2, 2, SIDE)).astype(np.float32)
    mean, log_scale = module.apply(params, w, LEVEL, (4, 4), method="predict")
    scale = gaussian.bounded_scale(log_scale)
    q = np.rint(rng.normal(size=scale.shape) * scale).astype(np.float32)
    latent = q + mean
    model = entropy_models.GaussianConditional(list(gaussian.SCALES))
    # It bounds the scale from below alone, though its tables end where ours do.
    below = np.minimum(np.exp(log_scale), gaussian.SCALES[-1]).astype(np.float32)
    tensors = [torch.from_numpy(np.array(a)) for a in (latent, below, mean)]
    wanted = model._likelihood(*tensors).numpy()
    got = np.exp2(-gaussian.bits(q, scale))
    assert np.asarray(scale).std() > 0.1
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
