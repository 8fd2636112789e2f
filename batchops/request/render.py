"""Source relation → desired relation: fingerprints, digests and bodies of a job's rows, in bounded memory."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, TypeAlias

import duckdb

from batchops.request.digest import hasher
from batchops.request.failures import Failures
from batchops.request.general import Digests
from batchops.request.source import FINGERPRINT, KEY, ROW, SourceTable
from batchops.request.sql import FastPath, Unfitness, compile_sql
from batchops.request.template import CompiledRequest
from batchops.request.text import RowFailed
from batchops.request.values import column_sql, quoted, type_tree
from batchops.request.workers import rendering

FINGERPRINT_VERSION: Final = 2
SIMULATED: Final = 0x80
"""Set in the version byte of a fingerprint whose answer is, or will be, simulated."""
DIGEST_COLUMNS: Final = (
    "key VARCHAR, row BIGINT, digest UUID, body_bytes UINTEGER, input_tokens UINTEGER, inputs UINTEGER,"
    " body_hash UBIGINT, fingerprint UHUGEINT"
)
_INSERT_ROWS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Rendered:
    """A row as it will be sent: its key's text, its digest, and the canonical body."""

    key: str
    digest: uuid.UUID
    body: bytes


def fingerprint(
    con: duckdb.DuckDBPyConnection,
    table: SourceTable,
    request: CompiledRequest,
    *,
    into: str,
    is_simulated: bool = False,
) -> None:
    """Create `into(key VARCHAR, fingerprint UHUGEINT)` in one pass over the used columns.

    Equal fingerprints mean equal render ids and equal used columns, types included, and answers that are all simulated
    or all real. The top byte is the version, and SIMULATED.
    """
    hashed = fingerprint_sql(table, request, is_simulated=is_simulated)
    with utc_cursor(con) as cursor:
        cursor.execute(
            f"CREATE OR REPLACE TABLE {into} AS SELECT {KEY} AS key, {hashed} AS fingerprint FROM {table.name}"
        )


def fingerprint_sql(table: SourceTable, request: CompiledRequest, *, is_simulated: bool) -> str:
    """The fingerprint of a row as an expression over the columns of the source, for a connection in UTC.

    Below the version stand 56 bits of the request, columns and types, and then DuckDB's hash of the values, which takes
    a tenth of the time of an MD5. It may be another in another version of DuckDB: then rows are digested once more.
    """
    used = [(name, kind) for name, kind in table.columns.items() if name in request.columns]
    constant = "".join(f"{len(part)}:{part}" for part in (str(request.render_id), *chain.from_iterable(used)))
    of_all = int.from_bytes(hashlib.sha256(constant.encode()).digest()[:7]) << 64
    head = blank_fingerprint(is_simulated=is_simulated) + of_all
    values = ", ".join(value for name, kind in used for value in _told_apart(name, kind))
    return f"({head}::UHUGEINT + hash({values}))" if values else f"{head}::UHUGEINT"


def blank_fingerprint(*, is_simulated: bool) -> int:
    """The version byte of a fingerprint alone. It stands for one that nobody needs to make: no row has it."""
    return (FINGERPRINT_VERSION | (SIMULATED if is_simulated else 0)) << 120


def _told_apart(name: str, kind: str) -> list[str]:
    """What of a column to hash. Values of one hash may have two texts (0.0 and -0.0), nested ones of one text two."""
    column = quoted(name)
    text = f"CAST({column} AS VARCHAR)"
    return [column, text] if _is_nested(kind) else [text]


