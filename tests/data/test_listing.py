import itertools
import logging
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcmjax.data import listing
from vcmjax.errors import DataError


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@given(st.lists(st.integers(0, 10**9), unique=True), st.text("ab.-_"))
def test_names_with_numbers_are_in_order_of_the_numbers(numbers, text):
    names = [f"{text}{number}{text}" for number in numbers]
    expected = [f"{text}{number}{text}" for number in sorted(numbers)]
    assert sorted(names, key=listing.natural) == expected


@given(st.sets(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=12))
def test_the_order_of_names_is_total(names):
    order = sorted(names, key=listing.natural)
    other = order[::-1]
    other.sort(key=listing.natural)
    assert other == order
    assert len(set(map(str, map(listing.natural, names)))) == len(names)


def test_numbers_of_fixed_width_are_in_plain_order():
    names = [f"0001TP_{i:06}.png" for i in range(0, 9000, 37)]
    found = names[::-1]
    found.sort(key=listing.natural)
    assert found == names


JUNK = [
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    "._a.png",
    ".hidden.jpg",
    "notes.txt",
    "a",
    "b.gif",
]


def test_images_are_regular_files_of_a_known_suffix_and_the_rest_is_named(tmp_path):
    touched(tmp_path, "img10.png", "img2.PNG", "c.JpEg", "d.tif", *JUNK, "in.png/x.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "d.tif")
    files, skipped = listing.listed(tmp_path)
    assert [f.name for f in files] == ["c.JpEg", "d.tif", "img2.PNG", "img10.png", "link.png"]
    strays = {*JUNK, "in.png", "pipe.png", "broken.png", "device.png", "loop.png"}
    assert {path.name for path in skipped} == strays and len(skipped) == len(strays)


def test_a_folder_that_cannot_be_listed_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"gone: cannot be read"):
        listing.listed(tmp_path / "gone")


def test_hidden_folders_and_those_of_systems_hold_no_images(tmp_path):
    touched(
        tmp_path, "b/2.png", "b/10.png", "a/deep/1.png", ".ipynb_checkpoints/1.png",
        "__MACOSX/a/1.png", "@eaDir/1.png", "c.png",
    )  # fmt: skip
    found = [str(file.relative_to(tmp_path)) for file in listing.tree(tmp_path).files]
    assert found == ["a/deep/1.png", "b/2.png", "b/10.png", "c.png"]


def walked(root: Path) -> list[str]:
    return [
        str(Path(f, name).relative_to(root)) for f, _, names in listing.walk(root) for name in names
    ]


def test_a_walk_follows_links_but_not_in_circles(tmp_path):
    touched(tmp_path, "root/a/1.png", "root/b/2.png", "outside/3.png", "outside/in/4.png")
    root, out = tmp_path / "root", tmp_path / "outside"
    (root / "self").symlink_to(root)
    (root / "a/up").symlink_to(root)
    (root / "a/same").symlink_to(root / "a")
    (root / "c").symlink_to(out)
    (out / "back").symlink_to(root)
    (out / "in/back").symlink_to(out)
    assert walked(root) == ["a/1.png", "b/2.png", "c/3.png", "c/in/4.png"]


def test_a_folder_linked_under_two_names_is_found_under_both(tmp_path):
    touched(tmp_path, "root/a/1.png")
    (tmp_path / "root/b").symlink_to(tmp_path / "root/a")
    assert walked(tmp_path / "root") == ["a/1.png", "b/1.png"]


def test_a_walk_of_folders_that_all_link_to_each_other_ends(tmp_path):
    names = [f"f{i}" for i in range(12)]
    touched(tmp_path, *(f"{name}/1.png" for name in names))
    for one, other in itertools.permutations(names, 2):
        (tmp_path / one / other).symlink_to(tmp_path / other)
    found = walked(tmp_path)
    assert {f"{name}/1.png" for name in names} <= set(found) and len(found) < 12**3


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_the_validation_split_may_have_another_name_and_that_is_said(tmp_path, caplog, name):
    touched(tmp_path, f"{name}/a.png", "train/b.png")
    with caplog.at_level(logging.INFO, "vcmjax"):
        assert listing.split_folder(tmp_path, "val") == tmp_path / name
        assert listing.split_images(tmp_path, "val") == [tmp_path / name / "a.png"]
    assert f"{tmp_path / name}: read as the split val" in caplog.text
    touched(tmp_path, "val/c.png")
    assert listing.split_folder(tmp_path, "val") == tmp_path / "val"


def test_what_is_no_image_is_said_once_with_the_first_names(tmp_path, caplog):
    strays = [f"{i}.txt" for i in range(12)]
    touched(tmp_path, "train/a.png", "train/labels.csv", *(f"train/{name}" for name in strays))
    with caplog.at_level(logging.INFO, "vcmjax"):
        for _ in range(2):
            listing.split_images(tmp_path, "train")
    expected = (
        f"{tmp_path}/train: left out as no image: 12 (0.txt, 1.txt, 2.txt, 3.txt, 4.txt, ...)"
    )
    assert caplog.messages == [expected]


def test_a_split_without_images_says_what_it_holds(tmp_path):
    touched(tmp_path, "train/clip/1.png", "train/a.mp4")
    with pytest.raises(DataError, match=r"train: no image in it; .* found a.mp4, clip/"):
        listing.split_images(tmp_path, "train")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0."), min_size=1))
def test_names_of_any_unicode_form_belong_together(text):
    one, other = (Path(unicodedata.normalize(form, text) + ".png") for form in ("NFC", "NFD"))
    assert listing.stem(one) == listing.stem(other.with_suffix(".PNG"))
    assert listing.natural(one.name)[0] == listing.natural(other.name)[0]
