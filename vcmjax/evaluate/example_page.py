"""The page of example predictions: what the task head makes of a few dozen bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcmjax.errors import DataError
from vcmjax.evaluate import drawing
from vcmjax.evaluate.drawing import new_figure
from vcmjax.evaluate.tables import Results, naming, title
from vcmjax.tasks import VOID

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Twenty colours told apart easily (S. Trubetskoy, 2017); white and greys mean void or background.
PALETTE = (
    "#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6",
    "#bfef45", "#fabed4", "#469990", "#dcbeff", "#9a6324", "#fffac8", "#800000", "#aaffc3",
    "#808000", "#ffd8b1", "#000075", "#5a5a5a",
)  # fmt: skip
BACKGROUND = "#d9d9d9"


def examples(npz_path: Path | str, results: Results, path: Path | str) -> None:
    """Draws a page of predictions: input, label, Original, and Ours with its byte count.

    Args:
      npz_path: Arrays ``image`` (n, H, W, 3) uint8; ``label``, ``original``, ``ours`` as in
        `vcmjax.tasks`, the last two class indices (n,), class maps (n, H, W) or dense arrays
        (n, H, W, C); ``bytes`` (n,) integers; ``task``, its name.
      results: Names the classes of the task.
      path: Image to write.

    Raises:
      DataError: The file lacks an array, has one of another form, is damaged or of more than
        `LARGEST` bytes; or it names a task that the results lack.
    """
    data = _read(Path(npz_path))
    task = str(data["task"])
    if task not in results["tasks"]:
        raise DataError(f"{npz_path}: task {task} is not among {', '.join(results['tasks'])}")
    with naming(npz_path, "examples of these results"):
        spec = results["tasks"][task]
        _check(data, spec)
        draw = _class_page if spec["kind"] == "class" else _map_page
        figure = draw(data, spec)
        figure.suptitle(f"{title(task)}: predictions from the coded feature")
        figure.savefig(path)


_EXAMPLE_ARRAYS = ("image", "label", "original", "ours", "bytes", "task")
LARGEST = 1 << 28
"""Bytes of all arrays of a file of examples; a few hundred images of 256×256 pixels have them."""


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file of examples, none of which is unpacked before their size is known."""
    wanted = ", ".join(_EXAMPLE_ARRAYS)
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is no file; expected one of arrays {wanted}")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size <= LARGEST:
            with np.load(path) as file:
                return {key: file[key] for key in _EXAMPLE_ARRAYS}
    except Exception as error:  # damaged archives raise from EOFError to NotImplementedError
        raise DataError(f"{path}: expected arrays {wanted} ({error})") from error
    raise DataError(f"{path}: holds {size} bytes; expected examples of {LARGEST} at most")


def _check(data: dict[str, np.ndarray], spec: dict[str, Any]) -> None:
    """Refuses arrays that do not go together, or classes that the task does not have."""
    image, kind = data["image"], spec["kind"]
    form = {"class": image.shape[:1], "segment": image.shape[:3]}.get(kind)
    if image.ndim != 4 or image.shape[-1] != 3 or not image.size or image.dtype != np.uint8:
        raise DataError(f"image is {image.dtype} {image.shape}; expected uint8 (n, H, W, 3)")
    if data["bytes"].shape != image.shape[:1] or data["bytes"].dtype.kind not in "iu":
        raise DataError(f"bytes has shape {data['bytes'].shape}; expected a number per image")
    for name in ("label", "original", "ours"):
        array = data[name]
        if kind == "dense":
            if array.ndim != 4 or array.shape[:3] != image.shape[:3] or not 0 < array.shape[3] <= 3:
                raise DataError(f"{name} has shape {array.shape}; expected (n, H, W, 1 to 3)")
        elif array.shape != form or array.dtype.kind not in "iu":
            raise DataError(f"{name} is {array.dtype} {array.shape}; expected integers {form}")
        elif not ((array >= 0) & (array < len(spec["classes"])) | (array == VOID)).all():
            raise DataError(f"{name} holds a class beyond the task's {len(spec['classes'])}")


