"""One table of codecs, one set of laws."""

import dataclasses
import functools
import itertools
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmjax.codecs.feature import LARGEST, FeatureCodec
from vcmjax.coding import range_coder
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


# The range that the coder holds


@each_codec
@settings(max_examples=30)
@given(data=st.data())
def test_any_finite_feature_round_trips_or_is_refused_with_the_range(name, data):
    codec, (params, frozen) = CODECS[name], prepared(name)
    magnitude = data.draw(st.floats(-45, 38.5))
    spread = data.draw(st.sampled_from(["one value", "all values"]))
    x = features_of(codec.shape, 2, seed=data.draw(st.integers(0, 9)))
    far = np.clip(10.0**magnitude * x.astype(np.float64), -3.4e38, 3.4e38).astype(np.float32)
    if spread == "all values":
        x[1] = far[1]
    else:
        x[1].flat[data.draw(st.integers(0, x[1].size - 1))] = far[1].flat[0]
    lam = codec.lams[1]
    refused = ""
    try:
        streams = codec.encode(params, frozen, x, lam)
    except VcmError as error:
        refused = str(error)
    if refused:
        assert re.search(r"features\[1\] reach .* ±1073741824 quantisation steps", refused)
        assert np.abs(x[1]).max() > 1e6
        return
    back = codec.decode(params, frozen, streams, lam)
    level = np.full(2, codec.level_of(lam))
    expected = np.asarray(codec.quantise(params, x, level).output.feature)
    assert np.isfinite(back).all()
    for got, wanted in zip(back, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * max(np.abs(wanted).max(), 1))


@pytest.mark.parametrize("name", ["codebook", "spatial", "codebook of a vector"])
def test_the_greatest_features_of_float32_are_refused(name):
    codec, (params, frozen) = CODECS[name], prepared(name)
    x = np.concatenate([features_of(codec.shape, 2), np.full((1, *codec.shape), 1e38, np.float32)])
    with pytest.raises(VcmError, match=r"features\[2\] reach 1e\+38, far from what"):
        codec.encode(params, frozen, x, codec.lams[0])


def test_numbers_beyond_float32_are_refused_with_the_value():
    codec, (params, frozen) = CODECS["codebook"], prepared("codebook")
    x = features_of(codec.shape, 3).astype(np.float64)
    x[1, 2, 3, 0] = -1e300
    with pytest.raises(VcmError, match=r"features\[1\] holds -1e\+300, beyond float32"):
        codec.encode(params, frozen, x, 0.3)


@each_codec
def test_symbols_are_coded_up_to_the_limit_and_refused_beyond(name):
    codec, (_, frozen) = CODECS[name], prepared(name)
    _, _, _, symbols = decoded(name, 2)
    level = np.zeros(2, np.int32)
    parts = {"side": np.asarray(symbols.side), "latent": np.asarray(symbols.latent)}
    for which, value in itertools.product(parts, (LARGEST, -LARGEST)):
        changed = {part: array.copy() for part, array in parts.items()}
        changed[which][1].flat[-1] = value
        streams = codec.write(frozen, **changed, level=level)
        for got, expected in zip(codec.read(frozen, streams, level), changed.values(), strict=True):
            np.testing.assert_array_equal(got, expected)
        changed[which][1].flat[-1] += np.sign(value)
        with pytest.raises(VcmError, match=rf"of image 1 is {value + np.sign(value)}; .*±1073741"):
            codec.write(frozen, **changed, level=level)


def test_a_stream_of_a_symbol_that_no_encoder_writes_is_refused():
    codec, (_, frozen) = CODECS["codebook"], prepared("codebook")
    side = np.zeros((1, *codec.side_shape((2, 2))), np.int64)
    index = np.broadcast_to(frozen.side_index[:1], side.shape)
    side[0, 0] = 2**31 - 1 + frozen.offsets[index[0, 0]]
    stream = range_coder.encode_batch(side - frozen.offsets[index], index, frozen.cdf)
    with pytest.raises(CorruptStream, match=r"stream 0: a symbol is .* no encoder"):
        codec.read(frozen, stream, np.zeros(1, np.int32))


# Arguments that a user may get wrong

