import logging
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.data.test_reading import SPECIAL, special
from vcmjax.data import dataset
from vcmjax.data.folder import Folder, describe
from vcmjax.errors import DataError

PICTURE = Image.new("RGB", (4, 3))
SPLITS = ("train", "val", "test")


def pictures(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        PICTURE.save(root / name)
    return root


def mine(folder: Path) -> Path:
    return pictures(folder / "mine", *(f"{split}/{name}.png" for split in SPLITS for name in "ab"))


def classes(root: Path, split="train") -> list[tuple[str, str]]:
    """File and class of each example."""
    source = Folder(root, split, 2)
    names = source.tasks["class_scene"].classes
    found = [names[int(source[i]["class_scene"])] for i in range(len(source))]
    return [
        (str(file.relative_to(root)), name) for file, name in zip(source.files, found, strict=True)
    ]


PATHS = {
    "relative": "{split}/{name}.png",
    "dotted": "./{split}/../{split}/{name}.png",
    "backslashes": "{split}\\{name}.png",
    "absolute": "{root}/{split}/{name}.png",
    "absolute, with links": "{link}/{split}/{name}.png",
    "from where the folder lies": "mine/{split}/{name}.png",
    "from the folder, back and forth": "../mine/{split}/{name}.png",
}


@pytest.mark.parametrize("given_root", ["mine", "./mine", "{root}", "{link}"])
@pytest.mark.parametrize("kind", PATHS)
def test_paths_are_those_of_the_folder_however_written(tmp_path, monkeypatch, kind, given_root):
    root = mine(tmp_path)
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    places = {"root": root, "link": tmp_path / "link"}
    (root / "labels.csv").write_text("".join(
        PATHS[kind].format(split=split, name=name, **places) + f",{label}\n"
        for split in SPLITS for name, label in (("a", "cat"), ("b", "dog"))
    ))  # fmt: skip
    opened = Path(given_root.format(**places))
    assert classes(opened) == [("train/a.png", "cat"), ("train/b.png", "dog")]


@pytest.mark.parametrize("row", ["train/{}", "{}", "../train/{}", "mine/train/{}"])
def test_paths_in_a_splits_table_may_start_there_or_higher(tmp_path, row):
    root = mine(tmp_path)
    table = f"{row.format('a.png')},cat\n{row.format('b.png')},dog\n"
    (root / "train/labels.csv").write_text(table)
    assert classes(root) == [("train/a.png", "cat"), ("train/b.png", "dog")]


def test_names_without_a_split_are_found_in_the_one_that_has_them(tmp_path):
    root = pictures(tmp_path, "train/a.png", "val/b.png", "test/c.png")
    (root / "labels.csv").write_text("a.png,cat\n./b.png,dog\nc.png,cat\n")
    assert [classes(root, split)[0][1] for split in SPLITS] == ["cat", "dog", "cat"]
    pictures(root, "val/a.png")
    with pytest.raises(
        DataError, match=r"labels.csv: .*one split, found line 1: a.png, .*train and val"
    ):
        describe(root)


@pytest.mark.parametrize(
    "path", ["/etc/passwd.png", "../other/a.png", "C:\\data\\a.png", "../../a.png"]
)
def test_paths_outside_of_the_folder_are_refused_by_name(tmp_path, path):
    root = mine(tmp_path)
    pictures(tmp_path, "other/a.png")
    (root / "labels.csv").write_text(f"train/a.png,cat\n{path},dog\n")
    name = path.replace("\\", "/")
    with pytest.raises(DataError, match=f"labels.csv: .*images inside .*relative.* line 2: {name}"):
        describe(root)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_paths_and_classes_match_in_any_unicode_form(tmp_path, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    root = pictures(tmp_path, unicodedata.normalize(form, "train/é.png"), "train/ö.png")
    rows = f"{unicodedata.normalize(other, 'train/é.png,vélo')}\ntrain/ö.png,vélo\n"
    (root / "labels.csv").write_text(rows)
    assert describe(root).classes == ("vélo",)
    assert {name for _, name in classes(root)} == {"vélo"}


def test_one_image_twice_of_one_class_is_read(tmp_path):
    root = mine(tmp_path)
    (root / "labels.csv").write_text("train/a.png,cat\ntrain/b.png,dog\n./train/a.png,cat\n")
    assert classes(root) == [("train/a.png", "cat"), ("train/b.png", "dog")]


@pytest.mark.parametrize(
    "second", ["train/a.png", "./train/a.png", "train\\a.png", "mine/train/a.png"]
)
def test_one_image_of_two_classes_is_refused_with_both_rows(tmp_path, second):
    root = mine(tmp_path)
    (root / "labels.csv").write_text(f"train/a.png,cat\ntrain/b.png,dog\n{second},dog\n")
    message = r"labels.csv: .* line 3: .*not as in .*labels.csv line 1: 'cat' there, 'dog' here"
    with pytest.raises(DataError, match=message):
        describe(root)


def test_tables_that_contradict_each_other_are_both_named(tmp_path):
    root = mine(tmp_path)
    (root / "labels.csv").write_text("train/a.png,cat\nval/a.png,dog\n")
    (root / "train/labels.csv").write_text("file,class\na.png,cat\n")
    assert describe(root).classes == ("cat", "dog")
    (root / "train/labels.csv").write_text("file,class\na.png,dog\n")
    message = r"train/labels.csv: .* line 2: a.png not as in .*mine/labels.csv line 1: 'cat' there"
    with pytest.raises(DataError, match=message):
        describe(root)


def test_a_row_without_its_image_is_named_with_table_and_line(tmp_path):
    root = mine(tmp_path)
    (root / "labels.csv").write_text("train/a.png,cat\nval/lost.png,dog\n")
    assert len(Folder(root, "train")) == 2  # what the others lack is for them to say
    with pytest.raises(DataError, match=r"val/lost.png: class_scene: .*labels.csv, line 2\)"):
        Folder(root, "val")


def test_images_in_folders_are_those_that_a_table_names(tmp_path):
    root = pictures(tmp_path, "train/a.png", "train/x/b.png", "train/x/c.png", "val/d.png")
    (root / "labels.csv").write_text("train/a.png,cat\ntrain/x/b.png,dog\n")
    assert classes(root) == [("train/a.png", "cat"), ("train/x/b.png", "dog")]
    pictures(root, "test/x/e.png")
    with pytest.raises(DataError, match=r"test: class_scene: expected images.* found none"):
        Folder(root, "test")


def test_a_single_class_in_a_table_is_warned_of(tmp_path, caplog):
    root = mine(tmp_path)
    (root / "labels.csv").write_text("train/a.png,cat\n")
    describe(root)
    assert [r.message for r in caplog.records if r.levelno == logging.WARNING] == [
        f"{root}: cat is the only class: its accuracy is 1 whatever is sent"
    ]


@pytest.mark.parametrize("content", ["", "file,class\n", "\n\n"])
def test_a_table_without_rows_is_refused(tmp_path, content):
    root = mine(tmp_path)
    (root / "labels.csv").write_text(content)
    with pytest.raises(DataError, match=r"labels.csv: class_scene: expected rows .*found none"):
        describe(root)


@pytest.mark.parametrize("kind", SPECIAL)
def test_a_table_that_is_no_file_is_named(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    root = mine(tmp_path)
    special(tmp_path, kind).rename(root / "labels.csv")
    with pytest.raises(DataError, match=rf"labels.csv: class_scene: .*found {kind}"):
        describe(root)


FOLDERS = [
    "train/dog/2.jpg", "train/dog/10.jpg", "train/cat/1.png", "train/cat/deep/er/3.png",
    "val/cat/1.png", "test/ant eater/1.png", "test/cat/1.png",
]  # fmt: skip


def test_folders_of_images_are_classes_in_order_of_name_over_all_splits(tmp_path, caplog):
    root = pictures(tmp_path, *FOLDERS, "train/.ipynb_checkpoints/1.png", "train/@eaDir/2.png")
    (root / "train/empty").mkdir()
    (root / "train/.DS_Store").touch()
    with caplog.at_level(logging.INFO, "vcmjax"):
        assert describe(root).classes == ("ant eater", "cat", "dog")
        assert classes(root) == [
            ("train/cat/1.png", "cat"), ("train/cat/deep/er/3.png", "cat"),
            ("train/dog/2.jpg", "dog"), ("train/dog/10.jpg", "dog"),
        ]  # fmt: skip
    assert caplog.messages == [
        f"{root}: 3 classes, from 7 images",
        f"{root}/train: left out as no image: 1 (.DS_Store)",
    ]
    assert classes(root, "val") == [("val/cat/1.png", "cat")]


def test_an_image_beside_the_folders_of_classes_is_named(tmp_path):
    root = pictures(tmp_path, *FOLDERS, "train/stray.png")
    with pytest.raises(DataError, match=r"train/stray.png: class_scene: .*the folder of its class"):
        Folder(root, "train")


def test_a_single_folder_of_images_is_no_class(tmp_path):
    root = pictures(tmp_path, "train/images/1.png", "val/images/2.png")
    with pytest.raises(DataError, match="a folder of images per class, found one, images"):
        describe(root)


def test_a_folder_of_a_class_may_be_linked_but_not_to_where_it_lies(tmp_path):
    root = pictures(tmp_path / "root", "train/cat/1.png")
    pictures(tmp_path, "elsewhere/5.png")
    (root / "train/dog").symlink_to(tmp_path / "elsewhere")
    (root / "train/cat/again").symlink_to(root / "train")
    assert classes(root) == [("train/cat/1.png", "cat"), ("train/dog/5.png", "dog")]


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 3), min_size=2))
def test_every_image_has_the_class_of_its_folder(counts):
    with tempfile.TemporaryDirectory() as folder:
        names = [f"train/{name}/{i}.png" for name, count in counts.items() for i in range(count)]
        found = classes(pictures(Path(folder), *names))
    assert found == [(name, name.split("/")[1]) for name in sorted(names)]