def utc_cursor(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Another connection to the same database, where the text of a TIMESTAMPTZ is its text in UTC."""
    cursor = con.cursor()
    if cursor.execute("SELECT current_setting('TimeZone')").fetchone() != ("UTC",):
        cursor.execute("SET TimeZone = 'UTC'")
    return cursor


def _is_nested(kind: str) -> bool:
    tree = type_tree(kind)
    return tree is None or tree.id in {"list", "array", "struct", "map", "union", "variant", "tuple"}


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a job's rows are rendered: so many of all by SQL, or why none is."""

    rows: int
    by_sql: int
    unfit: tuple[Unfitness, ...]


def explain(con: duckdb.DuckDBPyConnection, table: SourceTable, request: CompiledRequest) -> Explanation:
    """Which path the rows of a source take, and why."""
    path = compile_sql(request, table)
    by_sql, relation = (
        (f"NOT {path.is_guarded}", path.relation()) if isinstance(path, FastPath) else ("false", table.name)
    )
    with utc_cursor(con) as cursor:
        found = cursor.execute(f"SELECT count(*), count(*) FILTER ({by_sql}) FROM {relation}").fetchone()
    assert found is not None
    rows, rendered = found
    return Explanation(rows, rendered, () if isinstance(path, FastPath) else path)


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
    failures = Failures(request.job)
    render = _row_renderer(request, failures)
    path = compile_sql(request, table)
    batches = _by_sql(con, path, render, keys, batch_rows) if isinstance(path, FastPath) else None
    try:
        first = next(batches, []) if batches else []
    except duckdb.Error:  # The engine has limits of its own, such as how deep a query may nest.
        batches, first = None, []
    if batches is None:
        batches = _by_jinja(fetched_rows(con, table, request, keys, batch_rows), render)
    yield from (batch for batch in chain([first], batches) if batch)
    failures.raise_any()


_RenderRow: TypeAlias = Callable[[str, dict[str, Any]], Rendered | None]


def _row_renderer(request: CompiledRequest, failures: Failures) -> _RenderRow:
    digest_of = hasher(request.url, request.model)

    def render(key: str, row: dict[str, Any]) -> Rendered | None:
        try:
            body = request.canonical(row)
        except RowFailed as problem:
            failures.add(key, problem)
            return None
        return Rendered(key, uuid.UUID(digest_of(body)), body)

    return render


def _by_sql(
    con: duckdb.DuckDBPyConnection, path: FastPath, render: _RenderRow, keys: str | None, batch_rows: int
) -> Iterator[list[Rendered]]:
    """Rows as SQL renders them. With a row under the guard come its columns, for Jinja2."""
    names = list(path.names)
    guarded = "".join(f", CASE WHEN {path.is_guarded} THEN {alias} END" for alias in path.names.values())
    with utc_cursor(con) as cursor:
        cursor.execute(f"SELECT {KEY}, {path.digest}, encode({path.body}){guarded} FROM {path.relation(keys)}")
        while rows := cursor.fetchmany(batch_rows):
            batch = []
            for key, digest, body, *values in rows:
                if body is not None:
                    batch.append(Rendered(key, digest, body))
                elif rendered := render(key, dict(zip(names, values, strict=True))):
                    batch.append(rendered)
            yield batch


def _by_jinja(batches: Iterable[list[tuple[str, dict[str, Any]]]], render: _RenderRow) -> Iterator[list[Rendered]]:
    for rows in batches:
        made = (render(key, row) for key, row in rows)
        yield [rendered for rendered in made if rendered]


def digest_rows(
    con: duckdb.DuckDBPyConnection,
    table: SourceTable,
    request: CompiledRequest,
    *,
    keys: str | None,
    into: str,
    fingerprint: str = "NULL",
) -> None:
    """Create `into` with DIGEST_COLUMNS, for all rows or those whose key is in the relation `keys(key)`.

    `row` is the row's position in a source that is loaded, else NULL. `input_tokens` is an estimate, see `tokens`;
    `inputs` counts embedding inputs, else 1. `body_hash` is DuckDB's own hash of a body that SQL made, good for this
    process alone; NULL where Jinja2 made it. `fingerprint` is one of `fingerprint_sql`: the same pass makes it.
    BatchopsError with the failed rows, grouped, where there are any.
    """
    con.execute(f"CREATE OR REPLACE TABLE {into} ({DIGEST_COLUMNS})")
    path = compile_sql(request, table)
    if not isinstance(path, FastPath) or not _digest_by_sql(con, request, path, keys, into, fingerprint):
        _digest_by_jinja(con, table, request, keys, into, fingerprint)
    elif guarded := _take_guarded(con, into):
        try:
            _digest_by_jinja(con, table, request, guarded, into, fingerprint)
        finally:
            con.execute(f"DROP TABLE {guarded}")


def _digest_by_sql(
    con: duckdb.DuckDBPyConnection,
    request: CompiledRequest,
    path: FastPath,
    keys: str | None,
    into: str,
    fingerprint: str,
) -> bool:
    """Digest every row in the engine, with no digest for rows under the guard; False where the engine refuses."""
    sizes = f"strlen({path.body}), {path.input_tokens}, {request.inputs}"
    made = f"{KEY}, {ROW}, {path.digest}, {sizes}, hash({path.body}), {FINGERPRINT}"
    with utc_cursor(con) as cursor:
        try:
            cursor.execute(f"INSERT INTO {into} SELECT {made} FROM {path.relation(keys, fingerprint=fingerprint)}")
        except duckdb.Error:  # as in render_rows
            return False
    return True


def _take_guarded(con: duckdb.DuckDBPyConnection, into: str) -> str | None:
    """A relation of the keys without a digest, whose rows are taken out; None where there are none.

    Where a key stands in several rows all of them are made once more, so that a check of the keys counts each once.
    A NULL key cannot be looked for: it stays, so that a check of the keys finds it.
    """
    guarded = "digest IS NULL AND key IS NOT NULL"
    if con.execute(f"SELECT 1 FROM {into} WHERE {guarded} LIMIT 1").fetchone() is None:
        return None
    con.execute(f"CREATE OR REPLACE TABLE {into}_guarded AS SELECT key FROM {into} WHERE {guarded}")
    con.execute(f"DELETE FROM {into} WHERE key IN (FROM {into}_guarded)")
    return f"{into}_guarded"


def _digest_by_jinja(
    con: duckdb.DuckDBPyConnection,
    table: SourceTable,
    request: CompiledRequest,
    keys: str | None,
    into: str,
    fingerprint: str,
) -> None:
    failures = Failures(request.job)
    columns = fetched_columns(table, request)
    fetched = _fetched(con, table, [KEY, table.position, *columns.values()], keys, _INSERT_ROWS)
    with rendering(request, list(columns)) as each, _one_commit(con):
        for digests in each("digests", ((rows,) for rows in fetched)):
            for key, problem in digests.failed:
                failures.add(key, problem)
            _insert(con, into, digests, request.inputs)
    failures.raise_any()
    if fingerprint != "NULL":
        _add_fingerprints(con, table, fingerprint, into)


def _add_fingerprints(con: duckdb.DuckDBPyConnection, table: SourceTable, fingerprint: str, into: str) -> None:
    """Lay fingerprints beside the digests that have none. By a join, which spills; an UPDATE holds what it changes."""
    lacking, made = "fingerprint IS NULL AND key IS NOT NULL", f"{into}_made"
    with utc_cursor(con) as cursor:
        cursor.execute(
            f"""CREATE OR REPLACE TABLE {made} AS
                SELECT d.* REPLACE (s.{FINGERPRINT} AS fingerprint) FROM (FROM {into} WHERE {lacking}) AS d
                JOIN (SELECT {KEY}, {fingerprint} AS {FINGERPRINT} FROM {table.name}) AS s ON s.{KEY} = d.key"""
        )
        cursor.execute(f"DELETE FROM {into} WHERE {lacking}")
        cursor.execute(f"INSERT INTO {into} FROM {made}")
        cursor.execute(f"DROP TABLE {made}")


@contextmanager
def _one_commit(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All that the block writes in one transaction: a commit for each batch would wait for the disk each time."""
    con.execute("BEGIN")
    try:
        yield
    except BaseException:
        con.execute("ROLLBACK")
        raise
    con.execute("COMMIT")


def _insert(con: duckdb.DuckDBPyConnection, into: str, digests: Digests, inputs: int) -> None:
    con.execute(
        f"""INSERT INTO {into}
            SELECT made->>0, (made->>1)::BIGINT, (made->>2)::UUID, (made->>3)::UINTEGER, (made->>4)::UINTEGER, {inputs},
                   NULL, NULL
            FROM (SELECT unnest(from_json(?, '["JSON"]')) AS made)""",
        [digests.made],
    )


def fetched_columns(table: SourceTable, request: CompiledRequest) -> dict[str, str]:
    """The used columns and the SQL that fetches each as templates want it."""
    return {name: column_sql(name, kind) for name, kind in table.columns.items() if name in request.columns}


def fetched_rows(
    con: duckdb.DuckDBPyConnection, table: SourceTable, request: CompiledRequest, keys: str | None, batch_rows: int
) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Keys and used columns, as templates want them."""
    columns = fetched_columns(table, request)
    for rows in _fetched(con, table, [KEY, *columns.values()], keys, batch_rows):
        yield [(key, dict(zip(columns, values, strict=True))) for key, *values in rows]


def _fetched(
    con: duckdb.DuckDBPyConnection, table: SourceTable, chosen: list[str], keys: str | None, batch_rows: int
) -> Iterator[list[tuple[Any, ...]]]:
    """Rows of the source, batch by batch. On a cursor of its own: an open result owns its connection."""
    rows_of = f"{table.name} AS s" if keys is None else table.chosen(keys)
    with utc_cursor(con) as cursor:
        cursor.execute(f"SELECT {', '.join(chosen)} FROM {rows_of}")
        while rows := cursor.fetchmany(batch_rows):
            yield rows
