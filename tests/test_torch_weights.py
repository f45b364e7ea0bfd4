"""Parity with the PyTorch release, on random weights and random batch-norm statistics."""

import copy
import functools
import hashlib
import os

import jax
import numpy as np
import pytest

from vcmjax import cli, torch_weights
from vcmjax.errors import DataError
from vcmjax.nets import hourglass, pretrained
from vcmjax.tasks import Task

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
release = pytest.importorskip("visualpriors.taskonomy_network", reason="needs the extra [torch]")

NETWORKS = (
    "class_object",
    "class_scene",
    "curvature",
    "normal",
    "reshading",
    "segment_semantic",
    "segment_unsup2d",
)
each_network = pytest.mark.parametrize("name", NETWORKS)
NORMAL = Task("normal", "dense", 3)


def randomised(module, seed):
    """`module` with weights that keep activations near one, and any batch-norm statistics."""
    generator = torch.Generator().manual_seed(seed)
    for key, value in module.state_dict().items():
        if key.endswith("running_var") or (key.endswith("weight") and value.ndim == 1):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.ndim > 1:
            fan_in = value[0].numel()
            value.normal_(0, (1 / fan_in) ** 0.5, generator=generator)
        elif value.is_floating_point():
            value.normal_(0, 0.3, generator=generator)
    return module


@functools.cache
def encoder():
    return randomised(release.TaskonomyEncoder(normalize_outputs=False), 0)


@functools.cache
def decoder(name):
    channels = release.TASKS_TO_CHANNELS[name]
    mlp = name in release.FEED_FORWARD_TASKS
    tanh = name not in release.DONT_APPLY_TANH_TASKS
    return randomised(release.TaskonomyDecoder(channels, is_decoder_mlp=mlp, apply_tanh=tanh), 1)


def arrays(module):
    return {key: value.numpy().copy() for key, value in module.state_dict().items()}


@functools.cache
def flax_params(name):
    network = hourglass.released(name)
    like = jax.eval_shape(lambda: network.init(jax.random.key(0), 256))
    return {
        "encoder": torch_weights.from_torch(like["encoder"], arrays(encoder())),
        "head": torch_weights.from_torch(like["head"], arrays(decoder(name))),
    }


def channels_first(array):
    return torch.from_numpy(np.moveaxis(np.asarray(array), -1, 1).copy())


def channels_last(tensor):
    array = tensor.detach().numpy()
    return np.moveaxis(array, 1, -1) if array.ndim == 4 else array


def relative(got, wanted):
    return np.abs(np.asarray(got) - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("shape", [(256, 256), (128, 256), (176, 144), (65, 47)])
def test_encoder_agrees_with_the_release_also_on_sides_16_does_not_divide(shape, full_speed):
    image = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), np.uint8)
    network = hourglass.released("normal")
    got = jax.jit(network.encode)(flax_params("normal"), image)
    wanted = channels_last(encoder()(channels_first(image / np.float32(127.5) - 1)))
    assert got.shape == wanted.shape
    assert wanted.std() > 0.1
    assert relative(got, wanted) < 1e-4


@each_network
def test_decoder_agrees_with_the_release(name, full_speed):
    feature = np.random.default_rng(0).normal(size=(2, 16, 16, 8)).astype(np.float32)
    network = hourglass.released(name)
    wanted = channels_last(decoder(name)(channels_first(feature)))
    wanted = wanted * np.float32(network.scale) + np.float32(network.shift)
    assert wanted.std() > 0.05
    assert relative(jax.jit(network.decode)(flax_params(name), feature), wanted) < 1e-4


@each_network
def test_gradient_of_the_feature_agrees_with_the_release(name, full_speed):
    # In float64: in float32 a leaky ReLU's input near zero now and then takes the other branch,
    # which moves the gradient by up to 0.7 %.
    rng = np.random.default_rng(0)
    feature = rng.normal(size=(1, 16, 16, 8))
    original = copy.deepcopy(decoder(name)).double()
    tensor = channels_first(feature).requires_grad_()
    output = original(tensor)
    weight = rng.normal(size=channels_last(output).shape)
    (output * channels_first(weight)).sum().backward()
    head = hourglass.released(name).head
    with jax.enable_x64(True):
        params = jax.tree.map(np.float64, flax_params(name)["head"])
        got = jax.jit(jax.grad(lambda x: (head.apply(params, x) * weight).sum()))(feature)
    assert got.dtype == np.float64
    assert relative(got, channels_last(tensor.grad)) < 1e-6


@each_network
def test_pixel_decoders_take_any_square_and_flax_takes_the_rest(name):
    if name in release.FEED_FORWARD_TASKS:
        pytest.skip("a dense layer fixes the size")
    feature = np.random.default_rng(0).normal(size=(1, 3, 3, 8)).astype(np.float32)
    network = hourglass.released(name)
    wanted = channels_last(decoder(name)(channels_first(feature)))
    wanted = wanted * np.float32(network.scale) + np.float32(network.shift)
    assert relative(network.decode(flax_params(name), feature), wanted) < 1e-4
    wide = jax.eval_shape(network.decode, flax_params(name), np.zeros((1, 2, 5, 8), np.float32))
    assert wide.shape == (1, 32, 80, network.head.channels)


