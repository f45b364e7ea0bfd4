import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmjax.train import augment
from vcmjax.train.augment import View

image_view, label_view = jax.jit(augment.image_view), jax.jit(augment.label_view)
random_view = jax.jit(augment.random_view)
SEEDS = st.integers(0, 2**31 - 1)


def view(top=0.0, left=0.0, share=1.0, flip=False):
    return View(*map(jnp.float32, (top, left, share)), jnp.asarray(flip))


def image(seed=0, height=9, width=12):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def label(seed=0, height=9, width=12):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 5, (height, width), np.uint8))


def test_the_view_of_the_whole_is_the_image_itself():
    np.testing.assert_allclose(image_view(view(), image()), image(), atol=1e-3)
    np.testing.assert_array_equal(label_view(view(), label()), label())


def test_mirroring_twice_is_the_identity():
    once = image_view(view(flip=True), image())
    np.testing.assert_allclose(once, image()[:, ::-1], atol=1e-3)
    np.testing.assert_allclose(image_view(view(flip=True), once), image(), atol=1e-3)
    mirrored = label_view(view(flip=True), label())
    np.testing.assert_array_equal(label_view(view(flip=True), mirrored), label())


@settings(max_examples=30)
@given(SEEDS)
def test_image_and_label_are_viewed_alike(seed):
    # Where one class fills the bilinear neighbourhood, its one-hot image says the same class.
    blocks = jnp.repeat(jnp.repeat(label(seed, 3, 4), 8, 0), 8, 1)
    chosen = random_view(jax.random.key(seed))
    one_hot = jax.nn.one_hot(blocks, 5)
    seen, truth = np.asarray(image_view(chosen, one_hot)), np.asarray(label_view(chosen, blocks))
    certain = seen.max(-1) > 0.999
    assert certain.mean() > 0.4
    np.testing.assert_array_equal(seen.argmax(-1)[certain], truth[certain])
    # Nearest is the largest bilinear weight, ties and corners aside.
    assert (seen.argmax(-1) == truth).mean() > 0.95


@settings(max_examples=30)
@given(SEEDS, st.floats(0.1, 1.0))
def test_a_random_view_lies_inside_the_image(seed, least):
    top, left, share, _ = augment.random_view(jax.random.key(seed), least)
    assert least - 1e-6 <= share <= 1
    for start in (top, left):
        assert 0 <= start <= 1 - share + 1e-6


def test_half_the_random_views_are_mirrored():
    flips = jax.vmap(augment.random_view)(jax.random.split(jax.random.key(0), 1000)).flip
    assert np.mean(flips) == pytest.approx(0.5, abs=0.06)


def test_a_crop_of_a_ramp_is_the_ramp_between_its_ends():
    # Linear interpolation is exact on a linear image.
    ramp = jnp.broadcast_to(jnp.arange(16.0)[None, :, None], (16, 16, 3))
    got = image_view(view(top=0.25, left=0.25, share=0.5), ramp)
    expected = (0.25 + 0.5 * (np.arange(16) + 0.5) / 16) * 16 - 0.5
    np.testing.assert_allclose(got[3, :, 0], expected, atol=1e-4)


@settings(max_examples=30)
@given(SEEDS)
def test_colour_jitter_keeps_the_range_and_without_strength_the_image(seed):
    key = jax.random.key(seed)
    jittered = augment.colour_jitter(key, image().astype(jnp.float32))
    assert jittered.min() >= 0 and jittered.max() <= 255
    same = augment.colour_jitter(key, image().astype(jnp.float32), strength=0.0)
    np.testing.assert_allclose(same, image(), atol=1e-3)
