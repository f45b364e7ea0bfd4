"""The table of plateau bit-rates, in the form of CVR Table 3, from a results file alone.

Run: python -m vcmjax.evaluate.tables RESULTS.json
"""

import argparse
import contextlib
import json
import math
import os
import stat
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import rich.box
import rich.markup
import rich.table

from vcmjax import terminal
from vcmjax.errors import DataError, VcmError

METHODS = {
    "original": "Original",
    "control": "Control Group",
    "hyperprior": "Hyperprior",
    "ours": "Ours",
    "hyperprior_context": "Hyperprior in context",
    "ours_context": "Ours in context",
    "idfc_tiling": "IDFC, tiling",
    "idfc_concatenation": "IDFC, concatenation",
    "idfc_descending": "IDFC, nearest first",
    "idfc_vvc": "IDFC, tiling, VVC",
    "image_hevc": "Image: HEVC (BPG)",
    "image_jpeg": "Image: JPEG",
    "image_jpeg2000": "Image: JPEG 2000",
    "image_webp": "Image: WebP",
    "image_avif": "Image: AVIF",
    "image_jxl": "Image: JPEG XL",
}
"""Methods in the order shown, with their printed names."""

TITLES = {
    "class_scene": "Scene class",
    "class_object": "Object class",
    "segment_semantic": "Semantic segmentation",
    "normal": "Surface normals",
    "reshading": "Reshading",
    "principal_curvature": "Principal curvature",
}
SPLITS = {"val": "validation", "test": "test"}
METRICS = {"accuracy": "accuracy, %", "miou": "mIoU, %", "l1": "L1 distance"}
SCALES = {"accuracy": 100, "miou": 100}
"""What fractions are printed times."""

HEADER = ("Task", "Method", "Val. perf.", "Val. bpp", "Val. bytes", "Test perf.", "Test bpp",
          "Test bytes", "Plateau")  # fmt: skip

Results = dict[str, Any]


def load(path: Path | str) -> Any:
    """The content of a JSON file.

    Raises:
      DataError: It is missing or no file, or not JSON, in which NaN and infinity are no numbers.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError(f"{path}: is no file; expected one of JSON")
        content = Path(path).read_bytes()
        return json.loads(content, parse_float=_finite, parse_constant=_finite)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({error})") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number")
    return value


def read(path: Path | str) -> Results:
    """Reads a ``results.json`` of schema 1.

    Raises:
      DataError: The file is missing, is not JSON or not of schema 1.
    """
    results = load(path)
    if not isinstance(results, dict) or results.get("schema") != 1:
        raise DataError(f"{path}: expected results of schema 1, as written by experiments.plateau")
    missing = {"tasks", "rows", "plateau"} - results.keys()
    if missing:
        raise DataError(f"{path}: lacks {', '.join(sorted(missing))}")
    return results


@contextlib.contextmanager
def naming(path: Path | str, what: str = "results of experiments.plateau") -> Iterator[None]:
    """Turns whatever fails while a file is being shown into a `DataError` that names the file.

    A file of results may come from anywhere and hold anything: a key that is not there, a text for
    a number, an empty list.

    Args:
      path: The file.
      what: What it is expected to hold.
    """
    try:
        yield
    except OSError:
        raise
    except VcmError as error:
        named = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise DataError(named) from error
    except Exception as error:
        raise DataError(f"{path}: cannot be shown as {what}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """What went wrong, and where, in one line."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, VcmError | OSError):
        return text
    said = f"lacks {text}" if isinstance(error, KeyError) else f"{type(error).__name__}: {text}"
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{said} ({os.path.basename(last.filename)}, line {last.lineno})"


def pooled(results: Results, **wanted: str) -> list[dict[str, Any]]:
    """Rows pooled over seeds that have the given values, for example ``task="normal"``."""
    return [
        row
        for row in results["rows"]
        if row["seed"] is None and all(row[key] == value for key, value in wanted.items())
    ]


def title(task: str) -> str:
    """A task's name in plain words."""
    return TITLES.get(task, task.replace("_", " "))


