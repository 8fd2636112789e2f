"""Any DuckDB value as JSON and as text: what `query` prints.

Numbers keep every digit (NaN and the infinities become null); times are ISO 8601, UTC with a Z; intervals, UUIDs and
the like are text; blobs are base64; lists, structs and maps are JSON.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import orjson


def json_text(value: Any) -> bytes:
    """A value, or a dictionary of values, as compact JSON."""
    return orjson.dumps(plain(value))


def text(value: Any) -> str | None:
    """A value as the cell of a table or of a CSV file; None for NULL."""
    found = plain(value)
    if found is None or isinstance(found, str):
        return found
    return orjson.dumps(found).decode()


def plain(value: Any) -> Any:
    """The value as something orjson writes exactly."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    match value:
        case None | bool() | str():
            return value
        case int():
            return orjson.Fragment(str(value))
        case float() | Decimal() if not math.isfinite(value):
            return None
        case Decimal():
            return orjson.Fragment(format(value, "f"))
        case float():
            return value
        case datetime() | date() | time():
            return value.isoformat().replace("+00:00", "Z")
        case _:
            return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
