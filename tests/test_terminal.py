"""What a terminal lacks is spelt, and printing never fails."""

import io
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcmjax import terminal


def printed(text, encoding, monkeypatch):
    """What `text` becomes on a terminal of that encoding."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    terminal.plain()
    sys.stdout.write(text)
    sys.stdout.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("λ ≥ 0.1, 8×8, 1–3 →", "ascii", "lambda >= 0.1, 8x8, 1-3 ->"),
        ("λ ≥ 0.1, 8×8", "latin-1", "lambda >= 0.1, 8×8"),
        ("λ 8×8", "utf-8", "λ 8×8"),
        ("Bjøntegaard, Zoë, café", "ascii", "Bjontegaard, Zoe, cafe"),
        ("images/猫.png", "ascii", "images/\\u732b.png"),
        (os.fsdecode(b"a\xff.png"), "utf-8", "a\\xff.png"),
        (os.fsdecode(b"a\xff.png"), "ascii", "a\\xff.png"),
        ("\U0001f642", "cp1252", "\\U0001f642"),
    ],
)
def test_signs_are_spelt_where_the_encoding_lacks_them(text, encoding, expected, monkeypatch):
    assert printed(text, encoding, monkeypatch) == expected


@given(st.text(st.characters(exclude_characters="\r\n")), st.sampled_from(["ascii", "cp437"]))
def test_any_text_can_be_printed_and_ascii_is_as_it_was(text, encoding):
    with pytest.MonkeyPatch.context() as patch:
        shown = printed(text, encoding, patch)
    kept = "".join(each for each in text if each.isascii())
    assert not kept or text != kept or shown == text


@pytest.mark.parametrize("module", ["experiments.plateau", "experiments.variable_rate"])
def test_help_is_printed_on_a_terminal_of_ascii(module):
    plain = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        env=os.environ | plain | {"PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode("ascii")
    assert "usage:" in text and "\\u" not in text
