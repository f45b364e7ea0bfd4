"""The integer hyper-synthesis against the float one, and against Python's own integers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmjax.entropy import gaussian, integer
from vcmjax.entropy.codebook_hyperprior import CodebookHyperprior
from vcmjax.entropy.integer import FRACTION, WEIGHT_FRACTION
from vcmjax.entropy.scale_hyperprior import ScaleHyperprior
from vcmjax.errors import VcmError

LEVELS = np.linspace(-1, 1, 16)
MODELS = {
    "codebook": (CodebookHyperprior(6, dimension=5, codebook_size=(4, 3)), (4, 3)),
    "codebook, other size": (CodebookHyperprior(6, dimension=5, codebook_size=(4, 4)), (7, 3)),
    "codebook of a vector": (CodebookHyperprior(6, spatial=False, dimension=5), ()),
    "spatial": (ScaleHyperprior(6, 5), (4, 4)),
    "spatial, odd size": (ScaleHyperprior(6, 5), (5, 3)),
}
each_model = pytest.mark.parametrize("name", MODELS)


@functools.cache
def prepared(name):
    """(params, integer network), with log-scales spread over the whole grid."""
    model, size = MODELS[name]
    latent = jnp.zeros((1, *size, model.channels))
    params = jax.jit(model.init)(jax.random.key(0), latent, jnp.zeros(1))["params"]
    output = params["output"] | {"kernel": 8 * params["output"]["kernel"]}
    params = {"params": params | {"output": output}}
    thresholds = integer.rounded(gaussian.LOG_THRESHOLDS, FRACTION)
    steps = model.integer_steps(params, LEVELS)
    return params, integer.ScaleNetwork(3, steps, thresholds)


def side_of(name, count, high=20, seed=0):
    model, size = MODELS[name]
    rng = np.random.default_rng(seed)
    side = rng.integers(-high, high, (count, *model.side_shape(size)), endpoint=True)
    return side, rng.integers(0, len(LEVELS), count)


@each_model
def test_indexes_are_those_of_the_float_network_but_for_ties(name):
    model, size = MODELS[name]
    params, network = prepared(name)
    side, level = side_of(name, 64)
    position = jnp.asarray(LEVELS[level], jnp.float32)
    _, log_scale = model.apply(
        params, jnp.asarray(side, jnp.float32), position, size, method="predict"
    )
    log_scale = np.asarray(log_scale, np.float64)
    got = network.indexes(side, level, size)
    assert got.shape == log_scale.shape and got.dtype == np.int32
    assert len(np.unique(got)) > 10  # the comparison is not of one clipped value
    near = np.searchsorted(gaussian.LOG_THRESHOLDS, log_scale - 0.01)
    far = np.searchsorted(gaussian.LOG_THRESHOLDS, log_scale + 0.01)
    assert np.all((near <= got) & (got <= far))


def exact(network, side, level, size):
    """The same formulas in Python's integers, which never round: object arrays, floor division."""

    def big(x):
        return np.asarray(x, np.int64).astype(object)

    def rescaled(x):
        half, limit = 1 << (WEIGHT_FRACTION - 1), int(integer.LIMIT)
        return np.clip((x + half) // (1 << WEIGHT_FRACTION), -limit, limit)

    x = np.clip(big(side) * 2**FRACTION // 2**network.gain_bits, -(2**23), 2**23)
    for step in network.steps:
        match step:
            case integer.Linear(weight, bias, taps):
                if taps == 9:
                    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=0)
                    h, w = x.shape[1:3]
                    x = np.stack(
                        [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], -2
                    ).reshape(*x.shape[:3], -1)
                x = rescaled(np.dot(x, big(weight)) + big(bias))
            case integer.Film(gain, shift):
                wide = (len(x), *(1,) * (x.ndim - 2), -1)
                x = rescaled(x * big(gain)[level].reshape(wide) + big(shift)[level].reshape(wide))
                x = np.where(x < 0, x * 655 // 2**16, x)
            case integer.Expand(codebook):
                bases = big(integer.resample(codebook, *size))
                x = x.reshape(len(x), -1, len(bases))
                x = rescaled(np.tensordot(x, bases, (2, 0)))
                x = np.moveaxis(x, 1, -1)
            case integer.Upsample():
                b, h, w, c = x.shape
                x = x.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
                x = x.reshape(b, 2 * h, 2 * w, c // 4)[:, : size[0], : size[1]]
    return np.searchsorted(network.thresholds, x.astype(np.float64), side="right")


@each_model
@pytest.mark.parametrize("high", [20, 2**31 - 1])
def test_arithmetic_is_exact_even_for_symbols_that_no_encoder_writes(name, high):
    _, size = MODELS[name]
    _, network = prepared(name)
    side, level = side_of(name, 3, high)
    np.testing.assert_array_equal(
        network.indexes(side, level, size), exact(network, side, level, size)
    )


@each_model
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_indexes_do_not_depend_on_the_batch(name, batch):
    _, size = MODELS[name]
    _, network = prepared(name)
    side, level = side_of(name, 64)
    parts = [slice(i, i + batch) for i in range(0, 64, batch)]
    apart = [network.indexes(side[part], level[part], size) for part in parts]
    np.testing.assert_array_equal(np.concatenate(apart), network.indexes(side, level, size))


@each_model
def test_the_order_of_summation_changes_nothing(name):
    # The channels between two layers shuffled: another order of every sum, the same function.
    _, size = MODELS[name]
    _, network = prepared(name)
    side, level = side_of(name, 8)
    first, film, second, *rest = network.steps
    order = np.random.default_rng(0).permutation(first.weight.shape[1])
    wide = second.weight.reshape(second.taps, len(order), -1)[:, order]
    shuffled = (
        integer.Linear(first.weight[:, order], first.bias[order], first.taps),
        integer.Film(film.gain[:, order], film.shift[:, order]),
        integer.Linear(wide.reshape(second.weight.shape), second.bias, second.taps),
        *rest,
    )
    other = integer.ScaleNetwork(network.gain_bits, shuffled, network.thresholds)
    np.testing.assert_array_equal(
        network.indexes(side, level, size), other.indexes(side, level, size)
    )


@each_model
def test_arrays_describe_the_network_whole(name):
    _, size = MODELS[name]
    _, network = prepared(name)
    side, level = side_of(name, 4)
    arrays = network.arrays()
    assert all(array.dtype == np.int64 for array in arrays.values())
    again = integer.ScaleNetwork.from_arrays(arrays)
    np.testing.assert_array_equal(
        network.indexes(side, level, size), again.indexes(side, level, size)
    )


def test_arrays_of_something_else_are_refused():
    arrays = prepared("spatial")[1].arrays()
    renamed = {name.replace("Linear", "Cubic"): array for name, array in arrays.items()}
    partly = {name: array for name, array in arrays.items() if name != "thresholds"}
    for wrong in (renamed, partly, {}):
        with pytest.raises(VcmError, match="not a scale network"):
            integer.ScaleNetwork.from_arrays(wrong)


def test_weights_that_could_leave_the_exact_integers_are_refused():
    arrays = prepared("codebook")[1].arrays()
    arrays["0.Linear.weight"] = arrays["0.Linear.weight"] * 2**20
    with pytest.raises(VcmError, match=r"step 0 .* Linear, reaches .* train again"):
        integer.ScaleNetwork.from_arrays(arrays)


@settings(max_examples=25)  # each compiles
@given(*[st.integers(1, 9)] * 4)
def test_bases_are_resampled_as_jax_does(h, w, height, width):
    bases = np.random.default_rng(0).normal(size=(3, h, w))
    got = integer.resample(integer.rounded(bases, WEIGHT_FRACTION), height, width)
    wanted = jax.image.resize(jnp.asarray(bases), (3, height, width), "linear")
    np.testing.assert_allclose(got * 2.0**-WEIGHT_FRACTION, wanted, atol=2e-3)
    np.testing.assert_array_equal(got, np.rint(got))
