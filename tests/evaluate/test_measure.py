import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcmjax.codecs.feature import FeatureCodec
from vcmjax.data.features import Split
from vcmjax.evaluate import measure, metrics
from vcmjax.tasks import VOID, Task
from vcmjax.train import losses

TASKS = {
    "class": Task("class_scene", "class", 3),
    "segment": Task("segment_semantic", "segment", 3),
    "dense": Task("normal", "dense", 3),
}
COUNT = 35  # more than a batch
CODECS = {
    prior: FeatureCodec((4, 4, 2), prior, (0.1, 0.1), 4, 2, hidden=16, side=3)
    for prior in ("codebook", "spatial", None)
}
WEIGHT = np.random.default_rng(9).normal(size=(2, 3)).astype(np.float32)


def class_head(feature):
    return feature.mean((1, 2)) @ WEIGHT


def pixel_head(feature):
    return feature @ WEIGHT


def head_of(kind):
    return class_head if kind == "class" else pixel_head


@functools.cache
def split(kind):
    rng = np.random.default_rng(0)
    feature = rng.normal(size=(COUNT, 4, 4, 2)).astype(np.float32)
    label = {
        "class": rng.integers(0, 3, COUNT).astype(np.int32),
        "segment": rng.choice([0, 1, 2, VOID], (COUNT, 8, 8)).astype(np.uint8),
        "dense": rng.normal(size=(COUNT, 8, 8, 3)).astype(np.float32),
    }[kind]
    return Split(feature, label, (16, 16))


@functools.cache
def model(prior):
    codec = CODECS[prior]
    params = jax.jit(codec.init)(jax.random.key(0), jnp.asarray(split("class").feature))
    return codec, params, codec.tables(params) if prior else None


@pytest.mark.parametrize("kind", TASKS)
def test_head_statistics_are_those_of_the_resized_output_in_one_batch(kind):
    data, head = split(kind), head_of(kind)
    output = jnp.asarray(head(data.feature))
    if kind != "class":
        output = losses.resized(output, 8, 8)
    expected = metrics.statistics(TASKS[kind], output, data.label)
    got = measure.head_statistics(TASKS[kind], head, data.feature, data.label)
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prior", ["codebook", "spatial"])
def test_measured_bytes_are_the_lengths_of_the_streams_and_scores_those_of_what_is_decoded(prior):
    codec, params, frozen = model(prior)
    data = split("class")
    got = measure.measure(codec, params, frozen, TASKS["class"], class_head, data, 0)
    streams = codec.encode(params, frozen, data.feature, 0.1)
    np.testing.assert_array_equal(got.bytes, [len(stream) for stream in streams])
    back = codec.decode(params, frozen, streams, 0.1)
    expected = measure.head_statistics(TASKS["class"], class_head, back, data.label)
    for key, value in expected.items():
        np.testing.assert_array_equal(got.statistics[key], value)


@pytest.mark.parametrize("prior", ["codebook", "spatial"])
def test_the_estimate_includes_the_side_bits_and_explains_the_bytes(prior):
    codec, params, frozen = model(prior)
    _, got = measure.reconstruction(codec, params, frozen, split("class").feature, 64, 0)
    assert np.all((got.side_bits > 0) & (got.side_bits < got.estimated_bits))
    real, estimate = 8 * got.bytes.mean(), got.estimated_bits.mean()
    assert abs(real - estimate) <= 0.01 * estimate + 4


def test_the_control_group_sends_nothing_and_passes_its_latent_on():
    codec, params, frozen = model(None)
    decoded, got = measure.reconstruction(codec, params, frozen, split("class").feature, 64, 0)
    assert not got.bytes.any() and not got.estimated_bits.any()
    feature = jnp.asarray(split("class").feature)
    expected = codec.apply(params, jax.random.key(1), feature, jnp.float32(0.1)).feature
    np.testing.assert_allclose(decoded, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", TASKS)
def test_prediction_is_the_class_or_value_at_the_labels_size(kind):
    data = split(kind)
    got = measure.prediction(TASKS[kind], head_of(kind), data.feature, data.label)
    assert got.shape == data.label.shape
    score = {
        "class": lambda: np.mean(got == data.label),
        "segment": lambda: np.mean(got[data.label != VOID] == data.label[data.label != VOID]),
        "dense": lambda: np.mean(np.abs(got - data.label)),
    }[kind]()
    statistics = measure.head_statistics(TASKS[kind], head_of(kind), data.feature, data.label)
    name = "l1" if kind == "dense" else "accuracy"
    assert metrics.scores(TASKS[kind], statistics)[name] == pytest.approx(score, rel=1e-5)


def test_a_decoder_that_differs_from_the_evaluation_is_a_defect_and_stops():
    codec, params, frozen = model("codebook")

    class Broken(FeatureCodec):
        def decode(self, *args, **options):
            return super().decode(*args, **options) + 0.1

    broken = Broken(*(getattr(codec, name) for name in codec.__dataclass_fields__))
    with pytest.raises(AssertionError, match="differ"):
        measure.reconstruction(broken, params, frozen, split("class").feature, 64, 0)
