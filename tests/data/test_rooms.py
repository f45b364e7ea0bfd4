"""Labels of the procedural rooms against geometry worked out another way."""

import csv
import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vcmjax.data import rooms_render as render
from vcmjax.data.rooms import Rooms, style_of, write_taskonomy
from vcmjax.data.rooms_style import STYLES, building
from vcmjax.errors import DataError, UsageError
from vcmjax.tasks import OBJECT_CLASSES, ROOM_CLASSES, ROOMS

SIZE = 128
COUNT = 12
LENS = 0.7
CAMERA = np.array([1.0, 1.0, 1.5, 0, -1, 0, 0, 0, -1, 1, 0, 0, LENS])  # along world x, level
HALL = np.array([6.0, 4.0, 3.0])


@pytest.fixture(scope="module")
def rooms():
    return Rooms("train", COUNT, SIZE)


@pytest.fixture(scope="module")
def views(rooms):
    return [rooms[index] for index in range(COUNT)]


def rays(size, tan):
    """(size, size, 3) camera-frame directions with z = 1 through the pixel centres."""
    across = ((np.arange(size) + 0.5) / size * 2 - 1) * tan
    u, v = np.meshgrid(across, across)
    return np.stack([u, v, np.ones_like(u)], -1)


def world(camera, vectors):
    """Camera-frame vectors in world axes."""
    return vectors @ camera[3:12].reshape(3, 3)


def distance(scene, points):
    """Distance of world points (N, 3) to the nearest surface of a scene, by textbook formulas."""
    nearest = np.minimum(points, scene.room - points).min(-1)
    for p in scene.primitives:
        q = (points - p[1:4]) @ p[7:16].reshape(3, 3).T
        half = p[4:7]
        radial = np.hypot(q[:, 0], q[:, 1])
        if p[0] == render.BOX:
            out = np.abs(q) - half
            d = np.linalg.norm(np.maximum(out, 0), axis=-1) + np.minimum(out.max(-1), 0)
        elif p[0] == render.SPHERE:
            d = np.linalg.norm(q, axis=-1) - half[0]
        elif p[0] == render.CYLINDER:
            out = np.stack([radial - half[0], np.abs(q[:, 2]) - half[2]], -1)
            d = np.linalg.norm(np.maximum(out, 0), axis=-1) + np.minimum(out.max(-1), 0)
        elif p[0] == render.TUBE:
            over = np.maximum(np.abs(q[:, 2]) - half[2], 0)
            side = np.hypot(radial - half[0], over)
            disc = np.hypot(np.maximum(radial - half[0], 0), q[:, 2] + half[2])
            d = np.minimum(side, disc)
        else:
            below = np.abs(np.linalg.norm(q, axis=-1) - half[0])
            d = np.where(q[:, 2] <= 0, below, np.hypot(radial - half[0], q[:, 2]))
        nearest = np.minimum(nearest, d)
    return nearest


def smooth(hit, normal):
    """Interior pixels whose 3x3 neighbours show the same smooth piece of the same surface."""
    keep = np.ones(np.array(hit.shape) - 2, bool)
    inner = slice(1, -1)
    for i in range(3):
        for j in range(3):
            rows = slice(i, i + keep.shape[0])
            columns = slice(j, j + keep.shape[1])
            keep &= hit[rows, columns] == hit[inner, inner]
            keep &= (normal[rows, columns] * normal[inner, inner]).sum(-1) > 0.97
    return keep


def tangents(field):
    """Central differences of an (H, W, 3) field along columns and rows, interior only."""
    return field[1:-1, 2:] - field[1:-1, :-2], field[2:, 1:-1] - field[:-2, 1:-1]


def decode(curvature):
    """Principal curvatures in 1/m from their label."""
    value = curvature.astype(float)
    return render.CURVATURE_HALF * value / (1 - np.abs(value))


def shape_operator(depth, normal, tan):
    """Principal curvatures (H - 2, W - 2, 2), larger first, from how normals turn."""
    du, dv = tangents(depth[..., None] * rays(depth.shape[0], tan))
    nu, nv = tangents(normal.astype(float))

    def dot(a, b):
        return (a * b).sum(-1)

    first = np.stack([dot(du, du), dot(du, dv), dot(du, dv), dot(dv, dv)], -1)
    mixed = (dot(nu, dv) + dot(nv, du)) / 2
    second = np.stack([dot(nu, du), mixed, mixed, dot(nv, dv)], -1)
    shape = (*first.shape[:2], 2, 2)
    weingarten = np.linalg.solve(first.reshape(shape), second.reshape(shape))
    return np.sort(np.linalg.eigvals(weingarten).real, -1)[..., ::-1]


