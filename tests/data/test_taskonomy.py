import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vcmjax.data.rooms import Rooms, write_taskonomy
from vcmjax.data.taskonomy import TASKS, Taskonomy
from vcmjax.data.taskonomy_lists import KEPT_OBJECTS
from vcmjax.errors import DataError, UsageError
from vcmjax.tasks import ROOMS, VOID

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


def invalidate(root, domain, mask, name="depth_zbuffer"):
    """Writes `mask` (True: no surface) as the mask of the first view, and all else valid."""
    valid, invalid = (np.uint16(9), np.uint16(65535)) if "depth" in name else np.uint8([255, 0])
    Image.fromarray(np.where(mask, invalid, valid)).save(path(root, "hanson", 0, name))
    return one(root, domain)[domain]


@pytest.mark.parametrize("name", ["depth_zbuffer", "mask_valid"])
@pytest.mark.parametrize("domain", [d for d in PIXELS if d not in ("rgb", "segment_semantic")])
def test_dense_labels_are_nan_exactly_where_there_is_no_surface(tmp_path, domain, name):
    mask = np.random.default_rng(0).random((SIDE, SIDE)) < 0.3
    label = invalidate(write(tmp_path), domain, mask, name)
    np.testing.assert_array_equal(np.isnan(label), np.broadcast_to(mask[..., None], label.shape))


def test_mask_file_is_believed_before_depth_and_without_either_nothing_is_masked(tmp_path):
    write(tmp_path)
    everywhere = np.ones((SIDE, SIDE), bool)
    assert np.isnan(invalidate(tmp_path, "normal", everywhere)).all()
    assert np.isfinite(invalidate(tmp_path, "normal", ~everywhere, "mask_valid")).all()
    for domain in ("mask_valid", "depth_zbuffer"):
        path(tmp_path, "hanson", 0, domain).unlink()
    assert np.isfinite(one(tmp_path, "normal")["normal"]).all()


def test_segments_are_not_masked_by_depth(tmp_path):
    invalidate(write(tmp_path), "normal", np.ones((SIDE, SIDE), bool))
    ids = PIXELS["segment_semantic"]
    label = one(tmp_path, "segment_semantic")["segment_semantic"]
    np.testing.assert_array_equal(label == VOID, ids == 0)


def test_masks_shrink_like_the_label_they_mask(tmp_path):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[2, 2] = mask[:4, 4:] = True  # The pixel sampled for the first of 2x2; the second block.
    invalidate(write(tmp_path), "normal", mask)
    small = one(tmp_path, "normal", "reshading", size=2)
    np.testing.assert_array_equal(np.isnan(small["normal"][..., 0]), [[1, 1], [0, 0]])
    np.testing.assert_array_equal(np.isnan(small["reshading"][..., 0]), [[0, 1], [0, 0]])
    grey = CODES[:4, :4, 0][~mask[:4, :4]] / 255
    np.testing.assert_allclose(small["reshading"][0, 0, 0], grey.mean(), rtol=1e-6)


