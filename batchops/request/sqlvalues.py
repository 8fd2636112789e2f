"""SQL expressions that write the canonical forms of `values` and do as Python's text methods do, byte for byte."""

from __future__ import annotations

from typing import Final

from batchops.request.values import literal

_HEX_CASE: Final = ("0B", "0E", "0F", "1A", "1B", "1C", "1D", "1E", "1F")
"""The control characters that DuckDB escapes with upper-case digits and the canonical form with lower-case ones."""


def json_text(value: str) -> str:
    """The canonical JSON of a VARCHAR expression (or a list of VARCHAR); NULL stays NULL."""
    return canonical_escapes(f"CAST(to_json({value}) AS VARCHAR)")


def canonical_escapes(text: str) -> str:
    """DuckDB's JSON text with canonical escapes. `text` is an expression; it is repaired only where it needs to be."""
    # A backslash of the text itself is written \\ and must not be taken for the start of an escape: it is set aside
    # as chr(1), which JSON text never holds.
    repaired = rf"replace({text}, '\\', chr(1))"
    for digits in _HEX_CASE:
        repaired = rf"replace({repaired}, '\u00{digits}', '\u00{digits.lower()}')"
    repaired = rf"replace({repaired}, chr(1), '\\')"
    return rf"CASE WHEN contains({text}, '\u00') THEN {repaired} ELSE {text} END"


_SAME_CASE: Final = (
    (0x00, 0xDE), (0xE0, 0x12F), (0x131, 0x148), (0x14A, 0x1EF), (0x1F1, 0x38F), (0x391, 0x3A2), (0x3A4, 0x3AF),
    (0x3B1, 0x586), (0x588, 0x10FF), (0x1100, 0x137F), (0x1400, 0x1C7F), (0x1E00, 0x1E95), (0x1EA0, 0x1EFF),
    (0x2000, 0x2BFF), (0x2E00, 0xA63F), (0xAC00, 0xD7AF), (0xF900, 0xFAFF), (0xFE00, 0xFEFF), (0xFF00, 0xFFEF),
    (0x1F000, 0x1FAFF), (0x20000, 0x3FFFF),
)  # fmt: skip
"""Characters whose upper and lower case are the same in Python and in DuckDB, and will stay so."""

_OTHER_CASE: Final = "[^" + "".join(rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in _SAME_CASE) + "]"


def is_case_unsure(text: str) -> str:
    """Whether a text holds a character whose case may differ from Python's. ASCII is told by its length alone."""
    return f"(strlen({text}) <> length({text}) AND regexp_matches({text}, {literal(_OTHER_CASE)}))"


WHITESPACE: Final = "".join(chr(code) for code in (
    *range(0x09, 0x0E), *range(0x1C, 0x21), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F,
    0x3000,
))  # fmt: skip
"""What `str.strip` takes away."""
