"""Whole templates → one SQL expression of their text, or Unfit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from jinja2 import nodes

from batchops.request import sqlexpr, sqlfilters, sqltruth
from batchops.request.sqlscope import Compiler, Scope, text_of, value_of, words
from batchops.request.sqltruth import truth_of
from batchops.request.sqltypes import Unfit, Value, text_literal

COMPILERS: Final[dict[type[nodes.Node], Compiler]] = {
    **sqlexpr.COMPILERS,
    **sqltruth.COMPILERS,
    nodes.Filter: sqlfilters.filtered,
    nodes.Call: sqlfilters.called,
}
"""What each kind of expression is compiled by; any other is left to Jinja2."""


def rendered_text(tree: nodes.Template, scope: Scope) -> Value:
    """The text of a whole template."""
    return scope.concat(list(_pieces(tree.body, scope, is_top=True)))


def _pieces(body: list[nodes.Node], scope: Scope, *, is_top: bool) -> Iterator[Value]:
    for node in body:
        match node:
            case nodes.Output():
                for part in node.nodes:
                    yield text_literal(part.data) if isinstance(part, nodes.TemplateData) else text_of(part, scope)
            case nodes.If():
                yield _if(node, scope)
            case nodes.Assign() if is_top and isinstance(node.target, nodes.Name):
                _set(node.target.name, node.node, scope)
            case _:
                raise Unfit(f"{words(node)} is not compiled to SQL", node.lineno)


def _if(node: nodes.If, scope: Scope) -> Value:
    choices = []
    for branch in (node, *node.elif_):
        condition, depth = truth_of(branch.test, scope)
        choices.append((condition, depth, _block(branch.body, scope)))
    return scope.made(scope.choose(choices, _block(node.else_, scope)))


def _block(body: list[nodes.Node], scope: Scope) -> Value:
    return replace(scope.concat(list(_pieces(body, scope, is_top=False))), constant=None)


def _set(name: str, node: nodes.Node, scope: Scope) -> None:
    if name in scope.columns:
        raise Unfit(f'"{name}" is both a column and set', node.lineno)
    scope.names[name] = scope.stages.named(value_of(node, scope))
