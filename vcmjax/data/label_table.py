"""Rows of a table ``labels.csv``, as spreadsheets and scripts write them."""

import csv
import io
import itertools
import os
import re
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from vcmjax.data import listing, reading
from vcmjax.errors import DataError

_DELIMITERS = (",", ";", "\t")
_SAMPLE = 100
_EXPECTED = "`file,class`"
_FILE = {
    "file", "filename", "filepath", "fname", "image", "imagefile", "imagename", "imagepath", "img",
    "path",
}  # fmt: skip
_CLASS = {
    "category", "categoryname", "class", "classname", "label", "labelname", "scene", "target",
}  # fmt: skip
_LOCK = threading.Lock()


class Row(NamedTuple):
    """One image's class."""

    table: Path
    line: int
    """At which the row begins, from 1."""
    file: str
    name: str


def rows(table: Path, domain: str) -> list[Row]:
    """The rows of a table of ``file,class``.

    The delimiter may be a semicolon or a tab. A first row without the name of an image is a
    header; with more columns than two, it tells which are meant.

    Args:
      table: The file.
      domain: For messages.

    Raises:
      DataError: The file cannot be read, or a row is not of that form; names file and line.
    """
    text = reading.text(table, domain)
    stated = re.match("sep=(.)[\r\n]", text)  # for spreadsheets
    delimiter = stated[1] if stated else _delimiter(text)
    parsed, wrong = _parsed(text, delimiter)
    if wrong:
        raise _bad(table, domain, *wrong)
    every = [(line, cells) for line, row in parsed[bool(stated) :] if (cells := _cells(row))]
    file_at, class_at, width = 0, 1, 2
    if every and not any(map(_is_image, every[0][1])):
        line, header = every.pop(0)
        width = len(header)
        columns = _columns(header)
        if columns is None:
            found = f"the columns {header}"
            remedy = "Name one `file` and one `class`."
            raise _bad(table, domain, line, found, remedy)
        file_at, class_at = columns
    result = []
    for line, cells in every:
        if not max(file_at, class_at) < len(cells) <= width or not cells[file_at]:
            remedy = "Correct the line; quote a name with a delimiter in it."
            raise _bad(table, domain, line, repr(cells), remedy)
        if re.search(r"[\0-\x1f]", cells[file_at]) or not cells[class_at]:
            raise _bad(table, domain, line, repr(cells))
        result.append(Row(table, line, cells[file_at].replace("\\", "/"), cells[class_at]))
    return result


def _bad(
    table: Path, domain: str, line: int, found: str, remedy: str = "Correct the line."
) -> DataError:
    return reading.bad(table, domain, _EXPECTED, f"line {line}: {found}", remedy)


def _parsed(
    text: str, delimiter: str, count: int | None = None
) -> tuple[list[tuple[int, list[str]]], tuple[int, str] | None]:
    """The first `count` rows, or all; where quotes do not fit, those before, and what is wrong.

    Each comes with the line where it begins.
    """
    source = io.StringIO(text, newline="")
    reader = csv.reader(source, delimiter=delimiter, skipinitialspace=True, strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        with _any_length(len(text)):
            for row in itertools.islice(reader, count):
                rows.append((line, row))
                line = reader.line_num + 1
    except csv.Error as error:
        return rows, (line, str(error))
    return rows, None


@contextmanager
def _any_length(length: int) -> Iterator[None]:
    """Fields of as many characters; the module's limit holds for the whole process."""
    with _LOCK:
        before = csv.field_size_limit()
        csv.field_size_limit(max(before, length))
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _delimiter(text: str) -> str:
    """The one that finds names of images in most of the first rows."""

    def found(delimiter: str) -> int:
        first = [_cells(row) for _, row in _parsed(text, delimiter, _SAMPLE)[0]]
        return sum(len(cells) > 1 and any(map(_is_image, cells)) for cells in first)

    return max(_DELIMITERS, key=found)


def _cells(row: list[str]) -> list[str]:
    cells = [unicodedata.normalize("NFC", cell.strip()) for cell in row]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _is_image(cell: str) -> bool:
    return os.path.splitext(cell.replace("\\", "/"))[1].lower() in listing.SUFFIXES


def _columns(header: list[str]) -> tuple[int, int] | None:
    """Where file and class stand; None if the header does not tell."""
    words = [re.sub("[^a-z]", "", cell.casefold()) for cell in header]
    file_at = [i for i, word in enumerate(words) if word in _FILE]
    class_at = [i for i, word in enumerate(words) if word in _CLASS]
    if len(file_at) == len(class_at) == 1:
        return file_at[0], class_at[0]
    return (0, 1) if len(header) == 2 else None
