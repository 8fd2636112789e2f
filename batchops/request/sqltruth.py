"""Conditions of templates → SQL conditions that are never NULL, or Unfit: truth, comparisons, tests, choices."""

from __future__ import annotations

from dataclasses import replace
from decimal import ROUND_FLOOR, Decimal
from typing import Final

from jinja2 import nodes

from batchops.request.sqlexpr import as_float
from batchops.request.sqlscope import (
    Compiler,
    Listed,
    Scope,
    as_wide,
    at_line_of,
    check_common,
    constant_of,
    only_text,
    place_of,
    value_of,
)
from batchops.request.sqltypes import MAX_BITS, Kind, Unfit, Value, text_literal, truth_sql

NUMBERS: Final = frozenset({Kind.INT, Kind.FLOAT, Kind.DECIMAL})


def truth_of(node: nodes.Node, scope: Scope) -> tuple[str, int]:
    """Whether an expression counts as true, as a condition that is never NULL, and its depth."""
    with at_line_of(node):
        return _truth(node, scope)


def _truth(node: nodes.Node, scope: Scope) -> tuple[str, int]:
    match node:
        case nodes.And() | nodes.Or():
            (left, one), (right, other) = truth_of(node.left, scope), truth_of(node.right, scope)
            return f"({left} {'AND' if isinstance(node, nodes.And) else 'OR'} {right})", max(one, other)
        case nodes.Not():
            condition, depth = truth_of(node.node, scope)
            return f"(NOT {condition})", depth
        case nodes.Compare():
            return _comparison(node, scope)
        case nodes.Test():
            return _test(node, scope)
        case _:
            found = place_of(node, scope) if isinstance(node, (nodes.Name, nodes.Getattr, nodes.Getitem)) else None
            if isinstance(found, Listed):
                return f"coalesce(len({found.sql}) > 0, false)", found.depth
            value = value_of(node, scope)
            return truth_sql(value), value.depth


def _comparison(node: nodes.Compare, scope: Scope) -> tuple[str, int]:
    found: list[tuple[str, int]] = []
    left = node.expr
    for operand in node.ops:
        found.append(_one_comparison(left, operand.op, operand.expr, scope))
        left = operand.expr
    return f"({' AND '.join(sql for sql, _ in found)})", max(depth for _, depth in found)


def _one_comparison(left: nodes.Expr, operator: str, right: nodes.Expr, scope: Scope) -> tuple[str, int]:
    if operator in {"in", "notin"}:
        sql, depth = _contained(left, right, scope)
        return (f"(NOT {sql})" if operator == "notin" else sql), depth
    for one, other in ((left, right), (right, left)):
        if operator in {"eq", "ne"} and isinstance(other, nodes.Const) and other.value is None:
            sql, depth = _is_null(one, scope)
            return (f"(NOT {sql})" if operator == "ne" else sql), depth
    values = scope.stages.named(value_of(left, scope)), scope.stages.named(value_of(right, scope))
    return compared(values[0], operator, values[1], scope), max(value.depth for value in values)


_COMPARED_BITS: Final = 128
"""Whole numbers up to HUGEINT are compared as such."""
_OPERATORS: Final = {"eq": "=", "ne": "<>", "lt": "<", "lteq": "<=", "gt": ">", "gteq": ">="}
_MIRRORED: Final = {"lt": "gt", "lteq": "gteq", "gt": "lt", "gteq": "lteq", "eq": "eq", "ne": "ne"}


def compared(left: Value, operator: str, right: Value, scope: Scope) -> str:
    """A comparison of two values, each under a name, as a condition that is never NULL."""
    if left.constant is not None and right.constant is None:
        left, operator, right = right, _MIRRORED[operator], left
    kinds = {left.kind, right.kind}
    if Kind.SHOWN in kinds:
        raise Unfit("a comparison with a value that may be of several kinds")
    if kinds == {Kind.TEXT} and (scope.nulls != "error" or operator not in {"eq", "ne"}):
        return f"({scope.text(left).sql} {_OPERATORS[operator]} {scope.text(right).sql})"
    if operator not in {"eq", "ne"}:
        scope.guard_null(left, right)
    one, operator, other = _alike(left, operator, right, scope)
    if operator in {"eq", "ne"}:
        same = _same(one, other, left.is_nullable, right.is_nullable)
        return f"(NOT {same})" if operator == "ne" else same
    return f"coalesce({one} {_OPERATORS[operator]} {other}, false)"