def test_two_hundred_and_fifty_six_classes_and_more_are_read(tmp_path):
    root = pictures(tmp_path, *(f"train/{i:03}/a.png" for i in range(300)))
    data = dataset.directory(root, 2)
    assert data.tasks["class_scene"].channels == 300 and len(data.open("train")) == 300


SEEDS = [
    "file,class\ntrain/a.png,cat\ntrain/b.png,dog\n",
    'a.png;"cat; small"\r\nb.png;dog\r\n',
    'class\tpath\n"c\nat"\ttrain/b.png\n',
    "train\\a.png,cat\n../mine/train/b.png,dog\n/x/y.png,z\n",
    ",filename,label\n0,a.png,é\n1,b.png,ö\n",
    "sep=;\na.png;cat\n",
    "a.png,cat,\n\n" + "b.png," + "x" * 140_000,
]
CODINGS = ("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be", "cp1252")


@pytest.mark.parametrize("count", [300, pytest.param(40_000, marks=pytest.mark.slow)])
def test_any_bytes_of_a_table_open_or_give_a_data_error_of_one_line(tmp_path, monkeypatch, count):
    rng = np.random.default_rng(count)
    root = pictures(tmp_path / "mine", "train/a.png", "train/b.png")
    pieces = [
        b",",
        b";",
        b"\t",
        b'"',
        b"\n",
        b"\r",
        b"\0",
        b"..",
        b"/",
        b"\\",
        b"a.png",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
    ]
    opened, told = 0, []
    for number in range(count):
        long = number % 100 == 0
        text = SEEDS[-1] if long else SEEDS[rng.integers(len(SEEDS) - 1)]
        content = bytearray(text.encode(CODINGS[rng.integers(len(CODINGS))]))
        for _ in range(rng.integers(0, 5)):
            place = int(rng.integers(len(content) + 1))
            piece = pieces[rng.integers(len(pieces))] if rng.random() < 0.6 else rng.bytes(2)
            content[place : place + int(rng.integers(4))] = piece
        table = root / ("labels.csv" if rng.random() < 0.7 else "train/labels.csv")
        table.write_bytes(content)
        try:
            source = Folder(root, "train", 2)
            assert len(source) == 2
            opened += 1
        except DataError as error:
            told.append(str(error))
        table.unlink()
    assert count / 10 < opened < count and not any("\n" in message for message in told)
    assert max(map(len, told)) < 800
