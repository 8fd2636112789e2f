"""How much room a state takes, for `doctor` and `state compact`."""

from __future__ import annotations

from typing import Any

from batchops.store.footprint import Footprint


def footprint_document(found: Footprint) -> dict[str, Any]:
    """The numbers as JSON; what is divided by nothing is null."""
    return {
        "bytes": found.state_bytes,
        "rows": found.rows,
        "bytes_per_row": _rounded(found.state_bytes_per_row),
        "answer_bytes": found.answer_bytes,
        "answers": found.answers,
        "answer_bytes_per_answer": _rounded(found.answer_bytes_per_answer),
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)


def footprint_lines(found: Footprint) -> list[str]:
    """One line for the state file, and one for the answer files where there are any."""
    lines = []
    if found.state_bytes_per_row is not None:
        lines.append(f"State: {found.rows:,} rows, {found.state_bytes_per_row:,.0f} bytes a row.")
    if found.answer_bytes_per_answer is not None:
        lines.append(f"Answer files: {found.answers:,} answers, {found.answer_bytes_per_answer:,.0f} bytes an answer.")
    return lines
