import numpy as np
import pytest
from matplotlib.figure import Figure

from vcmjax.errors import DataError
from vcmjax.evaluate.example_page import examples
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
