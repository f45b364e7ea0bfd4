import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcmjax.codecs.feature import FeatureCodec
from vcmjax.tasks import Task
from vcmjax.train import codec as codec_training
from vcmjax.train import loop, losses
from vcmjax.train.codec import Features, Goal, on_common_scale

TASK = Task("scene", "class", 3)
PIXELS = 256
CODECS = {
    prior or "control": FeatureCodec((4, 4, 2), prior, lams, 4, 2, hidden=16, side=3)
    for prior, lams in [("codebook", (0.01, 1.0)), ("spatial", (0.01, 1.0)), (None, (1.0, 1.0))]
}


def head(feature):
    """Fixed and linear, in place of a task network's."""
    weight = np.random.default_rng(9).normal(size=(32, 3)).astype(np.float32)
    return feature.reshape(len(feature), -1) @ jnp.asarray(weight)


@functools.cache
def split(seed=0, count=48):
    rng = np.random.default_rng(seed)
    feature = jnp.asarray(rng.normal(size=(count, 4, 4, 2)).astype(np.float32))
    output = head(feature)
    return Features(feature, output.argmax(-1).astype(jnp.int32))


def problem(name, target="network"):
    goal = Goal(TASK, head, target)
    return codec_training.problem(CODECS[name], goal, PIXELS, split().feature)


def a_run(name):
    return loop.Runs(np.int32(0), jnp.asarray(CODECS[name].lams, jnp.float32))


@functools.cache
def start(name):
    return jax.jit(problem(name).init)(jax.random.key(0))


@functools.cache
def apply(name):
    return jax.jit(CODECS[name].apply)


def unsent(goal, feature):
    """Distortion where the mean of the features is received."""
    mean = jnp.broadcast_to(feature.mean(0), feature.shape)
    return float(goal.distortion(mean, feature, None).mean())


@pytest.mark.parametrize(("name", "target"), [("codebook", "network"), ("spatial", "mix")])
def test_loss_is_the_mean_of_rate_plus_lam_times_distortion(name, target):
    # A single λ leaves only the noise to chance; `apply` with the same keys repeats it.
    run = loop.Runs(np.int32(0), jnp.full(2, 0.25))
    keys = jax.random.split(jax.random.key(4), 3)
    data = jax.tree.map(lambda leaf: leaf[jnp.asarray([3, 5, 7])], split())
    loss = jax.jit(problem(name, target).loss)
    total, recorded = loss(start(name), keys, run, data, 1.0)
    noise_keys = jnp.stack([jax.random.split(key)[1] for key in keys])
    output = apply(name)(start(name), noise_keys, data.feature, jnp.full(3, 0.25))
    far = losses.distortion(TASK, target, head(output.feature), head(data.feature), data.label)
    bpp = np.asarray(output.bits) / PIXELS
    assert float(total) == pytest.approx(np.mean(bpp + 0.25 * np.asarray(far)) / 0.5, rel=1e-4)
    np.testing.assert_allclose(recorded, [total, bpp.mean(), np.mean(far)], rtol=1e-4)
    kept = codec_training.with_reference(data, Goal(TASK, head, target))
    np.testing.assert_allclose(kept.reference, head(data.feature), rtol=1e-5)
    again, _ = loss(start(name), keys, run, kept, 1.0)
    assert float(again) == pytest.approx(float(total), rel=1e-5)


def test_references_that_would_not_fit_or_are_not_asked_for_are_left_out(monkeypatch):
    assert codec_training.with_reference(split(), Goal(TASK, head, "labels")).reference is None
    monkeypatch.setattr(codec_training, "_REFERENCES", 10)
    assert codec_training.with_reference(split(), Goal(TASK, head, "network")).reference is None


def test_several_tasks_add_up_each_with_its_weight():
    shapes = {"a": (4, 4, 2), "b": (4, 4, 2)}
    codec = FeatureCodec(shapes, latent_channels=4, stride=2, hidden=8, side=3)
    goals = {name: Goal(TASK, head, "labels", weight=w) for name, w in [("a", 0.5), ("b", 2.0)]}
    part = jax.tree.map(lambda leaf: leaf[:3], split())
    data = Features(dict.fromkeys(shapes, part.feature), dict.fromkeys(shapes, part.label))
    together = codec_training.problem(codec, goals, PIXELS, data.feature)
    params = jax.jit(together.init)(jax.random.key(0))
    run = loop.Runs(np.int32(0), jnp.full(2, 0.25))
    keys = jax.random.split(jax.random.key(4), 3)
    _, recorded = jax.jit(together.loss)(params, keys, run, data, 1.0)
    noise_keys = jnp.stack([jax.random.split(key)[1] for key in keys])
    output = jax.jit(codec.apply)(params, noise_keys, data.feature, jnp.full(3, 0.25))
    far = {
        name: float(losses.to_labels(TASK, head(output.feature[name]), part.label).mean())
        for name in shapes
    }
    assert float(recorded[1]) == pytest.approx(np.mean(np.asarray(output.bits)) / PIXELS, rel=1e-4)
    assert float(recorded[2]) == pytest.approx(0.5 * far["a"] + 2 * far["b"], rel=1e-4)