def test_edges_map_their_published_range_to_one(tmp_path):
    write(tmp_path)
    codes = np.zeros((SIDE, SIDE), np.uint16)
    codes[0, :4] = [0, 2621, 5243, 65535]
    for domain in ("edge_texture", "edge_occlusion"):
        Image.fromarray(codes).save(path(tmp_path, "hanson", 0, domain))
    path(tmp_path, "hanson", 0, "depth_zbuffer").unlink()
    example = one(tmp_path, "edge_texture", "edge_occlusion")
    texture, occlusion = (example[name][0, :4, 0] for name in ("edge_texture", "edge_occlusion"))
    np.testing.assert_allclose(texture, [0, 2621 / 5242.88, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(occlusion, codes[0, :4] / 409.6, rtol=1e-6)


STEP = {"normal": 2 / 255, "reshading": 1 / 255, "principal_curvature": 1 / 127}
STEP |= {"depth_zbuffer": 1 / 512, "depth_euclidean": 1 / 512}


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("quirks", [False, True])
@pytest.mark.parametrize("tar", [False, True])
def test_rooms_read_back_to_within_the_encoding_step(tmp_path, tar, quirks, official):
    rooms = {"train": Rooms("train", 3, 32, 1), "test": Rooms("test", 1, 32, 1)}
    write_taskonomy(tmp_path, rooms, tar=tar, quirks=quirks, official_classes=official)
    assert tar == (not any(tmp_path.rglob("*.png")))
    for split, room in rooms.items():
        source = Taskonomy(tmp_path, split, [*ROOMS, "depth_zbuffer", "depth_euclidean"], None)
        assert len(source) == len(room)
        for index, (_, point, _) in enumerate(source.views):
            read, made = source[index], room[point]
            assert {k: v.dtype for k, v in read.items()} == {k: v.dtype for k, v in made.items()}
            odd = quirks and point % 2 == 0
            for name, step in STEP.items():
                if odd:
                    made[name][:8, :8] = np.nan
                np.testing.assert_allclose(read[name], made[name], rtol=0, atol=0.501 * step + 1e-6)
            if odd:
                made["segment_semantic"][:8, :8] = VOID
                error = np.abs(read.pop("image").astype(float) - made["image"])
                assert 0 < error.mean() < 8  # JPEG.
            if official:
                made["class_object"] = KEPT_OBJECTS[made["class_object"]]
            for name in read.keys() - STEP.keys():
                np.testing.assert_array_equal(read[name], made[name])
        assert source.tasks["class_scene"].channels == (63 if official else 10)
        assert source.tasks["class_object"].channels == (1000 if official else 16)


def test_vectors_with_a_leading_axis_of_one_are_read(tmp_path):
    write(tmp_path)
    np.save(path(tmp_path, "hanson", 0, "class_scene"), -np.eye(10)[None, 3])
    assert one(tmp_path, "class_scene")["class_scene"] == 0
    np.save(path(tmp_path, "hanson", 0, "class_scene"), np.eye(10)[None, 3])
    assert one(tmp_path, "class_scene")["class_scene"] == 3


def test_drawn_views_are_a_prefix_of_a_larger_draw_and_all_if_there_are_fewer(tmp_path):
    write(tmp_path, points=range(20))

    def drawn(count, seed=0):
        return Taskonomy(tmp_path, "train", ["normal"], 8, count=count, seed=seed).views

    every = Taskonomy(tmp_path, "train", ["normal"], 8).views
    assert drawn(7) == drawn(7) == drawn(20)[:7] == drawn(99)[:7]
    assert sorted(drawn(99)) == every and drawn(99) != every
    assert drawn(7) != drawn(7, seed=1)
    assert {view for seed in range(60) for view in drawn(1, seed)} > set(every[:3])


@pytest.mark.parametrize("bad", [{"count": 0}, {"seed": -1}, {"subset": "huge"}])
def test_draw_or_subset_out_of_range_raises_usage_error(tmp_path, bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        Taskonomy(write(tmp_path), "train", ["normal"], **bad)


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
    assert "Replace it." in str(info.value) and "\n" not in str(info.value)
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
    with pytest.raises(DataError, match=r"no.csv: no such file; .* train_val_test_tiny.csv"):
        Taskonomy(write(tmp_path), "train", ["normal"], splits=tmp_path / "no.csv")


def test_unknown_task_raises_usage_error_with_choices(tmp_path):
    with pytest.raises(UsageError, match=r"'edges'; choose from class_scene, .*depth_zbuffer"):
        Taskonomy(tmp_path, "train", ["edges"])


@pytest.mark.parametrize("domain", ["rgb", "normal", "class_scene"])
def test_a_pipe_in_place_of_a_file_is_named_and_not_opened(tmp_path, domain):
    file = path(write(tmp_path), "hanson", 0, domain)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match=rf"_domain_{domain}.*: {domain}: .*found a pipe"):
        one(tmp_path, "normal", "class_scene")


def test_reshading_of_sixteen_bits_is_read_however_dark_it_is(tmp_path):
    codes = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE)
    Image.fromarray(codes).save(path(write(tmp_path), "hanson", 0, "reshading"))
    found = one(tmp_path, "reshading")["reshading"][..., 0]
    np.testing.assert_allclose(found, codes / 65535, rtol=1e-6)


def test_views_turn_upright_with_their_labels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path)
    for domain in ("rgb", "normal"):
        Image.fromarray(np.rot90(CODES)).save(path(tmp_path, "hanson", 0, domain), exif=exif)
    example = one(tmp_path, "normal")
    np.testing.assert_array_equal(example["image"], CODES)
    np.testing.assert_allclose(example["normal"], CODES / 255 * 2 - 1, atol=1e-6)
