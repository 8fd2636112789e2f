"""Values of a template as SQL expressions: their kinds, their text, their truth, and how large they may grow."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from batchops.request.values import literal

COLUMN_SIZES: Final = (100_000, 10_000)
"""Bytes of a text up to which SQL renders it, the first that the template allows. Rows with longer ones go to Jinja2,
which watches what they grow to."""

MAX_GROWN: Final = 1_000_000
"""Characters up to which SQL lets a text grow where only the row tells how far."""

_NUMBER_WIDTH: Final = 60
_INT_BITS: Final = {"tinyint": 8, "smallint": 16, "integer": 32, "bigint": 64, "hugeint": 128}
MAX_BITS: Final = 126
EXACT_BITS: Final = 53
"""Whole numbers of so many bits are floats without loss."""


class Kind(StrEnum):
    """What a value is in a template. SHOWN is a value that may be of several kinds: it can only be made text."""

    TEXT = "text"
    INT = "int"
    FLOAT = "float"
    DECIMAL = "decimal"
    BOOL = "bool"
    SHOWN = "shown"


class Unfit(Exception):
    """A template, or a part of one, that SQL cannot render exactly. The reason is for `render --explain`."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.line = reason, line


@dataclass(frozen=True, slots=True)
class Value:
    """An SQL expression with what is known of it.

    SQL NULL stands for a NULL of the source. `depth` is the stage whose names it uses; `size` bounds its text in
    characters; `bits` bounds a whole number; `scale` is a decimal's; `constant` is the Python value of a literal.
    """

    sql: str
    kind: Kind
    is_nullable: bool = False
    depth: int = 0
    size: int = _NUMBER_WIDTH
    bits: int = 0
    scale: int = 0
    constant: Any = None

    @property
    def is_atom(self) -> bool:
        """Whether repeating the expression costs nothing."""
        return self.constant is not None or re.fullmatch(r"\w+", self.sql) is not None


def text_literal(text: str) -> Value:
    """A constant text."""
    if "\0" in text or not _is_unicode(text):
        raise Unfit("a constant with a NUL or half a surrogate pair")
    return Value(literal(text), Kind.TEXT, size=len(text), constant=text)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def constant_value(value: Any) -> Value:
    """A literal of a template."""
    if isinstance(value, str):
        return text_literal(value)
    if isinstance(value, bool):
        return Value("true" if value else "false", Kind.BOOL, constant=value)
    if isinstance(value, int) and value.bit_length() <= MAX_BITS:
        return Value(f"({value})", Kind.INT, bits=value.bit_length() + 1, constant=value)
    if isinstance(value, float) and abs(value) < float("inf"):
        return Value(f"CAST({literal(repr(value))} AS DOUBLE)", Kind.FLOAT, constant=value)
    raise Unfit("a constant that is no text and no common number")


def column_value(sql: str, tree: Any, size: int) -> Value | None:
    """A column, or a field of one, already in the form in which it is fetched; None for lists and the like.

    `size` bounds a text.
    """
    kind = tree.id if tree is not None else ""
    unsigned = kind.removeprefix("u")
    if kind == "boolean":
        return Value(sql, Kind.BOOL, is_nullable=True)
    if unsigned in _INT_BITS:
        return Value(sql, Kind.INT, is_nullable=True, bits=_INT_BITS[unsigned] + (kind != unsigned))
    if kind in {"float", "double"}:
        return Value(sql, Kind.FLOAT, is_nullable=True)
    if kind == "decimal":
        return Value(sql, Kind.DECIMAL, is_nullable=True, scale=dict(tree.children)["scale"])
    if kind in {"list", "array", "struct", "map", "union"}:
        return None
    return Value(f"CAST({sql} AS VARCHAR)", Kind.TEXT, is_nullable=True, size=size)


def shown_sql(value: Value) -> str:
    """The text that `{{ value }}` prints; NULL stays NULL."""
    match value.kind:
        case Kind.TEXT | Kind.SHOWN:
            return value.sql
        case Kind.BOOL if value.constant is not None:
            return literal(str(value.constant))
        case Kind.BOOL:
            return f"CASE {value.sql} WHEN true THEN 'True' WHEN false THEN 'False' END"
        case _ if value.constant is not None:
            return literal(str(value.constant))
        case Kind.FLOAT:  # DuckDB writes the sign of a NaN
            return f"CASE WHEN isnan({value.sql}) THEN 'nan' ELSE CAST({value.sql} AS VARCHAR) END"
    return f"CAST({value.sql} AS VARCHAR)"


def truth_sql(value: Value) -> str:
    """Whether a value counts as true; never NULL."""
    match value.kind:
        case Kind.BOOL:
            truth = value.sql
        case Kind.TEXT:
            truth = f"({value.sql} <> '')"
        case Kind.SHOWN:
            raise Unfit("the truth of a value that may be of several kinds")
        case _:
            truth = f"({value.sql} <> 0)"
    return f"coalesce({truth}, false)" if value.is_nullable else truth


def json_sql(value: Value, escaped: str) -> str:
    """What `tojson` writes; `escaped` is the JSON of a text value. A NULL is null."""
    match value.kind:
        case Kind.TEXT:
            text = escaped
        case Kind.BOOL:
            text = f"CASE {value.sql} WHEN true THEN 'true' WHEN false THEN 'false' END"
        case Kind.FLOAT:
            text = f"CASE WHEN isfinite({value.sql}) THEN CAST({value.sql} AS VARCHAR) ELSE 'null' END"
        case Kind.SHOWN:
            raise Unfit("tojson of a value that may be of several kinds")
        case _:
            text = f"CAST({value.sql} AS VARCHAR)"
    return f"coalesce({text}, 'null')" if value.is_nullable else text


def with_sql(value: Value, sql: str, **changes: Any) -> Value:
    """The value under another expression, no constant any more."""
    return replace(value, sql=sql, constant=None, **changes)
