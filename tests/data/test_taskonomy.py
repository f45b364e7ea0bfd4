from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vcmjax.data.rooms import Rooms, write_taskonomy
from vcmjax.data.taskonomy import TASKS, Taskonomy
from vcmjax.data.taskonomy_lists import buildings
from vcmjax.errors import DataError, UsageError
from vcmjax.tasks import VOID

CSV = "id,train,val,test\rhanson,1,0,0\rwiconisco,0,1,0\rihlen,0,0,1"  # As published: bare CR.
LAYOUTS = {
    "domain/building": "{d}/{b}",
    "building/domain": "{b}/{d}",
    "building_domain": "{b}_{d}",
    "building_domain/domain": "{b}_{d}/{d}",
    "domain/taskonomy/building": "{d}/taskonomy/{b}",
}
SIDE = 8
CODES = np.arange(SIDE * SIDE * 3, dtype=np.uint8).reshape(SIDE, SIDE, 3)
PIXELS = {
    "rgb": CODES,
    "normal": CODES,
    "reshading": CODES[..., :1].repeat(3, -1),
    "principal_curvature": CODES + 60,
    "segment_semantic": CODES[..., 0] % 18,
    "depth_zbuffer": CODES[..., 0].astype(np.uint16) * 256,
}


def path(root, building, view, domain, layout="domain/building") -> Path:
    suffix = "npy" if domain.startswith("class") else "png"
    folder = root / LAYOUTS[layout].format(d=domain, b=building)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"point_{view}_view_2_domain_{domain}.{suffix}"


def write(root: Path, layout="domain/building", points=(0, 10, 9)) -> Path:
    for building in ("hanson", "wiconisco"):
        for point in points:
            for domain, pixels in PIXELS.items():
                Image.fromarray(pixels).save(path(root, building, point, domain, layout))
            for domain in ("class_scene", "class_object"):
                vector = np.eye(TASKS[domain].channels, dtype=np.float32)[point % 7]
                np.save(path(root, building, point, domain, layout), vector)
    (root / "splits.csv").write_bytes(CSV.encode())
    return root


