"""IDFC: exact inverses around HEVC, and the side information that they need."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vcmjax.codecs import idfc
from vcmjax.codecs.idfc import Idfc
from vcmjax.errors import CorruptStream, TruncatedStream, UsageError, VcmError

SCALES = ("minmax", "percentile", "log")
PACKINGS = ("concatenation", "descending", "tiling")
SHAPES = ((16, 16, 8), (9, 20, 5), (32, 17, 1))


def features_of(shape, count=3, seed=0):
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(0.5, 2, (count, *shape)), -1).astype(np.float32)


finite = st.floats(-6e4, 6e4, width=32)


@given(hnp.arrays(np.float32, (3, 2, 4), elements=finite), st.sampled_from((8, 10)))
def test_a_quantised_value_errs_by_half_a_step_at_most(feature, bits):
    integers, ends = idfc.quantise(feature, bits, "minmax")
    step = (float(ends[1]) - float(ends[0])) / (2**bits - 1)
    restored = idfc.dequantise(integers, ends, bits, "minmax")
    slack = 1e-6 * np.abs(feature).max()
    assert np.abs(restored - feature.astype(np.float64)).max() <= step / 2 + slack
    # The ends are the least and greatest value up to float16's rounding, outwards.
    assert ends[0] <= feature.min() and ends[1] >= feature.max()
    assert float(ends[1]) - feature.max() <= 2**-10 * abs(float(feature.max())) + 6e-8


@given(hnp.arrays(np.float32, (40,), elements=finite), st.sampled_from((8, 10)))
def test_the_logarithm_errs_by_half_a_step_of_the_logarithm(values, bits):
    feature = values.reshape(5, 4, 2)
    integers, ends = idfc.quantise(feature, bits, "log")
    step = (float(ends[1]) - float(ends[0])) / (2**bits - 1)
    restored = idfc.dequantise(integers, ends, bits, "log").astype(np.float64)
    log = lambda x: np.sign(x) * np.log1p(np.abs(x))  # noqa: E731
    assert np.abs(log(restored) - log(feature.astype(np.float64))).max() <= step / 2 + 1e-5


def test_percentiles_clip_the_tails_alone():
    feature = np.random.default_rng(0).normal(size=(50, 40, 4)).astype(np.float32)
    integers, ends = idfc.quantise(feature, 8, "percentile")
    low, high = np.percentile(feature, [idfc.CLIPPED, 100 - idfc.CLIPPED])
    np.testing.assert_allclose(ends, [low, high], rtol=2e-3)
    restored = idfc.dequantise(integers, ends, 8, "percentile")
    inside = (feature >= low) & (feature <= high)
    assert np.abs(restored - feature)[inside].max() <= (high - low) / 255 * 0.51
    assert restored[feature > high].min() >= high - 0.1


@pytest.mark.parametrize("scale", SCALES)
def test_a_constant_tensor_is_kept(scale):
    feature = np.full((16, 16, 2), 0.3, np.float32)
    integers, ends = idfc.quantise(feature, 8, scale)
    np.testing.assert_allclose(idfc.dequantise(integers, ends, 8, scale), 0.3, rtol=1e-3)


@pytest.mark.parametrize("channels", [1, 2, 5, 8])
def test_an_order_takes_the_fewest_bytes_that_tell_all_orders_apart(channels):
    orders = itertools.permutations(range(1, channels))
    some = [np.array([0, *order]) for order, _ in zip(orders, range(200), strict=False)]
    packed = [idfc._packed_order(order) for order in some]
    assert len(set(packed)) == len(some)
    needed = math.ceil(math.log2(max(math.factorial(channels - 1), 1)) / 8)
    assert {len(each) for each in packed} == {needed}
    for order, each in zip(some, packed, strict=True):
        np.testing.assert_array_equal(idfc._unpacked_order(each, channels), order)


def test_the_chain_follows_the_nearest_channel():
    feature = np.array([0.0, 5.0, 1.0, 9.0, 4.0], np.float32).reshape(1, 1, 5)
    np.testing.assert_array_equal(idfc.nearest_chain(feature), [0, 2, 4, 1, 3])


# With HEVC


@pytest.fixture(autouse=True)
def _codecs(request):
    if "packing" in request.fixturenames or "shape" in request.fixturenames:
        pytest.importorskip("av", reason="needs the extra [codecs]")


@pytest.mark.parametrize("inter", [False, True])
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("bits", "scale"), [(8, "minmax"), (10, "log"), (8, "percentile")])
def test_lossless_hevc_leaves_the_error_of_the_integers_alone(shape, packing, bits, scale, inter):
    features = features_of(shape, 2)
    codec = Idfc(shape, packing, bits, scale, inter, lossless=True)
    expected = [
        idfc.dequantise(*idfc.quantise(feature, bits, scale), bits, scale) for feature in features
    ]
    np.testing.assert_array_equal(codec.decode(codec.encode(features)), expected)


@pytest.mark.parametrize("packing", PACKINGS)
def test_bytes_do_not_depend_on_the_batch(packing):
    features = features_of((16, 16, 8), 4)
    codec = Idfc((16, 16, 8), packing, inter=True)
    streams = codec.encode(features, 37)
    assert codec.encode(features[::-1], 37)[::-1] == streams
    assert codec.encode(features[2:3], 37) == streams[2:3]
    np.testing.assert_array_equal(codec.decode(streams)[1], codec.decode(streams[1:2])[0])


@pytest.mark.parametrize("packing", PACKINGS)
def test_more_bits_err_less(packing):
    features = features_of((16, 16, 8))
    codec = Idfc((16, 16, 8), packing)
    sizes, errors = [], []
    for qp in (51, 37, 22, 12):
        streams = codec.encode(features, qp)
        sizes.append(sum(map(len, streams)))
        errors.append(((codec.decode(streams) - features) ** 2).mean())
    assert sizes == sorted(sizes) and errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("packing", PACKINGS)
def test_side_information_and_parameter_sets_are_counted(packing):
    codec = Idfc((16, 16, 8), packing)
    (stream,) = codec.encode(features_of((16, 16, 8), 1), 51)
    order = 2 if packing == "descending" else 0  # 7! = 5040 orders
    slices = codec._slices(stream)
    lengths = 0 if packing == "tiling" else 2 + -(-7 * _width(slices[:-1]) // 8)
    assert len(stream) == 4 + order + lengths + sum(map(len, slices))
    assert 60 < codec.stream_bytes(stream) - len(stream) < 110


def _width(slices):
    sizes = [len(unit) for unit in slices]
    return (max(sizes) - min(sizes)).bit_length()


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_damaged_stream_is_an_error_or_a_feature_never_a_crash(packing):
    codec = Idfc((16, 16, 8), packing)
    (stream,) = codec.encode(features_of((16, 16, 8), 1), 30)
    with pytest.raises(TruncatedStream):
        codec.decode([b""])
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(stream[: rng.integers(len(stream) + 1)])
        for at in rng.integers(0, len(damaged), 2) if damaged else ():
            damaged[at] ^= int(rng.integers(1, 256))
        try:
            decoded = codec.decode([bytes(damaged)])
        except VcmError:
            continue
        assert decoded.shape == (1, 16, 16, 8)


def test_an_end_that_is_not_finite_is_corrupt():
    with pytest.raises(CorruptStream, match="not finite"):
        idfc.dequantise(np.zeros((1, 1, 1)), np.array([0, np.inf], np.float16), 8, "minmax")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Idfc((16, 16)), "expected \\(H, W, C\\)"),
        (lambda: Idfc((16, 16, 2), bits=9), "expected 8 or 10"),
        (lambda: Idfc((16, 16, 2)).encode(np.zeros((1, 16, 16, 3))), "features \\(1, 16, 16, 3\\)"),
        (lambda: idfc.quantise(np.array([[[np.nan]]]), 8, "minmax"), "finite"),
        (lambda: idfc.quantise(np.array([[[1e6]]]), 8, "minmax"), "below 65504"),
    ],
)
def test_what_cannot_be_coded_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


@given(hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 9)] * 2, st.integers(1, 20))))
def test_a_mosaic_holds_every_channel_once(integers):
    frame = idfc.tile(integers)
    assert frame.shape == idfc.mosaic(integers.shape)
    np.testing.assert_array_equal(idfc.untile(frame, integers.shape), integers)
    assert frame.size < 2 * integers.size + integers.shape[0] * integers.shape[1]
