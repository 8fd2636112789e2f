"""Row keys: their one text form, and the columns and types it came from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import orjson

from batchops.diagnostics import UsageProblem, error

SENSITIVE = "(sensitive)"
WHOLE_NUMBERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT",
                  "UHUGEINT"}  # fmt: skip


def typed_key(
    key: str, columns: Sequence[str], types: Sequence[str], *, sensitive: Collection[str] = ()
) -> dict[str, Any]:
    """`{"id": 7}` from the text form `7`: whole numbers as numbers, anything else as text."""
    texts = [key] if len(columns) == 1 else orjson.loads(key)
    return {
        column: SENSITIVE if column in sensitive else int(text) if kind in WHOLE_NUMBERS else text
        for column, kind, text in zip(columns, types, texts, strict=True)
    }


def key_text(address: str, columns: Sequence[str], written: str) -> str:
    """The text form of a key as a user wrote it behind `address@`: several columns are a compact JSON array of texts.

    Raises UsageProblem when it is no list of as many columns.
    """
    if len(columns) == 1:
        return written
    try:
        parts = orjson.loads(written)
    except orjson.JSONDecodeError:
        parts = None
    if not isinstance(parts, list) or len(parts) != len(columns):
        example = orjson.dumps(list(columns)).decode()
        detail = f"The key of {address} has {len(columns)} columns; write it as a list: {address}@{example}"
        raise UsageProblem(error("invalid_address", "Invalid address.", detail))
    return orjson.dumps([part if isinstance(part, str) else orjson.dumps(part).decode() for part in parts]).decode()
