"""Filters and methods → SQL that does as Python does, or Unfit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from jinja2 import nodes

from batchops.request.sqlscope import Listed, Scope, check_common, constant_of, only_text, place_of, text_of, value_of
from batchops.request.sqltypes import (
    MAX_BITS,
    MAX_GROWN,
    Kind,
    Unfit,
    Value,
    column_value,
    constant_value,
    json_sql,
    shown_sql,
    truth_sql,
    with_sql,
)
from batchops.request.sqlvalues import WHITESPACE, canonical_escapes, is_case_unsure
from batchops.request.values import literal

Arguments = Mapping[str, nodes.Expr]
LEEWAY: Final = 5
"""Jinja2's policy truncate.leeway."""


def filtered(node: nodes.Filter, scope: Scope) -> Value:
    """`value | filter(arguments)`."""
    if node.node is None or node.dyn_args or node.dyn_kwargs:
        raise Unfit("a filter with packed arguments")
    known = _FILTERS.get(node.name)
    if known is None:
        raise Unfit(f'the filter "{node.name}"')
    function, names = known
    return function(node.node, _arguments(node, names), scope)


def _arguments(node: nodes.Filter | nodes.Call, names: tuple[str, ...]) -> Arguments:
    given: dict[str, nodes.Expr] = dict(zip(names, node.args, strict=False))
    given.update((str(keyword.key), keyword.value) for keyword in node.kwargs)
    if len(node.args) > len(names) or not given.keys() <= set(names):
        raise Unfit("arguments that are not known")
    return given


def called(node: nodes.Call, scope: Scope) -> Value:
    """`text.method(arguments)`."""
    if not isinstance(node.node, nodes.Getattr) or node.dyn_args or node.dyn_kwargs or node.kwargs:
        raise Unfit("a call")
    method = _METHODS.get((node.node.attr, len(node.args)))
    if method is None:
        raise Unfit(f'the method "{node.node.attr}"')
    only_text(node.node.node, scope)
    return method(node.node.node, node.args, scope)


# --- text


def _cased(name: str) -> Callable[[nodes.Expr, Any, Scope], Value]:
    def cased(node: nodes.Expr, _: Any, scope: Scope) -> Value:
        text = _case_sure(node, scope)
        return with_sql(text, f"{name}({text.sql})")

    return cased


def _case_sure(node: nodes.Expr, scope: Scope) -> Value:
    text = scope.stages.named(text_of(node, scope))
    scope.guard(is_case_unsure(text.sql), text)
    return text


def _capitalize(node: nodes.Expr, _: Any, scope: Scope) -> Value:
    text = _case_sure(node, scope)
    # Letters such as dž have a title case of their own: only the first letter of ASCII is capitalized here.
    scope.guard(f"substring({text.sql}, 1, 1) > chr(127)", text)
    return with_sql(text, f"concat(upper(substring({text.sql}, 1, 1)), lower(substring({text.sql}, 2)))")


def _trim(node: nodes.Expr, arguments: Any, scope: Scope) -> Value:
    text = text_of(node, scope)
    chars = WHITESPACE
    if isinstance(arguments, Mapping) and "chars" in arguments:
        chars = constant_of(arguments["chars"], str)
    if not chars or "\0" in chars or (chars is not WHITESPACE and not chars.isascii()):
        raise Unfit("trim of other than ASCII characters")
    return with_sql(text, f"trim({text.sql}, {literal(chars)})")


def _replace(node: nodes.Expr, arguments: Arguments, scope: Scope) -> Value:
    return _replaced(node, arguments.get("old"), arguments.get("new"), scope)


