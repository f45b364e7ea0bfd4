import contextlib
import logging
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vcmjax.data import images
from vcmjax.data.folder import Folder, describe
from vcmjax.data.masks import KNOWN
from vcmjax.errors import DataError, UsageError
from vcmjax.tasks import VOID

DATA = Path(os.environ.get("VCMJAX_TEST_DATA", Path(__file__).parents[3] / "shared/data"))
CAMVID = DATA / "camvid"
IDS = np.arange(12, dtype=np.uint8).reshape(3, 4)  # All of 0..11.


def save(path: Path, array: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def rgb(height=3, width=4, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def segmented(root: Path, names=("a", "b"), ids=IDS, splits=("train", "val", "test")) -> Path:
    for split in splits:
        for name in names:
            save(root / split / f"{name}.png", rgb())
            save(root / f"{split}annot" / f"{name}.png", ids)
    return root


def scenes(root: Path) -> Path:
    for split, name in [("train", "a"), ("train", "b"), ("val", "c"), ("test", "d")]:
        save(root / split / f"{name}.png", rgb())
    (root / "labels.csv").write_text(
        "file,class\ntrain/a.png,kitchen\ntrain/b.png,attic\nval/c.png,hall\ntest/d.png,kitchen\n"
    )
    return root


def test_unsized_example_is_the_files_pixels(tmp_path):
    example = Folder(segmented(tmp_path), "train", size=None)[0]
    np.testing.assert_array_equal(example["image"], rgb())
    np.testing.assert_array_equal(example["segment_semantic"], IDS)
    assert example["image"].dtype == example["segment_semantic"].dtype == np.uint8


def test_image_shrinks_by_block_mean_and_label_by_pixel_at_centre(tmp_path):
    image, ids = rgb(6, 6), np.arange(36, dtype=np.uint8).reshape(6, 6)
    save(tmp_path / "train/a.png", image)
    save(tmp_path / "trainannot/a.png", ids)
    example = Folder(tmp_path, "train", size=2)[0]
    mean = image.reshape(2, 3, 2, 3, 3).mean((1, 3))
    np.testing.assert_allclose(example["image"], mean, atol=1)  # Pillow rounds after each axis.
    np.testing.assert_array_equal(example["segment_semantic"], ids[1::3, 1::3])


def test_classes_are_counted_from_largest_training_index_without_void(tmp_path):
    segmented(tmp_path, ids=np.array([[0, 4], [255, 2]], np.uint8).repeat(2, 0)[:3].repeat(2, 1))
    assert describe(tmp_path).channels == 5
    assert describe(tmp_path, void=4).channels == 3


def test_examples_are_in_natural_order_and_what_is_no_image_is_said(tmp_path, caplog):
    segmented(tmp_path, names=("img10", "img9", "img2"))
    (tmp_path / "train" / "Thumbs.db").touch()
    os.mkfifo(tmp_path / "train" / "img3.png")
    with caplog.at_level(logging.INFO, "vcmjax"):
        source = Folder(tmp_path, "train")
    assert [file.name for file in source.files] == ["img2.png", "img9.png", "img10.png"]
    assert f"{tmp_path}/train: left out as no image: 2 (Thumbs.db, img3.png)" in caplog.messages


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, 1), (3, 2), (8, 3)])
def test_a_turned_photograph_lies_under_its_upright_label(tmp_path, orientation, turns):
    upright, exif = rgb(6, 4), Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "train/a.png", np.rot90(upright, turns), exif=exif)
    ids = np.arange(24, dtype=np.uint8).reshape(6, 4)
    save(tmp_path / "trainannot/a.png", ids)
    example = Folder(tmp_path, "train", None)[0]
    np.testing.assert_array_equal(example["image"], upright)
    np.testing.assert_array_equal(example["segment_semantic"], ids)


def test_stated_void_becomes_void_and_so_does_255(tmp_path):
    ids = np.where(IDS == 5, 255, IDS).astype(np.uint8)
    label = Folder(segmented(tmp_path, ids=ids), "val", None, void=11)[0]["segment_semantic"]
    np.testing.assert_array_equal(label, np.where((IDS == 5) | (IDS == 11), VOID, IDS))


def test_classes_txt_names_classes_and_marks_void(tmp_path):
    names = [f"thing {i}" for i in range(11)]
    (segmented(tmp_path) / "classes.txt").write_text("\n".join([*names, "Void"]) + "\n")
    assert describe(tmp_path).classes == tuple(names)
    assert Folder(tmp_path, "train", None)[0]["segment_semantic"][2, 3] == VOID


def test_camvid_signature_is_recognised_and_said(tmp_path, caplog):
    segmented(tmp_path, names=("0001TP_006690", "Seq05VD_f00000"))
    with caplog.at_level(logging.INFO, "vcmjax"):
        task = describe(tmp_path)
    assert task.classes == KNOWN["SegNet's CamVid"].classes and task.channels == 11
    assert "recognised SegNet's CamVid: class 11 is void" in caplog.text