def table(results: Results) -> rich.table.Table:
    """The table for a terminal of 80 columns: a line per split, 95 % intervals in brackets."""
    result = rich.table.Table(
        title="Plateau bit-rate",
        caption=caption(results),
        box=rich.box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    result.add_column("")
    result.add_column("Split")
    for name in ("Performance", "bpp", "Bytes per image"):
        result.add_column(name, justify="right")
    for task, spec in results["tasks"].items():
        name = title(task).replace(" ", "\n", 1)
        result.add_row(f"[bold]{name}[/bold]", "", f"[bold]{metric(spec)}[/bold]")
        for _, method, *cells, status in _lines(results, task):
            val, test = cells[:3], cells[3:]
            note = "" if status in ("–", "reached") else f"[red]{status}[/red]"
            for first, split, each in ((method, "val", val), (note, "test", test)):
                score, bpp, size = map(rich.markup.escape, each)
                result.add_row(first, split, score, bpp.split(" ")[0], size)
        result.add_section()
    return result


def markdown(results: Results) -> str:
    """The same table in Markdown, its caption below."""
    lines = [HEADER, tuple("---" if i in (0, 1, 8) else "---:" for i in range(len(HEADER)))]
    lines += [line for task in results["tasks"] for line in _lines(results, task)]
    return f"{piped(lines)}\n\n{caption(results)}\n"


def piped(lines: Sequence[Sequence[str]]) -> str:
    """Cells as the lines of a Markdown table: the header, its rule, and the rows."""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def trainings(seeds: int) -> str:
    """How many there were."""
    return f"{seeds} training seed{'s' * (seeds != 1)}"


def brackets(seeds: int) -> str:
    """What the intervals of a table are."""
    return f"Brackets: 95 % bootstrap interval over images{' and seeds' * (seeds > 1)}."


def caption(results: Results) -> str:
    """What the numbers were measured on, in one or two sentences."""
    rows = pooled(results)
    sizes = {(row["split"], row["images"], row["height"], row["width"]) for row in rows}
    images = [
        f"{count} {SPLITS.get(split, split)} images at {height}×{width}"
        for split, count, height, width in sorted(sizes, reverse=True)
    ]
    seeds = len(results["seeds"])
    tolerances = sorted({task["tolerance"] for task in results["tasks"].values()})
    references = {task.get("reference", "control") for task in results["tasks"].values()}
    names = ["the Control Group" if r == "control" else METHODS[r] for r in sorted(references)]
    return (
        f"{', '.join(images)}; {trainings(seeds)}. {brackets(seeds)} Plateau: fewest bits within "
        f"{' or '.join(f'{100 * t:g}' for t in tolerances)} % of {' or '.join(names)} on the "
        "validation split."
        + " One seed cannot rank the methods: trainings differ by more than these brackets "
        "(--seeds 3)." * (seeds == 1)
    )


def _lines(results: Results, task: str) -> list[tuple[str, ...]]:
    """The cells of one task, a line per method that was run."""
    spec = results["tasks"][task]
    first = f"{title(task)} ({metric(spec)})"
    lines = []
    for method, name in METHODS.items():
        rows = pooled(results, task=task, method=method)
        if not rows:
            continue
        entries = [
            entry
            for entry in results["plateau"]
            if (entry["task"], entry["method"], entry["seed"]) == (task, method, None)
        ]
        if method in ("original", "control"):
            cells = [_cells(spec, _uncompressed(spec, rows, split)) for split in ("val", "test")]
            lines.append((first, name, *cells[0], *cells[1], _status(rows, None)))
        for entry in entries:
            cells = [
                _cells(spec, entry.get(split), entry.get(f"bytes_{split}"))
                for split in ("val", "test")
            ]
            lines.append((first, name, *cells[0], *cells[1], _status(rows, entry)))
        if not entries and method not in ("original", "control"):
            lines.append((first, name, *_cells(spec, None) * 2, _status(rows, None)))
    return [("" if index else line[0], *line[1:]) for index, line in enumerate(lines)]


def metric(spec: dict[str, Any]) -> str:
    """Name of a task's headline score and which way is better, of the entry in ``tasks``."""
    arrow = "↑" if spec["higher_is_better"] else "↓"
    return f"{METRICS.get(spec['metric'], spec['metric'])} {arrow}"


def _uncompressed(spec: dict[str, Any], rows: list[dict[str, Any]], split: str) -> Results | None:
    """The one row of a method without bits, in the form of a plateau entry."""
    name = spec["metric"]
    for row in rows:
        if row["split"] == split and row["status"] == "ok":
            interval = (row.get("ci") or {}).get(name)
            return {"score": row["metrics"][name], "bpp_real": None, "ci": {"score": interval}}
    return None


def _status(rows: list[dict[str, Any]], entry: dict[str, Any] | None) -> str:
    diverged = [row for row in rows if row["status"] == "diverged"]
    if len(diverged) == len(rows):
        return "diverged"
    lams = sorted({row["lam"] for row in diverged if row["lam"] is not None})
    some = f"; diverged at λ = {', '.join(f'{lam:g}' for lam in lams)}" if lams else ""
    if entry is None:
        return "–" + some
    return ("reached" if entry["reached"] else "not reached") + some


def _cells(spec: dict[str, Any], point: Results | None, size: float | None = None) -> list[str]:
    """Performance, bpp and bytes of one split; a dash where there is none."""
    if not point:
        return ["–", "–", "–"]
    ci, bpp = point.get("ci") or {}, point.get("bpp_real")
    scale = SCALES.get(spec["metric"], 1)
    score = cell(point["score"], ci.get("score"), scale, 1 if scale > 1 else 4)
    per_bpp = size / bpp if size is not None and bpp else 0
    return [
        score,
        cell(bpp, ci.get("bpp_real"), 1, 4),
        cell(bpp if per_bpp else None, ci.get("bpp_real"), per_bpp, 1),
    ]


def cell(value: float | None, interval: list[float] | None, scale: float, digits: int) -> str:
    """A number with its interval, both times `scale`."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{scale * value:.{digits}f}"
    if interval is None or any(end is None or math.isnan(end) for end in interval):
        return text
    return f"{text} [{scale * interval[0]:.{digits}f}, {scale * interval[1]:.{digits}f}]"


def main(arguments: list[str] | None = None) -> int:
    """Prints the Markdown table of a results file; exit status 2 if it cannot be used."""
    parser = argparse.ArgumentParser(description="Print a results file as a Markdown table.")
    parser.add_argument("results", type=Path, help="results.json of experiments.plateau")
    terminal.plain()
    path = parser.parse_args(arguments).results
    try:
        with naming(path):
            print(markdown(read(path)), end="")
    except VcmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
