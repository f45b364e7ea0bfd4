"""What can be known to fail is refused before the first step, in one line, by every experiment."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import (
    efficacy,
    feature_coding,
    harness,
    human_vision,
    image_vs_feature,
    plateau,
    rate_performance,
    ready,
    task_data,
    task_networks,
    unseen,
)
from experiments.joint import _check_together
from vcmjax.codecs.image import ImageCodec
from vcmjax.data import dataset
from vcmjax.errors import UsageError, VcmError
from vcmjax.nets import hourglass, small_hourglass
from vcmjax.nets.pretrained import TaskNetwork
from vcmjax.tasks import ROOMS, Task
from vcmjax.train import loop

SIZE = 32


@pytest.fixture(autouse=True)
def untrained(monkeypatch):
    """To train anything is an error."""

    def fit(*_, **__):
        raise AssertionError("trained")

    monkeypatch.setattr(loop, "fit", fit)


def write_folder(root, count=3):
    """Images of one colour with labels of three classes."""
    for split in dataset.SPLITS:
        for i in range(count):
            label = np.arange(SIZE * SIZE).reshape(SIZE, SIZE).astype(np.uint8) % 3
            for folder, array in ((split, np.full((SIZE, SIZE, 3), 80 * i, np.uint8)),
                                  (f"{split}annot", label)):  # fmt: skip
                path = root / folder / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return root


# Processes


def test_importing_an_experiment_leaves_jax_to_be_spread_over_processes():
    names = [path.stem for path in Path(plateau.__file__).parent.glob("[!_]*.py")]
    code = f"import jax, experiments; from experiments import {', '.join(sorted(names))}\n"
    code += "jax.config.update('jax_num_cpu_devices', 2); assert jax.device_count() == 2"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(plateau.__file__).parents[1],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        check=True,
    )


# Packages


@pytest.mark.parametrize(
    ("experiment", "given"),
    [
        (plateau, ["--methods", "ours", "image_hevc", "--counts", "2", "2", "2"]),
        (plateau, ["--methods", "all", "--counts", "2", "2", "2"]),
        (efficacy, ["--counts", "2", "2", "2"]),
        (rate_performance, ["--counts", "2", "2", "2"]),
        (human_vision, ["--group", "reshading"]),
        (unseen, []),
        (feature_coding, ["--images", "2"]),
        (image_vs_feature, ["--images", "2"]),
    ],
)
def test_without_pyav_what_needs_it_is_refused_at_once(
    experiment, given, tmp_path, refused, monkeypatch
):
    monkeypatch.setitem(sys.modules, "av", None)
    cached = harness.cache_directory() / "features"
    before = set(cached.iterdir()) if cached.exists() else set()
    said = refused(experiment.main, [*given, "--out", str(tmp_path / "out")])
    assert "needs PyAV: pip install 'vcmjax[codecs]'" in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()
    assert (set(cached.iterdir()) if cached.exists() else set()) == before


def test_a_codec_that_does_not_work_here_is_named_with_its_own_reason(
    tmp_path, refused, monkeypatch
):
    def encode(self, images, quality):
        raise OSError("libx265.so: undefined symbol")

    monkeypatch.setattr(ImageCodec, "encode", encode)
    given = ["--methods", "ours", "image_webp", "--counts", "2", "2", "2"]
    said = refused(plateau.main, [*given, "--out", str(tmp_path / "out")])
    assert "--methods image_webp: libx265.so: undefined symbol" in said


def test_a_coder_that_does_not_work_here_is_refused():
    def fail(*_):
        raise RuntimeError("undefined symbol")

    broken = SimpleNamespace(__name__="broken", encode=fail, decode=fail)
    with pytest.raises(UsageError, match="broken does not work here: undefined symbol"):
        plateau.check_coder(broken)
    wrong = SimpleNamespace(
        __name__="wrong", encode=lambda *_: b"", decode=lambda *_: np.zeros(3, int)
    )
    with pytest.raises(UsageError, match="wrong does not work here"):
        plateau.check_coder(wrong)
    plateau.check_coder(plateau.CODERS["vcmjax"])


# Options


@pytest.mark.parametrize(
    ("experiment", "given", "message"),
    [
        (plateau, ["--latent", "3", "8"], "--latent 3 8: stride is 3; expected a power of two"),
        (plateau, ["--latent", "32", "8"], "--latent 32 8: the features of segment_semantic have"),
        (plateau, ["--latent", "0", "8"], "expected a stride of 1 to 16"),
        (plateau, ["--latent", "2", "0"], "expected a stride of 1 to 16, and channels"),
        (plateau, ["--latent", "-2", "8"], "--latent -2 8"),
        (plateau, ["--networks", "absent"], "--networks absent: no such folder"),
        (efficacy, ["--task", "normal"], "--task normal: expected a segmentation among them"),
        (efficacy, ["--methods", "hyperprior"], "expected ours, and one to compare it with"),
        (rate_performance, ["--methods", "ours"], "expected ours, and one to compare it with"),
        (rate_performance, ["--methods", "ours", "control"], "expected ours, and one to compare"),
    ],
)
def test_what_cannot_be_trained_or_shown_is_refused_before_anything(
    experiment, given, message, tmp_path, refused
):
    # Of the options given twice the last ones count: no codec but ours is asked for.
    small = ["--counts", "2", "2", "2", "--methods", "ours", "hyperprior"]
    said = refused(experiment.main, [*small, *given, "--out", str(tmp_path / "out")])
    assert message in " ".join(said.split()) and not (tmp_path / "out").exists()


# Networks


def shaped(task, network, size):
    """A network without numbers, for images of that size."""
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), size))
    return TaskNetwork(task, network, params, "01234567", {})


def test_a_feature_has_the_shape_that_the_network_makes():
    for name in ("class_scene", "normal"):
        task = ROOMS[name]
        network = small_hourglass.hourglass(task)
        made = network.encode(network.init(jax.random.key(0), 64), jnp.zeros((1, 64, 64, 3)))
        assert ready.feature(task, None, (64, 64)) == made.shape[1:], name
    released = shaped(ROOMS["normal"], hourglass.released("normal"), 256)
    assert ready.feature(ROOMS["normal"], released, (256, 256)) == (16, 16, 8)


def test_a_network_of_a_dense_head_takes_no_other_size_than_its_own():
    task = Task("class_scene", "class", 63)
    network = shaped(task, hourglass.released("class_scene"), 256)
    assert ready.feature(task, network, (256, 256)) == (16, 16, 8)
    with pytest.raises(UsageError, match="--size 128: the network of class_scene takes no images"):
        ready.feature(task, network, (128, 128))


@pytest.mark.parametrize(
    ("task", "made_for"),
    [
        (Task("segment_semantic", "segment", 11), ROOMS["segment_semantic"]),
        (Task("class_scene", "class", 17), ROOMS["segment_semantic"]),
        (Task("normal", "dense", 3), ROOMS["class_scene"]),
    ],
)
def test_a_network_for_other_outputs_than_the_tasks_is_refused(task, made_for):
    network = shaped(task, small_hourglass.hourglass(made_for), 64)
    with pytest.raises(UsageError, match=f"{task.name}: of an image of 64×64 its network makes"):
        ready.feature(task, network, (64, 64))


def test_tasks_of_other_images_or_features_cannot_share_a_codec():
    config = unseen.Config()
    first = ready.Ready(ROOMS["normal"], (8, 4, 4), (64, 64), (8, 8, 8), "")
    second = first._replace(task=ROOMS["reshading"])
    _check_together([first, second], config)
    with pytest.raises(UsageError, match=r"counts of images by task: .*reshading.*\(7, 4, 4\)"):
        _check_together([first, second._replace(counts=(7, 4, 4))], config)
    with pytest.raises(UsageError, match="size of images by task"):
        _check_together([first, second._replace(size=(32, 64))], config)
    with pytest.raises(VcmError, match="reshading has size"):
        _check_together([first, second._replace(feature=(7, 8, 8))], config)


# Data


@pytest.mark.parametrize("split", dataset.SPLITS)
@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("what", ["image", "label"])
def test_a_bad_example_of_any_split_is_named_before_a_network_is_trained(
    split, number, what, tmp_path, refused
):
    folder = write_folder(tmp_path / "mine")
    bad = folder / (split if what == "image" else f"{split}annot") / f"{number}.png"
    content = bad.read_bytes()
    bad.write_bytes(content[: len(content) // 2])
    given = ["--data", str(folder), "--size", str(SIZE), "--out", str(tmp_path / "out")]
    assert str(bad) in refused(plateau.main, given)
    assert not (tmp_path / "out").exists()


def test_a_bad_test_image_of_rooms_ends_a_run_before_any_codec_is_trained(monkeypatch, tmp_path):
    rooms = dataset.rooms((2, 2, 2), 64)

    class Bad:
        def __init__(self, source):
            self.source = source

        def __len__(self):
            return len(self.source)

        def __getitem__(self, index):
            if index:
                raise VcmError("the second test image is damaged")
            return self.source[index]

    def opened(split, name=None):
        return Bad(rooms.open(split, name)) if split == "test" else rooms.open(split, name)

    monkeypatch.setattr(dataset, "rooms", lambda *_: rooms._replace(open=opened, identity="bad"))
    config = plateau.Config(counts=(2, 2, 2), size=64, methods=("ours",))
    with pytest.raises(VcmError, match="the second test image is damaged"):
        plateau.run(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# What is said


def test_one_line_says_what_is_run_on_what_data_with_which_network(tmp_path, caplog):
    caplog.set_level("INFO", "vcmjax")
    folder = write_folder(tmp_path / "rooms")
    for config, expected in (
        (
            plateau.Config(counts=(4, 3, 2), size=64, tasks=("normal", "class_scene")),
            "ours; procedural rooms, 4/3/2 images of 64×64 in train/val/test; "
            "normal: 3 channels, network shipped with vcmjax, FINGERPRINT; "
            "class_scene: 10 classes, network shipped with vcmjax, ",
        ),
        (
            plateau.Config(str(folder), size=SIZE, tasks=()),
            "ours; folder rooms, 3/3/3 images of 32×32 in train/val/test; "
            "segment_semantic: 3 classes, network to be trained here first, 3000 steps",
        ),
    ):
        data = plateau.open_data(config)
        reader = task_data.Reader(data, tmp_path, 10)
        tasks = [data.tasks[name] for name in plateau.chosen_tasks(config, data)]
        origin = functools.partial(plateau.origin, config, data)
        caplog.clear()
        ready.check("ours", reader, tasks, origin)
        (line,) = (m for m in caplog.messages if m.startswith("ours; "))
        if network := origin(tasks[0]).network:
            expected = expected.replace("FINGERPRINT", network.fingerprint)
        assert line.startswith(expected)


def test_the_networks_of_a_folder_called_rooms_are_its_own(tmp_path, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "rooms")
    data = dataset.directory(folder, SIZE)
    task, config = data.tasks["segment_semantic"], task_networks.Config()
    assert task_networks.origin(data, task, config, tmp_path).network is None
    rooms = dataset.rooms((3, 3, 3), SIZE)
    shipped = task_networks.origin(rooms, ROOMS["normal"], config, tmp_path).network
    assert (
        shipped.fingerprint
        == task_networks.network_for(rooms, ROOMS["normal"], config, tmp_path).fingerprint
    )
    assert data.identity != rooms.identity and not data.procedural and rooms.procedural
    # Only the procedural rooms are seen once each.
    reader = task_data.Reader(data, tmp_path / "cache", views=6)
    network = TaskNetwork(
        task,
        small_hourglass.hourglass(task),
        small_hourglass.hourglass(task).init(jax.random.key(0), SIZE),
        "01234567",
        {},
    )
    assert len(reader.extract(task, network, "train")) == 6
    caplog.set_level("INFO", "vcmjax")
    assert plateau.open_data(plateau.Config()).procedural
    assert "for the folder here say --data ./rooms" in caplog.text
    assert not plateau.open_data(plateau.Config("./rooms", tasks=(), size=SIZE)).procedural


def test_task_networks_of_other_data_do_not_share_a_folder(tmp_path, refused):
    first, second = write_folder(tmp_path / "a"), write_folder(tmp_path / "b")
    out = tmp_path / "out"
    with harness.claimed(out, task_networks._Job(data=str(first))):
        pass
    said = refused(task_networks.main, ["--data", str(second), "--out", str(out)])
    assert "holds a run with other settings (data)" in said
    assert Path(out / "config.json").exists()