def _replaced(node: nodes.Expr, old: nodes.Expr | None, new: nodes.Expr | None, scope: Scope) -> Value:
    if old is None or new is None:
        raise Unfit("replace without its two texts")
    text, before, after = text_of(node, scope), text_of(old, scope), text_of(new, scope)
    if not before.constant:
        raise Unfit("replace of a text that is no constant")
    size = text.size * max(1, -(-after.size // len(before.constant)))
    if after.constant is None and size > MAX_GROWN:
        text, after, size = scope.stages.named(text), scope.stages.named(after), MAX_GROWN
        scope.guard(f"length({text.sql}) * greatest(length({after.sql}), 1) > {MAX_GROWN}", text, after)
    sql = f"replace({text.sql}, {before.sql}, {after.sql})"
    return scope.made(with_sql(text, sql, size=size, depth=max(text.depth, after.depth)))


def _truncate(node: nodes.Expr, arguments: Arguments, scope: Scope) -> Value:
    length = _option(arguments, "length", int, 255)
    end = _option(arguments, "end", str, "...")
    leeway = _option(arguments, "leeway", int, LEEWAY)
    killwords = _option(arguments, "killwords", bool, False)
    if length < len(end) or leeway < 0 or "\0" in end:
        raise Unfit("truncate with a length that Jinja2 refuses")
    text = scope.stages.named(only_text(node, scope))
    cut = f"substring({text.sql}, 1, {length - len(end)})"
    if not killwords:
        cut = f"CASE WHEN contains({cut}, ' ') THEN regexp_extract({cut}, '^(.*) ', 1, 's') ELSE {cut} END"
    sql = f"CASE WHEN length({text.sql}) <= {length + leeway} THEN {text.sql} ELSE concat({cut}, {literal(end)}) END"
    return with_sql(text, sql)


def _option(arguments: Arguments, name: str, kind: type, default: Any) -> Any:
    return constant_of(arguments[name], kind) if name in arguments else default


def _length(node: nodes.Expr, _: Any, scope: Scope) -> Value:
    found = place_of(node, scope)
    if isinstance(found, Listed):
        scope.guard(f"{found.sql} IS NULL", found)
        return Value(f"len({found.sql})", Kind.INT, depth=found.depth, bits=64)
    text = only_text(node, scope)
    return Value(f"length({text.sql})", Kind.INT, depth=text.depth, bits=64)


def _string(node: nodes.Expr, _: Any, scope: Scope) -> Value:
    return text_of(node, scope)


def _tojson(node: nodes.Expr, arguments: Arguments, scope: Scope) -> Value:
    if arguments:
        raise Unfit("tojson with an indent")
    value = scope.stages.named(value_of(node, scope))
    if value.kind is not Kind.TEXT:
        return Value(json_sql(value, ""), Kind.TEXT, depth=value.depth, size=value.size)
    written = scope.stages.named(Value(f"CAST(to_json({value.sql}) AS VARCHAR)", Kind.TEXT, depth=value.depth))
    size = 6 * value.size + 2
    return Value(json_sql(value, canonical_escapes(written.sql)), Kind.TEXT, depth=written.depth, size=size)


def _join(node: nodes.Expr, arguments: Arguments, scope: Scope) -> Value:
    separator = text_of(arguments["d"], scope) if "d" in arguments else None
    found = place_of(node, scope)
    if "attribute" in arguments or (not isinstance(node, (nodes.List, nodes.Tuple)) and not isinstance(found, Listed)):
        raise Unfit("join of other than a list")
    if isinstance(found, Listed):
        return _join_listed(found, separator or constant_value(""), scope)
    assert isinstance(node, (nodes.List, nodes.Tuple))
    parts: list[Value] = []
    for number, item in enumerate(node.items):
        if number and separator is not None:
            parts.append(separator)
        parts.append(text_of(item, scope))
    return replace(scope.concat(parts), constant=None)


def _join_listed(listed: Listed, separator: Value, scope: Scope) -> Value:
    item = column_value("x", listed.tree.children[0][1], scope.column_size)
    if item is None or separator.constant is None:
        raise Unfit("join by a text that is no constant")
    scope.guard(f"{listed.sql} IS NULL OR len({listed.sql}) <> list_count({listed.sql})", listed)
    sql = f"array_to_string(list_transform({listed.sql}, lambda x: {shown_sql(item)}), {separator.sql})"
    return Value(sql, Kind.TEXT, depth=listed.depth, size=scope.column_size * (1 + separator.size))


def _starts(name: str) -> Callable[[nodes.Expr, list[nodes.Expr], Scope], Value]:
    def starts(node: nodes.Expr, arguments: list[nodes.Expr], scope: Scope) -> Value:
        text, part = only_text(node, scope), only_text(arguments[0], scope)
        return Value(f"{name}({text.sql}, {part.sql})", Kind.BOOL, depth=max(text.depth, part.depth))

    return starts


# --- what may be missing


def _default(node: nodes.Expr, arguments: Arguments, scope: Scope) -> Value:
    otherwise = value_of(arguments["default_value"], scope) if "default_value" in arguments else constant_value("")
    if isinstance(node, nodes.Name):
        check_common(node)
        if node.name not in {*scope.columns, *scope.names}:
            return otherwise
    found = place_of(node, scope)
    if found is not None and not isinstance(found, Value):
        raise Unfit("default of a list or mapping")
    value = scope.stages.named(found or value_of(node, scope))
    if value.kind is Kind.SHOWN:
        raise Unfit("default of a value that may be of several kinds")
    given = replace(value, is_nullable=False)
    if _option(arguments, "boolean", bool, False):
        return scope.choose([(truth_sql(value), value.depth, given)], otherwise)
    if not value.is_nullable:
        return value
    return scope.choose([(f"{value.sql} IS NOT NULL", value.depth, given)], otherwise)


# --- numbers


def _int(node: nodes.Expr, arguments: Arguments, scope: Scope) -> Value:
    if "base" in arguments:
        raise Unfit("int with a base")
    value, default = scope.stages.named(value_of(node, scope)), _option(arguments, "default", int, 0)
    otherwise = constant_value(default)
    match value.kind:
        case Kind.INT:
            whole = value
        case Kind.BOOL:
            whole = Value(f"CAST({value.sql} AS TINYINT)", Kind.INT, bits=8)
        case Kind.FLOAT:
            scope.guard(f"NOT coalesce(abs({value.sql}) < 9e15, true)", value)
            whole = Value(f"TRY_CAST(trunc({value.sql}) AS BIGINT)", Kind.INT, bits=64)
        case Kind.TEXT:
            number = _number_in(value, "[+-]?[0-9]{1,18}", "[0-9]", scope)
            whole = Value(f"coalesce(TRY_CAST({number} AS BIGINT), {otherwise.sql})", Kind.INT, bits=64)
        case _:
            raise Unfit(f"int of a {value.kind}")
    whole = replace(whole, depth=value.depth)
    if not value.is_nullable:
        return replace(whole, constant=None) if whole is not value else value
    present = replace(whole, is_nullable=False)
    return scope.choose([(f"{value.sql} IS NOT NULL", value.depth, present)], otherwise)


def _number_in(value: Value, plain: str, traces: str, scope: Scope) -> str:
    """The text where it is a plain number, NULL where it is surely none; anything between is left to Jinja2."""
    is_plain = f"regexp_full_match({value.sql}, {literal(plain)})"
    is_none = f"(strlen({value.sql}) = length({value.sql}) AND NOT regexp_matches({value.sql}, {literal(traces)}))"
    scope.guard(f"NOT ({is_plain} OR {is_none})", value)
    return f"CASE WHEN {is_plain} THEN {value.sql} END"


def _float(node: nodes.Expr, arguments: Arguments, scope: Scope) -> Value:
    value, default = scope.stages.named(value_of(node, scope)), _option(arguments, "default", float, 0.0)
    match value.kind:
        case Kind.FLOAT:
            number = value.sql
        case Kind.INT if value.bits <= 54:
            number = f"CAST({value.sql} AS DOUBLE)"
        case Kind.INT | Kind.DECIMAL:
            number = f"CAST(CAST({value.sql} AS VARCHAR) AS DOUBLE)"  # by its digits, rounded once
        case Kind.TEXT:
            number = _number_in(value, r"[+-]?[0-9]{1,20}(\.[0-9]{1,20})?", "[0-9]|(?i)inf|nan", scope)
            number = f"TRY_CAST({number} AS DOUBLE)"
        case _:
            raise Unfit(f"float of a {value.kind}")
    sql = f"coalesce({number}, {constant_value(default).sql})"
    return Value(sql, Kind.FLOAT, depth=value.depth)


def _round(node: nodes.Expr, arguments: Arguments, scope: Scope) -> Value:
    precision = _option(arguments, "precision", int, 0)
    if "method" in arguments or not 0 <= precision <= 15:
        raise Unfit("round with a method, or to other than 0 to 15 digits")
    value = scope.stages.named(value_of(node, scope))
    scope.guard_null(value)
    if value.kind is Kind.INT:
        return replace(value, is_nullable=False)
    if value.kind is not Kind.FLOAT:
        raise Unfit(f"round of a {value.kind}")
    scope.guard(f"NOT coalesce(abs({value.sql}) < 1e15, true)", value)
    sql = f"CAST(printf('%.{precision}f', {value.sql}) AS DOUBLE)"
    return with_sql(value, sql, is_nullable=False)


def _abs(node: nodes.Expr, _: Any, scope: Scope) -> Value:
    value = scope.stages.named(value_of(node, scope))
    if value.kind not in {Kind.INT, Kind.FLOAT} or value.bits > MAX_BITS:
        raise Unfit(f"abs of a {value.kind}")
    scope.guard_null(value)
    sql = f"abs(CAST({value.sql} AS HUGEINT))" if value.kind is Kind.INT else f"abs({value.sql})"
    return with_sql(value, sql, is_nullable=False)


# --- the tables

_FILTERS: Final[dict[str, tuple[Callable[[nodes.Expr, Arguments, Scope], Value], tuple[str, ...]]]] = {
    "upper": (_cased("upper"), ()),
    "lower": (_cased("lower"), ()),
    "capitalize": (_capitalize, ()),
    "trim": (_trim, ("chars",)),
    "replace": (_replace, ("old", "new")),
    "truncate": (_truncate, ("length", "killwords", "end", "leeway")),
    "length": (_length, ()),
    "count": (_length, ()),
    "string": (_string, ()),
    "tojson": (_tojson, ("indent",)),
    "join": (_join, ("d", "attribute")),
    "default": (_default, ("default_value", "boolean")),
    "d": (_default, ("default_value", "boolean")),
    "int": (_int, ("default", "base")),
    "float": (_float, ("default",)),
    "round": (_round, ("precision", "method")),
    "abs": (_abs, ()),
}
_METHODS: Final[dict[tuple[str, int], Callable[[nodes.Expr, list[nodes.Expr], Scope], Value]]] = {
    ("upper", 0): _cased("upper"),
    ("lower", 0): _cased("lower"),
    ("capitalize", 0): _capitalize,
    ("strip", 0): _trim,
    ("startswith", 1): _starts("starts_with"),
    ("endswith", 1): _starts("suffix"),
    ("replace", 2): lambda node, given, scope: _replaced(node, given[0], given[1], scope),
}
