import os

import numpy as np
import pytest
from PIL import Image

from vcmjax.data import dataset
from vcmjax.errors import DataError, UsageError
from vcmjax.tasks import ROOMS


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split in dataset.SPLITS:
        for directory, shape in ((split, (8, 8, 3)), (f"{split}annot", (8, 8))):
            path = tmp_path / "mine" / directory / "a.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 3, shape, np.uint8)).save(path)
    return tmp_path / "mine"


def test_a_folder_of_segmentations_has_its_one_task_and_three_splits(folder):
    data = dataset.directory(folder, 8)
    assert data.name == "mine" and list(data.tasks) == ["segment_semantic"]
    for split in dataset.SPLITS:
        example = data.open(split)[0]
        assert example["image"].shape == (8, 8, 3)
        np.testing.assert_array_equal(
            example["segment_semantic"], Image.open(folder / f"{split}annot" / "a.png")
        )


def test_identity_is_stable_and_changes_with_files_size_and_void(folder):
    first = dataset.directory(folder, 8).identity
    assert dataset.directory(folder, 8).identity == first
    others = {dataset.directory(folder, 16).identity, dataset.directory(folder, 8, void=2).identity}
    os.utime(folder / "test" / "a.png", (1, 1))
    others.add(dataset.directory(folder, 8).identity)
    assert first not in others and len(others) == 3


def test_identity_changes_with_the_rules_of_reading(folder, monkeypatch):
    first = dataset.directory(folder, 8).identity
    monkeypatch.setattr(dataset, "_READING", dataset._READING + 1)
    assert dataset.directory(folder, 8).identity != first


def test_identity_of_a_folder_with_anything_in_it_is_found(folder):
    first = dataset.directory(folder, 8).identity
    (folder / "self").symlink_to(folder)
    (folder / "train" / "up").symlink_to(folder)
    (folder / "nowhere").symlink_to(folder / "gone")
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    assert dataset.directory(folder, 8).identity == first  # no file of these is read
    (folder / os.fsdecode(b"not \xff UTF-8")).touch()
    assert dataset.directory(folder, 8).identity != first


def test_rooms_have_every_task_and_as_many_examples_as_asked():
    data = dataset.rooms((3, 2, 1), 32)
    assert data.tasks == ROOMS
    assert [len(data.open(split)) for split in dataset.SPLITS] == [3, 2, 1]
    identities = {
        dataset.rooms(*args).identity
        for args in [((3, 2, 1), 64), ((3, 2, 1), 32), ((3, 2, 2), 32)]
    }
    assert len(identities) == 3


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="absent: no such folder; expected 'rooms' or a folder"):
        dataset.directory(tmp_path / "absent", 8)


def test_a_task_that_the_data_do_not_label_is_refused_with_those_they_do(folder):
    with pytest.raises(
        UsageError, match="normal: mine has no such task; expected segment_semantic"
    ):
        dataset.directory(folder, 8, ["normal"])
    with pytest.raises(UsageError, match=r"magic: rooms has no such task; expected class_scene, "):
        dataset.check_tasks(["magic"], ROOMS, "rooms")


def test_a_folder_with_an_rgb_domain_is_read_as_taskonomy(tmp_path):
    (tmp_path / "copy" / "rgb").mkdir(parents=True)
    data = dataset.directory(tmp_path / "copy", 8, ["normal"])
    assert list(data.tasks) == ["normal"]
    with pytest.raises(UsageError, match="magic"):
        dataset.directory(tmp_path / "copy", 8, ["magic"])
