import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from vcmjax.tasks import VOID, Task
from vcmjax.train import losses

CLASS = Task("scene", "class", 5)
SEGMENT = Task("segment", "segment", 5)
DENSE = Task("normal", "dense", 2)
TASKS = {"class": CLASS, "segment": SEGMENT, "dense": DENSE}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32) * 3


def labels(kind, seed=0):
    """(output, reference, label) of 3 images, with some void."""
    rng = np.random.default_rng(seed)
    if kind == "class":
        return normal(3, 5), normal(3, 5, seed=1), rng.integers(0, 5, 3).astype(np.int32)
    label = rng.integers(0, 5, (3, 4, 6)).astype(np.uint8)
    void = rng.random((3, 4, 6)) < 0.3
    if kind == "segment":
        return (
            normal(3, 4, 6, 5),
            normal(3, 4, 6, 5, seed=1),
            np.where(void, VOID, label).astype(np.uint8),
        )
    dense = normal(3, 4, 6, 2, seed=2)
    dense[void] = np.nan
    return normal(3, 4, 6, 2), normal(3, 4, 6, 2, seed=1), dense


def expected_to_labels(kind, output, label):
    if kind == "class":
        chosen = zip(output, label, strict=True)
        return [
            log_loss([y], scipy.special.softmax(o[None].astype(float), 1), labels=range(5))
            for o, y in chosen
        ]
    if kind == "dense":
        return [np.abs(o - y)[~np.isnan(y)].mean() for o, y in zip(output, label, strict=True)]
    out = []
    for o, y in zip(output, label, strict=True):
        probability = scipy.special.softmax(o[y != VOID].astype(float), -1)
        out.append(log_loss(y[y != VOID], probability, labels=range(5)))
    return out


@pytest.mark.parametrize("kind", TASKS)
def test_distance_to_labels_is_that_of_scikit_learn_or_numpy(kind):
    output, _, label = labels(kind)
    got = losses.to_labels(TASKS[kind], jnp.asarray(output), jnp.asarray(label))
    np.testing.assert_allclose(got, expected_to_labels(kind, output, label), rtol=1e-4)


@pytest.mark.parametrize("kind", TASKS)
def test_distance_to_the_network_is_scipys_relative_entropy_or_l1(kind):
    output, reference, _ = labels(kind)
    if kind == "dense":
        expected = np.abs(output - reference).mean((1, 2, 3))
    else:
        p, q = (scipy.special.softmax(x.astype(float), -1) for x in (reference, output))
        nats = scipy.special.rel_entr(p, q).sum(-1)
        expected = nats.reshape(3, -1).mean(1)
    got = losses.to_network(TASKS[kind], jnp.asarray(output), jnp.asarray(reference))
    np.testing.assert_allclose(got, expected, rtol=1e-4)


@pytest.mark.parametrize("kind", TASKS)
def test_distance_of_the_network_to_itself_is_zero_and_so_is_its_gradient(kind):
    output, _, _ = labels(kind)
    value = lambda x: losses.to_network(TASKS[kind], x, jnp.asarray(output)).sum()  # noqa: E731
    assert float(value(jnp.asarray(output))) == pytest.approx(0, abs=1e-5)
    if kind != "dense":  # |x| has no gradient at 0
        np.testing.assert_allclose(jax.grad(value)(jnp.asarray(output)), 0, atol=1e-5)


@pytest.mark.parametrize("kind", TASKS)
def test_the_mix_is_the_mean_of_both_and_every_target_is_per_image(kind):
    output, reference, label = map(jnp.asarray, labels(kind))
    by = {
        t: losses.distortion(TASKS[kind], t, output, reference, label)
        for t in ("labels", "network", "mix")
    }
    assert all(value.shape == (3,) for value in by.values())
    np.testing.assert_allclose(by["mix"], (by["labels"] + by["network"]) / 2, rtol=1e-6)
    other = losses.distortion(TASKS[kind], "mix", output.at[2].add(1.0), reference, label)
    np.testing.assert_allclose(other[:2], by["mix"][:2], rtol=1e-5)


@settings(max_examples=20)
@given(st.sampled_from(["segment", "dense"]), st.integers(0, 99))
def test_what_is_predicted_where_the_label_is_void_has_no_influence(kind, seed):
    output, _, label = labels(kind, seed)
    void = label == VOID if kind == "segment" else np.isnan(label)
    void = void if kind == "dense" else np.repeat(void[..., None], 5, -1)
    changed = np.where(void, normal(*output.shape, seed=seed + 7), output)
    value = lambda x: losses.to_labels(TASKS[kind], x, jnp.asarray(label))  # noqa: E731
    np.testing.assert_array_equal(value(jnp.asarray(output)), value(jnp.asarray(changed)))
    gradient = np.asarray(jax.grad(lambda x: value(x).sum())(jnp.asarray(output)))
    assert np.all(np.isfinite(gradient)) and np.all(gradient[void] == 0)


@pytest.mark.parametrize("kind", ["segment", "dense"])
def test_an_image_of_void_alone_costs_nothing(kind):
    output, _, label = labels(kind)
    label[1] = VOID if kind == "segment" else np.nan
    value, gradient = jax.value_and_grad(
        lambda x: losses.to_labels(TASKS[kind], x, jnp.asarray(label))[1]
    )(jnp.asarray(output))
    assert value == 0 and np.all(np.asarray(gradient) == 0)


def test_weights_multiply_each_pixels_cross_entropy_by_its_class():
    output, _, label = labels("segment")
    weights = np.random.default_rng(5).random(5).astype(np.float32)
    got = losses.to_labels(SEGMENT, jnp.asarray(output), jnp.asarray(label), weights)
    for image in range(3):
        valid = label[image] != VOID
        probability = scipy.special.softmax(output[image].astype(float), -1)
        chosen = np.take_along_axis(probability, np.where(valid, label[image], 0)[..., None], -1)
        weight = weights[np.where(valid, label[image], 0)]
        expected = -(weight * np.log(chosen[..., 0]))[valid].mean()
        assert float(got[image]) == pytest.approx(expected, rel=1e-4)


def test_output_is_resized_to_the_labels_size():
    small = normal(2, 2, 3, 5)
    assert losses.resized(jnp.asarray(small), 4, 6).shape == (2, 4, 6, 5)
    np.testing.assert_array_equal(losses.resized(jnp.asarray(small), 2, 3), small)
    label = np.zeros((2, 4, 6), np.uint8)
    constant = jnp.broadcast_to(jnp.asarray([1.0, 0, 0, 0, 0]), (2, 2, 3, 5))
    got = losses.to_labels(SEGMENT, constant, jnp.asarray(label))
    np.testing.assert_allclose(got, np.log(np.exp(1) + 4) - 1, rtol=1e-5)


def test_class_weights_go_as_one_over_the_root_of_frequency_with_mean_one():
    counts = np.array([400, 100, 25])
    label = np.r_[np.repeat(np.arange(3), counts), np.full(50, VOID)].astype(np.uint8)
    weights = losses.class_weights(SEGMENT._replace(channels=4), label[None])
    assert weights[3] == 0  # a class that never occurs
    np.testing.assert_allclose(weights[:3] / weights[0], np.sqrt(400 / counts), rtol=1e-5)
    assert np.average(weights[:3], weights=counts) == pytest.approx(1, rel=1e-5)


def test_the_weight_of_a_very_rare_class_is_capped():
    label = np.zeros((1, 1000, 1000), np.uint8)
    label[0, 0, 0] = 1
    assert losses.class_weights(SEGMENT._replace(channels=4), label)[1] == 10
