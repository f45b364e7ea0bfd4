"""The integer hyper-synthesis against the float one, and against Python's own integers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmjax.entropy import checkerboard, gaussian, integer
from vcmjax.entropy.checkerboard import Checkerboard
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


def indexes(network, side, level, size):
    return network.indexes(network.log_scales(side, level, size))


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
    got = indexes(network, side, level, size)
    assert got.shape == log_scale.shape and got.dtype == np.int32
    assert len(np.unique(got)) > 10  # the comparison is not of one clipped value
    near = np.searchsorted(gaussian.LOG_THRESHOLDS, log_scale - 0.01)
    far = np.searchsorted(gaussian.LOG_THRESHOLDS, log_scale + 0.01)
    assert np.all((near <= got) & (got <= far))


def big(x):
    """Python's integers, which never round and have no limit."""
    return np.asarray(x, np.int64).astype(object)


def exact(network, side, level, size):
    """`log_scales` by the same formulas in Python's integers."""
    x = np.clip(big(side) * 2**FRACTION // 2**network.gain_bits, -(2**23), 2**23)
    return exact_steps(network.steps, x, level, size)


def exact_in_context(network, log_scales, latent, anchor, level):
    """`in_context` likewise."""
    seen = np.clip(np.where(anchor, big(latent), 0) * 2**FRACTION, -(2**23), 2**23)
    ends = np.round(np.log(gaussian.SCALES[[0, -1]]) * 2**FRACTION).astype(int).tolist()
    own = np.clip(big(log_scales), *ends)
    x = np.concatenate([seen, own], axis=-1)
    corrected = own + exact_steps(network.context, x, level, x.shape[1:3])
    return np.where(anchor, big(log_scales), corrected)


def exact_steps(steps, x, level, size):
    def rescaled(x):
        half, limit = 1 << (WEIGHT_FRACTION - 1), int(integer.LIMIT)
        return np.clip((x + half) // (1 << WEIGHT_FRACTION), -limit, limit)

    for step in steps:
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
    return x


@each_model
@pytest.mark.parametrize("high", [20, 2**31 - 1])
def test_arithmetic_is_exact_even_for_symbols_that_no_encoder_writes(name, high):
    _, size = MODELS[name]
    _, network = prepared(name)
    side, level = side_of(name, 3, high)
    np.testing.assert_array_equal(
        network.log_scales(side, level, size), exact(network, side, level, size).astype(float)
    )


@each_model
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_indexes_do_not_depend_on_the_batch(name, batch):
    _, size = MODELS[name]
    _, network = prepared(name)
    side, level = side_of(name, 64)
    parts = [slice(i, i + batch) for i in range(0, 64, batch)]
    apart = [indexes(network, side[part], level[part], size) for part in parts]
    np.testing.assert_array_equal(np.concatenate(apart), indexes(network, side, level, size))


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
        indexes(network, side, level, size), indexes(other, side, level, size)
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
        indexes(network, side, level, size), indexes(again, side, level, size)
    )


BOARD = Checkerboard(6)


@functools.cache
def in_context(name):
    """(parameters of a context, `prepared`'s network with it), its corrections far from small."""
    _, size = MODELS[name]
    _, network = prepared(name)
    latent = jnp.zeros((1, *size, BOARD.channels))
    params = jax.jit(BOARD.init)(jax.random.key(2), latent, latent, latent, jnp.zeros(1))["params"]
    output = params["output"] | {"kernel": 8 * params["output"]["kernel"]}
    params = {"params": params | {"output": output}}
    return params, dataclasses.replace(network, context=BOARD.integer_steps(params, LEVELS))


def symbols_of(name, count, high=20):
    """(side, latent, where its anchors are, level)."""
    _, size = MODELS[name]
    side, level = side_of(name, count, high)
    latent = np.random.default_rng(1).integers(
        -high, high, (count, *size, BOARD.channels), endpoint=True
    )
    return side, latent, checkerboard.anchors(*size), level


each_board = pytest.mark.parametrize("name", ["codebook", "spatial, odd size"])


@each_board
def test_indexes_in_context_are_those_of_the_float_network_but_for_ties(name):
    _, size = MODELS[name]
    params, network = in_context(name)
    side, latent, board, level = symbols_of(name, 64, high=3)
    log_scales = network.log_scales(side, level, size)
    given = np.clip(log_scales / 2.0**FRACTION, *np.log(gaussian.SCALES[[0, -1]]))
    given = jnp.asarray(given, jnp.float32)
    position = jnp.asarray(LEVELS[level], jnp.float32)
    mean, expected = BOARD.apply(
        params, jnp.asarray(latent, jnp.float32), jnp.zeros_like(given), given, position
    )
    anchor = np.broadcast_to(board, latent.shape)
    np.testing.assert_array_equal(np.asarray(expected)[anchor], np.asarray(given)[anchor])
    assert not np.asarray(mean)[anchor].any() and np.abs(np.asarray(mean)[~anchor]).max() > 0.1
    expected = np.asarray(expected, np.float64)[~anchor]
    assert np.abs(expected - np.asarray(given)[~anchor]).max() > 0.1
    got = network.indexes(network.in_context(log_scales, latent, board, level))[~anchor]
    near = np.searchsorted(gaussian.LOG_THRESHOLDS, expected - 0.01)
    far = np.searchsorted(gaussian.LOG_THRESHOLDS, expected + 0.01)
    assert np.all((near <= got) & (got <= far))


@each_board
@pytest.mark.parametrize("high", [20, 2**31 - 1])
def test_context_is_exact_even_for_symbols_that_no_encoder_writes(name, high):
    _, size = MODELS[name]
    _, network = in_context(name)
    side, latent, anchor, level = symbols_of(name, 3, high)
    log_scales = network.log_scales(side, level, size)
    got = network.in_context(log_scales, latent, anchor, level)
    expected = exact_in_context(network, log_scales, latent, anchor, level)
    np.testing.assert_array_equal(got, expected.astype(float))
    one_by_one = [
        network.in_context(log_scales[[i]], latent[[i]], anchor, level[[i]]) for i in range(3)
    ]
    np.testing.assert_array_equal(np.concatenate(one_by_one), got)


@each_board
def test_arrays_describe_a_network_with_context_whole(name):
    _, size = MODELS[name]
    _, network = in_context(name)
    side, *known = symbols_of(name, 8)
    level = known[-1]
    again = integer.ScaleNetwork.from_arrays(network.arrays())
    for each in (network, again):
        assert len(each.steps) == len(network.steps) and len(each.context) == 5
    with pytest.raises(VcmError, match="context of 99 steps"):
        integer.ScaleNetwork.from_arrays(network.arrays() | {"context": np.int64(99)})
    log_scales = network.log_scales(side, level, size)
    np.testing.assert_array_equal(again.log_scales(side, level, size), log_scales)
    np.testing.assert_array_equal(
        again.in_context(log_scales, *known), network.in_context(log_scales, *known)
    )


def test_anchors_are_every_other_position_and_all_is_read_once():
    anchor = checkerboard.anchors(3, 4)[..., 0]
    assert anchor.tolist() == [[(i + j) % 2 == 0 for j in range(4)] for i in range(3)]
    first, then = checkerboard.order((3, 4, 2))
    assert sorted([*first, *then]) == list(range(24))
    assert anchor.repeat(2).reshape(-1)[first].all() and not anchor.repeat(2).ravel()[then].any()


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
