"""Names, texts and arithmetic of templates → SQL of the same value, or Unfit."""

from __future__ import annotations

from typing import Final

from jinja2 import nodes

from batchops.request.sqlscope import (
    Compiler,
    Scope,
    as_wide,
    constant_of,
    only_text,
    place_of,
    text_of,
    value_of,
)
from batchops.request.sqltypes import EXACT_BITS, MAX_BITS, Kind, Unfit, Value, constant_value, with_sql


def _const(node: nodes.Const, scope: Scope) -> Value:
    return constant_value(node.value)


def _name(node: nodes.Name, scope: Scope) -> Value:
    if node.name in scope.names:
        return scope.names[node.name]
    found = place_of(node, scope)
    if isinstance(found, Value):
        return found
    raise Unfit(
        f'"{node.name}" is no column' if node.name not in scope.columns else f'"{node.name}" is a list or mapping'
    )


def _getattr(node: nodes.Getattr, scope: Scope) -> Value:
    found = place_of(node, scope)
    if not isinstance(found, Value):
        raise Unfit("an attribute that is no plain field of a STRUCT")
    return found


def _getitem(node: nodes.Getitem, scope: Scope) -> Value:
    if isinstance(node.arg, nodes.Slice):
        return _slice(node, node.arg, scope)
    found = place_of(node, scope)
    if not isinstance(found, Value):
        raise Unfit("an element that is no plain field of a STRUCT")
    return found


def _slice(node: nodes.Getitem, part: nodes.Slice, scope: Scope) -> Value:
    start = 0 if part.start is None else constant_of(part.start, int)
    stop = None if part.stop is None else constant_of(part.stop, int)
    if start < 0 or (stop is not None and stop < 0) or part.step is not None:
        raise Unfit("a slice that counts from the end, or in steps")
    text = only_text(node.node, scope)
    length = "" if stop is None else f", {max(stop - start, 0)}"
    return with_sql(text, f"substring({text.sql}, {start + 1}{length})")


def _concat(node: nodes.Concat, scope: Scope) -> Value:
    return scope.concat([text_of(part, scope) for part in node.nodes])


# --- arithmetic


def _arithmetic(node: nodes.BinExpr, scope: Scope) -> Value:
    left, right = value_of(node.left, scope), value_of(node.right, scope)
    if type(node) is nodes.Add and left.kind is right.kind is Kind.TEXT:
        return scope.concat([scope.text(left), scope.text(right)])
    left, right = scope.stages.named(left), scope.stages.named(right)
    scope.guard_null(left, right)
    kinds = {left.kind, right.kind}
    if type(node) in {nodes.FloorDiv, nodes.Mod}:
        return _floored(node, left, right)
    if kinds == {Kind.INT} and type(node) is not nodes.Div:
        return _whole(node, left, right)
    if kinds <= {Kind.INT, Kind.FLOAT}:
        return _floating(node, left, right, scope)
    raise Unfit(f'"{node.operator}" of {left.kind} and {right.kind}')


def _whole(node: nodes.BinExpr, left: Value, right: Value) -> Value:
    bits = left.bits + right.bits if type(node) is nodes.Mul else max(left.bits, right.bits) + 1
    if bits > MAX_BITS:
        raise Unfit("whole numbers that may become too large")
    sql = f"({as_wide(left)} {node.operator} {as_wide(right)})"
    return Value(sql, Kind.INT, depth=max(left.depth, right.depth), bits=bits)


def _floored(node: nodes.BinExpr, left: Value, right: Value) -> Value:
    """`//` and `%` as Python rounds them, towards minus infinity, by a positive constant."""
    by = right.constant
    if left.kind is not Kind.INT or right.kind is not Kind.INT or not by or by < 0 or left.bits > MAX_BITS:
        raise Unfit(f'"{node.operator}" of other than whole numbers by a positive constant')
    rest = f"((({as_wide(left)} % {by}) + {by}) % {by})"
    sql = rest if type(node) is nodes.Mod else f"(({as_wide(left)} - {rest}) // {by})"
    return Value(sql, Kind.INT, depth=left.depth, bits=left.bits + 1)


def _floating(node: nodes.BinExpr, left: Value, right: Value, scope: Scope) -> Value:
    if type(node) is nodes.Div:
        scope.guard(f"{right.sql} = 0", right)
    sides = [as_float(side, scope) for side in (left, right)]
    return Value(f"({sides[0]} {node.operator} {sides[1]})", Kind.FLOAT, depth=max(left.depth, right.depth))


def as_float(value: Value, scope: Scope) -> str:
    """A number as DOUBLE. Whole numbers beyond 2**53 round in their own way and go to Jinja2."""
    if value.kind is Kind.FLOAT:
        return value.sql
    if value.bits > EXACT_BITS:
        scope.guard(f"abs({value.sql}::DOUBLE) > 9e15", value)
    return f"CAST({value.sql} AS DOUBLE)"


def _sign(node: nodes.Neg | nodes.Pos, scope: Scope) -> Value:
    value = value_of(node.node, scope)
    if value.constant is not None and value.kind in {Kind.INT, Kind.FLOAT}:
        return constant_value(-value.constant if isinstance(node, nodes.Neg) else value.constant)
    if value.kind not in {Kind.INT, Kind.FLOAT} or value.bits >= MAX_BITS:
        raise Unfit(f"the sign of a {value.kind}")
    scope.guard_null(value)
    sql = value.sql if isinstance(node, nodes.Pos) else f"(-{as_wide(value) if value.kind is Kind.INT else value.sql})"
    return with_sql(value, sql, is_nullable=False, bits=value.bits + 1)


COMPILERS: Final[dict[type[nodes.Node], Compiler]] = {
    nodes.Const: _const,
    nodes.Name: _name,
    nodes.Getattr: _getattr,
    nodes.Getitem: _getitem,
    nodes.Concat: _concat,
    nodes.Add: _arithmetic,
    nodes.Sub: _arithmetic,
    nodes.Mul: _arithmetic,
    nodes.Div: _arithmetic,
    nodes.FloorDiv: _arithmetic,
    nodes.Mod: _arithmetic,
    nodes.Neg: _sign,
    nodes.Pos: _sign,
}
