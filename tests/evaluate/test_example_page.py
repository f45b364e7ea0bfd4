import io
import os
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from vcmjax.errors import DataError
from vcmjax.evaluate.example_page import LARGEST, examples
from vcmjax.tasks import ROOMS, VOID


def write(path, name, count=3, size=16):
    """A made-up page; the second image of "Ours" is wrong, everything else is right."""
    task, rng = ROOMS[name], np.random.default_rng(0)
    shape = {"class": (count,), "segment": (count, size, size),
             "dense": (count, size, size, task.channels)}[task.kind]  # fmt: skip
    if task.kind == "dense":
        label = rng.uniform(-1, 1, shape).astype(np.float32)
        ours = 0.5 * label
        label[:, 0] = np.nan
    else:
        label = rng.integers(1, task.channels, shape).astype(np.uint8)
        ours = label.copy()
        ours[1] = 0
    original = np.nan_to_num(label)
    if task.kind == "segment":
        label[:, 0] = VOID
    image = rng.integers(0, 256, (count, size, size, 3)).astype(np.uint8)
    np.savez(path, image=image, label=label, original=original, ours=ours,
             bytes=np.array([9, 12, 107]), task=name)  # fmt: skip
    return task


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: figures.append(figure))
    return figures


@pytest.mark.parametrize("name", ["segment_semantic", "normal", "reshading"])
def test_rows_are_images_and_ours_states_its_bytes(tmp_path, drawn, name, make_results):
    write(tmp_path / "page.npz", name)
    examples(tmp_path / "page.npz", make_results(), "unused.png")
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert titles[:4] == ["Input", "Label", "Original", "Ours, 9 bytes"]
    assert titles[4:] == ["", "", "", "Ours, 12 bytes", "", "", "", "Ours, 107 bytes"]
    for axes in drawn[0].axes:
        picture = axes.images[0].get_array()
        assert picture.shape == (16, 16, 3) and np.isfinite(picture).all()


def test_legend_names_the_classes_that_occur_and_the_void(tmp_path, drawn, make_results):
    task = write(tmp_path / "page.npz", "segment_semantic")
    examples(tmp_path / "page.npz", make_results(), "unused.png")
    named = {text.get_text() for text in drawn[0].legends[0].get_texts()}
    assert named == {*task.classes, "not scored"}


def test_one_class_has_one_colour_on_every_map(tmp_path, drawn, make_results):
    write(tmp_path / "page.npz", "segment_semantic")
    examples(tmp_path / "page.npz", make_results(), "unused.png")
    label, original = (axes.images[0].get_array() for axes in drawn[0].axes[1:3])
    np.testing.assert_array_equal(label[1:], original[1:])
    assert (label[0] == label[0, :, :1]).all()  # The void row is white and grey.


def test_normals_are_shown_as_half_of_one_plus_n(tmp_path, drawn, make_results):
    write(tmp_path / "page.npz", "normal")
    examples(tmp_path / "page.npz", make_results(), "unused.png")
    with np.load(tmp_path / "page.npz") as data:
        expected = (data["ours"][0, 1:] + 1) / 2
    np.testing.assert_allclose(drawn[0].axes[3].images[0].get_array()[1:], expected)


def test_classes_are_written_and_the_wrong_one_is_marked(tmp_path, drawn, make_results):
    task = write(tmp_path / "page.npz", "class_scene")
    examples(tmp_path / "page.npz", make_results(), "unused.png")
    texts = [text.get_text() for axes in drawn[0].axes for text in axes.texts]
    assert [text for text in texts if "✗" in text] == [f"Ours, 12 bytes: {task.classes[0]}  ✗"]


