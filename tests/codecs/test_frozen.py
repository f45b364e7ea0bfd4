"""A codec saved, read back, and damaged."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import vcmjax
from vcmjax.codecs.feature import FeatureCodec
from vcmjax.codecs.frozen import FrozenCodec
from vcmjax.errors import DataError, VcmError
from vcmjax.nets import pretrained
from vcmjax.tasks import ROOMS

SIZE = 16
LAMS = (0.01, 1.0)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def frozen(images):
    network = pretrained.shipped(ROOMS["segment_semantic"])
    features = network.network.encode(network.params, images)
    codec = FeatureCodec(features.shape[1:], "codebook", LAMS, 4, 2, hidden=16, side=3)
    params = jax.jit(codec.init)(jax.random.key(0), features)
    return FrozenCodec(codec, params, codec.tables(params), 0.1, network)


@pytest.fixture
def saved(frozen, tmp_path):
    frozen.save(tmp_path / "codec")
    return tmp_path / "codec"


def test_a_loaded_codec_is_the_saved_one(frozen, saved, images):
    loaded = vcmjax.load(saved)
    assert loaded.fingerprint == frozen.fingerprint
    streams = frozen.compress_images(images)
    assert loaded.compress_images(images) == streams
    features = loaded.decompress(streams)
    np.testing.assert_array_equal(features, frozen.decompress(streams))
    np.testing.assert_array_equal(loaded.predict(features), frozen.predict(features))


def test_one_of_several_tasks_takes_and_gives_dictionaries(images, tmp_path):
    networks = {name: pretrained.shipped(ROOMS[name]) for name in ("normal", "class_scene")}
    features = {n: np.asarray(x.network.encode(x.params, images)) for n, x in networks.items()}
    shapes = {name: feature.shape[1:] for name, feature in features.items()}
    codec = FeatureCodec(shapes, "codebook", LAMS, 4, 2, hidden=16, side=3)
    params = jax.jit(codec.init)(jax.random.key(0), features)
    FrozenCodec(codec, params, codec.tables(params), 0.1, networks).save(tmp_path / "joint")
    loaded = vcmjax.load(tmp_path / "joint")
    streams = loaded.compress_images(images)
    assert streams == loaded.compress(features)
    back = loaded.decompress(streams, only=("class_scene",))
    output = loaded.predict(back)
    assert output.keys() == back.keys() == {"class_scene"}
    head = networks["class_scene"]
    expected = head.network.decode(head.params, back["class_scene"])
    np.testing.assert_allclose(output["class_scene"], expected, rtol=1e-5)
    (tmp_path / "joint" / "network-normal.msgpack").unlink()
    with pytest.raises(DataError, match="network-normal"):
        vcmjax.load(tmp_path / "joint")


def test_decompressed_is_the_evaluation_mode_reconstruction(frozen, images):
    features = frozen.features(images)
    level = np.full(len(images), frozen.codec.level_of(frozen.lam))
    expected = frozen.codec.quantise(frozen.params, features, level).output.feature
    got = frozen.decompress(frozen.compress(features))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_what_the_tables_ask_for_is_the_length_but_for_termination(frozen, images):
    streams = frozen.compress_images(images)
    side, latent = frozen.spent(streams)
    termination = 8 * np.array([len(s) for s in streams]) - side - latent
    assert np.all(side > 0) and np.all(latent > 0)
    # Dropped zero bytes may take a stream below its ideal length.
    assert np.all(np.abs(termination) <= 16) and termination.mean() <= 8


def test_saving_again_replaces_and_saving_elsewhere_refuses(frozen, saved, tmp_path):
    dataclasses.replace(frozen, lam=0.5).save(saved)
    assert vcmjax.load(saved).lam == 0.5
    (tmp_path / "thesis").mkdir()
    with pytest.raises(DataError, match="thesis: exists and is not a codec"):
        frozen.save(tmp_path / "thesis")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codec", "thesis"]


def test_the_fingerprint_tells_what_the_decoder_depends_on(frozen):
    def changed(part):
        moved = jax.tree.map(lambda leaf: leaf + 1e-3, frozen.params[part])
        return dataclasses.replace(frozen, params=frozen.params | {part: moved}).fingerprint

    assert len(frozen.fingerprint) == 8
    assert changed("synthesis") != frozen.fingerprint
    assert changed("prior") != frozen.fingerprint
    assert changed("analysis") == frozen.fingerprint  # the encoder's own affair


def test_a_codec_without_task_network_takes_features_alone(frozen, tmp_path, images):
    dataclasses.replace(frozen, network=None).save(tmp_path / "plain")
    loaded = vcmjax.load(tmp_path / "plain")
    features = frozen.features(images)
    assert loaded.compress(features) == frozen.compress(features)
    with pytest.raises(VcmError, match="no task network"):
        loaded.compress_images(images)


def test_images_of_another_form_are_refused(frozen, images):
    with pytest.raises(VcmError, match="expected uint8"):
        frozen.compress_images(images.astype(np.float32))


def test_what_is_not_a_codec_or_damaged_is_refused_in_one_line(saved, tmp_path):
    with pytest.raises(DataError, match="no codec here"):
        vcmjax.load(tmp_path / "nothing")
    config = (saved / "codec.json").read_text()
    for broken, message in [
        ("{", "not readable"),
        ("[]", "codec of format"),
        (config.replace('"format": 1', '"format": 9'), "format 9"),
        (config.replace('"stride": 2', '"stride": 3'), "damaged codec"),
        (config.replace('"side": 3', '"side": 4'), "copy it again"),
    ]:
        (saved / "codec.json").write_text(broken)
        with pytest.raises(DataError, match=message):
            vcmjax.load(saved)
    (saved / "codec.json").write_text(config)
    tables = (saved / "tables.npz").read_bytes()
    (saved / "tables.npz").write_bytes(tables[: len(tables) // 2])
    with pytest.raises(DataError, match="damaged codec"):
        vcmjax.load(saved)


def test_parameters_that_were_exchanged_are_noticed(frozen, saved):
    fields = json.loads((saved / "codec.json").read_text())
    fields["fingerprint"] = "0" * 64
    (saved / "codec.json").write_text(json.dumps(fields))
    with pytest.raises(DataError, match="do not match its fingerprint"):
        vcmjax.load(saved)
