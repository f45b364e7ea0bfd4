"""One table of codecs, one set of laws."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcmjax.codecs.feature import FeatureCodec
from vcmjax.entropy import checkerboard, gaussian
from vcmjax.errors import CorruptStream, VcmError

tiny = functools.partial(FeatureCodec, latent_channels=4, hidden=16, side=3)
CODECS = {
    "codebook": tiny((8, 8, 3)),
    "spatial": tiny((8, 8, 3), "spatial"),
    "codebook of a vector": tiny((6,)),
    "codebook, odd sizes": tiny((13, 18, 5)),
    "spatial, odd sizes, one lam": tiny((13, 18, 5), "spatial", lams=(0.1, 0.1)),
    "codebook in context": tiny((8, 8, 3), context=True),
    "spatial in context, odd sizes": tiny((13, 18, 5), "spatial", context=True),
}
each_codec = pytest.mark.parametrize("name", CODECS)

COMPILED: list[str] = []


def _count(event: str, duration: float, **_) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED.append(event)


jax.monitoring.register_event_duration_secs_listener(_count)


def features_of(shape, count, seed=0):
    """Smooth features, each of its own contrast, far from zero mean and unit variance."""
    rng = np.random.default_rng(seed)
    contrast = rng.choice([0.2, 3.0], (count, *(1,) * len(shape)))
    base = rng.normal(size=(count, *(1,) * (len(shape) - 1), shape[-1]))
    return (5 + contrast * (base + rng.normal(size=(count, *shape)))).astype(np.float32)


@functools.cache
def prepared(name):
    """(params, tables) that see real features, with a prior whose scales spread over the grid."""
    codec = CODECS[name]
    features = jnp.asarray(features_of(codec.shape, 64))
    params = jax.jit(codec.init)(jax.random.key(0), features)
    prior = params["prior"]["params"]
    spread = prior["output"] | {"kernel": 3 * prior["output"]["kernel"]}
    params["prior"] = {"params": prior | {"output": spread}}
    return params, codec.tables(params)


@each_codec
def test_noise_is_an_images_own_and_any_kind_of_key_will_do(name):
    codec, (params, _) = CODECS[name], prepared(name)
    x = jnp.asarray(features_of(codec.shape, 2))  # as many as a raw key has numbers
    lam = jnp.float32(0.1)
    both = codec.apply(params, jax.random.key(3), x, lam)
    raw = codec.apply(params, jax.random.PRNGKey(3), x, lam)
    np.testing.assert_array_equal(raw.bits, both.bits)
    keys = jax.random.split(jax.random.key(3), 2)
    for i in range(2):
        alone = codec.apply(params, keys[i : i + 1], x[i : i + 1], lam)
        np.testing.assert_allclose(alone.bits[0], both.bits[i], rtol=1e-4)


def objective(codec, params, key, x, lam):
    output = codec.apply(params, key, x, lam)
    far = jnp.square(output.feature - x).reshape(len(x), -1).sum(1)
    return jnp.mean(output.bits / 10 + lam * far)


def lams_of(codec, count):
    """One λ per image, spread over the codec's range."""
    return codec.lam_of(np.linspace(0, 255, count).round())


def decoded(name, count=5, shape=None, seed=1):
    """Features, their streams, what `decode` makes of them, and the evaluation-mode symbols."""
    codec, (params, frozen) = CODECS[name], prepared(name)
    x = features_of(shape or codec.shape, count, seed)
    lam = lams_of(codec, count)
    streams = codec.encode(params, frozen, x, lam)
    size = shape[:-1] if shape else None
    back = codec.decode(params, frozen, streams, lam, size)
    symbols = codec.quantise(params, x, codec.level_of(lam))
    return x, streams, back, symbols


# Bytes


@each_codec
def test_decoding_gives_the_evaluation_mode_reconstruction(name):
    x, _, back, symbols = decoded(name)
    assert back.shape == x.shape and back.dtype == np.float32
    np.testing.assert_allclose(back, symbols.output.feature, rtol=1e-4, atol=1e-4)


@each_codec
def test_decoded_symbols_written_again_are_the_same_bytes(name):
    # The symbols' own round trip: a stream holds exactly what `quantise` said.
    codec, (_, frozen) = CODECS[name], prepared(name)
    x, streams, _, symbols = decoded(name)
    level = codec.level_of(lams_of(codec, len(x)))
    assert codec.write(frozen, symbols.side, symbols.latent, level) == streams
    other = np.asarray(symbols.latent).copy()
    other.reshape(len(x), -1)[:, -1] += 1
    changed = codec.write(frozen, symbols.side, other, level)
    assert all(a != b for a, b in zip(changed, streams, strict=True))