def single(kind, centre, half):
    """Depth, hits and labels of one primitive in an empty hall."""
    primitive = np.array([[kind, *centre, *half, 1, 0, 0, 0, 1, 0, 0, 0, 1, 6, 3]], float)
    depth, hit = render.cast(CAMERA, HALL, primitive, 192)
    return depth, hit, *render.labels(CAMERA, primitive, depth, hit)


def test_labels_have_the_shapes_types_and_ranges_of_their_tasks(views):
    for view in views:
        assert view["image"].shape == (SIZE, SIZE, 3) and view["image"].dtype == np.uint8
        for name, task in ROOMS.items():
            label = view[name]
            if task.kind == "class":
                assert label.shape == () and label.dtype == np.int32
                assert 0 <= label < task.channels
            elif task.kind == "segment":
                assert label.shape == (SIZE, SIZE) and label.dtype == np.uint8
                assert label.max() < task.channels
            else:
                assert label.shape == (SIZE, SIZE, task.channels) and label.dtype == np.float32
                assert np.abs(label).max() <= 1
        for name in ("depth_zbuffer", "depth_euclidean"):
            assert view[name].shape == (SIZE, SIZE, 1) and view[name].dtype == np.float32
            assert (view[name] > 0).all()


def test_depth_equals_sphere_tracing_of_the_scene_s_distance_field(rooms, views):
    random = np.random.default_rng(0)
    for index in range(4):
        scene = rooms.scene(index)
        rows, columns = random.integers(0, SIZE, (2, 100))
        directions = world(scene.camera, rays(SIZE, scene.camera[12])[rows, columns])
        length = np.linalg.norm(directions, axis=-1)
        t = np.zeros(len(rows))
        for _ in range(200):
            t += distance(scene, scene.camera[:3] + t[:, None] * directions) / length
        # Tracing creeps along surfaces that it passes closely, so it never overshoots.
        error = views[index]["depth_zbuffer"][rows, columns, 0] - t
        assert np.abs(error).max() < 2e-3
        assert np.median(np.abs(error)) < 1e-6


def test_euclidean_depth_is_z_depth_times_length_of_the_ray(rooms, views):
    for index, view in enumerate(views):
        length = np.linalg.norm(rays(SIZE, rooms.scene(index).camera[12]), axis=-1)
        expected = view["depth_zbuffer"][..., 0] * length
        np.testing.assert_allclose(view["depth_euclidean"][..., 0], expected, rtol=1e-6)


def test_normals_are_unit_and_face_the_camera(rooms, views):
    for index, view in enumerate(views):
        np.testing.assert_allclose(np.linalg.norm(view["normal"], axis=-1), 1, atol=1e-6)
        towards = (view["normal"] * rays(SIZE, rooms.scene(index).camera[12])).sum(-1)
        assert towards.max() <= 1e-6


def test_wall_ahead_has_normal_minus_z_and_floor_minus_y():
    _, hit, _, normal, _, _ = single(render.SPHERE, (2, 1, 1.5), (0.1, 0.1, 0.1))
    np.testing.assert_array_equal(np.unique(normal[hit == 1], axis=0), [[0, 0, -1]])
    np.testing.assert_array_equal(np.unique(normal[hit == 4], axis=0), [[0, -1, 0]])
    np.testing.assert_array_equal(np.unique(normal[hit == 2], axis=0), [[-1, 0, 0]])


def test_normals_agree_with_finite_differences_of_unprojected_depth(rooms):
    for index in range(4):
        scene = rooms.scene(index)
        depth, hit = render.cast(scene.camera, scene.room, scene.primitives, 256)
        _, normal, _, curvature = render.labels(scene.camera, scene.primitives, depth, hit)
        du, dv = tangents(depth[..., None] * rays(256, scene.camera[12]))
        measured = np.cross(dv, du)
        measured /= np.linalg.norm(measured, axis=-1, keepdims=True)
        agreement = (measured * normal[1:-1, 1:-1]).sum(-1)[smooth(hit, normal)]
        flat = (curvature[1:-1, 1:-1] == 0).all(-1)[smooth(hit, normal)]
        assert agreement.size > 20_000
        assert agreement[flat].min() > 1 - 1e-6
        assert agreement.min() > 0.98


def test_curvature_is_how_fast_normals_turn_along_the_surface(rooms):
    seen = 0
    for index in range(COUNT):
        scene = rooms.scene(index)
        depth, hit = render.cast(scene.camera, scene.room, scene.primitives, 384)
        _, normal, _, curvature = render.labels(scene.camera, scene.primitives, depth, hit)
        keep = smooth(hit, normal)
        measured = shape_operator(depth, normal, scene.camera[12])[keep]
        expected = decode(curvature[1:-1, 1:-1])[keep]
        curved = (expected != 0).any(-1)
        assert np.abs(measured[~curved]).max() < 1e-3
        if curved.any():
            scale = np.abs(expected[curved]).max(-1, keepdims=True)
            assert np.percentile(np.abs(measured[curved] - expected[curved]) / scale, 95) < 0.05
        seen += curved.sum()
    assert seen > 10_000


