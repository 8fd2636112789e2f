"""SQL expressions that write the canonical forms of `values`, byte for byte."""

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
    # A backslash of the text itself is written \\\\ and must not be taken for the start of an escape: it is set aside
    # as chr(1), which JSON text never holds.
    repaired = rf"replace({text}, '\\', chr(1))"
    for digits in _HEX_CASE:
        repaired = (
            f"replace({repaired}, {literal(chr(92) + 'u00' + digits)}, {literal(chr(92) + 'u00' + digits.lower())})"
        )
    repaired = rf"replace({repaired}, chr(1), '\\')"
    return rf"CASE WHEN contains({text}, '\u00') THEN {repaired} ELSE {text} END"