@each_network
def test_folding_batch_norms_changes_nothing_in_torch_itself(name):
    # Back in PyTorch, the batch norms then only add a bias.
    for original, ours in ((encoder(), "encoder"), (decoder(name), "head")):
        state = torch_weights.to_torch(flax_params(name)[ours])
        expected = original.state_dict()
        assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in expected.items()}
        side = 64 if ours == "encoder" else 16
        inputs = torch.randn(1, 3 if ours == "encoder" else 8, side, side)
        before = channels_last(original(inputs))
        kept = arrays(original)
        original.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()})
        after = channels_last(original(inputs))
        original.load_state_dict({k: torch.from_numpy(v) for k, v in kept.items()})
        assert relative(after, before) < 1e-4


@each_network
def test_to_torch_and_back_is_exact(name):
    network = hourglass.released(name)
    like = jax.eval_shape(lambda: network.init(jax.random.key(0), 256))
    for half, params in flax_params(name).items():
        again = torch_weights.from_torch(like[half], torch_weights.to_torch(params))
        jax.tree.map(np.testing.assert_array_equal, again, params)


# Files


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with the two files of `normal`, named by their SHA-256 as in the release."""
    folder = tmp_path_factory.mktemp("weights")
    for half, module in (("encoder", encoder()), ("decoder", decoder("normal"))):
        path = folder / "new"
        torch.save({"state_dict": module.state_dict()}, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.rename(folder / f"normal_{half}-{digest}.pth")
    return folder


def linked(weights, folder, **names):
    """A copy of the folder by links; `names` say under which half a file shall be found."""
    for path in weights.glob("normal_*"):
        half = path.name.split("_")[1].split("-")[0]
        os.link(
            path, folder / path.name.replace(f"normal_{half}", names.get(half, f"normal_{half}"))
        )
    return folder


def test_convert_writes_a_network_that_loads_to_the_folded_parameters(weights, tmp_path, capsys):
    cli.main(["convert", str(weights), "--out", str(tmp_path / "networks"), "--task", "normal"])
    assert str(tmp_path / "networks" / "normal") in capsys.readouterr().out
    network = pretrained.load(tmp_path / "networks" / "normal", NORMAL)
    assert network.network == hourglass.released("normal")
    jax.tree.map(np.testing.assert_array_equal, network.params, flax_params("normal"))


def test_written_files_read_back_alike_and_bear_their_digest(tmp_path):
    torch_weights.write(flax_params("normal"), tmp_path, "normal")
    got = torch_weights.parameters(tmp_path, "normal")
    jax.tree.map(np.testing.assert_array_equal, got, flax_params("normal"))


def test_a_missing_file_is_named_with_where_it_is_to_be_had(tmp_path):
    with pytest.raises(
        DataError, match=r"normal_encoder-f5e2c7737e.*\.pth is missing; download it from https://.*"
    ):
        torch_weights.parameters(tmp_path, "normal")
    with pytest.raises(DataError, match="no such folder"):
        torch_weights.parameters(tmp_path / "absent", "normal")


def test_a_truncated_file_fails_its_checksum(weights, tmp_path):
    linked(weights, tmp_path)
    (path,) = tmp_path.glob("normal_encoder*")
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1])
    with pytest.raises(DataError, match=rf"{path.name}: its SHA-256 is .*Download it again"):
        torch_weights.parameters(tmp_path, "normal")


def test_a_file_of_the_other_half_or_of_another_task_is_refused_by_name(weights, tmp_path):
    linked(weights, tmp_path, decoder="normal_encoder", encoder="normal_decoder")
    with pytest.raises(DataError, match=r"normal_encoder-.*has no \w+\.weight; not the encoder"):
        torch_weights.parameters(tmp_path, "normal")
    other = tmp_path / "other"
    other.mkdir()
    linked(weights, other, decoder="reshading_decoder", encoder="reshading_encoder")
    with pytest.raises(
        DataError, match=r"reshading_decoder-.*3\); expected .*1\); not the decoder"
    ):
        torch_weights.parameters(other, "reshading")


def test_a_file_of_the_release_under_another_ones_name_is_refused(tmp_path, monkeypatch):
    # Normals and reconstruction have decoders of one shape; only the digest tells them apart.
    path = tmp_path / "new"
    path.write_bytes(b"the autoencoder's")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    urls = {"autoencoding_decoder": f"https://host/autoencoding_decoder-{digest}.pth"}
    monkeypatch.setattr(release, "TASKONOMY_PRETRAINED_URLS", urls)
    path = path.rename(tmp_path / f"normal_decoder-{digest}.pth")
    with pytest.raises(DataError, match=rf"{path.name}: is the release's autoencoding_decoder-"):
        torch_weights.read(path)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("owned",)


@pytest.mark.parametrize(
    "content", [b"", b"no pickle at all", {"weights": {}}, {"state_dict": Hostile()}, [1]]
)
def test_what_is_not_a_state_dict_is_refused_and_runs_no_code(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "new"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path = path.rename(tmp_path / f"normal_encoder-{digest}.pth")
    with pytest.raises(DataError, match=f"{path.name}: expected a PyTorch file"):
        torch_weights.read(path)
    assert not (tmp_path / "owned").exists()


def test_a_tensorflow_checkpoint_is_refused_politely(tmp_path):
    (tmp_path / "model.permanent-ckpt.index").touch()
    with pytest.raises(DataError, match=r"TensorFlow checkpoint.*\.pth files of the PyTorch"):
        torch_weights.parameters(tmp_path, "normal")


def test_the_commands_error_is_one_line_and_no_traceback(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["convert", str(tmp_path), "--out", str(tmp_path / "out"), "--task", "normal"])
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "is missing" in error


def test_without_tasks_all_six_are_converted_as_far_as_there_are_files(weights, tmp_path):
    assert torch_weights.convert(weights, tmp_path) == [tmp_path / "normal"]