def _same(one: str, other: str, *nullable: bool) -> str:
    if all(nullable):
        return f"({one} IS NOT DISTINCT FROM {other})"
    return f"coalesce({one} = {other}, false)" if any(nullable) else f"({one} = {other})"


def _alike(left: Value, operator: str, right: Value, scope: Scope) -> tuple[str, str, str]:
    """Both sides as SQL of one type that compares them exactly."""
    for value in (left, right):
        if value.kind is Kind.FLOAT and value.constant is None:
            scope.guard(f"isnan({value.sql})", value)
    if left.kind is right.kind and left.kind in {Kind.TEXT, Kind.BOOL, Kind.FLOAT}:
        if left.kind is Kind.BOOL and operator not in {"eq", "ne"}:
            raise Unfit("an order of true and false")
        return left.sql, operator, right.sql
    if left.kind is right.kind is Kind.INT and max(left.bits, right.bits) <= _COMPARED_BITS:
        return left.sql, operator, right.sql
    if left.kind in {Kind.INT, Kind.DECIMAL} and right.constant is not None and right.kind in NUMBERS:
        return _beside_constant(left, operator, Decimal(right.constant))
    if {left.kind, right.kind} == {Kind.INT, Kind.FLOAT}:
        return as_float(left, scope), operator, as_float(right, scope)
    raise Unfit(f"a comparison of {left.kind} and {right.kind}")


def _beside_constant(left: Value, operator: str, constant: Decimal) -> tuple[str, str, str]:
    """A whole number or decimal against a number: against the next one below that its type can hold."""
    if left.bits > _COMPARED_BITS or abs(constant) >= Decimal(10) ** (36 - left.scale):
        raise Unfit("a comparison with a number that is too large")
    below = constant.quantize(Decimal(1).scaleb(-left.scale), rounding=ROUND_FLOOR)
    kind = f"DECIMAL(38, {left.scale})"
    sides = (
        (f"CAST({left.sql} AS {kind})", f"CAST('{below:f}' AS {kind})") if left.scale else (left.sql, f"({below:f})")
    )
    if left.kind is Kind.DECIMAL and not left.scale:
        sides = (f"CAST({left.sql} AS {kind})", f"CAST('{below:f}' AS {kind})")
    if below == constant:
        return sides[0], operator, sides[1]
    if operator in {"eq", "ne"}:
        return "false", operator, "true"  # a value that the column cannot hold is none of its values
    return sides[0], {"lt": "lteq", "gteq": "gt"}.get(operator, operator), sides[1]


def _contained(left: nodes.Expr, right: nodes.Expr, scope: Scope) -> tuple[str, int]:
    if isinstance(right, (nodes.List, nodes.Tuple)):
        found = [_one_comparison(left, "eq", item, scope) for item in right.items]
        if not found:
            raise Unfit("an empty list")
        return f"({' OR '.join(sql for sql, _ in found)})", max(depth for _, depth in found)
    part, whole = only_text(left, scope), only_text(right, scope)
    return f"contains({whole.sql}, {part.sql})", max(part.depth, whole.depth)


def _is_null(node: nodes.Expr, scope: Scope) -> tuple[str, int]:
    found = place_of(node, scope)
    value = found if found is not None else value_of(node, scope)
    if not isinstance(value, Value):
        return f"({value.sql} IS NULL)", value.depth
    if value.kind is Kind.SHOWN:
        raise Unfit("a test of a value that may be of several kinds")
    return (f"({value.sql} IS NULL)", value.depth) if value.is_nullable else ("false", 0)


