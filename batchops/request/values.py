"""What a template sees of every DuckDB type, and the one canonical JSON form. See the table in docs/templates.md.

Two halves that must agree: `column_sql` turns a column into what is fetched, `seen` turns what was fetched (or any
plain Python value) into what a template sees. Temporal and other scalar types are DuckDB's own text, so that SQL can
write the same bytes.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import duckdb
import orjson
from duckdb import sqltypes


class Exact(Decimal):
    """A DECIMAL: its text keeps the scale and never turns to an exponent."""

    def __str__(self) -> str:
        return decimal_text(self)


class Array(list[Any]):
    """A LIST or ARRAY: its text is JSON."""

    def __str__(self) -> str:
        return canonical_json(self).decode()

    __repr__ = __str__


class Object(dict[str, Any]):
    """A STRUCT or MAP: its text is JSON."""

    def __str__(self) -> str:
        return canonical_json(self).decode()

    __repr__ = __str__


class Null:
    """An SQL NULL as templates see it: false, equal to none, and what it prints is decided by its subclass."""

    __slots__ = ("column",)

    def __init__(self, column: str | None = None) -> None:
        self.column = column

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, Null)

    def __hash__(self) -> int:
        return hash(None)


class NullPrinted(Exception):
    """A template printed a NULL under `nulls: error`."""

    def __init__(self, column: str | None) -> None:
        super().__init__(column)
        self.column = column


class ForbiddenNull(Null):
    """NULL under `nulls: error`: looking at its text raises NullPrinted."""

    __slots__ = ()

    def __str__(self) -> str:
        raise NullPrinted(self.column)

    __repr__ = __str__

    def __len__(self) -> int:
        raise NullPrinted(self.column)

    def __iter__(self) -> Any:
        raise NullPrinted(self.column)


class NullText(str):
    """NULL under `nulls: empty` or `text`: text for every filter, yet false and equal to none."""

    __slots__ = ("column",)
    column: str | None

    def __new__(cls, text: str, column: str | None = None) -> NullText:
        made = super().__new__(cls, text)
        made.column = column
        return made

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return other is None or is_null(other) or str.__eq__(self, other) is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return str.__hash__(self)


def is_null(value: object) -> bool:
    """Whether a template value is NULL or none."""
    return value is None or isinstance(value, (Null, NullText))


def null_maker(policy: str) -> Callable[[str | None], object]:
    """How NULL looks under `source.nulls`: takes the column's name, None for a NULL inside a value."""
    match policy:
        case "empty":
            return lambda column: NullText("", column)
        case "text":
            return lambda column: NullText("None", column)
        case _:
            return ForbiddenNull


def decimal_text(value: Decimal) -> str:
    """Digits without an exponent, trailing zeros kept; huge magnitudes, which no column holds, keep theirs."""
    if not value.is_finite() or abs(value.adjusted()) > 1000:
        return Decimal.__str__(value)
    return format(value, "f")


def base64_text(value: bytes) -> str:
    """A BLOB's text."""
    return base64.b64encode(value).decode()


PLAIN = frozenset({str, int, float, bool})
"""Python types that templates see as they are."""