def test_a_codec_for_any_priority_sees_weights_of_mean_one_up_to_their_greatest_ratio():
    keys = jax.random.split(jax.random.key(0), 500)
    weights = np.asarray(codec_training._weights(keys, 3))
    np.testing.assert_allclose(weights.mean(1), 1, rtol=1e-5)
    ratio = np.log(weights.max(1) / weights.min(1))
    assert ratio.max() <= 2 * codec_training.PRIORITY and ratio.max() > codec_training.PRIORITY
    shapes = {"a": (4, 4, 2), "b": (4, 4, 2)}
    codec = FeatureCodec(shapes, latent_channels=4, stride=2, hidden=8, side=3, prioritised=True)
    goals = {name: Goal(TASK, head, "network") for name in shapes}
    part = jax.tree.map(lambda leaf: leaf[:3], split())
    data = Features(dict.fromkeys(shapes, part.feature), dict.fromkeys(shapes, part.label))
    together = codec_training.problem(codec, goals, PIXELS, data.feature)
    params = jax.jit(together.init)(jax.random.key(0))
    run, keys = loop.Runs(np.int32(0), jnp.full(2, 0.25)), keys[:3]
    _, recorded = jax.jit(together.loss)(params, keys, run, data, 1.0)
    weights = codec_training._weights(keys, 2)
    noise_keys = jnp.stack([jax.random.split(key)[1] for key in keys])
    lam = jnp.full(3, 0.25)
    output = jax.jit(codec.apply)(params, noise_keys, data.feature, lam, jnp.log(weights))
    far = [
        losses.to_network(TASK, head(output.feature[name]), head(part.feature)) for name in shapes
    ]
    expected = (weights * jnp.stack(far, 1)).sum(1).mean()
    assert float(recorded[2]) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("target", ["network", "labels"])
def test_on_the_common_scale_sending_nothing_costs_the_weight(target):
    data = split()
    goal = on_common_scale(Goal(TASK, head, target, weight=3.0), data.feature, data.label)
    mean = jnp.broadcast_to(data.feature.mean(0), data.feature.shape)
    far = goal.distortion(mean, data.feature, data.label)
    assert float(far.mean()) == pytest.approx(3.0, rel=1e-4)
    if target == "network":
        assert float(goal.distortion(data.feature, data.feature, data.label).max()) < 1e-5


@pytest.mark.parametrize(("progress", "early"), [(0.0, 1.0), (0.45, 0.5), (0.9, 0.0), (1.0, 0.0)])
def test_the_control_group_pays_for_distortion_and_early_for_the_feature(progress, early):
    batch = jax.tree.map(lambda leaf: leaf[:8], split())
    loss = jax.jit(problem("control").loss)
    run = a_run("control")
    keys = jax.random.split(jax.random.key(0), 8)
    total, recorded = loss(start("control"), keys, run, batch, progress)
    assert float(recorded[1]) == 0
    received = apply("control")(start("control"), keys, batch.feature, jnp.ones(8)).feature
    far = np.asarray(received - batch.feature) / np.asarray(split().feature).std((0, 1, 2))
    expected = early * np.square(far).mean() * unsent(Goal(TASK, head, "network"), split().feature)
    assert float(total) == pytest.approx(float(recorded[2]) + expected)


def test_a_hint_is_the_share_of_variance_missed():
    feature = np.asarray(split().feature)
    scale = feature.std((0, 1, 2))
    mean = np.broadcast_to(feature.mean((0, 1, 2)), feature.shape)
    nothing = codec_training.hint(mean, feature, scale)
    assert nothing.mean() == pytest.approx(1.0, rel=1e-4)
    half = codec_training.hint((mean + feature) / 2, feature, scale)
    np.testing.assert_allclose(half, nothing / 4, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "sent", "hinted"),
    [("class", "a", True), ("dense", "a", False), ("dense", "b", True), ("class", "b", True)],
)
def test_classes_and_features_that_are_not_sent_are_hinted(kind, sent, hinted):
    codec = FeatureCodec(
        {sent: (4, 4, 2)}, latent_channels=4, stride=2, hidden=8, side=3, outputs={"a": (4, 4, 2)}
    )
    goal = Goal(Task("a", kind, 3), head, "network", weight=2.0)
    part = jax.tree.map(lambda leaf: leaf[:3], split())
    data = Features(dict.fromkeys("ab", part.feature), {"a": part.label})
    made = codec_training.problem(codec, {"a": goal}, PIXELS, data.feature)
    params = jax.jit(made.init)(jax.random.key(0))
    run, keys = loop.Runs(np.int32(0), jnp.full(2, 0.25)), jax.random.split(jax.random.key(4), 3)
    total, (_, bpp, far) = jax.jit(made.loss)(params, keys, run, data, 0.45)
    noise_keys = jnp.stack([jax.random.split(key)[1] for key in keys])
    received = codec.apply(params, noise_keys, data.feature, jnp.full(3, 0.25)).feature["a"]
    near = codec_training.hint(received, part.feature, params["statistics"]["a"]["scale"]).mean()
    near *= unsent(goal, part.feature)
    weight, lam = codec_training.anneal(kind, 0.45, 0.25, 0.25)
    expected = (weight * bpp + lam * (far + hinted * 0.5 * near)) / np.sqrt(lam)
    assert float(total) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("kind", ["class", "segment", "dense"])
