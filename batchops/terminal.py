"""What a terminal may be shown: colours when asked for, control characters made visible, widths in cells.

Text from rows and files passes through `visible` first, or it could move the cursor and repaint what was printed.
"""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum

_HOSTILE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


class Style(StrEnum):
    """An SGR sequence."""

    BOLD = "1"
    DIM = "2"
    RED = "31"
    GREEN = "32"
    YELLOW = "33"
    BLUE = "34"
    CYAN = "36"
    BOLD_RED = "1;31"
    BOLD_YELLOW = "1;33"


def paint(text: str, style: Style, *, color: bool) -> str:
    """`text` in a style, or plain when colour was not asked for."""
    return f"\x1b[{style}m{text}\x1b[0m" if color and text else text


def visible(text: str) -> str:
    """Control characters and direction marks written as escapes; newlines and tabs stay."""
    return _HOSTILE.sub(
        lambda match: f"\\x{ord(match[0]):02x}" if match[0] < "\x80" else f"\\u{ord(match[0]):04x}", text
    )


def cells(text: str) -> int:
    """How many columns `text` takes: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(character) for character in text)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fit(text: str, width: int) -> str:
    """`text` in at most `width` columns, an ellipsis where it was cut."""
    if cells(text) <= width:
        return text
    kept, used = "", 0
    for character in text:
        used += _cells_of(character)
        if used > width - 1:
            break
        kept += character
    return kept + "…"


def pad(text: str, width: int, *, right: bool = False) -> str:
    """`text` filled up with spaces to `width` columns."""
    blank = " " * max(0, width - cells(text))
    return blank + text if right else text + blank
