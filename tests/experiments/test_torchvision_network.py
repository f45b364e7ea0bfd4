"""A torchvision classifier: its halves give what the whole gives, and what is refused."""

import importlib
import sys

import numpy as np
import pytest

from experiments import feature_coding, layers
from experiments.torchvision_network import Classifier
from vcmjax.errors import DataError, UsageError

torch = pytest.importorskip("torch", reason="needs the extra [torch]")


@pytest.fixture(scope="module")
def models():
    with pytest.MonkeyPatch.context() as patch:
        try:
            import torchvision  # noqa: F401
        except RuntimeError:
            # A wheel for CUDA beside a torch for CPU: its compiled operators cannot be loaded, and
            # the first that is to get a shape function ends the import. No classifier calls any.
            for name in [name for name in sys.modules if name.startswith("torchvision")]:
                del sys.modules[name]
            patch.setattr(torch.library, "register_fake", lambda *_: lambda function: function)
        except ImportError:
            pytest.skip("needs torchvision")
        return importlib.import_module("torchvision.models")


@pytest.fixture(scope="module")
def weights(models, tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(models.get_model("resnet18").state_dict(), path)
    return path


IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), np.uint8)


def test_the_whole_is_torchvisions_own_evaluation(models, weights):
    from torchvision.transforms import functional

    network = models.get_model("resnet18").eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    scaled = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 255
    inputs = functional.normalize(scaled, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.inference_mode():
        expected = network(inputs).numpy()
    np.testing.assert_allclose(
        Classifier("resnet18", weights)(IMAGES), expected, rtol=1e-4, atol=1e-5
    )


def test_both_halves_make_the_whole_at_every_layer(weights):
    network = Classifier("resnet18", weights)
    found = network.layers(IMAGES.shape[1:3])
    assert [layer.name for layer in found][-3:] == ["layer3", "layer4", "avgpool"]
    for layer in found:
        feature = layer.front(IMAGES)
        assert feature.shape == (3, *layer.shape)
        np.testing.assert_allclose(layer.back(feature), network(IMAGES), rtol=1e-4, atol=1e-5)
        assert np.abs(layer.back(feature * 0) - network(IMAGES)).max() > 1e-3


def test_what_is_refused_says_why(models, weights, tmp_path):
    with pytest.raises(UsageError, match=r"--torchvision resnet: expected one of .*resnet50"):
        Classifier("resnet", weights)
    with pytest.raises(DataError, match=r"absent\.pth: no such file"):
        Classifier("resnet18", tmp_path / "absent.pth")
    with pytest.raises(DataError, match="expected the state_dict of resnet34"):
        Classifier("resnet34", weights)
    cut = tmp_path / "cut.pth"
    cut.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"cut\.pth: expected the state_dict"):
        Classifier("resnet18", cut)
    with pytest.raises(UsageError, match="expected both, or neither"):
        layers.parse("", feature_coding.Config, ["--torchvision", "resnet18"])


def test_its_layers_go_through_the_codecs(weights):
    pytest.importorskip("av", reason="needs the extra [codecs]")
    config = feature_coding.Config(
        torchvision="resnet18", weights=str(weights), layers=("layer2",), images=3, size=64
    )
    (case,) = layers.cases(config)
    assert case.task.channels == 1000 and case.layers[0].shape == (8, 8, 128)
    received = layers.batched(case.layers[0].back)(layers.batched(case.layers[0].front)(case.image))
    np.testing.assert_allclose(received, case.output, rtol=1e-3, atol=1e-4)
