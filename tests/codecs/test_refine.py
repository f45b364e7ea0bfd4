import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcmjax.codecs import refine
from vcmjax.codecs.feature import FeatureCodec

PIXELS = 32 * 32
LAM = 0.3
COUNT = 5


SHAPES = {
    "codebook": (4, 4, 3),
    "spatial": (4, 4, 3),
    "joint": {"a": (4, 4, 3), "b": (5,)},
    "context": (8, 8, 3),
}


@pytest.fixture(scope="module", params=SHAPES)
def coded(request):
    shape = SHAPES[request.param]
    prior = "spatial" if request.param == "spatial" else "codebook"
    context = request.param == "context"
    codec = FeatureCodec(shape, prior, (0.01, 1.0), 4, 2, hidden=16, side=4, context=context)
    rng = np.random.default_rng(0)
    features = jax.tree.map(
        lambda of: rng.normal(size=(COUNT, *of)).astype(np.float32),
        shape,
        is_leaf=lambda of: isinstance(of, tuple),
    )
    return codec, codec.init(jax.random.key(1), features), features


def distance(x, reference):
    def of(a, b):
        return jnp.square(a - b).reshape(len(a), -1).mean(1)

    return sum(jax.tree.leaves(jax.tree.map(of, x, reference)))


def sines(features):
    return jax.tree.map(jnp.sin, features)


TARGET = refine.Target(sines, distance)


def refined(coded, rounds):
    codec, params, features = coded
    level = np.full(COUNT, codec.level_of(LAM), np.int32)
    symbols = refine.refine(codec, params, features, level, TARGET, PIXELS, rounds)
    lam = codec.lam_of(level)
    error = np.asarray(distance(symbols.output.feature, sines(features)))
    return symbols, symbols.output.bits / PIXELS + lam * error


def test_no_rounds_give_the_symbols_of_quantise(coded):
    codec, params, features = coded
    symbols, _ = refined(coded, 0)
    level = np.full(COUNT, codec.level_of(LAM), np.int32)
    plain = codec.quantise(params, features, level)
    np.testing.assert_array_equal(symbols.latent, plain.latent)
    np.testing.assert_array_equal(symbols.side, plain.side)


def test_cost_never_rises_with_rounds_and_falls_for_an_untrained_codec(coded):
    costs = [refined(coded, rounds)[1] for rounds in (0, 1, 4, 16)]
    for more, fewer in zip(costs[1:], costs[:-1], strict=True):
        assert np.all(more <= fewer + 1e-6)
    assert np.all(costs[-1] < costs[0])


def test_each_round_changes_at_most_as_many_symbols_as_it_tries_together(coded):
    symbols = [np.asarray(refined(coded, rounds)[0].latent) for rounds in (0, 1)]
    changed = (symbols[0] != symbols[1]).reshape(len(symbols[0]), -1).sum(1)
    assert np.all(changed <= refine._CANDIDATES)
    assert np.abs(symbols[1] - symbols[0]).max() == 1


def test_refined_symbols_are_written_and_read_back(coded):
    codec, params, _ = coded
    symbols, _ = refined(coded, 4)
    level = np.full(COUNT, codec.level_of(LAM), np.int32)
    frozen = codec.tables(params)
    streams = codec.write(frozen, symbols.side, symbols.latent, level)
    decoded = codec.decode(params, frozen, streams, LAM)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-5), decoded, symbols.output.feature
    )
