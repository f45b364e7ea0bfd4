"""Splits by building and lists of classes, on made lists and on the published ones."""

import os
from pathlib import Path

import numpy as np
import pytest

from vcmjax.data.taskonomy_lists import (
    KEPT_OBJECTS,
    KEPT_PLACES,
    SPLITS,
    buildings,
    classes,
    split_of,
)
from vcmjax.errors import DataError, UsageError
from vcmjax.tasks import ROOMS

HEADER = "id,train,val,test"
SCENE, OBJECT = ROOMS["class_scene"], ROOMS["class_object"]
NAMES = [f"building{i}" for i in range(40)]


def table(path: Path, names: str, end="\r") -> Path:
    """A list with one building per split and letter."""
    rows = [f"{name},{i % 3 == 0:d},{i % 3 == 1:d},{i % 3 == 2:d}" for i, name in enumerate(names)]
    path.write_bytes(end.join([HEADER, *rows]).encode())
    return path


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_list_reads_alike_with_any_line_end(tmp_path, end):
    split = buildings(table(tmp_path / "splits.csv", "abcd", end), "train")
    assert split.mine == {"a", "d"} and split.others == {"b", "c"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,split\nhanson,train\n", "header `id,train,val,test`, found name,split"),
        ("", "found no row"),
        (f"{HEADER}\nhanson,1,1,0\n", "each building in one split, found hanson in more"),
        (f"{HEADER}\nhanson,0,1,0\n", "no building with 1 in column 'train'"),
    ],
)
def test_list_of_buildings_of_other_form_raises_data_error(tmp_path, text, message):
    (tmp_path / "splits.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        buildings(tmp_path / "splits.csv", "train")


def test_the_smallest_official_list_that_covers_the_buildings_is_taken(tmp_path):
    table(tmp_path / "train_val_test_tiny.csv", "abc")
    table(tmp_path / "train_val_test_full.csv", "abcdefghi")
    table(tmp_path / "train_val_test_medium.csv", "abcdef")

    def chosen(found, **subset):
        return Path(split_of(tmp_path, "val", found=lambda: set(found), **subset).origin).stem

    assert chosen("ab") == "train_val_test_tiny"
    assert chosen("ad") == "train_val_test_medium"
    assert chosen("aiz") == "train_val_test_full"  # z is in none.
    assert chosen("ab", subset="full") == "train_val_test_full"
    table(tmp_path / "splits.csv", "xyz")
    assert chosen("ab") == "splits"
    assert chosen("ab", subset="tiny") == "train_val_test_tiny"


def test_without_lists_buildings_are_dealt_about_eight_to_one_to_one(tmp_path):
    dealt = [split_of(tmp_path, split, found=lambda: NAMES).mine for split in SPLITS]
    assert [len(part) for part in dealt] == [32, 4, 4]
    assert frozenset.union(*dealt) == set(NAMES)
    again = [split_of(tmp_path, s, found=lambda: NAMES[::-1]).mine for s in SPLITS]
    assert again == dealt


@pytest.mark.parametrize("count", range(3, 40))
def test_dealt_splits_are_disjoint_complete_and_not_empty(tmp_path, count):
    names = NAMES[:count]
    dealt = [split_of(tmp_path, split, found=lambda: names).mine for split in SPLITS]
    assert all(dealt) and sum(map(len, dealt)) == count
    assert frozenset.union(*dealt) == set(names)


def test_too_few_buildings_for_a_split_raise_data_error(tmp_path):
    assert split_of(tmp_path, "train", found=lambda: ["a"]).mine == {"a"}
    with pytest.raises(DataError, match=r"2 building\(s\) are too few for a test split"):
        split_of(tmp_path, "test", found=lambda: ["a", "b"])


@pytest.mark.parametrize(
    ("split", "kwargs"),
    [("dev", {}), ("val", {"subset": "huge"}), ("val", {"subset": "tiny", "table": Path("x")})],
)
def test_unknown_split_or_subset_raises_usage_error(tmp_path, split, kwargs):
    with pytest.raises(UsageError, match="expected one of"):
        split_of(tmp_path, split, **kwargs)


def test_vectors_of_a_task_s_own_length_need_no_list(tmp_path):
    known = classes(tmp_path, SCENE, 10)
    assert known.task == SCENE and known.labels.tolist() == known.kept.tolist() == list(range(10))


def test_kept_places_are_numbered_anew_and_named(tmp_path):
    assert classes(tmp_path, SCENE, 365).task.classes[:2] == ("place 3", "place 23")
    (tmp_path / "places_class_names.txt").write_text("".join(f"'/p/{i}'\n" for i in range(365)))
    known = classes(tmp_path, SCENE, 365)
    assert known.task.classes == tuple(f"/p/{i}" for i in KEPT_PLACES)
    assert known.task.channels == 63 and known.labels.tolist() == list(range(63))


@pytest.mark.parametrize(
    ("task", "length", "name", "text", "message"),
    [
        (SCENE, 365, "places_class_names.txt", "a\n", "365 lines.*found 1 lines"),
        (OBJECT, 1000, "imagenet_selected_classes.txt", "n1 a\n", "100 lines.*found 1"),
        (OBJECT, 1000, "imagenet_selected_classes.txt", "n1 a\n" * 100, "WordNet ids.*others"),
    ],
)
def test_lists_that_do_not_fit_raise_data_error(tmp_path, task, length, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=f"{name}: {task.name}: expected.*{message}"):
        classes(tmp_path, task, length)


# The published lists.
DATA = os.environ.get("VCMJAX_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")
META = Path(DATA) / "taskonomy_meta"
published = pytest.mark.skipif(
    not META.is_dir(), reason="Taskonomy's lists are not in $VCMJAX_TEST_DATA/taskonomy_meta"
)


@published
@pytest.mark.parametrize(
    ("subset", "sizes"),
    [
        ("tiny", (25, 5, 5)),
        ("medium", (99, 20, 19)),
        ("full", (346, 67, 69)),
        ("fullplus", (383, 75, 79)),
    ],
)
def test_published_subsets_have_their_numbers_of_buildings(subset, sizes):
    parts = [split_of(META, split, subset=subset).mine for split in SPLITS]
    assert tuple(map(len, parts)) == sizes
    assert len(frozenset.union(*parts)) == sum(sizes)


@published
def test_buildings_of_each_published_subset_choose_it():
    for subset in ("tiny", "medium", "full", "fullplus"):
        one = split_of(META, "train", subset=subset)
        assert split_of(META, "train", found=lambda one=one: one.mine | one.others) == one


@published
def test_63_kept_places_are_homes_and_workplaces_and_hold_every_published_home():
    task = classes(META, SCENE, 365).task
    assert task.channels == len(task.classes) == 63
    assert {"/b/bathroom", "/k/kitchen", "/o/office", "/c/computer_room"} <= set(task.classes)
    assert not {"/a/airfield", "/w/windmill", "/z/zen_garden"} & set(task.classes)
    flags = (META / "places_class_to_keep.txt").read_text().split()
    homes = {i for i, flag in enumerate(flags) if flag == "1"}
    assert len(flags) == 365 and len(homes) == 31 and homes < set(KEPT_PLACES)


@published
def test_selected_imagenet_classes_have_imagenet_s_indices():
    known = classes(META, OBJECT, 1000)
    assert known.task.channels == 1000 and known.labels.tolist() == list(KEPT_OBJECTS)
    assert len(KEPT_OBJECTS) == 100 and (np.diff(KEPT_OBJECTS) > 0).all()
    facts = {  # ImageNet's indices as widely known, not taken from the list.
        401: "accordion", 414: "backpack", 504: "coffee mug", 508: "computer keyboard",
        526: "desk", 620: "laptop", 651: "microwave", 664: "monitor", 673: "mouse",
        760: "refrigerator", 851: "television", 859: "toaster", 861: "toilet seat", 883: "vase",
        892: "wall clock", 897: "washer", 907: "wine bottle", 968: "cup", 999: "toilet tissue",
    }  # fmt: skip
    assert {index: known.task.classes[index] for index in facts} == facts


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_list_reads_alike_in_any_marked_encoding(tmp_path, encoding):
    path = table(tmp_path / "splits.csv", "abc")
    path.write_bytes(path.read_text().encode(encoding))
    assert buildings(path, "train").mine == {"a"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{HEADER}\nHäuser,1,0,0\n".encode("cp1252"), r"found byte 19 \(line 2\) of another"),
        (f"{HEADER}\na\0,1,0,0\n".encode(), "found a NUL in line 2"),
        (f"{HEADER}\n{'a' * 140_000},1,0,0\n".encode(), "found field larger than field limit"),
    ],
)
def test_list_that_cannot_be_read_is_named(tmp_path, content, message):
    (tmp_path / "splits.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"splits.csv: splits: .*{message}"):
        buildings(tmp_path / "splits.csv", "train")