def test_camvid_signature_yields_to_stated_void(tmp_path):
    segmented(tmp_path, names=("0001TP_006690",))
    assert describe(tmp_path, void=255).channels == 12


@pytest.mark.parametrize("change", ["name", "ids", "split"])
def test_near_miss_of_camvid_is_not_recognised(tmp_path, change):
    names = ("street",) if change == "name" else ("0001TP_006690",)
    ids = np.where(IDS == 11, 12, IDS).astype(np.uint8) if change == "ids" else IDS
    splits = ("train", "val") if change == "split" else ("train", "val", "test")
    segmented(tmp_path, names, ids, splits)
    assert describe(tmp_path).channels == ids.max() + 1


def test_palette_label_gives_its_indices(tmp_path):
    segmented(tmp_path)
    label = Image.fromarray(IDS, "L").convert("P")
    label.putdata(IDS.ravel().tolist())
    label.putpalette(list(np.random.default_rng(1).integers(0, 256, 768)))
    label.save(tmp_path / "trainannot/a.png")
    np.testing.assert_array_equal(Folder(tmp_path, "train", None)[0]["segment_semantic"], IDS)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "1"])
def test_grey_label_of_any_mode_gives_its_values(tmp_path, mode):
    ids = (IDS % 2).astype(np.uint8)
    segmented(tmp_path, ids=ids)
    label = Image.fromarray(ids * 255 if mode == "1" else ids).convert(mode)
    label.save(tmp_path / "trainannot/a.png")
    np.testing.assert_array_equal(Folder(tmp_path, "train", None)[0]["segment_semantic"], ids)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_image_of_any_mode_becomes_rgb(tmp_path, mode):
    original = Image.fromarray(rgb()).convert(mode)
    original.save(segmented(tmp_path) / "train/a.png")
    image = Folder(tmp_path, "train", None)[0]["image"]
    np.testing.assert_array_equal(image, np.asarray(original.convert("RGB")))


def test_sixteen_bit_image_keeps_its_high_byte(tmp_path):
    save(segmented(tmp_path) / "train/a.png", (IDS.astype(np.uint16) * 20 << 8) + 99)
    image = Folder(tmp_path, "train", None)[0]["image"]
    np.testing.assert_array_equal(image, IDS[..., None].repeat(3, -1) * 20)


def test_jpeg_named_png_is_read(tmp_path):
    save(segmented(tmp_path) / "train/a.png", rgb(), format="JPEG")
    assert Folder(tmp_path, "train", None)[0]["image"].shape == (3, 4, 3)


def test_csv_classes_are_sorted_over_all_splits(tmp_path):
    source = Folder(scenes(tmp_path), "train", 2)
    assert source.tasks["class_scene"].classes == ("attic", "hall", "kitchen")
    assert [int(source[i]["class_scene"]) for i in range(2)] == [2, 0]
    assert source[0]["class_scene"].dtype == np.int32


def test_csv_in_each_split_reads_as_one_at_the_root(tmp_path):
    rows = scenes(tmp_path / "root").joinpath("labels.csv").read_text().splitlines()[1:]
    (tmp_path / "root/labels.csv").unlink()
    for split in ("train", "val", "test"):
        mine = [row.partition("/")[2] for row in rows if row.startswith(split)]
        (tmp_path / "root" / split / "labels.csv").write_text("\n".join(mine))
    scenes(tmp_path / "other")
    assert describe(tmp_path / "root") == describe(tmp_path / "other")
    assert int(Folder(tmp_path / "root", "train", 2)[1]["class_scene"]) == 0


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