def _is_defined(node: nodes.Test, scope: Scope) -> tuple[str, int]:
    if not isinstance(node.node, nodes.Name):
        raise Unfit('"is defined" of more than a name')
    check_common(node.node)
    return ("true" if node.node.name in {*scope.columns, *scope.names} else "false"), 0


_KINDS: Final = {
    "string": {Kind.TEXT},
    "number": {Kind.INT, Kind.FLOAT, Kind.DECIMAL, Kind.BOOL},
    "integer": {Kind.INT},
    "float": {Kind.FLOAT},
    "boolean": {Kind.BOOL},
}
_COMPARING: Final = {"eq": "eq", "equalto": "eq", "==": "eq", "ne": "ne", "!=": "ne", "lt": "lt", "lessthan": "lt",
                     "<": "lt", "le": "lteq", "<=": "lteq", "gt": "gt", "greaterthan": "gt", ">": "gt", "ge": "gteq",
                     ">=": "gteq", "in": "in"}  # fmt: skip


def _test(node: nodes.Test, scope: Scope) -> tuple[str, int]:
    if node.kwargs or node.dyn_args or node.dyn_kwargs:
        raise Unfit("a test with named arguments")
    if node.name in _COMPARING and len(node.args) == 1:
        return _one_comparison(node.node, _COMPARING[node.name], node.args[0], scope)
    if node.name in {"defined", "undefined"}:
        found, depth = _is_defined(node, scope)
        return (f"(NOT {found})" if node.name == "undefined" else found), depth
    if node.name == "none":
        return _is_null(node.node, scope)
    value = scope.stages.named(value_of(node.node, scope))
    if node.name in _KINDS and value.kind is not Kind.SHOWN:
        return _is_of_kind(value, node.name, scope), value.depth
    if node.name in {"true", "false"} and value.kind is Kind.BOOL:
        return f"coalesce({value.sql} = {node.name}, false)", value.depth
    if node.name in {"even", "odd", "divisibleby"} and value.kind is Kind.INT:
        by = constant_of(node.args[0], int) if node.args else 2
        scope.guard_null(value)
        if by == 0 or value.bits > MAX_BITS:
            raise Unfit("a division that may fail")
        return f"({as_wide(value)} % {abs(by)} {'<>' if node.name == 'odd' else '='} 0)", value.depth
    raise Unfit(f'the test "{node.name}"')


def _is_of_kind(value: Value, name: str, scope: Scope) -> str:
    """Under `nulls: empty` and `text` a NULL is a text."""
    of_null = name == "string" and scope.nulls != "error"
    fits = value.kind in _KINDS[name]
    if not value.is_nullable or fits == of_null:
        return "true" if fits else "false"
    return f"({value.sql} IS NOT NULL)" if fits else f"({value.sql} IS NULL)"


# --- choices


def _cond_expr(node: nodes.CondExpr, scope: Scope) -> Value:
    condition, depth = truth_of(node.test, scope)
    # What is missing after else prints nothing, and is nothing that could be tested.
    otherwise = value_of(node.expr2, scope) if node.expr2 else replace(text_literal(""), kind=Kind.SHOWN, constant=None)
    return scope.choose([(condition, depth, value_of(node.expr1, scope))], otherwise)


def _and_or(node: nodes.And | nodes.Or, scope: Scope) -> Value:
    left, right = scope.stages.named(value_of(node.left, scope)), value_of(node.right, scope)
    truth = truth_sql(left)
    condition = f"NOT {truth}" if isinstance(node, nodes.And) else truth
    return scope.choose([(condition, left.depth, left)], right)


def _as_bool(node: nodes.Expr, scope: Scope) -> Value:
    condition, depth = truth_of(node, scope)
    return Value(condition, Kind.BOOL, depth=depth)


COMPILERS: Final[dict[type[nodes.Node], Compiler]] = {
    nodes.CondExpr: _cond_expr,
    nodes.And: _and_or,
    nodes.Or: _and_or,
    nodes.Not: _as_bool,
    nodes.Compare: _as_bool,
    nodes.Test: _as_bool,
}