@pytest.mark.parametrize("radius", [0.1, 0.25, 0.6])
def test_sphere_of_radius_r_has_both_curvatures_one_over_r(radius):
    _, hit, segment, _, _, curvature = single(render.SPHERE, (3, 1, 1.5), (radius,) * 3)
    on = hit == render.FACES
    assert (segment == np.where(on, 3, 0)).all()
    np.testing.assert_allclose(decode(curvature[on]), 1 / radius, rtol=1e-5)
    assert (curvature[~on] == 0).all()


def test_sphere_s_second_derivative_of_depth_gives_its_curvature():
    depth, _, _, _, _, curvature = single(render.SPHERE, (3, 1, 1.5), (0.5, 0.5, 0.5))
    z = depth[94:98, 94:98]  # about the optical axis, where z = z0 + (u z0)^2 / (2 r)
    step = 2 * LENS / 192 * z.mean()
    bend = (z[:, 2:] - 2 * z[:, 1:-1] + z[:, :-2]).mean() / step**2
    np.testing.assert_allclose(bend, 2.0, rtol=0.01)
    np.testing.assert_allclose(decode(curvature[96, 96]), 2.0, rtol=1e-5)


def test_outside_of_a_tube_is_convex_and_its_inside_concave():
    _, hit, _, normal, _, curvature = single(render.TUBE, (2.2, 1, 0.9), (0.2, 0.2, 0.05))
    values = np.unique(np.round(decode(curvature[hit == render.FACES]), 3), axis=0)
    np.testing.assert_allclose(values, [[0, -5], [0, 0], [5, 0]], atol=1e-3)
    assert (normal[hit == render.FACES][:, 1] <= 1e-6).all()


def test_bowl_seen_from_above_is_concave_both_ways():
    _, hit, _, _, _, curvature = single(render.BOWL, (2.0, 1, 1.2), (0.2, 0.2, 0.2))
    values = np.unique(np.round(decode(curvature[hit == render.FACES]), 3), axis=0)
    np.testing.assert_allclose(values, [[-5, -5], [5, 5]], atol=1e-3)


def test_reshading_is_lambert_light_at_the_camera_of_normals_and_depth(rooms, views):
    for index, view in enumerate(views):
        ray = rays(SIZE, rooms.scene(index).camera[12])
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        lambert = np.maximum(0, -(view["normal"] * ray).sum(-1))
        expected = lambert / (1 + (view["depth_euclidean"][..., 0] / 8) ** 2)
        np.testing.assert_allclose(view["reshading"][..., 0], expected, atol=1e-5)
        assert view["reshading"].min() >= 0


def test_object_class_is_the_category_with_most_pixels(views):
    for view in views:
        counts = [(view["segment_semantic"] == i + 1).sum() for i in range(len(OBJECT_CLASSES))]
        assert counts[view["class_object"]] == max(counts) > 0


def test_objects_cover_between_three_percent_and_about_half_of_the_picture():
    source = Rooms("val", 60, 32)
    shares = [(source[i]["segment_semantic"] > 0).mean() for i in range(60)]
    assert min(shares) > 0.03 and max(shares) < 0.52


def test_every_room_type_and_most_objects_occur_in_two_hundred_rooms():
    source = Rooms("train", 200, 32)
    views = [source[i] for i in range(200)]
    assert {int(view["class_scene"]) for view in views} == set(range(len(ROOM_CLASSES)))
    assert len({int(view["class_object"]) for view in views}) >= 14
    assert len(set(np.concatenate([np.unique(v["segment_semantic"]) for v in views]))) == 17


def test_splits_have_disjoint_styles_that_look_different():
    seen = {s: {style_of(s, i, seed) for i in range(500) for seed in (0, 5)} for s in STYLES}
    assert seen == {split: set(styles) for split, styles in STYLES.items()}
    ids = [style for styles in seen.values() for style in styles]
    assert len(ids) == len(set(ids)) == 56
    assert len({building(style) for style in ids}) == 56


def test_no_two_pictures_are_equal_within_or_across_splits_and_seeds():
    pictures = [
        Rooms(split, 15, 32, seed)[i]["image"].tobytes()
        for split in STYLES
        for seed in (0, 1)
        for i in range(15)
    ]
    assert len(set(pictures)) == len(pictures)


def digest(view):
    return hashlib.sha256(b"".join(view[k].tobytes() for k in sorted(view))).hexdigest()