def one(root, *tasks, size=None):
    return Taskonomy(root, "train", tasks, size)[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_reads_alike_in_order_of_building_point_view(tmp_path, layout):
    source = Taskonomy(write(tmp_path, layout), "train", [*list(PIXELS)[1:], "class_scene"], 4)
    assert source.views == [("hanson", 0, 2), ("hanson", 9, 2), ("hanson", 10, 2)]
    assert [int(source[i]["class_scene"]) for i in range(3)] == [0, 2, 3]
    assert source[2]["image"].shape == (4, 4, 3)


def test_official_file_name_of_segments_is_understood(tmp_path):
    for file in write(tmp_path).rglob("*domain_segment_semantic.png"):
        file.rename(file.with_name(file.name.replace("segment_semantic", "segmentsemantic")))
    assert one(tmp_path, "segment_semantic")["segment_semantic"].shape == (SIDE, SIDE)


def test_each_encoding_decodes_as_published(tmp_path):
    example = one(write(tmp_path), *list(PIXELS)[1:], "class_object")
    codes = CODES.astype(np.float64)
    ids = codes[..., 0] % 18
    np.testing.assert_array_equal(example["image"], CODES)
    np.testing.assert_allclose(example["normal"], codes / 255 * 2 - 1, atol=1e-6)
    np.testing.assert_allclose(example["reshading"], codes[..., :1] / 255, atol=1e-6)
    np.testing.assert_array_equal(example["segment_semantic"], np.where(ids, ids - 1, VOID))
    np.testing.assert_allclose(example["depth_zbuffer"], codes[..., :1] / 2, atol=1e-6)
    assert example["principal_curvature"].shape == (SIDE, SIDE, 2)
    assert example["class_object"].dtype == np.int32 and example["class_object"].shape == ()
    dense = ("normal", "reshading", "depth_zbuffer", "principal_curvature")
    assert {example[name].dtype for name in dense} == {np.dtype(np.float32)}


def test_zero_curvature_is_code_127_and_extremes_clip_to_one(tmp_path):
    codes = np.zeros((SIDE, SIDE, 3), np.uint8)
    codes[0, :3, :2] = [[127, 127], [0, 254], [255, 128]]
    Image.fromarray(codes).save(path(write(tmp_path), "hanson", 0, "principal_curvature"))
    values = one(tmp_path, "principal_curvature")["principal_curvature"][0, :3]
    np.testing.assert_allclose(values, [[0, 0], [-1, 1], [1, 1 / 127]], atol=1e-6)


def test_invalid_depth_is_nan_and_left_out_of_averages(tmp_path):
    depth = np.full((SIDE, SIDE), 3 * 512, np.uint16)
    depth[0, 0] = depth[:4, 4:] = 65535
    Image.fromarray(depth).save(path(write(tmp_path), "hanson", 0, "depth_zbuffer"))
    assert np.isnan(one(tmp_path, "depth_zbuffer")["depth_zbuffer"][0, 0, 0])
    small = one(tmp_path, "depth_zbuffer", size=2)["depth_zbuffer"][..., 0]
    np.testing.assert_allclose(small, [[3, np.nan], [3, 3]], rtol=1e-6)


def test_reshading_shrinks_by_block_mean(tmp_path):
    small = one(write(tmp_path), "reshading", size=4)["reshading"]
    blocks = CODES[..., 0].reshape(4, 2, 4, 2) / 255
    np.testing.assert_allclose(small[..., 0], blocks.mean((1, 3)), atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_reshading_of_any_mode_decodes_alike(tmp_path, mode):
    grey = Image.fromarray(CODES[..., 0])
    grey.convert(mode).save(path(write(tmp_path), "hanson", 0, "reshading"))
    expected = CODES[..., :1] / np.float32(255)
    np.testing.assert_allclose(one(tmp_path, "reshading")["reshading"], expected, atol=1e-6)


def test_official_class_vectors_set_the_number_of_classes(tmp_path):
    write(tmp_path)
    for point in (0, 9, 10):
        np.save(path(tmp_path, "hanson", point, "class_scene"), np.eye(365)[200])
    source = Taskonomy(tmp_path, "train", ["class_scene"])
    assert source.tasks["class_scene"].channels == 365 and int(source[0]["class_scene"]) == 200


def test_rooms_written_as_files_read_back_to_within_the_encoding_step(tmp_path):
    rooms = {"train": Rooms("train", 3, 32, 1), "test": Rooms("test", 1, 32, 1)}
    write_taskonomy(tmp_path, rooms)
    step = {"normal": 2 / 255, "reshading": 1 / 255, "principal_curvature": 1 / 127}
    step |= {"depth_zbuffer": 1 / 512, "depth_euclidean": 1 / 512}
    for split, room in rooms.items():
        source = Taskonomy(tmp_path, split, list(TASKS), size=None)
        assert len(source) == len(room)
        for index, (_, point, _) in enumerate(source.views):
            read, made = source[index], room[point]
            assert read.keys() == made.keys()
            for name in made:
                assert read[name].dtype == made[name].dtype
                atol = step.get(name, 0) * 0.501 + 1e-6 * (name in step)
                np.testing.assert_allclose(read[name], made[name], rtol=0, atol=atol)


def test_splits_share_no_building(tmp_path):
    views = [Taskonomy(write(tmp_path), s, ["normal"]).views for s in ("train", "val")]
    assert {v[0] for v in views[0]} == {"hanson"} and {v[0] for v in views[1]} == {"wiconisco"}


DAMAGE = {
    "domain missing": ("normal", lambda p: p.unlink(), "normal: .*no file"),
    "domain truncated": ("normal", lambda p: p.write_bytes(p.read_bytes()[:50]), "decode"),
    "other size": ("normal", lambda p: Image.new("RGB", (4, 8)).save(p), "8x8, found 4x8"),
    "segment range": (
        "segment_semantic",
        lambda p: Image.new("L", (8, 8), 18).save(p),
        r"0..17, found 18 \(64",
    ),
    "depth 8-bit": ("depth_zbuffer", lambda p: Image.new("L", (8, 8)).save(p), "16-bit"),
    "vector length": ("class_scene", lambda p: np.save(p, np.ones(7)), "10 prob.*found 7"),
    "vector garbled": ("class_scene", lambda p: p.write_bytes(b"x"), "vector of probabilities"),
    "vector pickled": (
        "class_scene",
        lambda p: np.save(p, np.array([{}], object), allow_pickle=True),
        "pickle",
    ),
    "vector nan": ("class_scene", lambda p: np.save(p, np.full(10, np.nan)), "not finite"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_bad_view_raises_one_line_with_file_domain_and_remedy(tmp_path, kind):
    domain, damage, message = DAMAGE[kind]
    damage(path(write(tmp_path), "hanson", 0, domain))
    source = Taskonomy(tmp_path, "train", [domain])
    with pytest.raises(DataError, match=message) as info:
        source[0]
    assert f"point_0_view_2_domain_{domain}" in str(info.value)
    assert "--skip-bad" in str(info.value) and "\n" not in str(info.value)
    assert domain in source[1]


def test_domain_absent_from_the_split_raises_at_once(tmp_path):
    for file in write(tmp_path).glob("normal/hanson/*"):
        file.unlink()
    with pytest.raises(DataError, match="normal: no file of this domain in split train"):
        Taskonomy(tmp_path, "train", ["normal"])


def test_split_without_views_raises_data_error(tmp_path):
    with pytest.raises(DataError, match=r"rgb: expected .* the test buildings .* found none"):
        Taskonomy(write(tmp_path), "test", ["normal"])


def test_missing_root_and_list_of_buildings_raise_data_error(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        Taskonomy("nowhere", "train", ["normal"])
    (write(tmp_path) / "splits.csv").unlink()
    with pytest.raises(DataError, match=r"splits.csv: no such file; .* train_val_test_tiny.csv"):
        Taskonomy(tmp_path, "train", ["normal"])


def test_list_of_buildings_of_other_form_raises_data_error(tmp_path):
    (tmp_path / "splits.csv").write_text("name,split\nhanson,train\n")
    with pytest.raises(DataError, match="header `id,train,val,test`, found name,split"):
        buildings(tmp_path / "splits.csv", "train")


def test_unknown_task_raises_usage_error_with_choices(tmp_path):
    with pytest.raises(UsageError, match=r"'edges'; choose from class_scene, .*depth_zbuffer"):
        Taskonomy(tmp_path, "train", ["edges"])
