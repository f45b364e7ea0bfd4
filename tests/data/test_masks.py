import logging
import os
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.test_reading import SPECIAL, special
from vcmjax.data import masks
from vcmjax.data.folder import Folder, describe
from vcmjax.errors import DataError, VcmError
from vcmjax.tasks import VOID

SPLITS = ("train", "val", "test")


def save(path: Path, picture, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(path, **options)
    return path


def labelled(root: Path, *labels, splits=SPLITS) -> Path:
    """Images a0, a1, ... of the labels' sizes in each split."""
    for split in splits:
        for number, label in enumerate(labels):
            size = label.size if isinstance(label, Image.Image) else label.shape[::-1]
            save(root / split / f"a{number}.png", Image.new("RGB", size))
            save(root / f"{split}annot" / f"a{number}.png", label)
    return root


def of(*indices: int) -> np.ndarray:
    return np.array(indices, np.uint8).repeat(2)[None].repeat(3, 0)


def palette(ids: np.ndarray, colours: int = 256) -> Image.Image:
    picture = Image.fromarray(ids).convert("P")
    picture.putdata(ids.ravel().tolist())
    picture.putpalette(np.random.default_rng(1).integers(1, 256, 3 * colours).tolist())
    return picture


def label(root: Path, split="train", index=0, **options) -> np.ndarray:
    return Folder(root, split, None, **options)[index]["segment_semantic"]


def test_masks_of_0_and_255_are_two_classes_and_that_is_said(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "vcmjax"):
        root = labelled(tmp_path, of(0, 255, 255), of(255))
        assert describe(root).channels == 2
        for split in SPLITS:
            np.testing.assert_array_equal(label(root, split), of(0, 1, 1))
    assert caplog.messages == [
        f"{root}: labels are 0 and 255 alone: 255 is class 1, and no index is void",
        f"{root}: 2 classes, void = none, 0.0 % void, from 2 images",
    ]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_masks_of_0_and_255_in_any_mode_are_two_classes(tmp_path, mode):
    root = labelled(tmp_path, Image.fromarray(of(0, 255)).convert(mode))
    np.testing.assert_array_equal(label(root), of(0, 1))


def test_masks_of_one_bit_are_those_of_0_and_255_that_a_tool_made_smaller(tmp_path):
    root = labelled(tmp_path, of(0, 255), Image.fromarray(of(0, 255, 0)).convert("1"))
    np.testing.assert_array_equal(label(root, index=0), of(0, 1))
    np.testing.assert_array_equal(label(root, index=1), of(0, 1, 0))


def test_two_names_in_classes_txt_leave_masks_of_0_and_255_two_classes(tmp_path):
    root = labelled(tmp_path, of(0, 255))
    (root / "classes.txt").write_text("road\nobstacle\n")
    assert describe(root).classes == ("road", "obstacle")
    np.testing.assert_array_equal(label(root), of(0, 1))


def test_another_value_in_masks_of_0_and_255_is_named(tmp_path):
    root = labelled(tmp_path, of(0, 255))
    save(root / "valannot/a0.png", of(0, 254))
    with pytest.raises(DataError, match=r"valannot/a0.png: .*0 and 255 alone, .* 254 \(6 such"):
        label(root, "val")


def test_255_beside_two_classes_is_void(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "vcmjax"):
        root = labelled(tmp_path, of(0, 1, 255, 255))
        assert describe(root).channels == 2
    np.testing.assert_array_equal(label(root), of(0, 1, VOID, VOID))
    assert caplog.messages == [f"{root}: 2 classes, void = 255, 50.0 % void, from 1 images"]


REFUSED = {
    "0 127 254": (of(0, 127, 254), "254, that is 255 classes of which 3 occur"),
    "0 128 255": (of(0, 128, 255), "129 classes of which 2 occur"),
    "0 100 200": (of(0, 100, 200), "201 classes of which 3 occur"),
    "0 254": (of(0, 254), "255 classes of which 2 occur"),
    "0 38 75": (of(0, 38, 75), "76 classes of which 3 occur"),
    "2 bits": (of(0, 85, 170, 255), "171 classes of which 3 occur"),
    "4 bits": (of(*range(0, 256, 17)), "239 classes of which 15 occur"),
    "soft edges": (of(*range(256)), "255 classes of which 255 occur"),
    "greys as a palette": (Image.fromarray(of(0, 127, 254)).convert("P"), "255 classes of which 3"),
    "zeros": (of(0, 0), "expected two classes or more, found one class, 0"),
    "ones": (of(1, 1), "found one class, 1"),
    "1 255": (of(1, 255), "found one class, 1"),
    "255": (of(255, 255), "found one class, 255"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_labels_that_are_no_class_indices_are_refused_with_the_remedy(tmp_path, kind):
    picture, message = REFUSED[kind]
    with pytest.raises(DataError, match=rf"trainannot: segment_semantic: .*{message}") as info:
        describe(labelled(tmp_path, picture))
    assert any(word in str(info.value) for word in ("classes.txt", "--void"))


ACCEPTED = {
    "Cityscapes": (of(*[i for i in range(34) if i not in (9, 10, 14, 15, 16, 18, 30)], 255), 34),
    "a few of Cityscapes": (of(0, 7, 8, 11, 21, 23, 26, 33), 34),
    "ADE20K": (of(*[i for i in range(151) if i % 7]), 151),
    "a few of ADE20K": (of(*range(1, 18), 22, 43, 87, 136), 137),
    "COCO-Stuff": (of(*[i for i in range(182) if i not in range(12, 182, 17)], 255), 182),
    "VOC": (palette(of(*range(21), 255)), 21),
    "a person of VOC": (palette(of(0, 15, 255)), 16),
    "a television of VOC": (palette(of(0, 20, 255)), 21),
    "a palette of few colours": (palette(of(0, 19), 20), 20),
    "gaps": (of(0, 1, 3, 4), 5),
}  # fmt: skip


@pytest.mark.parametrize("kind", ACCEPTED)
def test_class_indices_with_gaps_are_read_as_they_are(tmp_path, kind):
    picture, channels = ACCEPTED[kind]
    root = labelled(tmp_path, picture)
    assert describe(root).channels == channels
    ids = np.asarray(picture)
    np.testing.assert_array_equal(label(root), ids)


def test_a_list_of_classes_overrides_what_labels_seem_to_be(tmp_path):
    root = labelled(tmp_path, of(0, 38, 75))
    (root / "classes.txt").write_text("\n".join(f"c{i}" for i in range(76)))
    assert describe(root).channels == 76
    np.testing.assert_array_equal(label(root), of(0, 38, 75))


def test_a_stated_void_overrides_what_labels_seem_to_be(tmp_path):
    root = labelled(tmp_path, of(0, 1, 255))
    assert describe(root, void=254).channels == 2
    with pytest.raises(DataError, match="found one class, 0"):
        describe(root, void=1)
    with pytest.raises(DataError, match="found one class, 0"):
        describe(labelled(tmp_path / "two", of(0, 255)), void=255)


NAMES = ("0001TP_006690", "0016E5_00390")
JUNK = [".DS_Store", "Thumbs.db", "desktop.ini", "._0001TP_006690.png", "notes.txt", "video.mp4"]


def camvid(root: Path, ids: np.ndarray) -> Path:
    for split in SPLITS:
        for name in NAMES:
            save(root / split / f"{name}.png", Image.new("RGB", ids.shape[::-1]))
            save(root / f"{split}annot" / f"{name}.png", ids)
    return root


@pytest.mark.parametrize("place", ["train", "val", "test", "trainannot", "valannot"])
def test_stray_files_change_no_class_of_a_known_data_set(tmp_path, place):
    root = camvid(tmp_path, of(*range(12)))
    plain = describe(root)
    for name in JUNK:
        (root / place / name).write_bytes(b"\0\0\0\1Bud1")
    os.mkfifo(root / place / "pipe.png")
    assert describe(root) == plain and plain.channels == 11
    np.testing.assert_array_equal(label(root), of(*range(11), VOID))
    assert [len(Folder(root, split)) for split in SPLITS] == [2, 2, 2]


@pytest.mark.parametrize("lacking", range(12))
def test_a_subset_of_a_known_data_set_has_all_its_classes(tmp_path, lacking):
    ids = [i for i in range(12) if i != lacking]
    root = camvid(tmp_path, of(*ids))
    assert describe(root).classes == masks.KNOWN["SegNet's CamVid"].classes
    np.testing.assert_array_equal(label(root), of(*[VOID if i == 11 else i for i in ids]))


def test_labels_without_an_image_show_no_class(tmp_path):
    root = labelled(tmp_path, of(0, 1, 2))
    save(root / "trainannot/legend.png", of(*range(30)))
    assert describe(root).channels == 3


@pytest.mark.parametrize("suffix", [".PNG", ".Png", ".bmp", ".tif", ".TIFF"])
def test_labels_of_any_lossless_suffix_in_any_case_are_read(tmp_path, suffix):
    root = labelled(tmp_path, of(0, 1, 2))
    path = root / "trainannot/a0.png"
    save(path.with_suffix(suffix), Image.open(path))
    path.unlink()
    np.testing.assert_array_equal(label(root), of(0, 1, 2))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_image_and_label_match_in_any_unicode_form(tmp_path, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    name = "Straße é Ångström 한글"
    for split in SPLITS:
        save(
            tmp_path / split / f"{unicodedata.normalize(form, name)}.png", Image.new("RGB", (4, 3))
        )
        save(tmp_path / f"{split}annot/{unicodedata.normalize(other, name)}.png", of(0, 1))
    np.testing.assert_array_equal(label(tmp_path), of(0, 1))


@pytest.mark.parametrize("folder", ["train", "trainannot"])
@pytest.mark.parametrize("other", ["a0.PNG", "a0.tif"])
def test_two_files_of_one_name_are_refused_by_name(tmp_path, folder, other):
    root = labelled(tmp_path, of(0, 1))
    save(root / folder / other, Image.open(root / folder / "a0.png"))
    with pytest.raises(DataError, match=rf"{folder}/a0.* a0\..* beside it. Rename or remove one"):
        Folder(root, "train")


@pytest.mark.parametrize("kind", SPECIAL)
def test_a_label_that_is_no_file_is_named(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    root = labelled(tmp_path, of(0, 1), of(0, 1))
    (root / "trainannot/a0.png").unlink()
    special(root / "trainannot", kind).rename(root / "trainannot/a0.png")
    with pytest.raises(DataError, match=rf"trainannot/a0.png: segment_semantic: .*found {kind}"):
        label(root)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_classes_txt_is_read_in_any_marked_encoding(tmp_path, encoding):
    root = labelled(tmp_path, of(0, 1))
    (root / "classes.txt").write_bytes("Straße\r\nHäuser\r\n\r\n".encode(encoding))
    assert describe(root).classes == ("Straße", "Häuser")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Straße\nHäuser".encode("cp1252"), r"found byte 4 \(line 1\) of another encoding"),
        (b"a\n\nb", "a class a line, .* found line 2 empty"),
        (b"", "found 0 classes"),
        (b"void\nVoid\n", "found 0 classes"),
        (b"a\n" * 257, "found 257 classes"),
        (b"a\0\nb", "found a NUL in line 1"),
    ],
)
def test_classes_txt_that_cannot_be_is_refused_by_name_and_line(tmp_path, content, message):
    root = labelled(tmp_path, of(0, 1))
    (root / "classes.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"classes.txt: segment_semantic: .*{message}"):
        describe(root)


@pytest.mark.parametrize("kind", SPECIAL)
def test_classes_txt_that_is_no_file_is_named(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    root = labelled(tmp_path, of(0, 1))
    special(tmp_path, kind).rename(root / "classes.txt")
    with pytest.raises(DataError, match=f"classes.txt: .*found {kind}"):
        describe(root)


def test_validation_labels_are_beside_the_folder_of_another_name(tmp_path):
    root = labelled(tmp_path, of(0, 1), splits=("train", "valid", "test"))
    np.testing.assert_array_equal(label(root, "val"), of(0, 1))


@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=40),
    st.sampled_from([None, *range(256)]),
    st.booleans(),
)
@settings(max_examples=150)
def test_any_labels_are_refused_or_read_as_classes_of_which_two_occur(ids, void, coloured):
    with tempfile.TemporaryDirectory() as folder:
        picture = palette(of(*ids)) if coloured else of(*ids)
        root = labelled(Path(folder), picture, splits=("train",))
        try:
            task = describe(root, void)
        except VcmError:
            return
        found = label(root, void=void)
    classes = set(np.unique(found)) - {VOID}
    assert len(classes) >= 2 and max(classes) < task.channels
    blank = {VOID, void} if set(ids) - {0, 255} or void is not None else set()
    np.testing.assert_array_equal(
        found == VOID, np.isin(of(*ids), [b for b in blank if b is not None])
    )


@pytest.mark.parametrize("count", [200, pytest.param(20_000, marks=pytest.mark.slow)])
def test_any_bytes_of_classes_txt_give_a_task_or_a_data_error(tmp_path, count):
    rng = np.random.default_rng(count)
    root = labelled(tmp_path, of(0, 1), splits=("train",))
    seeds = ["sky\nroad\nvoid\n", "Straße\r\nHäuser", "a\rb\rc", "\n\nx\n", "void", "é" * 99]
    codings = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "cp1252")
    opened, told = 0, []
    for _ in range(count):
        content = bytearray(seeds[rng.integers(len(seeds))].encode(codings[rng.integers(6)]))
        for _ in range(rng.integers(0, 4)):
            place = int(rng.integers(len(content) + 1))
            content[place : place + int(rng.integers(3))] = rng.bytes(int(rng.integers(4)))
        (root / "classes.txt").write_bytes(content)
        try:
            opened += describe(root).channels > 0
        except DataError as error:
            told.append(str(error))
    assert count / 10 < opened < count and not any("\n" in message for message in told)
