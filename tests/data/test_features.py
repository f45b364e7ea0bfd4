import functools

import jax
import numpy as np
import pytest

from vcmjax.data import features
from vcmjax.errors import DataError
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


def arrays(extracted):
    return {name: extracted.array(name) for name in extracted.arrays}


def assert_same(a, b):
    assert a.about == b.about
    for (name, x), y in zip(arrays(a).items(), arrays(b).values(), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y, err_msg=name)


@pytest.mark.parametrize("kind", TASKS)
def test_a_cache_hit_equals_the_miss_and_reads_no_image(kind, networks, tmp_path):
    source, cache = Source(kind, 5), tmp_path / "inner" / "split"
    miss = features.extract(source, networks[kind], cache, training=False)
    source.reads = 0
    hit = features.extract(source, networks[kind], cache, training=False)
    assert source.reads == 0
    assert_same(hit, miss)


@pytest.mark.parametrize("kind", TASKS)
def test_features_are_the_frozen_networks_and_labels_whole_outside_training(
    kind, networks, tmp_path
):
    source, network = Source(kind, 5), networks[kind]
    split = features.load(features.extract(source, network, tmp_path / "a", training=False))
    feature = network.network.encode(network.params, source.image)
    np.testing.assert_allclose(split.feature, feature, rtol=2e-3, atol=2e-3)  # float16
    assert split.feature.dtype == np.float32
    np.testing.assert_array_equal(split.label, source.label)
    assert split.label.dtype == source.label.dtype
    assert split.image_shape == (SIZE, SIZE)
    trained = features.extract(source, network, tmp_path / "b", training=True)
    expected = source.label if kind == "class" else source.label[:, 2::4, 2::4]
    wanted = expected.astype(np.float16) if kind == "dense" else expected
    np.testing.assert_array_equal(trained.array("label"), wanted)


def test_a_label_that_is_not_scored_stays_so(networks, tmp_path):
    source = Source("dense", 3)
    source.label[1, 2:9] = np.nan
    kept = features.extract(source, networks["dense"], tmp_path / "a", training=True)
    np.testing.assert_array_equal(
        np.isnan(kept.array("label")), np.isnan(source.label[:, 2::4, 2::4])
    )


def test_the_first_view_is_the_image_itself_and_the_others_differ(networks, tmp_path):
    source, network = Source("segment", 4), networks["segment"]
    one = features.extract(source, network, tmp_path / "1", training=True)
    three = features.extract(source, network, tmp_path / "3", training=True, views=3)
    assert len(one) == 4 and len(three) == 12
    for name in ("feature", "label"):
        np.testing.assert_array_equal(three.array(name)[::3], one.array(name))
    first, second, third = (three.array("feature")[view::3] for view in range(3))
    assert np.abs(second - first).max() > 1e-2
    assert np.abs(third - second).max() > 1e-2


def test_views_depend_on_the_image_alone_not_on_shards_or_batches(networks, tmp_path, monkeypatch):
    source, network = Source("segment", 7), networks["segment"]
    whole = features.extract(source, network, tmp_path / "a" / "x", training=True, views=2)
    monkeypatch.setattr(features, "_SHARD", 4)
    monkeypatch.setattr(features, "_BATCH", 2)
    parts = features.extract(source, network, tmp_path / "b" / "x", training=True, views=2)
    assert parts.shards == 4 and whole.shards == 1
    np.testing.assert_array_equal(parts.array("label"), whole.array("label"))
    np.testing.assert_allclose(parts.array("feature"), whole.array("feature"), atol=1e-3)


def test_processes_extract_their_shares_and_then_what_the_others_did_not(
    networks, tmp_path, monkeypatch
):
    monkeypatch.setattr(features, "_SHARD", 2)
    network = networks["class"]
    alone = features.extract(Source("class", 7), network, tmp_path / "a" / "x", training=True)
    first, second = Source("class", 7), Source("class", 7)
    shared = tmp_path / "b" / "x"
    run = functools.partial(features.extract, network=network, directory=shared, training=True)
    # The second has a disk in common with the first, and comes while the first waits for it.
    second_done = lambda: run(second, shards=(1, 2))  # noqa: E731
    made = run(first, shards=(0, 2), wait=second_done)
    assert_same(made, alone)
    assert first.reads == 1 + 4 and second.reads >= 3
    # Without a common disk, each makes all.
    assert_same(run(Source("class", 7), directory=tmp_path / "c" / "x", shards=(1, 2)), alone)


def test_an_interrupted_extraction_goes_on_where_it_was(networks, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "_SHARD", 2)
    source, network = Source("class", 8), networks["class"]

    class Unplugged(Source):
        def __getitem__(self, index):
            if index >= 5:
                raise DataError(f"image {index}: unplugged")
            return super().__getitem__(index)

    with pytest.raises(DataError, match="unplugged"):
        features.extract(Unplugged("class", 8), network, tmp_path / "x", training=True)
    made = features.extract(source, network, tmp_path / "x", training=True)
    assert source.reads == 1 + 4  # the first for its shape, and the last two shards
    np.testing.assert_array_equal(made.array("label"), source.label)


@pytest.mark.parametrize("how", ["cut short", "a bit flipped", "zeroed"])
def test_a_damaged_shard_is_made_anew_and_alone_and_said(
    how, networks, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(features, "_SHARD", 2)
    source, cache = Source("class", 6), tmp_path / "x"
    whole = arrays(features.extract(source, networks["class"], cache, training=False))
    assert not caplog.records
    path = cache / "shard-00001" / "feature.npy"
    data = path.read_bytes()
    damaged = {
        "cut short": data[:-4],
        "a bit flipped": data[:-1] + bytes([data[-1] ^ 1]),
        "zeroed": data[:128] + bytes(len(data) - 128),
    }
    path.write_bytes(damaged[how])
    source.reads = 0
    again = arrays(features.extract(source, networks["class"], cache, training=False))
    for name in whole:
        np.testing.assert_array_equal(again[name], whole[name])
    assert source.reads == 1 + 2
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"{cache}: damaged shards are extracted anew: 1"]


def test_a_damaged_description_is_refused_with_the_remedy_and_what_is_whole_kept(
    networks, tmp_path
):
    source, cache = Source("class", 3), tmp_path / "x"
    features.extract(source, networks["class"], cache, training=False)
    path = cache / "store.json"
    path.write_text(path.read_text().replace('"image_shape"', '"image_sharp"'))
    with pytest.raises(DataError, match=r"x/store.json: not readable \(.*written\); delete it"):
        features.extract(source, networks["class"], cache, training=False)
    assert (cache / "shard-00000" / "feature.npy").exists()


def test_a_feature_that_is_not_finite_or_too_large_is_refused_with_its_place(networks, tmp_path):
    network = networks["class"]
    params = jax.tree.map(lambda leaf: leaf * 1e30, network.params)
    with pytest.raises(DataError, match="feature: example 0: float16 cannot hold"):
        features.extract(
            Source("class", 3), network._replace(params=params), tmp_path / "x", training=True
        )


def test_images_of_another_size_are_refused(networks, tmp_path):
    class Mixed(Source):
        def __getitem__(self, index):
            example = super().__getitem__(index)
            return example | {"image": example["image"][: SIZE // 2]} if index else example

    with pytest.raises(DataError, match=r"expected one (size|shape)"):
        features.extract(Mixed("class", 3), networks["class"], tmp_path / "x", training=True)