def seen(value: object, null: Callable[[str | None], object], column: str | None = None) -> object:
    """What a template sees of a fetched value. `null` makes the NULLs, also those inside lists and structs."""
    if type(value) in PLAIN:
        return value
    if value is None:
        return null(column)
    if isinstance(value, Mapping):
        return Object((key_text(key), seen(part, null)) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return Array(seen(part, null) for part in value)
    if isinstance(value, Decimal):
        return Exact(value)
    return base64_text(bytes(value)) if isinstance(value, (bytes, bytearray, memoryview)) else str(value)


def key_text(key: object) -> str:
    """A mapping's key as text, as JSON needs it."""
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    return base64_text(key) if isinstance(key, bytes) else str(key)


# --- canonical JSON


def canonical_json(value: object) -> bytes:
    """The one JSON form. Key order is kept; there are no spaces; text is written as orjson writes it.

    Numbers are ours, for orjson's spelling of floats differs between its versions: whole numbers of any size in full,
    floats as Python's `repr` (which is DuckDB's text too), DECIMAL with its scale. NaN, the infinities and NULL are
    null. Raises ValueError for a value without JSON or text that is not Unicode.
    """
    return _text(value) if type(value) is str else b"".join(_emit(value))


def _emit(value: object) -> Iterator[bytes]:
    if is_null(value):
        yield b"null"
    elif isinstance(value, str):
        yield _text(value)
    elif isinstance(value, Mapping):
        for number, (key, part) in enumerate(value.items()):
            yield (b"," if number else b"{") + _text(key_text(key)) + b":"
            yield from _emit(part)
        yield b"}" if value else b"{}"
    elif isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            yield b"," if number else b"["
            yield from _emit(part)
        yield b"]" if value else b"[]"
    else:
        yield _number(value)


def _number(value: object) -> bytes:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, int):
        return b"%d" % value
    if isinstance(value, float):
        return repr(float(value)).encode() if math.isfinite(value) else b"null"
    if isinstance(value, Decimal):
        return decimal_text(value).encode() if value.is_finite() else b"null"
    raise ValueError(f"{type(value).__name__} has no JSON form")


def _text(value: str) -> bytes:
    try:
        return orjson.dumps(str(value))
    except TypeError:
        raise ValueError("text that is not Unicode (half of a surrogate pair) has no JSON form") from None


# --- the SQL half

_WHOLE = ("tinyint", "smallint", "integer", "bigint", "hugeint")
_AS_IS = frozenset({"boolean", "double", "decimal", "varchar", "enum", *_WHOLE, *(f"u{kind}" for kind in _WHOLE)})


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


_SIMPLE = {str(kind): kind for kind in vars(sqltypes).values() if isinstance(kind, sqltypes.DuckDBPyType)}


def type_tree(type_name: str) -> Any:
    """DuckDB's type object for a type's name, or None where the name cannot be read back."""
    if (simple := _SIMPLE.get(type_name)) is not None:
        return simple
    try:
        return duckdb.sqltype(type_name)  # makes an engine of its own, which takes 30 ms
    except duckdb.Error:
        return None


def column_sql(name: str, type_name: str) -> str:
    """The expression that fetches a column in the form that `seen` expects."""
    tree = type_tree(type_name)
    return _form(quoted(name), tree, 0) if tree is not None else f"CAST({quoted(name)} AS VARCHAR)"


def _form(value: str, tree: Any, depth: int) -> str:
    match tree.id:
        case "float":
            form = f"CAST(CAST({value} AS VARCHAR) AS DOUBLE)"
        case "blob":
            form = f"to_base64({value})"
        case "list" | "array":
            form = _list_form(value, tree.children[0][1], depth)
        case "struct" if all(name for name, _ in tree.children):
            form = _struct_form(value, tree.children, depth)
        case "map":
            form = _map_form(value, tree, depth)
        case "union" if all(part.id in _AS_IS for _, part in tree.children[1:]):
            form = value
        case kind:
            form = value if kind in _AS_IS else f"CAST({value} AS VARCHAR)"
    return form


def _list_form(value: str, child: Any, depth: int) -> str:
    item = f"x{depth}"
    form = _form(item, child, depth + 1)
    return value if form == item else f"list_transform({value}, lambda {item}: {form})"


def _struct_form(value: str, children: list[tuple[str, Any]], depth: int) -> str:
    plain = {name: f"struct_extract({value}, {literal(name)})" for name, _ in children}
    forms = {name: _form(plain[name], part, depth) for name, part in children}
    if forms == plain:
        return value
    packed = ", ".join(f"{quoted(name)} := {form}" for name, form in forms.items())
    return f"CASE WHEN {value} IS NULL THEN NULL ELSE struct_pack({packed}) END"


def _map_form(value: str, tree: Any, depth: int) -> str:
    key, part = tree.children[0][1], tree.children[1][1]
    key_form = f"to_base64(x{depth})" if key.id == "blob" else f"CAST(x{depth} AS VARCHAR)"
    keys = f"list_transform(map_keys({value}), lambda x{depth}: {key_form})"
    parts = _list_form(f"map_values({value})", part, depth)
    return f"CASE WHEN {value} IS NULL THEN NULL ELSE map({keys}, {parts}) END"
