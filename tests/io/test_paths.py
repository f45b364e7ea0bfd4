"""Names of images in coded files, and the places that results are written to."""

import os
import unicodedata
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vcmjax.io import paths


def placed(*names, suffix=".png"):
    places = paths.Places(suffix)
    return [str(places.place(k, name)) for k, name in enumerate(names)]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a/x.png", "b/x.png"], ["a/x.png", "b/x.png"]),
        (["data/a/x.png", "data/a/y.png"], ["x.png", "y.png"]),
        (["data/a/x.png", "data/y.png"], ["a/x.png", "y.png"]),
        (["../up/x.png"], ["x.png"]),
        (["a/../b/x.png", "b/c/y.png"], ["x.png", "c/y.png"]),
        ([], []),
    ],
)
def test_names_are_paths_below_the_folder_that_all_share(files, expected):
    assert paths.names([Path(file) for file in files]) == expected
    assert paths.names([Path(file).absolute() for file in files]) == expected


def test_folders_and_names_come_back_with_the_suffix_of_results():
    assert placed("a/x.jpg", "b/x.jpg", "y.tar.png") == ["a/x.png", "b/x.png", "y.tar.png"]
    assert placed("a/x.jpg", None, suffix=".npy") == ["a/x.npy", "000001.npy"]


def test_names_that_would_end_in_one_place_are_numbered():
    assert placed("x.png", "x.jpg", "X.png", "x-2.png") == [
        "x.png", "x-2.png", "X-3.png", "x-2-2.png",
    ]  # fmt: skip
    composed, apart = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    assert len({unicodedata.normalize("NFC", p) for p in placed(composed, apart)}) == 2
    # One image's result cannot be the folder of another's.
    assert placed("a.png", "a.png/b.jpg", "a.png/c.jpg") == [
        "a.png", "a.png-2/b.png", "a.png-2/c.png",
    ]  # fmt: skip
    assert placed("a.png/b.jpg", "a.jpg") == ["a.png/b.png", "a-2.png"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/etc/passwd", "etc/passwd.png"),
        ("../../esc.png", "esc.png"),
        ("a/../../b.png", "a/b.png"),
        ("..\\..\\esc.png", "esc.png"),
        ("C:\\Windows\\x.png", "Windows/x.png"),
        ("//host/share/x.png", "host/share/x.png"),
        ("", "000000.png"),
        ("..", "000000.png"),
        ("/", "000000.png"),
        ("a\nb\x1b[31m.png", "a_b_[31m.png"),
        ("gnp.\u202efdp.png", "gnp._fdp.png"),
        ("nul.png", "_nul.png"),
        ("com1/x. ", "_com1/x.png"),
        (".hidden", ".hidden.png"),
        ("a:b?.png", "a_b_.png"),
    ],
)
def test_no_name_leads_out_of_the_folder_or_hides_what_it_is(name, expected):
    assert placed(name) == [expected]


PARTS = st.text(max_size=300) | st.sampled_from(["..", ".", "", "a", "A", "nul", "\udce9"])
NAMES = st.lists(PARTS, max_size=5).map("/".join) | st.none()


@given(st.lists(NAMES, max_size=12))
@example(["../" * 9 + "x", "/x", "x"])
@example(["é" * 400 + ".png", "." * 200 + "x/" + "." * 200 + "x"])
def test_any_names_have_places_of_their_own_below_the_folder(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("root")
    for path in check_places(names)[:3]:
        if len(path) < 2000:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch(exist_ok=False)


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None)
@given(st.lists(NAMES, max_size=6))
def test_20000_lists_of_names_have_places_of_their_own(names):
    check_places(names)


def check_places(names):
    found = placed(*names)
    assert len({unicodedata.normalize("NFC", path).casefold() for path in found}) == len(names)
    folders = {str(parent) for path in found for parent in PurePosixPath(path).parents}
    assert not folders & set(found)
    for path in found:
        parts = PurePosixPath(path).parts
        assert path.endswith(".png") and not PurePosixPath(path).is_absolute()
        assert not {"..", "."} & set(parts)
        assert all(len(os.fsencode(part)) <= 255 for part in parts)
    return found
