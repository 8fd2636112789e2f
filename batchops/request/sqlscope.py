"""What a template expression may name, what compiling it finds out, and how one expression compiles another.

Whatever depends on the row and cannot be told exactly becomes a *guard*: a condition under which the row is rendered by
Jinja2 instead. Guards are taken whole, also those of a branch that is not reached, so that they may be too careful and
never too bold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from jinja2 import nodes

from batchops.request.budget import MAX_TEXT, MAX_WORK
from batchops.request.sqlstages import Stages
from batchops.request.sqltypes import MAX_BITS, Kind, Unfit, Value, column_value, shown_sql, text_literal
from batchops.request.values import literal


@dataclass(frozen=True, slots=True)
class Struct:
    """A STRUCT in the form in which it is fetched; its fields are values."""

    sql: str
    tree: Any
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Listed:
    """A LIST of plain values in the form in which it is fetched."""

    sql: str
    tree: Any
    depth: int = 0


Place: TypeAlias = Value | Struct | Listed


@dataclass
class Scope:
    """What an expression may name, and what compiling it has found out."""

    nulls: str
    compilers: Mapping[type[nodes.Node], Compiler]
    column_size: int
    columns: Mapping[str, Place | None]
    """None: a column of a type that SQL cannot show as a template does."""
    stages: Stages = field(default_factory=Stages)
    guards: list[tuple[str, int]] = field(default_factory=list)
    names: dict[str, Value] = field(default_factory=dict)
    """What `{% set %}` has named."""
    work: int = 0

    def guard(self, condition: str, *values: Place) -> None:
        """Rows for which the condition holds are rendered by Jinja2."""
        self.guards.append((condition, max(value.depth for value in values)))

    def guard_null(self, *values: Value) -> None:
        """Rows where one of the values is NULL are rendered by Jinja2."""
        for value in values:
            if value.is_nullable:
                self.guard(f"{value.sql} IS NULL", value)

    def made(self, value: Value) -> Value:
        """Count what a value may cost; Unfit where Jinja2 might refuse it."""
        self.work += value.size
        if value.size > MAX_TEXT or self.work > MAX_WORK:
            raise Unfit("a text that may become too long")
        return value

    def text(self, value: Value) -> Value:
        """The value's text, as `{{ value }}` prints it: never NULL where the row is rendered by SQL."""
        value = self.stages.named(value) if value.is_nullable else value
        sql = shown_sql(value)
        if value.is_nullable and self.nulls == "error":
            self.guard_null(value)
        elif value.is_nullable:
            sql = f"coalesce({sql}, {literal('' if self.nulls == 'empty' else 'None')})"
        constant = value.constant if value.kind is Kind.TEXT else None
        return Value(sql, Kind.TEXT, depth=value.depth, size=max(value.size, 4), constant=constant)

    def concat(self, parts: list[Value]) -> Value:
        """Texts one after another."""
        if not parts:
            return text_literal("")
        if len(parts) == 1:
            return parts[0]
        return self.made(
            Value(
                f"concat({', '.join(part.sql for part in parts)})",
                Kind.TEXT,
                depth=max(part.depth for part in parts),
                size=sum(part.size for part in parts),
            )
        )

    def choose(self, choices: list[tuple[str, int, Value]], otherwise: Value) -> Value:
        """CASE: the first value whose condition (with its depth) holds, else `otherwise`."""
        values = [value for _, _, value in choices] + [otherwise]
        kind, form = _common(values)
        whens = " ".join(f"WHEN {condition} THEN {form(value)}" for condition, _, value in choices)
        return Value(
            f"CASE {whens} ELSE {form(otherwise)} END",
            kind,
            is_nullable=any(value.is_nullable for value in values),
            depth=max(*(depth for _, depth, _ in choices), *(value.depth for value in values)),
            size=max(value.size for value in values),
            bits=max(value.bits for value in values),
            scale=otherwise.scale,
        )


def _common(values: list[Value]) -> tuple[Kind, Callable[[Value], str]]:
    kinds = {(value.kind, value.scale) for value in values}
    ((kind, _), *others) = kinds
    if others or (kind is Kind.INT and max(value.bits for value in values) > MAX_BITS):
        return Kind.SHOWN, shown_sql
    return kind, as_wide if kind is Kind.INT else lambda value: value.sql


