"""Output that any terminal can print: where it has no λ, `lambda` is written, and nothing fails."""

import codecs
import sys
import unicodedata

_SPELT = {
    "λ": "lambda", "ω": "omega", "Φ": "Phi", "Ψ": "Psi", "Δ": "Delta", "σ": "sigma", "μ": "mu",
    "µ": "u", "×": "x", "·": "*", "±": "+-", "≤": "<=", "≥": ">=", "≈": "~", "−": "-", "–": "-",
    "—": "--", "→": "->", "←": "<-", "↑": "(up)", "↓": "(down)", "…": "...", "•": "*", "✓": "yes",
    "✗": "no", "‘": "'", "’": "'", "“": '"', "”": '"', "°": " degrees", "ø": "o", "Ø": "O",
    "ß": "ss", "ł": "l", "Ł": "L", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE",
    "━": "-", "─": "-", "│": "|", "╸": "-", "╺": "-",
}  # fmt: skip
_NAME = "vcmjax.spelt"


def plain() -> None:
    """Makes `sys.stdout` and `sys.stderr` spell what their encoding lacks, instead of failing.

    Letters lose their accents, signs become words, and what no spelling is known for, or is no
    text (bytes in the name of a file), becomes ``\\x..`` or ``\\u....``.
    """
    codecs.register_error(_NAME, _spell)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not what a notebook or a test put in their place
            stream.reconfigure(errors=_NAME)


def _spell(error: UnicodeError) -> tuple[str, int]:
    """The error handler: what is written instead of the characters that cannot be."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(map(_spelt, lacking)), error.end


def _spelt(character: str) -> str:
    """ASCII, which every encoding of a terminal has."""
    parts = unicodedata.normalize("NFKD", character)
    spelt = _SPELT.get(character) or "".join(p for p in parts if not unicodedata.combining(p))
    if spelt and spelt.isascii():
        return spelt
    if "\udc80" <= character <= "\udcff":  # a byte that was no text, as `os.fsdecode` keeps it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("ascii", "backslashreplace").decode()
