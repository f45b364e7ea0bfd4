import jax
import numpy as np
import pytest

from vcmjax.data import features
from vcmjax.nets.pretrained import TaskNetwork
from vcmjax.nets.small_hourglass import hourglass
from vcmjax.tasks import Task

SIZE = 16
TASKS = {
    "class": Task("class_scene", "class", 3),
    "segment": Task("segment_semantic", "segment", 4),
    "dense": Task("normal", "dense", 2),
}


class Source:
    def __init__(self, kind, count):
        rng = np.random.default_rng(0)
        self.task = TASKS[kind].name
        self.image = rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
        self.label = {
            "class": rng.integers(0, 3, count).astype(np.int32),
            "segment": rng.integers(0, 4, (count, SIZE, SIZE)).astype(np.uint8),
            "dense": rng.normal(size=(count, SIZE, SIZE, 2)).astype(np.float32),
        }[kind]
        self.reads = 0

    def __len__(self):
        return len(self.image)

    def __getitem__(self, index):
        self.reads += 1
        return {"image": self.image[index], self.task: self.label[index]}


@pytest.fixture(scope="module")
def networks():
    made = {}
    for kind, task in TASKS.items():
        network = hourglass(task)
        params = jax.jit(lambda n=network: n.init(jax.random.key(0), SIZE))()
        made[kind] = TaskNetwork(task, network, params, "0" * 8, {})
    return made


def assert_same(a, b):
    assert a.image_shape == b.image_shape
    for x, y in zip(a[:3], b[:3], strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("kind", TASKS)
def test_a_cache_hit_equals_the_miss_and_reads_no_image(kind, networks, tmp_path):
    source, cache = Source(kind, 5), tmp_path / "inner" / "split.npz"
    miss = features.extract(source, networks[kind], cache, training=False)
    source.reads = 0
    hit = features.extract(source, networks[kind], cache, training=False)
    assert source.reads == 0
    assert_same(hit, miss)
    assert [path.name for path in cache.parent.iterdir()] == ["split.npz"]


@pytest.mark.parametrize("kind", TASKS)
def test_features_are_the_frozen_networks_and_labels_whole_outside_training(
    kind, networks, tmp_path
):
    source, network = Source(kind, 5), networks[kind]
    split = features.extract(source, network, tmp_path / "a.npz", training=False)
    feature = network.network.encode(network.params, source.image)
    np.testing.assert_allclose(split.feature, feature, rtol=1e-3, atol=1e-3)
    output = network.network.decode(network.params, feature)
    np.testing.assert_allclose(split.output, output, rtol=1e-2, atol=1e-2)  # float16
    np.testing.assert_array_equal(split.label, source.label)
    assert split.image_shape == (SIZE, SIZE)
    trained = features.extract(source, network, tmp_path / "b.npz", training=True)
    expected = source.label if kind == "class" else source.label[:, 2::4, 2::4]
    np.testing.assert_array_equal(trained.label, expected)


def test_the_first_view_is_the_image_itself_and_the_others_differ(networks, tmp_path):
    source, network = Source("segment", 4), networks["segment"]
    one = features.extract(source, network, tmp_path / "1.npz", training=True)
    three = features.extract(source, network, tmp_path / "3.npz", training=True, views=3)
    assert len(three.feature) == len(three.label) == len(three.output) == 12
    assert_same(features.Split(*(leaf[:4] for leaf in three[:3]), one.image_shape), one)
    assert np.abs(three.feature[4:8] - one.feature).max() > 1e-2
    assert np.abs(three.feature[8:] - three.feature[4:8]).max() > 1e-2
    again = features.extract(source, network, tmp_path / "again.npz", training=True, views=3)
    assert_same(again, three)


def damaged(data):
    """What a file may look like after a full disk, another program, or a flipped bit."""
    flipped = bytearray(data)
    flipped[len(data) // 3] ^= 0x10
    return {
        "empty": b"",
        "cut early": data[:40],
        "cut late": data[: len(data) - 30],
        "text": b"not an archive at all",
        "another array": b"\x93NUMPY\x01\x00",
        "flipped": bytes(flipped),
    }


@pytest.mark.parametrize("how", damaged(b"0" * 100))
def test_a_damaged_cache_is_made_anew(how, networks, tmp_path):
    source, cache = Source("class", 3), tmp_path / "split.npz"
    whole = features.extract(source, networks["class"], cache, training=False)
    good = cache.read_bytes()
    cache.write_bytes(damaged(good)[how])
    assert_same(features.extract(source, networks["class"], cache, training=False), whole)
    assert_same(features.extract(source, networks["class"], cache, training=False), whole)
    assert source.reads == 6


def test_a_cache_of_another_content_is_made_anew(networks, tmp_path):
    source, cache = Source("class", 3), tmp_path / "split.npz"
    np.savez(cache, something=np.zeros(3))
    split = features.extract(source, networks["class"], cache, training=False)
    assert len(split.feature) == 3