DAMAGE = {
    "truncated image": (lambda r: truncate(r / "train/a.png"), "train/a.png: image: .* decode"),
    "not an image": (lambda r: (r / "train/a.png").write_text("hello"), "5 bytes that do not"),
    "empty image": (lambda r: (r / "train/a.png").write_bytes(b""), "0 bytes"),
    "no label": (lambda r: (r / "trainannot/a.png").unlink(), "trainannot/a.png: .* no file"),
    "label size": (lambda r: save(r / "trainannot/a.png", IDS.T), "size 4x3, found 3x4"),
    "label range": (
        lambda r: save(r / "valannot/a.png", IDS + 1),
        r"valannot/a.png: segment_semantic: expected class indices 0..11, found 12 .*--void",
    ),
    "16-bit label": (lambda r: save(r / "trainannot/a.png", IDS.astype(np.uint16)), "mode I;16"),
    "colour label": (lambda r: save(r / "trainannot/a.png", rgb()), r"colours \(mode RGB\)"),
    "jpeg label": (lambda r: save(r / "trainannot/a.png", IDS, format="JPEG"), "JPEG data"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_bad_example_raises_one_line_with_file_and_remedy(tmp_path, kind):
    damage, message = DAMAGE[kind]
    damage(segmented(tmp_path))
    source = Folder(tmp_path, "val" if kind == "label range" else "train")
    with pytest.raises(DataError, match=message) as info:
        source[0]
    assert any(word in str(info.value) for word in ("Replace it.", "--void"))
    assert "--skip-bad" not in str(info.value) and "\n" not in str(info.value)
    assert source[1]["image"].shape == (128, 128, 3)


@given(st.integers(0, 10**6), st.integers(0, 255), st.sampled_from(["PNG", "JPEG", "GIF", "WEBP"]))
def test_any_damaged_byte_decodes_or_raises_data_error(place, value, form):
    with tempfile.TemporaryDirectory() as folder:
        path = save(Path(folder) / "a.png", rgb(), format=form)
        content = bytearray(path.read_bytes())
        content[place % len(content)] = value
        path.write_bytes(content)
        with contextlib.suppress(DataError):
            assert images.to_rgb(images.load(path, "image"), path, "image").mode == "RGB"


def test_missing_root_raises_data_error():
    with pytest.raises(DataError, match="nowhere: no such folder"):
        Folder("nowhere", "train")
    with pytest.raises(DataError, match="nowhere: no such folder"):
        describe("nowhere")


def test_missing_split_says_what_the_folder_holds(tmp_path):
    with pytest.raises(DataError, match=r"test: no such folder; .* holds: train, trainannot"):
        Folder(segmented(tmp_path, splits=("train",)), "test")


def test_split_without_images_raises_data_error(tmp_path):
    (segmented(tmp_path, splits=("train",)) / "test").mkdir()
    with pytest.raises(DataError, match="test: no image in it"):
        Folder(tmp_path, "test")


def test_images_without_labels_raise_data_error(tmp_path):
    save(tmp_path / "train/a.png", rgb())
    with pytest.raises(DataError, match=r"no labels; expected trainannot/NAME.png .* labels.csv"):
        Folder(tmp_path, "train")


def test_image_without_csv_row_raises_data_error(tmp_path):
    save(scenes(tmp_path) / "train/e.png", rgb())
    with pytest.raises(DataError, match=r"e.png: class_scene: expected a row"):
        Folder(tmp_path, "train")[2]


@pytest.mark.parametrize("row", ["train/lost.png,attic", "lost.png,attic"])
def test_csv_row_without_image_raises_data_error(tmp_path, row):
    table = scenes(tmp_path) / "labels.csv"
    table.write_text(table.read_text() + row)
    with pytest.raises(DataError, match=r"lost.png: class_scene: in labels.csv, but no such image"):
        Folder(tmp_path, "train")


def test_malformed_csv_row_raises_data_error_with_its_line(tmp_path):
    (scenes(tmp_path) / "labels.csv").write_text("file,class\ntrain/a.png\n")
    with pytest.raises(DataError, match="line 2"):
        Folder(tmp_path, "train")


@pytest.mark.parametrize("options", [{"void": 256}, {"void": -1}, {"classes": 0}])
def test_index_that_no_label_can_hold_raises_usage_error(tmp_path, options):
    with pytest.raises(UsageError, match=next(iter(options))):
        Folder(segmented(tmp_path), "train", **options)


@pytest.mark.skipif(not CAMVID.is_dir(), reason=f"no CamVid at {CAMVID} (VCMJAX_TEST_DATA)")
def test_camvid_has_eleven_classes_and_sky_above_road():
    sizes = {split: len(Folder(CAMVID, split)) for split in ("train", "val", "test")}
    assert sizes == {"train": 367, "val": 101, "test": 233}
    source = Folder(CAMVID, "val")
    assert source.tasks["segment_semantic"].channels == 11
    examples = [source[i] for i in range(0, 101, 20)]
    label = np.stack([example["segment_semantic"] for example in examples])
    assert set(np.unique(label)) <= {*range(11), VOID} and VOID in label
    height = {c: np.argwhere(label == c)[:, 1].mean() for c in (0, 3)}
    assert height[0] < 64 < height[3]
    sky = np.concatenate([e["image"][e["segment_semantic"] == 0] for e in examples])
    road = np.concatenate([e["image"][e["segment_semantic"] == 3] for e in examples])
    assert sky.mean() > road.mean() + 20


def test_names_that_no_codec_could_be_saved_with_are_refused_at_once(tmp_path):
    root = scenes(tmp_path / "root")
    table = root / "labels.csv"
    table.write_text(table.read_text().replace("attic", "at\x1b[2Jtic"))
    with pytest.raises(DataError, match=r"root: .* expected text without line breaks"):
        Folder(root, "train")