def as_wide(value: Value) -> str:
    """A whole number as HUGEINT."""
    return f"CAST({value.sql} AS HUGEINT)"


Compiler: TypeAlias = Callable[[Any, Scope], Value]


# --- values


def value_of(node: nodes.Node, scope: Scope) -> Value:
    """The value of an expression; Unfit where SQL has no exact one."""
    compile_node = scope.compilers.get(type(node))
    if compile_node is None:
        raise Unfit(f"{words(node)} is not compiled to SQL", node.lineno)
    with at_line_of(node):
        return scope.made(compile_node(node, scope))


@contextmanager
def at_line_of(node: nodes.Node) -> Iterator[None]:
    """Whatever inside is Unfit is so in the line of the node, unless it says another."""
    try:
        yield
    except Unfit as problem:
        raise Unfit(problem.reason, problem.line or node.lineno) from None


def words(node: nodes.Node) -> str:
    return f'"{type(node).__name__.lower()}"'


def text_of(node: nodes.Expr, scope: Scope) -> Value:
    """The text of an expression."""
    return scope.text(value_of(node, scope))


def only_text(node: nodes.Expr, scope: Scope) -> Value:
    """The text of an expression that is a text (or NULL) to begin with."""
    value = value_of(node, scope)
    if value.kind is not Kind.TEXT:
        raise Unfit(f"a {value.kind} where text is expected")
    return scope.text(value)


def constant_of(node: nodes.Node, kind: type) -> Any:
    """A literal of the template of that Python type."""
    if isinstance(node, nodes.Const) and type(node.value) is kind:
        return node.value
    raise Unfit(f"an argument that is no constant {kind.__name__}")


# --- columns and their fields


_JINJA_NAMES: Final = frozenset(
    ["range", "dict", "namespace", "joiner", "cycler", "self", "loop", "caller", "varargs", "kwargs"]
)


def check_common(node: nodes.Name) -> None:
    """Refuse a name that means something to Jinja2 itself."""
    if node.name in _JINJA_NAMES:
        raise Unfit(f'"{node.name}" is a name of Jinja2')


def place_of(node: nodes.Expr, scope: Scope) -> Place | None:
    """A column, or a field of a STRUCT column; None where there is none or its type is not shown by SQL."""
    if isinstance(node, nodes.Name):
        return scope.names.get(node.name) or scope.columns.get(node.name)
    parent = place_of(node.node, scope) if isinstance(node, (nodes.Getattr, nodes.Getitem)) else None
    if not isinstance(parent, Struct):
        return None
    return _field(parent, _field_name(node), scope)


def _field_name(node: nodes.Expr) -> str:
    if isinstance(node, nodes.Getattr):
        if node.attr in {"get", "items", "keys", "values"}:
            raise Unfit(f'"{node.attr}" is a method of mappings')
        return node.attr
    assert isinstance(node, nodes.Getitem)
    return str(constant_of(node.arg, str))


def place_at(sql: str, tree: Any, size: int, depth: int = 0) -> Place | None:
    """What an SQL expression of a fetched type is for a template; None where SQL does not show it."""
    kind = tree.id if tree is not None else ""
    if kind == "struct" and all(name for name, _ in tree.children):
        return Struct(sql, tree, depth)
    if kind in {"list", "array"}:
        item = column_value("x", tree.children[0][1], size)
        return Listed(sql, tree, depth) if item is not None else None
    found = column_value(sql, tree, size)
    return found and replace(found, depth=depth)


def _field(parent: Struct, name: str, scope: Scope) -> Place | None:
    tree = dict(parent.tree.children).get(name)
    if tree is None:
        raise Unfit(f'there is no field "{name}"')
    scope.guard(f"{parent.sql} IS NULL", parent)
    sql = f"struct_extract({parent.sql}, {literal(name)})"
    found = place_at(sql, tree, scope.column_size, parent.depth)
    return scope.stages.named(found) if isinstance(found, Value) else found