def test_another_process_in_another_order_renders_the_same_bytes():
    here = [digest(Rooms("test", 6, 32, 7)[i]) for i in range(6)]
    code = (
        "import hashlib, pickle, sys\n"
        "rooms = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "for i in reversed(range(len(rooms))):\n"
        "    view = rooms[i]\n"
        "    blob = b''.join(view[k].tobytes() for k in sorted(view))\n"
        "    print(hashlib.sha256(blob).hexdigest())\n"
    )
    pickled = pickle.dumps(Rooms("test", 6, 32, 7)).hex()
    run = [sys.executable, "-c", code, pickled]
    there = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    assert there[::-1] == here


def test_a_larger_source_starts_with_the_rooms_of_a_smaller_one():
    assert digest(Rooms("val", 3, 32)[2]) == digest(Rooms("val", 900, 32)[2])


def test_size_changes_the_sampling_but_not_the_scene():
    small, large = Rooms("val", 1, 64)[0], Rooms("val", 1, 128)[0]
    assert small["class_scene"] == large["class_scene"]
    mean = large["image"].reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(mean - small["image"]).mean() < 8


def test_compiling_works_where_no_cache_can_be_written():
    names = {}
    exec("def double(x):\n    return 2 * x", names)  # without a file numba finds no cache folder
    assert render._jit(names["double"])(4) == 8


def test_written_files_decode_to_the_labels_by_the_published_encoding(tmp_path):
    sources = {"train": Rooms("train", 3, 32), "val": Rooms("val", 2, 32)}
    write_taskonomy(tmp_path, sources)
    for split, source in sources.items():
        for index in range(len(source)):
            view = source[index]
            name = f"style{style_of(split, index, 0):02d}"

            def stored(domain, ending="png", name=name, index=index):
                path = tmp_path / domain / name / f"point_{index}_view_0_domain_{domain}.{ending}"
                return np.load(path) if ending == "npy" else np.asarray(Image.open(path))

            np.testing.assert_array_equal(stored("rgb"), view["image"])
            normal = stored("normal") / 255 * 2 - 1
            np.testing.assert_allclose(normal, view["normal"], atol=1.001 / 255)
            bend = stored("principal_curvature")
            assert (bend[..., 2] == 0).all()
            np.testing.assert_allclose(
                (bend[..., :2].astype(float) - 127) / 127,
                view["principal_curvature"],
                atol=0.501 / 127,
            )
            assert (bend[..., :2][view["principal_curvature"] == 0] == 127).all()
            shade = stored("reshading")
            assert shade.shape == (32, 32, 3) and (shade == shade[..., :1]).all()
            np.testing.assert_allclose(shade[..., :1] / 255, view["reshading"], atol=0.501 / 255)
            np.testing.assert_array_equal(stored("segment_semantic"), view["segment_semantic"] + 1)
            for domain in ("depth_zbuffer", "depth_euclidean"):
                assert stored(domain).dtype == np.uint16
                np.testing.assert_allclose(
                    stored(domain) / 512, view[domain][..., 0], atol=0.501 / 512
                )
            for domain, count in (("class_scene", 10), ("class_object", 16)):
                probabilities = stored(domain, "npy")
                assert probabilities.shape == (count,) and probabilities.sum() == 1
                assert probabilities.argmax() == view[domain]
    with open(tmp_path / "splits.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "train", "val", "test"]
    for row in rows:
        style = int(row["id"].removeprefix("style"))
        assert {s: int(row[s]) for s in STYLES} == {s: int(style in STYLES[s]) for s in STYLES}


def test_writing_rooms_under_the_name_of_another_split_is_refused(tmp_path):
    with pytest.raises(DataError, match="'val' rooms of the split 'train'"):
        write_taskonomy(tmp_path, {"val": Rooms("train", 1, 32)})


@pytest.mark.parametrize("index", [-1, 3, 10**9])
def test_index_outside_the_source_raises_index_error(index):
    with pytest.raises(IndexError, match="expected 0 to 2"):
        Rooms("train", 3)[index]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("training", 3), "split"),
        (("train", 0), "count"),
        (("train", 3, 24), "size"),
        (("train", 3, 130), "size"),
        (("train", 3, 1032), "size"),
        (("train", 3, 128, -1), "seed"),
    ],
)
def test_bad_argument_raises_usage_error_naming_it(arguments, named):
    with pytest.raises(UsageError, match=f"`{named}`"):
        Rooms(*arguments)


def test_index_may_be_a_numpy_integer_but_not_a_float():
    assert digest(Rooms("train", 3, 32)[np.int64(1)]) == digest(Rooms("train", 3, 32)[1])
    with pytest.raises(TypeError):
        Rooms("train", 3, 32)[1.5]


def test_iterating_a_source_ends_after_its_rooms():
    assert sum(1 for _ in Rooms("train", 3, 32)) == 3
