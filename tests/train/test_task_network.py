import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcmjax.nets.small_hourglass import hourglass
from vcmjax.tasks import VOID, Task
from vcmjax.train import losses, task_network
from vcmjax.train.task_network import Labelled

SIZE = 16
TASKS = {
    "class": Task("class_scene", "class", 3),
    "segment": Task("segment_semantic", "segment", 4),
    "dense": Task("normal", "dense", 2),
}
each_kind = pytest.mark.parametrize("kind", TASKS)


def labelled(kind, count=3, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    if kind == "class":
        label = rng.integers(0, 3, count).astype(np.int32)
    elif kind == "segment":
        label = rng.integers(0, 4, (count, SIZE, SIZE)).astype(np.uint8)
        label[:, :2] = VOID
    else:
        label = rng.normal(size=(count, SIZE, SIZE, 2)).astype(np.float32)
        label[:, :2] = np.nan
    return image, label


class Source:
    """A data set of one task, in memory."""

    def __init__(self, kind, count):
        self.name = TASKS[kind].name
        self.image, self.label = labelled(kind, count)

    def __len__(self):
        return len(self.image)

    def __getitem__(self, index):
        return {"image": self.image[index], self.name: self.label[index]}


@functools.cache
def network(kind):
    made = hourglass(TASKS[kind])
    return made, jax.jit(lambda: made.init(jax.random.key(0), SIZE))()


def whole(kind, count=3):
    (data,) = task_network.read(Source(kind, count), [TASKS[kind]]).values()
    return Labelled(*map(jnp.asarray, data))


@each_kind
def test_reading_keeps_images_and_labels_in_order_dense_ones_at_half_size(kind):
    image, label = labelled(kind, 40)
    data = task_network.read(Source(kind, 40), [TASKS[kind]])[TASKS[kind].name]
    np.testing.assert_array_equal(data.image, image)
    expected = label[:, ::2, ::2].astype(np.float16) if kind == "dense" else label
    np.testing.assert_array_equal(data.label, expected)


@each_kind
def test_validation_is_each_images_distance_to_the_labels(kind):
    made, params = network(kind)
    problem = task_network.problem(TASKS[kind], made, SIZE, None)
    got = jax.jit(problem.validate)(params, None, whole(kind))
    image, label = labelled(kind)
    label = label if kind == "class" else label[:, ::2, ::2]
    output = made.decode(params, made.encode(params, jnp.asarray(image)))
    expected = losses.to_labels(TASKS[kind], output, jnp.asarray(label))
    np.testing.assert_allclose(got, expected, rtol=2e-3)  # dense labels are float16


@each_kind
def test_gradient_of_the_loss_is_finite_and_reaches_every_parameter(kind):
    made, params = network(kind)
    weights = np.ones(4, np.float32) if kind == "segment" else None
    problem = task_network.problem(TASKS[kind], made, SIZE, weights)
    gradient, recorded = jax.jit(jax.grad(problem.loss, has_aux=True))(
        params, jax.random.split(jax.random.key(0), 3), None, whole(kind), 0.0
    )
    assert recorded.shape == (len(problem.recorded),) and recorded[0] > 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0), jax.tree_util.keystr(path)
