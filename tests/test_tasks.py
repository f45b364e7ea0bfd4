"""Names of tasks become files; names of classes reach tables and terminals."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcmjax import tasks
from vcmjax.data import taskonomy
from vcmjax.errors import VcmError
from vcmjax.tasks import ROOMS, Task


@pytest.mark.parametrize("task", [*ROOMS.values(), *taskonomy.TASKS.values()])
def test_every_task_of_this_package_can_be_stored(task):
    tasks.check(task)


@pytest.mark.parametrize(
    "name",
    ["normal", "a", "_", "depth.v2", "depth-1", "Straße", "深度", "com10", "console", "x" * 100],
)
def test_words_are_names(name):
    tasks.check_names([name])


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "../../esc", "/etc/passwd", "a/b", "a\\b", ".hidden", "a.", "a ", " a",
        "a b", "-rf", "a\n", "a\0", "\x1b[2J", "a:b", "C:", "~", "*", "CON", "nul", "com1",
        "LPT9.txt", "COM²", "aux.tar.gz", "x" * 101, "深" * 80, "\ud800", None, 3, b"a", ("a",),
    ],
)  # fmt: skip
def test_what_is_no_word_is_no_name(name):
    with pytest.raises(VcmError, match=r"task is named .*; expected a word"):
        tasks.check_names([name])


@given(st.text(max_size=120))
def test_a_name_that_is_taken_is_one_file_where_it_is_put(name):
    try:
        tasks.check_names([name])
    except VcmError:
        return
    assert os.path.basename(name) == name and name not in (".", "..")
    assert os.path.normpath(f"/folder/network-{name}") == f"/folder/network-{name}"
    assert len(os.fsencode(f"network-{name}.msgpack")) <= 255 and name.isprintable()


@pytest.mark.parametrize("pair", [("normal", "Normal"), ("STRASSE", "straße"), ("ａ", "a")])
def test_names_that_are_one_file_on_some_systems_are_refused(pair):
    with pytest.raises(VcmError, match="expected more than case to differ"):
        tasks.check_names(pair)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task("normal", "regression", 3), "normal: kind is 'regression'; expected one of class"),  # type: ignore[arg-type]
        (Task("normal", None, 3), "kind is None"),  # type: ignore[arg-type]
        (Task("normal", "dense", 0), "channels is 0; expected an integer of 1 to"),
        (Task("normal", "dense", True), "channels is True"),
        (Task("normal", "dense", 3.0), "channels is 3.0"),  # type: ignore[arg-type]
        (Task("normal", "dense", 10**9), "channels is 1000000000"),
        (Task("seg", "segment", 256), "expected an integer of 1 to 255"),
        (Task("scene", "class", 2, ("a",)), r"classes are \('a',\); expected as many names"),
        (Task("scene", "class", 2, ["a", "b"]), "classes are"),  # type: ignore[arg-type]
        (Task("scene", "class", 2, ("a", 3)), "a class is named 3; expected text"),  # type: ignore[arg-type]
        (Task("scene", "class", 2, ("a", "b\n")), "a class is named 'b\\\\n'; expected text"),
        (Task("scene", "class", 2, ("a", "\x1b[31mb")), "a class is named .*expected text"),
        (Task("scene", "class", 1, ("\u2028",)), "a class is named"),
        (Task("scene", "class", 1, ("\ud800",)), "a class is named"),
    ],
)
def test_a_task_that_cannot_be_read_back_is_refused(task, message):
    with pytest.raises(VcmError, match=message):
        tasks.check(task)


def test_names_of_classes_are_any_text():
    tasks.check(Task("scene", "class", 4, ("living room", "Küche, groß", "=1+1", "اتاق‌خواب")))