@each_codec
def test_symbols_drawn_from_the_model_take_the_bits_that_it_estimates(name):
    # On a trained model real features do so too: tests/experiments/test_plateau.py.
    codec, (params, frozen) = CODECS[name], prepared(name)
    level = np.asarray(codec.level_of(lams_of(codec, 64)))
    _, _, _, symbols = decoded(name)
    side = np.zeros((64, *symbols.side.shape[1:]), np.int32)
    scales, shape = frozen.scales, symbols.latent.shape[1:]

    def drawn(log_scales):
        scale = gaussian.SCALES[scales.indexes(log_scales)]
        return np.rint(np.random.default_rng(0).normal(0, scale)).astype(np.int32)

    log_scales = scales.log_scales(side, level, shape[:-1])
    latent = drawn(log_scales)
    if codec.context:
        anchor = checkerboard.anchors(*shape[:2])
        others = drawn(scales.in_context(log_scales, latent, anchor, level))
        latent = np.where(anchor, latent, others)
    streams = codec.write(frozen, side, latent, level)
    estimate = codec.restore(
        params, side, jnp.asarray(latent, jnp.float32), level, codec.transfer.size
    )
    real, estimated = 8 * np.mean([len(s) for s in streams]), float(estimate.bits.mean())
    assert estimated > 8
    assert abs(real - estimated) <= 0.01 * estimated + 4


@each_codec
def test_symbols_are_read_without_any_float_of_the_model(name):
    codec, (_, frozen) = CODECS[name], prepared(name)
    x, streams, _, symbols = decoded(name)
    level = codec.level_of(lams_of(codec, len(x)))
    side, latent = codec.read(frozen, streams, level)
    np.testing.assert_array_equal(side, symbols.side)
    np.testing.assert_array_equal(latent, symbols.latent)


@each_codec
def test_a_decoder_whose_floats_differ_gets_the_same_symbols(name):
    # As if another compiler or device had rounded every parameter otherwise.
    codec, (params, frozen) = CODECS[name], prepared(name)
    x, streams, back, _ = decoded(name)
    rng = np.random.default_rng(0)
    nudge = lambda leaf: leaf * (1 + 1e-5 * rng.choice([-1, 1], leaf.shape)).astype(np.float32)  # noqa: E731
    other = codec.decode(jax.tree.map(nudge, params), frozen, streams, lams_of(codec, len(x)))
    assert not np.array_equal(other, back)
    np.testing.assert_allclose(other, back, rtol=1e-2, atol=1e-2)


@each_codec
def test_a_stream_does_not_depend_on_its_batch(name):
    codec, (params, frozen) = CODECS[name], prepared(name)
    x, streams, back, _ = decoded(name)
    lam = lams_of(codec, len(x))
    for i in range(len(x)):
        alone = codec.encode(params, frozen, x[i : i + 1], lam[i])
        assert alone == streams[i : i + 1]
        single = codec.decode(params, frozen, alone, lam[i])
        np.testing.assert_array_equal(single[0], back[i])
    reverse = codec.decode(params, frozen, streams[::-1], lam[::-1])
    np.testing.assert_array_equal(reverse[::-1], back)


def test_more_images_than_a_chunk_come_back_in_order():
    codec, (params, frozen) = CODECS["codebook"], prepared("codebook")
    x = features_of(codec.shape, 37)
    streams = codec.encode(params, frozen, x, 0.3)
    back = codec.decode(params, frozen, streams, 0.3)
    assert len(streams) == len(back) == 37
    assert streams[36:] == codec.encode(params, frozen, x[36:], 0.3)
    symbols = codec.quantise(params, x, np.full(37, codec.level_of(0.3)))
    np.testing.assert_allclose(back, symbols.output.feature, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "shape"), [("codebook", (11, 5, 3)), ("spatial", (3, 14, 3)), ("codebook", (1, 1, 3))]
)
def test_features_of_other_height_and_width_are_coded_too(name, shape):
    x, _, back, symbols = decoded(name, 3, shape)
    assert back.shape == x.shape
    np.testing.assert_allclose(back, symbols.output.feature, rtol=1e-4, atol=1e-4)


@each_codec
def test_a_second_call_compiles_nothing_whatever_the_batch_and_lam(name):
    codec, (params, frozen) = CODECS[name], prepared(name)
    x = features_of(codec.shape, 7)
    low, high = codec.lams
    codec.decode(params, frozen, codec.encode(params, frozen, x, low), low)
    COMPILED.clear()
    codec.decode(params, frozen, codec.encode(params, frozen, x[:3], high), high)
    assert COMPILED == []


