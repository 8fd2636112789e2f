"""The fast path: a request compiled to one SQL query that makes canonical bodies and digests inside the engine.

It makes the same bytes as Jinja2 for every row it keeps. Rows under a *guard* it leaves to Jinja2, and templates that
it cannot compile exactly too; `FastPath.reasons` say why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from batchops.request.budget import MAX_TEXT
from batchops.request.digest import digest_sql
from batchops.request.endpoints import Path
from batchops.request.source import KEY, SourceTable
from batchops.request.sqlscope import Place, Scope, Struct, place_at
from batchops.request.sqltext import COMPILERS, rendered_text
from batchops.request.sqltypes import MAX_COLUMN, Unfit, Value
from batchops.request.sqlvalues import canonical_escapes
from batchops.request.template import CompiledRequest
from batchops.request.text import Text
from batchops.request.tokens import BYTES_PER_TOKEN
from batchops.request.values import column_sql, literal, type_tree

_UNBOUNDED = frozenset({"varchar", "blob", "bit", "bignum", "variant", "geometry"})


@dataclass(frozen=True)
class FastPath:
    """SQL over the source of one job. `relation` has __key, the columns in their fetched form under `names`, `body`
    (NULL under the guard) and the texts; the expressions below are over it.
    """

    relation: str
    body: str
    digest: str
    input_tokens: str
    is_guarded: str
    names: Mapping[str, str]
    """Column → the name it has in `relation`, for the rows that Jinja2 renders."""


@dataclass(frozen=True)
class Unfitness:
    """Why a template is rendered by Jinja2: its path in the spec, the line, the reason."""

    path: Path
    line: int
    reason: str


def compile_sql(request: CompiledRequest, table: SourceTable) -> FastPath | tuple[Unfitness, ...]:
    """The fast path of a request over a source, or why there is none."""
    names = {name: f"__c{number}" for number, name in enumerate(n for n in table.columns if n in request.columns)}
    scope = Scope(request.job.spec.source.nulls, COMPILERS, _columns(names, table))
    _guard_sizes(scope, names, table)
    texts: list[Value] = []
    problems: list[Unfitness] = []
    for text in request.texts:
        try:
            texts.append(_named_text(text, scope))
        except Unfit as problem:
            problems.append(Unfitness(text.slot.path, problem.line or 1, problem.reason))
    return tuple(problems) if problems else _assembled(request, table, names, scope, texts)


def _columns(names: Mapping[str, str], table: SourceTable) -> dict[str, Place | None]:
    columns: dict[str, Place | None] = dict.fromkeys(table.columns)
    return columns | {name: place_at(alias, type_tree(table.columns[name])) for name, alias in names.items()}


def _guard_sizes(scope: Scope, names: Mapping[str, str], table: SourceTable) -> None:
    for name, alias in names.items():
        tree = type_tree(table.columns[name])
        if tree is None or tree.id in _UNBOUNDED:
            scope.guard(f"strlen(CAST({alias} AS VARCHAR)) > {MAX_COLUMN}", Struct(alias, tree))
        elif tree.id in {"struct", "list", "array"}:
            scope.guard(f"strlen(CAST(to_json({alias}) AS VARCHAR)) > {MAX_COLUMN}", Struct(alias, tree))


def _named_text(text: Text, scope: Scope) -> Value:
    scope.names.clear()
    value = rendered_text(text.tree, scope)
    if value.size > MAX_TEXT:
        raise Unfit("a text that may become too long")
    return scope.stages.named(value)


def _assembled(
    request: CompiledRequest, table: SourceTable, names: Mapping[str, str], scope: Scope, texts: list[Value]
) -> FastPath:
    stages, waiting, parts = scope.stages, iter(texts), []
    for chunk in request.chunks:
        if isinstance(chunk, bytes):
            parts.append(literal(chunk.decode()))
        else:
            text = next(waiting)
            written = stages.name(f"CAST(to_json({text.sql}) AS VARCHAR)", text.depth)
            parts.append(canonical_escapes(written))
    guards = " OR ".join(f"({condition})" for condition, _ in dict.fromkeys(scope.guards)) or "false"
    guarded = stages.name(f"coalesce({guards}, false)", stages.depth)
    body = stages.name(f"CASE WHEN {guarded} THEN NULL ELSE concat({', '.join(parts)}) END", stages.depth)
    fetched = "".join(f", {column_sql(name, table.columns[name])} AS {alias}" for name, alias in names.items())
    return FastPath(
        relation=stages.around(f"(SELECT {KEY}{fetched} FROM {table.name})"),
        body=body,
        digest=f"CASE WHEN {guarded} THEN NULL ELSE {digest_sql(request.url, request.model, body)} END",
        input_tokens=_tokens(request, texts),
        is_guarded=guarded,
        names=names,
    )


def _tokens(request: CompiledRequest, texts: list[Value]) -> str:
    fixed, varying = request.prompt_cost
    sizes = "".join(f" + strlen({texts[index].sql})" for index in varying)
    return f"(({fixed}{sizes} + {BYTES_PER_TOKEN - 1}) // {BYTES_PER_TOKEN})"


def filtered_by(relation: str, table: SourceTable, keys: str | None) -> str:
    """The source restricted to the keys of a relation, for use in place of the table."""
    if keys is None:
        return relation
    restricted = f"(SELECT s.* FROM {table.name} AS s SEMI JOIN {keys} AS wanted ON s.{KEY} = wanted.key)"
    return relation.replace(f" FROM {table.name})", f" FROM {restricted})", 1)
