"""Row keys: their one text form, and the columns and types it came from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import orjson

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
