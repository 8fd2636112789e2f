"""JSON that came from outside: parsed, and shallow enough to be written again and walked through."""

from __future__ import annotations

from typing import Any, Final

import orjson

_DEEPEST: Final = 254  # what orjson writes; it reads four times as deep, and a file of such lines could only get stuck


def parse(text: bytes) -> Any:
    """The value that a JSON text stands for. Raises ValueError when it is none, or is nested deeper than 254 levels."""
    value = orjson.loads(text)
    if text.count(b"[") + text.count(b"{") > _DEEPEST:
        try:
            orjson.dumps(value)
        except orjson.JSONEncodeError as problem:
            raise ValueError("nested too deep") from problem
    return value