def test_annealing_starts_where_rate_is_free_and_ends_at_the_lagrangian(kind):
    lam = jnp.asarray([0.01, 0.1, 1.0])

    def price(progress):  # of a bit, in units of distortion
        weight, annealed = codec_training.anneal(kind, progress, lam, jnp.max(lam))
        return np.asarray(weight / annealed)

    at = np.stack([price(progress) for progress in np.linspace(0, 1, 41)])
    assert np.all(at[0] <= 1e-3 / np.asarray(lam)) and np.all(np.diff(at, axis=0) >= -1e-6)
    np.testing.assert_allclose(at[-4:], np.broadcast_to(1 / np.asarray(lam), (4, 3)), rtol=1e-5)


def test_validation_averages_the_cost_over_four_rate_levels_and_draws_no_numbers():
    codec, val = CODECS["codebook"], split(1, 16)
    expected = []
    for level in codec_training.VALIDATION_LEVELS:
        output = codec.quantise(start("codebook"), val.feature, np.full(16, level)).output
        lam = codec.lam_of(level)
        far = losses.to_network(TASK, head(output.feature), head(val.feature))
        expected.append((output.bits / PIXELS + lam * far) / np.sqrt(lam))
    got = jax.jit(problem("codebook").validate)(start("codebook"), a_run("codebook"), val)
    np.testing.assert_allclose(got, np.mean(expected, axis=0), rtol=1e-3)


def test_half_precision_features_are_computed_with_in_single_precision():
    half = split()._replace(feature=split().feature.astype(jnp.float16))
    single = half._replace(feature=half.feature.astype(jnp.float32))
    keys = jax.random.split(jax.random.key(0), len(half.label))
    loss = jax.jit(problem("codebook").loss)
    of_half, of_single = (
        loss(start("codebook"), keys, a_run("codebook"), batch, 0.5) for batch in (half, single)
    )
    np.testing.assert_array_equal(of_half[1], of_single[1])


def test_what_is_drawn_for_an_image_does_not_depend_on_the_rest_of_the_batch():
    keys = jax.random.split(jax.random.key(7), 6)
    lam = jnp.full(6, 0.1)
    whole = apply("codebook")(start("codebook"), keys, split().feature[:6], lam)
    part = apply("codebook")(start("codebook"), keys[2:4], split().feature[2:4], lam[2:4])
    np.testing.assert_allclose(part.bits, whole.bits[2:4], rtol=1e-5)
    assert len(np.unique(whole.bits)) == 6
    one = apply("codebook")(start("codebook"), jax.random.key(7), split().feature[:6], lam)
    np.testing.assert_allclose(one.bits, whole.bits, rtol=1e-5)  # one key is split as above


@pytest.mark.slow
@pytest.mark.usefixtures("full_speed")
@pytest.mark.parametrize("name", CODECS)
def test_a_short_training_lowers_the_cost(name, tmp_path):
    options = loop.Options(120, batch=16, learning_rate=5e-3, chunk=40)
    runs = loop.Runs(np.array([0]), np.array([CODECS[name].lams], np.float32))
    made = problem(name)
    (result,) = loop.fit(made, split(), split(1, 16), options, runs, tmp_path)
    assert not result.diverged
    before = float(jax.jit(made.validate)(start(name), a_run(name), split(1, 16)).mean())
    assert result.history[:, -1].min() < 0.8 * before
    for path in ("mean", "scale"):  # what normalises is given, not learned
        np.testing.assert_array_equal(
            result.params["statistics"][path], start(name)["statistics"][path]
        )
    if name != "control":
        codec = CODECS[name]
        low, high = (
            codec.quantise(result.params, split(1, 16).feature, np.full(16, level)).output
            for level in (0, 255)
        )
        assert float(high.bits.mean()) > float(low.bits.mean())
