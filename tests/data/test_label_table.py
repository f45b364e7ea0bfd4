"""Tables of labels as other tools write them; quoting is checked against the csv module."""

import csv
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcmjax.data import label_table
from vcmjax.errors import DataError

PAIRS = [("train/a.png", "cat"), ("train/b.JPG", "dog, small"), ('train/"c".png', "fish\nnet")]


def written(pairs, delimiter=",", **options) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, **options).writerows(pairs)
    return file.getvalue()


def read(folder, text: str | bytes) -> list[tuple[str, str]]:
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [(row.file, row.name) for row in label_table.rows(path, "scene")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize(
    "header", [[], [("File", "CLASS")], [("image_path", "Label")], [("x", "y")]]
)
def test_any_delimiter_quoting_and_header_reads_alike(tmp_path, delimiter, quoting, header):
    text = written([*header, *PAIRS], delimiter, quoting=quoting)
    assert read(tmp_path, text) == PAIRS


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_end_of_line_blank_lines_and_trailing_commas_read_alike(tmp_path, end):
    text = end.join(["", "file,class,,", "a.png,cat,", "", " b.png , dog ", ",,", "c.png,fish", ""])
    assert read(tmp_path, text) == [("a.png", "cat"), ("b.png", "dog"), ("c.png", "fish")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_any_marked_encoding_reads_alike(tmp_path, encoding):
    assert read(tmp_path, "é.png;vélo\n".encode(encoding)) == [("é.png", "vélo")]


@pytest.mark.parametrize(
    "text",
    [
        ",filename,label\n0,a.png,cat\n1,b.png,dog\n",
        "label,split,filename\ncat,train,a.png\ndog,val,b.png\n",
        "class;file\ncat;a.png\ndog;b.png\n",
        "Image Name\tbox\tCategory\na.png\t1\tcat\nb.png\t2\tdog\n",
        "sep=;\nfile;class\na.png;cat\nb.png;dog\n",
        'file,class\n"a.png", "cat"\nb.png, dog\n',
    ],
)
def test_columns_are_told_by_the_header(tmp_path, text):
    assert read(tmp_path, text) == [("a.png", "cat"), ("b.png", "dog")]


def test_a_delimiter_is_the_one_that_finds_images(tmp_path):
    assert read(tmp_path, "a.png;dog, small\nb.png;cat, big\n")[0] == ("a.png", "dog, small")
    assert read(tmp_path, "a;1.png,cat\nb;2.png,dog\n")[0] == ("a;1.png", "cat")


def test_backslashes_are_slashes(tmp_path):
    assert read(tmp_path, "train\\a.png,cat\n.\\b.png,dog\n")[0] == ("train/a.png", "cat")


def test_fields_of_any_length_are_read_and_the_csv_modules_limit_stays(tmp_path):
    name = "x" * 500_000
    assert read(tmp_path, f"a.png,{name}\n") == [("a.png", name)]
    assert read(tmp_path, f"file,class,more\na.png,cat,{name}\n") == [("a.png", "cat")]
    assert csv.field_size_limit() == 131072


def test_rows_know_the_line_that_an_editor_shows(tmp_path):
    (tmp_path / "labels.csv").write_text('file,class\n\na.png,"one\ntwo"\nb.png,dog\n')
    rows = label_table.rows(tmp_path / "labels.csv", "scene")
    assert [row.line for row in rows] == [3, 5]


WRONG = {
    "no class": ("a.png,cat\nb.png,\n", r"line 2: \['b.png'\]"),
    "no file": ("file,class\n,cat\n", "line 2"),
    "a comma too many": ("a.png,cat\nb.png,dog, small\n", "line 2: .* quote a name"),
    "three columns": ("a.png,cat,3\n", "line 1"),
    "columns without words": ("a,b,c\nx.png,1,2\n", "line 1: the columns .*Name one `file`"),
    "columns of one word": ("file,path,class\na.png,a.png,1\n", "line 1: the columns"),
    "an open quote": ('a.png,cat\nb.png,"dog\nc.png,fish\n', "line 2: unexpected end of data"),
    "a garbled quote": ('a.png,cat\n"b.png"x,dog\n', "line 2: ',' expected after"),
    "a name on two lines": ('a.png,cat\n"b\n.png",dog\n', "line 2"),
    "another encoding": ("a.png,chat\nb.png,vélo\n".encode("cp1252"), r"byte 18 \(line 2\)"),
    "a NUL": ("a.png,cat\nb.png,d\0g\n", "a NUL in line 2"),
    "no table": (b"\x89PNG\r\n\x1a\n", r"byte 0 \(line 1\)"),
    "a long wrong row": (f"a.png,cat\n{'x,' * 9999}\n", r"line 2: \['x', .*\.\.\.\."),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_row_is_named_by_file_and_line(tmp_path, kind):
    text, message = WRONG[kind]
    with pytest.raises(DataError, match=rf"labels.csv: scene: expected .*{message}") as info:
        read(tmp_path, text)
    assert "\n" not in str(info.value) and len(str(info.value)) < 800


WORD = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1).map(str.strip)


@given(
    st.lists(st.tuples(WORD.map("x{}.png".format), WORD), min_size=1, max_size=5),
    st.sampled_from(",;\t"),
)
def test_what_the_csv_module_writes_reads_back(tmp_path_factory, pairs, delimiter):
    folder = tmp_path_factory.getbasetemp()
    text = written(pairs, delimiter, quoting=csv.QUOTE_ALL)
    plain = [tuple(unicodedata.normalize("NFC", cell) for cell in pair) for pair in pairs]
    assert read(folder, text) == [(file.replace("\\", "/"), name) for file, name in plain]
