"""Durations, sizes, counts and shares as users write them: `1m`, `200MB`, `2M`, `0.1%`.

Each parser takes text or a bare number and raises ValueError with what would be accepted. The `Annotated` types are
for pydantic models, so that settings and specs read the same words.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_COUNT_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}
_MOST = 1e18
_LONGEST = timedelta(days=36_500)
"""Added to any date of today it is a date."""
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*\Z")


def _quantity(value: object, units: dict[str, float] | dict[str, int], *, upper: bool, accepted: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"expected {accepted}")  # noqa: TRY004  pydantic turns ValueError into a located error
    match = _QUANTITY.match(str(value))
    unit = match[2].upper() if match and upper else match[2] if match else ""
    if match is None or unit not in units:
        raise ValueError(f"{value!r} is not accepted; write {accepted}")
    quantity = float(match[1]) * units[unit]
    if quantity > _MOST:
        raise ValueError(f"{str(value)[:40]!r} is too much; the most is {_MOST:.0e}")
    return quantity


def parse_duration(value: object) -> timedelta:
    """`100ms 2s 5m 24h 30d`, several in a row allowed (`1h30m`); a timedelta passes through."""
    if isinstance(value, timedelta):
        return value
    accepted = "a duration such as 100ms, 2s, 5m, 24h or 30d"
    parts = re.findall(r"\d+(?:\.\d+)?\s*[a-z]+", value) if isinstance(value, str) else []
    if parts and "".join(parts) == value:
        seconds = sum(_quantity(p, _DURATION_UNITS, upper=False, accepted=accepted) for p in parts)
        if seconds > _LONGEST.total_seconds():
            raise ValueError(f"{value[:40]!r} is too long; the longest is {_LONGEST.days}d")
        return timedelta(seconds=seconds)
    raise ValueError(f"{value!r} is not accepted; write {accepted}")


def parse_size(value: object) -> int:
    """Bytes from `200MB` (10⁶), `1GiB` (2³⁰) or a bare number."""
    return int(
        _quantity(value, _SIZE_UNITS, upper=True, accepted="a size such as 200MB, 1GB, 64MiB or a number of bytes")
    )


def parse_count(value: object) -> int:
    """A count from `2M`, `500K` or a bare number."""
    return int(_quantity(value, _COUNT_UNITS, upper=True, accepted="a count such as 2000000, 500K or 2M"))


def parse_share(value: object) -> float | int:
    """A share (float, 0..1) from `0.1%`, or a count (int) from a bare whole number."""
    if isinstance(value, str) and value.strip().endswith("%"):
        share = _quantity(value.strip()[:-1], {"": 1}, upper=True, accepted="a share such as 0.1% or a count") / 100
        if share > 1:
            raise ValueError(f"{value!r} is more than 100%")
        return share
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f"{value!r} is not accepted; write a share such as 0.1% or a whole number of rows")


def format_duration(duration: timedelta) -> str:
    """The shortest exact spelling: `24h`, `1h30m`, `100ms`."""
    millis = round(duration.total_seconds() * 1000)
    if millis % 1000:
        return f"{millis}ms"
    out, seconds = "", millis // 1000
    for unit, size in (("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size:
            out += f"{seconds // size}{unit}"
            seconds %= size
    return out or "0s"


def format_usd(amount: float) -> str:
    """Dollars and cents; below a cent two significant digits."""
    if 0 < abs(amount) < 0.00995:
        digits = 1 - math.floor(math.log10(abs(amount)))
        return f"${amount:.{digits}f}"
    return f"${amount:,.2f}"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({
        "type": "string",
        "pattern": r"^(\d+(\.\d+)?\s*(ms|s|m|h|d))+$",
        "examples": ["100ms", "2s", "5m", "24h", "30d"],
    }),
]  # fmt: skip
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema({
        "anyOf": [
            {"type": "integer", "minimum": 1},
            {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*([Bb]|[KkMmGg][Ii]?[Bb])?\s*$"},
        ],
        "examples": ["200MB", "64MiB", 1000000],
    }),
]  # fmt: skip
Count = Annotated[int, BeforeValidator(parse_count)]
Share = Annotated[
    float | int,
    BeforeValidator(parse_share),
    WithJsonSchema({
        "anyOf": [
            {"type": "integer", "minimum": 0},
            {"type": "string", "pattern": r"^\s*(100(\.0+)?|\d{1,2}(\.\d+)?)\s*%\s*$"},
        ],
        "examples": ["0.1%", 10],
    }),
]  # fmt: skip
