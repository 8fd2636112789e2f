"""The fast path: a request compiled to one SQL query that makes canonical bodies and digests inside the engine.

It makes the same bytes as Jinja2 for every row it keeps. Rows under a *guard* it leaves to Jinja2, and templates that
it cannot compile exactly too; `FastPath.reasons` say why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from batchops.request.digest import digest_sql
from batchops.request.endpoints import Path
from batchops.request.source import FINGERPRINT, KEY, ROW, SourceTable
from batchops.request.sqlscope import Place, Scope, Struct, place_at
from batchops.request.sqlstages import Stages
from batchops.request.sqltext import COMPILERS, rendered_text
from batchops.request.sqltypes import COLUMN_SIZES, Unfit, Value
from batchops.request.sqlvalues import canonical_escapes
from batchops.request.template import CompiledRequest
from batchops.request.tokens import BYTES_PER_TOKEN
from batchops.request.values import column_sql, literal, type_tree

_UNBOUNDED: Final = frozenset({"varchar", "blob", "bit", "bignum", "variant", "geometry"})


@dataclass(frozen=True)
class FastPath:
    """One query over the source of a job. The expressions stand over `relation`, or over `over`."""

    stages: Stages
    fetched: str
    """What the stages begin with: the columns in their fetched form."""
    source: SourceTable
    body: str
    """The canonical text; NULL under the guard."""
    digest: str
    """The digest as UUID; NULL under the guard."""
    input_tokens: str
    is_guarded: str
    """Whether Jinja2 is to render the row; never NULL."""
    names: Mapping[str, str]
    """Column → the name that its fetched form has in the relation."""

    def relation(self, keys: str | None = None, *, fingerprint: str = "NULL") -> str:
        """The subquery with all of it, for all rows or those whose key is in `keys(key)`.

        `__key`, `__row` and `__fingerprint` are in it, the last by an expression over the columns of the source.
        """
        rows = f"{self.source.name} AS s" if keys is None else self.source.chosen(keys)
        carried = f"{self.source.position} AS {ROW}, {fingerprint} AS {FINGERPRINT}"
        return self.over(f"(SELECT s.*, {carried} FROM {rows})", ROW, FINGERPRINT)

    def over(self, rows: str, *carried: str) -> str:
        """The subquery for a relation of rows of the source, with those of its other columns that are `carried`."""
        return self.stages.around(f"(SELECT {', '.join((KEY, *carried))}{self.fetched} FROM {rows})")


@dataclass(frozen=True)
class Unfitness:
    """Why a template is rendered by Jinja2: its path in the spec, the line, the reason."""

    path: Path
    line: int
    reason: str


def compile_sql(request: CompiledRequest, table: SourceTable) -> FastPath | tuple[Unfitness, ...]:
    """The fast path of a request over a source, or why there is none."""
    names = {name: f"__c{number}" for number, name in enumerate(n for n in table.columns if n in request.columns)}
    problems: tuple[Unfitness, ...] = ()
    for size in COLUMN_SIZES:
        nulls = request.job.spec.source.nulls
        scope = Scope(nulls, COMPILERS, size, _columns(names, table, size))
        _guard_sizes(scope, names, table)
        texts, problems = _compiled_texts(request, scope)
        if not problems:
            return _assembled(request, table, names, scope, texts)
    return problems


def _compiled_texts(request: CompiledRequest, scope: Scope) -> tuple[list[Value], tuple[Unfitness, ...]]:
    texts: list[Value] = []
    problems: list[Unfitness] = []
    for text in request.texts:
        try:
            scope.names.clear()
            texts.append(scope.stages.named(rendered_text(text.tree, scope)))
        except Unfit as problem:
            problems.append(Unfitness(text.slot.path, problem.line or 1, problem.reason))
    return texts, tuple(problems)


def _columns(names: Mapping[str, str], table: SourceTable, size: int) -> dict[str, Place | None]:
    columns: dict[str, Place | None] = dict.fromkeys(table.columns)
    return columns | {name: place_at(alias, type_tree(table.columns[name]), size) for name, alias in names.items()}


def _guard_sizes(scope: Scope, names: Mapping[str, str], table: SourceTable) -> None:
    for name, alias in names.items():
        tree = type_tree(table.columns[name])
        if tree is None or tree.id in _UNBOUNDED:
            scope.guard(f"strlen(CAST({alias} AS VARCHAR)) > {scope.column_size}", Struct(alias, tree))
        elif tree.id in {"struct", "list", "array"}:
            scope.guard(f"strlen(CAST(to_json({alias}) AS VARCHAR)) > {scope.column_size}", Struct(alias, tree))


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
        stages=stages,
        fetched=fetched,
        source=table,
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