def test_a_page_of_every_kind_is_written(tmp_path, make_results):
    results = make_results()
    for name in ("class_scene", "segment_semantic"):
        write(tmp_path / "page.npz", name)
        examples(tmp_path / "page.npz", results, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_curvature_is_grey_at_zero(tmp_path, drawn, make_results):
    results = make_results()
    results["tasks"]["principal_curvature"] = {"kind": "dense", "classes": []}
    zero = np.zeros((1, 4, 4, 2))
    np.savez(tmp_path / "page.npz", image=np.zeros((1, 4, 4, 3), np.uint8), label=zero,
             original=zero, ours=zero, bytes=[9], task="principal_curvature")  # fmt: skip
    examples(tmp_path / "page.npz", results, "unused.png")
    assert (drawn[0].axes[1].images[0].get_array() == 0.5).all()


def test_missing_arrays_and_unknown_tasks_are_refused(tmp_path, make_results):
    path = tmp_path / "page.npz"
    with pytest.raises(DataError, match="expected arrays image"):
        examples(path, make_results(), "unused.png")
    np.savez(path, image=np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="expected arrays image"):
        examples(path, make_results(), "unused.png")
    write(path, "normal")
    with pytest.raises(DataError, match="task normal is not among reshading"):
        examples(path, make_results(("reshading",)), "unused.png")


@pytest.mark.parametrize("name", ["segment_semantic", "normal", "class_scene"])
@pytest.mark.parametrize(
    "change",
    [
        {"image": np.zeros((3, 16, 16, 3))},
        {"image": np.zeros((3, 16, 16), np.uint8)},
        {"image": np.zeros((0, 16, 16, 3), np.uint8)},
        {"bytes": np.zeros(2, int)},
        {"bytes": np.array(["a", "b", "c"])},
        {"label": np.zeros((1, 2), int)},
        {"ours": np.full((3, 16, 16, 9), -1)},
        {"original": np.array([object()])},
    ],
    ids=lambda change: "-".join(change),
)
def test_arrays_that_do_not_go_together_are_refused_by_name(tmp_path, name, change, make_results):
    path = tmp_path / "page.npz"
    results = make_results()
    write(path, name)
    with np.load(path) as file:
        np.savez(path, **dict(file) | change)
    with pytest.raises(DataError, match=r"page\.npz: "):
        examples(path, results, tmp_path / "page.png")


@pytest.mark.parametrize("index", [17, 254, -1])
def test_a_class_that_the_task_lacks_is_refused(tmp_path, index, make_results):
    path = tmp_path / "page.npz"
    write(path, "segment_semantic")
    with np.load(path) as file:
        arrays = dict(file)
    arrays["ours"] = arrays["ours"].astype(int)
    arrays["ours"][0, 3, 3] = index
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="ours holds a class beyond the task's 17"):
        examples(path, make_results(), tmp_path / "page.png")


@given(st.data())
def test_a_damaged_file_is_drawn_or_refused_by_name(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "page.npz"
    task = write(path, "class_scene")
    results = {"tasks": {task.name: {"kind": task.kind, "classes": list(task.classes)}}}
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.integers(0, 2 * len(content)))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, path: None)
        said = str(path)
        try:
            examples(path, results, "unused.png")
        except DataError as error:
            said = str(error)
    assert str(path) in said


def test_what_unpacks_to_more_than_a_page_is_refused_before_it_is_unpacked(tmp_path, make_results):
    path = tmp_path / "page.npz"
    blank = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        blank, {"descr": "|u1", "fortran_order": False, "shape": (LARGEST,)}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("image.npy", "w") as file,
    ):
        file.write(blank.getvalue())
        for _ in range(LARGEST >> 20):
            file.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DataError, match=rf"page\.npz: holds {LARGEST + 128} bytes"):
        examples(path, make_results(), "unused.png")


def test_a_pipe_is_no_page(tmp_path, make_results):
    os.mkfifo(tmp_path / "page.npz")  # whose opening would wait for a writer
    with pytest.raises(DataError, match=r"page\.npz: is no file"):
        examples(tmp_path / "page.npz", make_results(), "unused.png")