NO_FEATURES = [
    (None, "object"),
    ("features", "real numbers"),
    (np.zeros((2, 8, 8, 3), complex), "complex128"),
    (np.full((2, 8, 8, 3), "a"), "real numbers"),
    (np.zeros((2, 8, 8, 3), object), "object"),
    ([np.zeros((8, 8, 3)), np.zeros((8, 7, 3))], "cannot be read as an array|real numbers"),
    ({"normal": np.zeros((2, 8, 8, 3))}, "features are a dict by task; expected an array"),
    (np.zeros((2, 0, 8, 3)), r"size \(0, 8\); expected at least 1 position"),
    (np.broadcast_to(np.float32(0), (1, 1 << 12, 1 << 12, 3)), "expected 4194304 at most"),
    (np.float32(3), r"shape \(\); expected \(N, 8, 8, 3\)"),
]


@pytest.mark.parametrize(("features", "message"), NO_FEATURES)
def test_what_is_no_batch_of_features_is_refused(features, message):
    codec, (params, frozen) = CODECS["codebook"], prepared("codebook")
    with pytest.raises(VcmError, match=message):
        codec.encode(params, frozen, features, 0.3)


@pytest.mark.parametrize("kind", [np.float64, np.float16, jnp.bfloat16, np.int32, np.uint8, list])
def test_features_of_any_type_of_real_numbers_are_coded_as_float32(kind):
    codec, (params, frozen) = CODECS["codebook"], prepared("codebook")
    x = np.round(features_of(codec.shape, 2)).clip(0, 100).astype(np.float32)
    given = x.tolist() if kind is list else x.astype(kind)
    assert codec.encode(params, frozen, given, 0.3) == codec.encode(params, frozen, x, 0.3)


@pytest.mark.parametrize(
    ("lam", "message"),
    [
        (None, "lam: found object"),
        ("0.3", "lam: found <U3"),
        (True, "lam is True; expected numbers of 0.01 to 1"),
        (0.3 + 0j, "lam: found complex128"),
        ([0.3, None], "lam: found object"),
        ([[0.3], [0.3, 0.3]], "lam cannot be read as an array|lam: found object"),
        (np.full(3, 0.3), r"lam has shape \(3,\); expected a number, or \(2,\)"),
        (np.full((2, 1), 0.3), r"lam has shape \(2, 1\)"),
        (np.array([0.3, np.nan]), "lam is nan; this model covers"),
        (10**400, "lam: found object"),
    ],
)
def test_what_is_no_lam_is_refused_by_all_that_takes_one(lam, message):
    codec, (params, frozen) = CODECS["codebook"], prepared("codebook")
    x, streams, *_ = decoded("codebook", 2)
    with pytest.raises(VcmError, match=message):
        codec.encode(params, frozen, x, lam)
    with pytest.raises(VcmError, match=message):
        codec.decode(params, frozen, streams, lam)


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        (b"abc", r"streams are one bytes; expected a list of byte strings: \[stream\]"),
        ("abc", "streams are one str"),
        (bytearray(3), "streams are one bytearray"),
        (memoryview(b"abc"), "streams are one memoryview"),
        (None, "streams are None; expected a list"),
        (7, "streams are 7; expected a list"),
        ([b"abc", "abc"], r"streams\[1\] is of type str; expected bytes"),
        ([3, 4], r"streams\[0\] is of type int; expected bytes"),
        (np.zeros(3, np.uint8), r"streams\[0\] is of type uint8; expected bytes"),
        ([None], r"streams\[0\] is of type NoneType"),
    ],
)
def test_what_is_no_list_of_byte_strings_is_refused(streams, message):
    codec, (params, frozen) = CODECS["codebook"], prepared("codebook")
    with pytest.raises(VcmError, match=message):
        codec.decode(params, frozen, streams, 0.3)
    with pytest.raises(VcmError, match=message):
        codec.read(frozen, streams, np.zeros(1, np.int32))


