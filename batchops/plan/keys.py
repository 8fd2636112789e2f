"""Row keys: their one text form, and the columns and types it came from."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

import orjson

from batchops.diagnostics import UsageProblem, error

SENSITIVE = "(sensitive)"
WHOLE_NUMBERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT",
                  "UHUGEINT"}  # fmt: skip
_WHOLE_NUMBER = re.compile("-?[0-9]+")


def typed_key(
    key: str, columns: Sequence[str], types: Sequence[str], *, sensitive: Collection[str] = ()
) -> dict[str, Any]:
    """`{"id": 7}` from the text form `7`: whole numbers as numbers, anything else as text.

    A row that left before the key became another stays on record under its old one: its text stands in the first
    column.
    """
    texts = [key] if len(columns) == 1 else _parts(key, len(columns)) or [key, *[None] * (len(columns) - 1)]
    return {
        column: SENSITIVE if column in sensitive else _typed(text, kind)
        for column, kind, text in zip(columns, types, texts, strict=True)
    }


def _typed(text: str | None, kind: str) -> str | int | None:
    return int(text) if text is not None and kind in WHOLE_NUMBERS and _WHOLE_NUMBER.fullmatch(text) else text


def _parts(written: str, count: int) -> list[Any] | None:
    """The parts of a key of several columns; None when it is no list of so many."""
    try:
        parts = orjson.loads(written)
    except orjson.JSONDecodeError:
        return None
    return parts if isinstance(parts, list) and len(parts) == count else None


def key_text(address: str, columns: Sequence[str], written: str) -> str:
    """The text form of a key as a user wrote it behind `address@`: several columns are a compact JSON array of texts.

    Raises UsageProblem when it is no list of as many columns.
    """
    if len(columns) == 1:
        return written
    parts = _parts(written, len(columns))
    if parts is None:
        example = orjson.dumps(list(columns)).decode()
        detail = f"The key of {address} has {len(columns)} columns; write it as a list: {address}@{example}"
        raise UsageProblem(error("invalid_address", "Invalid address.", detail))
    return orjson.dumps([part if isinstance(part, str) else orjson.dumps(part).decode() for part in parts]).decode()