def _class_page(data: dict[str, np.ndarray], spec: dict[str, Any]) -> Figure:
    """Images with the true and the predicted classes written below."""
    count, height, width = data["image"].shape[:3]
    columns = min(4, count)
    rows = -(-count // columns)
    tall, line = 2.4 * height / width, 0.19  # Inches.
    figure = new_figure(2.5 * columns, (tall + 3.6 * line) * rows + 0.4)
    ratios = [tall, 3.4 * line] * rows
    panels = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=ratios)
    for axes in panels.flat:
        axes.axis("off")
    for i in range(count):
        row, column = 2 * (i // columns), i % columns
        panels[row, column].imshow(data["image"][i])
        truth = int(data["label"][i])
        lines = (
            ("Label", truth),
            ("Original", int(data["original"][i])),
            (f"Ours, {int(data['bytes'][i])} bytes", int(data["ours"][i])),
        )
        for step, (name, index) in enumerate(lines):
            text = f"{name}: {spec['classes'][index]}" + ("" if index == truth else "  ✗")
            colour = "black" if index == truth else "#B00020"
            axes = panels[row + 1, column]
            axes.text(0, 1 - step / 3, text, va="top", fontsize=9, color=colour)
    return figure


def _map_page(data: dict[str, np.ndarray], spec: dict[str, Any]) -> Figure:
    """A row per image: input, label, Original, Ours."""
    drawing.matplotlib()
    from matplotlib.patches import Patch

    count, height, width = data["image"].shape[:3]
    maps = [data[key] for key in ("label", "original", "ours")]
    if spec["kind"] == "segment":
        pictures = [_segment_colours(each, spec["classes"]) for each in maps]
    else:
        pictures = _dense_colours(*maps)
    used = sorted({int(index) for each in maps for index in np.unique(each)}) \
        if spec["kind"] == "segment" else []  # fmt: skip
    legend_rows = -(-len(used) // 6)
    figure = new_figure(9.2, 2.2 * count * height / width + 0.25 * count + 0.7 + 0.24 * legend_rows)
    panels = figure.subplots(count, 4, squeeze=False)
    for i, row in enumerate(panels):
        headings = ["Input", "Label", "Original"] if i == 0 else [""] * 3
        headings.append(f"Ours, {int(data['bytes'][i])} bytes")
        pairs = zip(row, headings, [data["image"], *pictures], strict=True)
        for axes, heading, picture in pairs:
            axes.imshow(picture[i], interpolation="nearest")
            axes.set_title(heading, fontsize=10)
            axes.set_xticks([])
            axes.set_yticks([])
    if used:
        swatches = [
            Patch(facecolor="white", edgecolor="grey", hatch="////", label="not scored")
            if index == VOID
            else Patch(facecolor=_colour(index, spec["classes"]), label=spec["classes"][index])
            for index in used
        ]
        figure.legend(handles=swatches, loc="outside lower center", ncols=min(6, len(used)))
    return figure


def _colour(index: int, classes: list[str]) -> str:
    background = index == 0 and classes[0] == "background"
    return BACKGROUND if background else PALETTE[index % len(PALETTE)]


def _segment_colours(maps: np.ndarray, classes: list[str]) -> np.ndarray:
    """Class maps (n, H, W) as RGB (n, H, W, 3) in 0..1."""
    from matplotlib.colors import to_rgb

    table = np.ones((256, 3))
    table[: len(classes)] = [to_rgb(_colour(index, classes)) for index in range(len(classes))]
    return _hatched(table[maps.astype(np.int64)], maps == VOID)


def _dense_colours(*maps: np.ndarray) -> list[np.ndarray]:
    """Label and predictions (n, H, W, C) as RGB (n, H, W, 3) on one scale, that of the label.

    Three channels are unit vectors, -1..1 to 0..1; one is grey; of two, the first is red and the
    second is blue, zero being grey.
    """
    label = maps[0]
    low, high = np.nanpercentile(label, [1, 99]) if np.isfinite(label).any() else (0.0, 1.0)
    reach = max(abs(low), abs(high), 1e-6)

    def picture(values: np.ndarray) -> np.ndarray:
        if values.shape[-1] == 3:
            rgb = (values + 1) / 2
        elif values.shape[-1] == 1:
            rgb = np.repeat((values - low) / max(high - low, 1e-6), 3, -1)
        else:
            first, second = (values[..., :2] / reach / 2).clip(-0.5, 0.5).transpose(3, 0, 1, 2)
            rgb = np.stack([0.5 + first, 0.5 + 0 * first, 0.5 + second], -1)
        void = np.asarray(np.isnan(rgb).any(-1))
        return _hatched(np.nan_to_num(rgb).clip(0, 1), void)

    return [picture(each) for each in maps]


def _hatched(rgb: np.ndarray, void: np.ndarray) -> np.ndarray:
    """White with grey diagonals where nothing is scored."""
    height, width = void.shape[1:]
    diagonal = (np.arange(height)[:, None] + np.arange(width)) % 8 < 2
    rgb[void] = 1
    rgb[void & diagonal] = 0.6
    return rgb
