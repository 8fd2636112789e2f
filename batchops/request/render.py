"""Source relation → desired relation: fingerprints, digests and bodies of a job's rows, in bounded memory."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import duckdb

from batchops.request.digest import hasher
from batchops.request.failures import Failures
from batchops.request.source import KEY, SourceTable
from batchops.request.template import CompiledRequest
from batchops.request.text import RowFailed
from batchops.request.values import column_sql, literal, quoted, type_tree

FINGERPRINT_VERSION: Final = 1
SIMULATED: Final = 0x80
"""Set in the version byte of a fingerprint whose answer is, or will be, simulated."""
_INSERT_ROWS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Rendered:
    """A row as it will be sent: its key's text, its digest, and the canonical body."""

    key: str
    digest: uuid.UUID
    body: bytes


def fingerprint(
    con: duckdb.DuckDBPyConnection, table: SourceTable, request: CompiledRequest, *, is_simulated: bool = False
) -> None:
    """Create `desired_{job_no}(key VARCHAR, fingerprint UHUGEINT)` in one pass over the used columns.

    Equal fingerprints mean equal render ids and equal used columns, types included, and answers that are all simulated
    or all real. The top byte is the version, and SIMULATED.
    """
    used = [(name, kind) for name, kind in table.columns.items() if name in request.columns]
    constant = "".join(f"{len(part)}:{part}" for part in _constants(request, used))
    pieces = "".join(f", {_framed(name, kind)}" for name, kind in used)
    hashed = f"md5_number(concat({literal(constant)}{pieces}))"
    version = (FINGERPRINT_VERSION | (SIMULATED if is_simulated else 0)) << 120
    with utc_cursor(con) as cursor:
        cursor.execute(
            f"CREATE OR REPLACE TABLE desired_{table.job_no} AS SELECT {KEY} AS key, "
            f"CAST(({hashed} >> 8) + {version}::UHUGEINT AS UHUGEINT) AS fingerprint FROM {table.name}"
        )


def utc_cursor(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Another connection to the same database, where the text of a TIMESTAMPTZ is its text in UTC."""
    cursor = con.cursor()
    if cursor.execute("SELECT current_setting('TimeZone')").fetchone() != ("UTC",):
        cursor.execute("SET TimeZone = 'UTC'")
    return cursor


def _constants(request: CompiledRequest, used: list[tuple[str, str]]) -> Iterator[str]:
    yield str(request.render_id)
    for name, kind in used:
        yield name
        yield kind
        if _is_nested(kind):
            yield duckdb.__version__  # hash() promises nothing from one version to the next


def _framed(name: str, kind: str) -> str:
    """A column's value so that no two rows read alike: NULL apart, and the length before the text."""
    column = quoted(name)
    text = f"CAST({column} AS VARCHAR)"
    if _is_nested(kind):
        text = f"concat(hash({column}), ' ', {text})"  # the text of a nested value alone is ambiguous
    return f"CASE WHEN {column} IS NULL THEN '-' ELSE concat(strlen({text}), ':', {text}) END"


def _is_nested(kind: str) -> bool:
    tree = type_tree(kind)
    return tree is None or tree.id in {"list", "array", "struct", "map", "union", "variant", "tuple"}


def render_rows(
    con: duckdb.DuckDBPyConnection,
    table: SourceTable,
    request: CompiledRequest,
    *,
    keys: str | None = None,
    batch_rows: int = 2000,
) -> Iterator[list[Rendered]]:
    """Bodies of all rows, or of those whose key is in the relation `keys(key)`, in no order, batch by batch.

    Rows that fail are left out; BatchopsError for them all comes after the last batch.
    """
    digest_of = hasher(request.url, request.model)
    failures = Failures(request.job)
    for rows in _fetched(con, table, request, keys, batch_rows):
        batch = []
        for key, row in rows:
            try:
                body = request.canonical(row)
            except RowFailed as problem:
                failures.add(key, problem)
            else:
                batch.append(Rendered(key, uuid.UUID(digest_of(body)), body))
        if batch:
            yield batch
    failures.raise_any()


def digest_rows(
    con: duckdb.DuckDBPyConnection,
    table: SourceTable,
    request: CompiledRequest,
    *,
    keys: str | None,
    into: str,
) -> None:
    """Create `into(key VARCHAR, digest UUID, body_bytes UINTEGER, input_tokens UINTEGER, inputs UINTEGER)`.

    For all rows, or those whose key is in the relation `keys(key)`. `input_tokens` is an estimate, see `tokens`;
    `inputs` counts embedding inputs, else 1. BatchopsError with the failed rows, grouped, where there are any.
    """
    con.execute(
        f"CREATE OR REPLACE TABLE {into}"
        "(key VARCHAR, digest UUID, body_bytes UINTEGER, input_tokens UINTEGER, inputs UINTEGER)"
    )
    failures = Failures(request.job)
    for rows in _fetched(con, table, request, keys, _INSERT_ROWS):
        _insert(con, into, list(_digested(rows, request, failures)), request.inputs)
    failures.raise_any()


def _digested(
    rows: list[tuple[str, dict[str, Any]]], request: CompiledRequest, failures: Failures
) -> Iterator[tuple[str, str, int, int]]:
    digest_of = hasher(request.url, request.model)
    for key, row in rows:
        try:
            texts = request.rendered(row)
            body = request.assembled(texts)
        except RowFailed as problem:
            failures.add(key, problem)
        else:
            yield key, digest_of(body), len(body), request.input_tokens(texts)


def _insert(con: duckdb.DuckDBPyConnection, into: str, rows: list[tuple[str, str, int, int]], inputs: int) -> None:
    if rows:
        keys, digests, sizes, tokens = map(list, zip(*rows, strict=True))
        con.execute(
            f"INSERT INTO {into} SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[])::UUID, unnest(?::UINTEGER[]), "
            f"unnest(?::UINTEGER[]), {inputs}",
            [keys, digests, sizes, tokens],
        )


def _fetched(
    con: duckdb.DuckDBPyConnection, table: SourceTable, request: CompiledRequest, keys: str | None, batch_rows: int
) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Keys and used columns, as templates want them. On a cursor of its own: an open result owns its connection."""
    used = [name for name in table.columns if name in request.columns]
    fetched = ", ".join([KEY, *(f"{column_sql(name, table.columns[name])} AS {quoted(name)}" for name in used)])
    wanted = "" if keys is None else f" SEMI JOIN {keys} AS wanted ON {table.name}.{KEY} = wanted.key"
    with utc_cursor(con) as cursor:
        cursor.execute(f"SELECT {fetched} FROM {table.name}{wanted}")
        while rows := cursor.fetchmany(batch_rows):
            yield [(key, dict(zip(used, values, strict=True))) for key, *values in rows]