@each_codec
def test_no_image_is_no_stream_and_no_feature(name):
    codec, (params, frozen) = CODECS[name], prepared(name)
    low = codec.lams[0]
    assert codec.encode(params, frozen, np.zeros((0, *codec.shape), np.float32), low) == []
    assert codec.decode(params, frozen, [], low).shape == (0, *codec.shape)


@pytest.mark.parametrize("name", ["codebook", "spatial", "codebook of a vector"])
def test_a_truncated_or_foreign_stream_decodes_to_something_or_is_refused(name):
    codec, (params, frozen) = CODECS[name], prepared(name)
    _, streams, *_ = decoded(name)
    whole = max(streams, key=len)
    rng = np.random.default_rng(0)
    damaged = [whole[:n] for n in np.linspace(0, len(whole) - 1, 6).astype(int)]
    damaged += [rng.bytes(n) for n in (1, 7, 100)] + [b"\xff" * 50, whole + b"more"]
    for stream in damaged:
        try:
            back = codec.decode(params, frozen, [stream], codec.lams[0])
        except CorruptStream:
            continue
        assert back.shape == (1, *codec.shape)


# Rate levels


@given(st.floats(1e-6, 1e3), st.floats(1.01, 1e4), st.integers(0, 255))
def test_level_of_inverts_lam_of(low, ratio, level):
    codec = FeatureCodec((4,), lams=(low, low * ratio))
    assert codec.level_of(codec.lam_of(level)) == level
    assert codec.lam_of(0) == pytest.approx(low) and codec.lam_of(255) == pytest.approx(low * ratio)


@given(st.floats(0.01, 1.0))
def test_the_nearest_level_is_half_a_step_of_log_lam_away_at_most(lam):
    codec = FeatureCodec((4,))
    step = math.log(100) / 255
    assert abs(math.log(codec.lam_of(codec.level_of(lam)) / lam)) <= step / 2 * (1 + 1e-6)


def test_a_model_of_one_lam_has_level_0_alone():
    codec = CODECS["spatial, odd sizes, one lam"]
    np.testing.assert_array_equal(codec.level_of(np.full(3, 0.1)), 0)
    assert codec.levels == 1
    np.testing.assert_allclose(codec.lam_of(np.array([0, 7, 255])), 0.1)


@each_codec
def test_training_and_evaluation_see_the_same_level(name):
    # At the λ of a level, `apply` differs from `quantise` by rounding alone: same reconstruction.
    codec, (params, _) = CODECS[name], prepared(name)
    x, lam = features_of(codec.shape, 4), lams_of(codec, 4)
    output = jax.jit(codec.apply)(params, jax.random.key(0), x, jnp.asarray(lam, jnp.float32))
    symbols = codec.quantise(params, x, codec.level_of(lam))
    close = np.isclose(output.feature, symbols.output.feature, rtol=1e-2, atol=1e-2)
    assert close.mean() > 0.9  # a symbol on the brink of rounding may fall either way


# The differentiable model