def test_any_sequence_of_bytes_is_decoded():
    codec, (params, frozen) = CODECS["codebook"], prepared("codebook")
    _, streams, *_ = decoded("codebook", 2)
    expected = codec.decode(params, frozen, streams, 0.3)
    for same in (
        tuple(streams),
        iter(streams),
        [bytearray(s) for s in streams],
        [memoryview(s) for s in streams],
        np.array(streams, object),
    ):
        np.testing.assert_array_equal(codec.decode(params, frozen, same, 0.3), expected)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("codebook", (8,), r"size of the features is \(8,\); expected \(H, W\), two integers"),
        ("codebook", (8, 8, 3), "expected"),
        ("codebook", 8, "size of the features is 8"),
        ("codebook", "88", "size of the features is '88'"),
        ("codebook", (8.0, 8.0), "two integers"),
        ("codebook", (None, 8), "two integers"),
        ("codebook", (0, 8), r"size \(0, 8\); expected at least 1"),
        ("codebook", (8, -1), "expected at least 1"),
        ("codebook", (1 << 40, 1), "expected 4194304 at most .*MOST_POSITIONS"),
        ("codebook of a vector", (8, 8), "expected None, as they have no positions"),
    ],
)
def test_what_is_no_size_is_refused_before_anything_is_decoded(name, size, message):
    codec, (params, frozen) = CODECS[name], prepared(name)
    _, streams, *_ = decoded(name, 1)
    with pytest.raises(VcmError, match=message):
        codec.decode(params, frozen, streams, 0.3, size)
    with pytest.raises(VcmError, match=message):
        codec.read(frozen, streams, np.zeros(1, np.int32), size)
    with pytest.raises(VcmError, match=message):
        codec.ideal_bits(frozen, streams, np.zeros(1, np.int32), size)


@pytest.mark.parametrize("level", [np.zeros(3, int), np.zeros(2), np.array([0, 256]), [0, -1], 0])
def test_levels_that_the_codec_does_not_have_are_refused(level):
    codec, (_, frozen) = CODECS["codebook"], prepared("codebook")
    _, streams, _, symbols = decoded("codebook", 2)
    with pytest.raises(VcmError, match="level is"):
        codec.read(frozen, streams, level)
    with pytest.raises(VcmError, match="level is"):
        codec.write(frozen, symbols.side, symbols.latent, level)


@pytest.mark.parametrize(
    "options",
    [
        {"shape": "abc"},
        {"shape": None},
        {"shape": 8},
        {"shape": (8.0, 8, 3)},
        {"shape": ((8, 8, 3),)},
        {"shape": {"a": 3}},
        {"shape": {f"t{i}": (3,) for i in range(101)}, "latent_channels": 101},
        {"latent_channels": 0},
        {"latent_channels": 2.5},
        {"latent_channels": "64"},
        {"hidden": -1},
        {"hidden": None},
        {"side": True},
        {"stride": 0},
        {"stride": 1 << 12},
        {"context": 1},
        {"prioritised": "no"},
        {"prior": ["codebook"]},
        {"lams": 0.1},
        {"lams": (0.1,)},
        {"lams": (0.1, 0.2, 0.3)},
        {"lams": ("0.1", "1")},
        {"lams": "12"},
        {"lams": (True, 2)},
        {"lams": (math.nan, 1.0)},
    ],
)
def test_hyper_parameters_of_other_types_are_refused(options):
    with pytest.raises(VcmError, match=next(iter(options))):
        FeatureCodec(**{"shape": (8, 8, 3)} | options)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1 << 12, 1 << 12, 3), r"size \(4096, 4096\), .* expected 4194304 at most"),
        ({1: (3,)}, "task is named 1; expected a word"),
        ({"../../esc": (3,)}, "task is named '../../esc'; expected a word"),
        ({"a": (3,), "A": (3,)}, "tasks are named 'a' and 'A'; expected more than case to differ"),
    ],
)
def test_shapes_and_names_beyond_all_reason_are_refused(shape, message):
    with pytest.raises(VcmError, match=message):
        FeatureCodec(shape)


def test_numbers_of_numpy_make_the_same_codec_as_those_of_python():
    shape = np.array([8, 8, 3])
    lams = np.array([0.25, 0.5], np.float32)
    codec = FeatureCodec(shape, lams=lams, hidden=np.int64(16), side=np.uint8(3))
    assert codec == FeatureCodec((8, 8, 3), lams=(0.25, 0.5), hidden=16, side=3)
    assert json.dumps(dataclasses.asdict(codec))


def test_the_control_group_has_no_bytes():
    codec = tiny((8, 8, 3), None)
    with pytest.raises(VcmError, match="prior is None"):
        codec.tables({})
