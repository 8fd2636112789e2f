"""Spans of time as people say them."""

from __future__ import annotations

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def in_words(seconds: float) -> str:
    """`45 s`, `4 min`, `2 h 5 min`, `3 d 1 h`: the two largest units; a negative span counts as none."""
    left = max(0, round(seconds))
    said: list[str] = []
    for size, unit in _UNITS:
        if left >= size or (unit == "s" and not said):
            said.append(f"{left // size} {unit}")
            left %= size
    return " ".join(said[:2])
