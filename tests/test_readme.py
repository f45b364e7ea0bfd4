import re
from pathlib import Path

import jax
import numpy as np

from experiments import readme
from vcmjax.codecs.feature import FeatureCodec
from vcmjax.codecs.frozen import FrozenCodec
from vcmjax.nets import pretrained
from vcmjax.tasks import ROOMS

TEXT = (Path(__file__).parents[1] / "README.md").read_text()

EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_library_example_runs_and_restores_the_shape():
    names: dict = {}
    exec(EXAMPLES[0], names)
    assert names["restored"].shape == names["features"].shape
    assert np.all(np.asarray(names["output"].bits) > 0)
    assert all(isinstance(stream, bytes) for stream in names["streams"])


def test_the_example_of_a_trained_codec_runs(tmp_path, monkeypatch):
    network = pretrained.shipped(ROOMS["segment_semantic"])
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    features = network.network.encode(network.params, images)
    codec = FeatureCodec(features.shape[1:], latent_channels=4, stride=2, hidden=16, side=3)
    params = jax.jit(codec.init)(jax.random.key(0), features)
    frozen = FrozenCodec(codec, params, codec.tables(params), 0.1, network)
    frozen.save(tmp_path / "runs/mine/codecs/segment_semantic-ours")
    monkeypatch.chdir(tmp_path)
    names: dict = {"images": images}
    exec(EXAMPLES[1], names)
    assert names["output"].shape == (2, 4, 4, 17)


def test_tables_are_those_of_the_committed_results():
    for path in readme.TEXTS:
        assert readme.filled(path.read_text()) == path.read_text()


def test_pictures_exist():
    for page in readme.TEXTS:
        for picture in re.findall(r"!\[.*?\]\((.*?)\)", page.read_text()):
            assert (page.parent / picture).stat().st_size > 10_000
