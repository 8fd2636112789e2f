"""The values of unquoted scalars by the YAML 1.2 core schema: `on`, `no` and `012` are text, text and 12."""

from __future__ import annotations

import math
import re
from typing import Any, Final

_MAX_DIGITS: Final = 400
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_NUMERIC: Final = frozenset("0123456789+-.")
"""What a number begins with."""


def plain(text: str) -> Any:
    """The value of an unquoted scalar."""
    if text in _NULL:
        return None
    if text[0] not in _NUMERIC:
        return _BOOL.get(text, text)
    if _INT.match(text):
        return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)
    if _FLOAT.match(text):
        return float(text)
    if special := _SPECIAL.match(text):
        return math.nan if special[3] else math.inf * (-1 if special[1] == "-" else 1)
    return text


def is_endless(text: str) -> bool:
    """Whether it is a whole number of so many digits that reading it takes long."""
    return len(text) > _MAX_DIGITS and _INT.match(text) is not None