@pytest.mark.parametrize("name", ["codebook", "codebook of a vector", "spatial"])
def test_gradient_of_the_loss_reaches_every_trainable_parameter(name):
    codec = CODECS[name]
    x = jnp.asarray(features_of(codec.shape, 8))
    params = jax.jit(codec.init)(jax.random.key(3), x)
    lam = jnp.full(8, 0.21)
    gradient = jax.jit(jax.grad(functools.partial(objective, codec)))(
        params, jax.random.key(1), x, lam
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        where = jax.tree_util.keystr(path)
        assert np.all(np.isfinite(leaf)), where
        assert np.any(np.asarray(leaf) != 0) == ("statistics" not in where), where


def test_control_has_no_rate_and_its_gradient_reaches_both_transforms():
    codec = tiny((8, 8, 3), None)
    x = jnp.asarray(features_of(codec.shape, 4))
    params = jax.jit(codec.init)(jax.random.key(0), x)
    assert "prior" not in params
    run = jax.jit(codec.apply)
    output = run(params, jax.random.key(0), x, jnp.float32(0.3))
    np.testing.assert_array_equal(output.bits, 0)
    again = run(params, jax.random.key(9), x, jnp.float32(0.3))
    np.testing.assert_array_equal(output.feature, again.feature)  # nothing is random without noise
    gradient = jax.jit(jax.grad(functools.partial(objective, codec)))(
        params, jax.random.key(0), x, jnp.full(4, 0.3)
    )
    for part in ("analysis", "synthesis"):
        assert all(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(gradient[part]))


@pytest.mark.parametrize("name", ["spatial", "codebook of a vector"])
def test_apply_under_vmap_over_models_is_each_model_alone(name):
    codec = CODECS[name]
    x = jnp.asarray(features_of(codec.shape, 3))
    keys = jax.random.split(jax.random.key(0), 2)
    models = jax.jit(jax.vmap(codec.init))(keys)
    lam = jnp.float32(codec.lams[1])
    both = jax.jit(jax.vmap(codec.apply, (0, 0, None, None)))(models, keys, x, lam)
    assert both.bits.shape == (2, 3)
    assert np.all(np.asarray(both.latent_bits) > 0) and np.all(np.asarray(both.side_bits) > 0)
    run = jax.jit(codec.apply)
    for i in range(2):
        alone = run(jax.tree.map(lambda leaf, i=i: leaf[i], models), keys[i], x, lam)
        np.testing.assert_allclose(both.bits[i], alone.bits, rtol=1e-3)


@pytest.mark.parametrize("name", ["codebook", "codebook of a vector"])
def test_features_are_normalised_by_the_examples_given_to_init(name):
    # Scaling and shifting features and examples alike scales and shifts the reconstruction.
    codec = CODECS[name]
    x = jnp.asarray(features_of(codec.shape, 16))
    run, init = jax.jit(codec.apply), jax.jit(codec.init)
    key, lam = jax.random.key(0), jnp.float32(0.3)
    plain = run(init(key, x), key, x, lam)
    moved = run(init(key, 7 * x - 30), key, 7 * x - 30, lam)
    close = np.isclose(moved.feature, 7 * plain.feature - 30, rtol=1e-2, atol=1e-2)
    assert close.mean() > 0.99
    np.testing.assert_allclose(moved.bits, plain.bits, rtol=0.02)


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (4, 4)}, r"shape is \(4, 4\); expected \(H, W, C\) or \(C,\)"),
        ({"shape": (4, 4, 0)}, "each at least 1"),
        ({"shape": (4,), "prior": "spatial"}, "use prior='codebook'"),
        ({"shape": (4,), "context": True}, "context needs .* a latent that has positions"),
        ({"shape": (4, 4, 2), "prior": None, "context": True}, "context needs a prior"),
        ({"shape": (4,), "prior": "magic"}, "prior is 'magic'; expected"),
        ({"shape": (4, 4, 2), "stride": 3}, "stride is 3; expected a power of two"),
        ({"shape": (4,), "lams": (0.0, 1.0)}, "expected 0 < least"),
        ({"shape": (4,), "lams": (1.0, 0.1)}, "expected 0 < least"),
        ({"shape": (4,), "lams": (0.1, math.inf)}, "both finite"),
    ],
)
def test_hyper_parameters_that_cannot_work_are_refused(options, message):
    with pytest.raises(VcmError, match=message):
        FeatureCodec(**options)


@each_codec
def test_features_of_a_wrong_shape_are_refused_with_the_shape_expected(name):
    codec, (params, frozen) = CODECS[name], prepared(name)
    one = features_of(codec.shape, 1)
    expected = r"expected \(N, " + ", ".join(map(str, codec.shape))
    wrong = [one[0], one[..., :-1], one[None]]
    if codec.spatial:
        wrong.append(one.transpose(0, 3, 1, 2))  # as PyTorch has them
    for features in wrong:
        with pytest.raises(VcmError, match=expected):
            codec.encode(params, frozen, features, codec.lams[0])
        with pytest.raises(VcmError, match=expected):
            codec.init(jax.random.key(0), features)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_not_finite_is_refused_by_number(value):
    codec, (params, frozen) = CODECS["codebook"], prepared("codebook")
    x = features_of(codec.shape, 4)
    x[2, 1, 1, 0] = value
    with pytest.raises(VcmError, match=r"features\[2\] holds NaN or infinity; expected finite"):
        codec.encode(params, frozen, x, 0.3)


@pytest.mark.parametrize("lam", [0.0, -1.0, 0.009, 1.1, np.nan, np.inf])
def test_a_lam_outside_the_range_is_refused_with_the_range(lam):
    codec, (params, frozen) = CODECS["codebook"], prepared("codebook")
    x = features_of(codec.shape, 2)
    streams = codec.encode(params, frozen, x, 0.3)
    with pytest.raises(VcmError, match=r"this model covers 0\.01 to 1"):
        codec.encode(params, frozen, x, lam)
    with pytest.raises(VcmError, match=r"this model covers 0\.01 to 1"):
        codec.decode(params, frozen, streams, np.array([0.3, lam]))
