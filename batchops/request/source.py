"""The source query of a job, run behind the fence into a table of the private work database."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import duckdb
import orjson

from batchops.diagnostics import BatchopsError, Diagnostic, did_you_mean, error
from batchops.exhaustion import LESS_AT_ONCE, is_out_of_memory, is_unwritten, out_of_memory
from batchops.request.fence import NotSelect, connect_fenced, is_absent, single_select, wrapped
from batchops.request.place import QUERY, Place, place_in, place_of
from batchops.request.sqlvalues import json_text
from batchops.request.values import quoted
from batchops.spec.job import Job

KEY: Final = "__key"
"""The column that holds the text of a row's key."""

ROW: Final = "__row"
"""In queries, the position of a row in its source."""

FINGERPRINT: Final = "__fingerprint"
"""In queries, the fingerprint of a row."""

LINE, HEAD, DIGEST, HASH = CARRIED = ("__line", "__head", "__digest", "__hash")
"""What is carried beside a row while its line is made, see lines.py."""

_RESERVED: Final = frozenset({KEY, ROW, FINGERPRINT, *CARRIED, "rowid"})
"""Names that stand beside those of a source's columns in queries; `rowid` is the engine's own."""

_EXAMPLES = 3
_NAMED_BY_TEXT: Final = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "DATE", "UUID"}
)


@dataclass(frozen=True, slots=True)
class SourceTable:
    """The source of one job: a relation with `__key` and the columns of the query.

    It is the table `source_{job_no}` where its rows are loaded, and otherwise the query itself, run by each who reads.
    """

    job_no: int
    columns: dict[str, str]
    """Name → DuckDB type, in the query's order, without `__key`."""
    key_columns: tuple[str, ...]
    key_types: tuple[str, ...]
    stream: str | None = None
    """The query as a subquery; None where the rows are loaded."""

    @property
    def name(self) -> str:
        """What stands behind FROM."""
        return self.stream or f"source_{self.job_no}"

    def chosen(self, keys: str) -> str:
        """What stands behind FROM for the rows, as `s`, whose key is in the relation `keys(key)`.

        Where a key's text names one value of its column, that value is looked for: a file that is read for a few rows
        then skips what cannot hold them (3 of 1 M rows of Parquet: 0.02 s instead of 0.7 s, 2026-11).
        """
        condition = f"s.{KEY} = wanted.key"
        if len(self.key_types) == 1 and self.key_types[0] in _NAMED_BY_TEXT:
            condition = f"s.{quoted(self.key_columns[0])} = TRY_CAST(wanted.key AS {self.key_types[0]})"
        return f"{self.name} AS s SEMI JOIN {keys} AS wanted ON {condition}"

    @property
    def position(self) -> str:
        """SQL for the position of the row `s`; only a table has any."""
        return "s.rowid" if self.stream is None else "NULL::BIGINT"

    @property
    def loaded(self) -> SourceTable:
        """The same source as a table."""
        return replace(self, stream=None)


def open_work(path: Path, root: Path, *, memory_limit: str = "1GB", threads: int = 2) -> duckdb.DuckDBPyConnection:
    """The private work database at `path`, created if need be, its queries fenced in to the project at `root`.

    It spills to `path` + `.tmp`. Paths in queries are relative to the working directory: be in the root.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return connect_fenced(str(path), root, memory_limit=memory_limit, threads=threads)


def bind_source(con: duckdb.DuckDBPyConnection, job_no: int, job: Job, *, limit: int | None = None) -> SourceTable:
    """The job's query, checked and ready to be run; BatchopsError with located diagnostics.

    `limit` keeps that many rows, those with the smallest hash of their key: a larger limit keeps all of them and more.
    """
    select = checked_query(con, job)
    types = bound_columns(con, job, select)
    if problems := column_problems(job, types):
        raise BatchopsError(*problems)
    # A NULL key comes first, so that a limit does not hide it.
    top = "" if limit is None else f" ORDER BY md5({KEY}) NULLS FIRST, {KEY} LIMIT {int(limit)}"
    keys = job.spec.source.key
    stream = f"(SELECT {key_sql(keys)} AS {KEY}, q.* FROM {wrapped(select)} AS q{top})"
    columns = {column: kind for column, kind in _types(con, stream).items() if column != KEY}
    return SourceTable(job_no, columns, keys, tuple(columns[column] for column in keys), stream)


def load_source(con: duckdb.DuckDBPyConnection, job_no: int, job: Job, *, limit: int | None = None) -> SourceTable:
    """Run the job's query into `source_{job_no}` and check its key; BatchopsError with located diagnostics."""
    return load_rows(con, job, bind_source(con, job_no, job, limit=limit))


def load_rows(con: duckdb.DuckDBPyConnection, job: Job, bound: SourceTable) -> SourceTable:
    """Run a bound query into `source_{job_no}` and check its key; BatchopsError with located diagnostics."""
    table = bound.loaded
    with query_problems(job):
        con.execute(f"CREATE OR REPLACE TABLE {table.name} AS FROM {bound.name}")
    check_keys(con, job, table, f"(SELECT {KEY} AS key FROM {table.name})")
    return table


def load_few(con: duckdb.DuckDBPyConnection, job: Job, bound: SourceTable, *, most: int) -> SourceTable | None:
    """`load_rows`; None, and nothing loaded, where the query gives more than `most` rows. It is stopped there."""
    few = replace(bound, stream=f"(FROM {bound.name} LIMIT {most + 1})")
    with query_problems(job):
        con.execute(f"CREATE OR REPLACE TABLE {few.loaded.name} AS FROM {few.name}")
    if _one(con, f"SELECT count(*) FROM {few.loaded.name}") > (most,):
        con.execute(f"DROP TABLE {few.loaded.name}")
        return None
    check_keys(con, job, few.loaded, f"(SELECT {KEY} AS key FROM {few.loaded.name})")
    return few.loaded


def estimated_rows(con: duckdb.DuckDBPyConnection, bound: SourceTable) -> int | None:
    """How many rows the engine expects of a bound query, before it runs; None where it does not say.

    Good for what costs time alone: it may be wrong by any factor.
    """
    try:
        (_, plan) = _one(con, f"EXPLAIN (FORMAT json) FROM {bound.name}")
        return int(orjson.loads(plan)[0]["extra_info"]["Estimated Cardinality"])
    except (duckdb.Error, LookupError, ValueError):
        return None


def key_sql(columns: tuple[str, ...]) -> str:
    """The text form of a key: its column's text, or for several the canonical JSON array of their texts."""
    texts = [f"CAST({quoted(column)} AS VARCHAR)" for column in columns]
    if len(texts) == 1:
        return texts[0]
    absent = " OR ".join(f"{quoted(column)} IS NULL" for column in columns)
    listed = json_text(f"[{', '.join(texts)}]")
    return f"CASE WHEN {absent} THEN NULL ELSE {listed} END"


# --- the query before it runs


def checked_query(con: duckdb.DuckDBPyConnection, job: Job) -> str:
    """The query as one SELECT without semicolons; BatchopsError where it is not, or cannot be parsed."""
    try:
        return single_select(con, job.query)
    except NotSelect as problem:
        detail = f"A source query is exactly one SELECT. {problem}"
        found = error("query_not_select", "Not a single SELECT.", detail)
        raise BatchopsError(place_in(job, QUERY).put(found, job.address)) from None
    except duckdb.Error as problem:
        raise BatchopsError(query_problem(job, problem, lines_before=0)) from None


def bound_columns(con: duckdb.DuckDBPyConnection, job: Job, select: str) -> dict[str, str]:
    """Names and types of the query's columns, without running it.

    Raises BatchopsError where it does not bind, or where two columns share a name: DuckDB would call one `name_1`.
    """
    try:
        described = con.execute(f"DESCRIBE {wrapped(select)}").fetchall()
    except duckdb.Error as problem:
        raise BatchopsError(query_problem(job, problem, lines_before=1)) from None
    if shared := _shared_names([column for column, *_ in described]):
        detail = f"The query has several columns {shared}. Rename with AS, leave out with EXCLUDE, or join with USING."
        found = error("duplicate_column", "Duplicate column.", detail)
        raise BatchopsError(place_in(job, QUERY).put(found, job.address))
    return {column: kind for column, kind, *_ in described}


def _shared_names(columns: list[str]) -> str:
    """Names that stand for several columns; DuckDB makes no difference between capitals and small letters."""
    counts = Counter(map(str.lower, columns))
    return ", ".join(f'"{name}"' for name, count in counts.items() if count > 1)


def column_problems(job: Job, columns: dict[str, str]) -> list[Diagnostic]:
    """What is wrong with the query's columns: a key that is not there, a name that is ours."""
    problems = []
    for name in columns:
        if name.lower() in _RESERVED:
            found = error("reserved_column", "Reserved column.", f'The query has a column "{name}"; rename it.')
            problems.append(place_in(job, QUERY).put(found, job.address))
    for number, key in enumerate(job.spec.source.key):
        if key not in columns:
            found = error("key_missing", "Unknown key column.", no_column(key, columns))
            problems.append(_key_place(job, number).put(found, job.address))
    for number, name in enumerate(job.spec.source.sensitive):
        if name not in columns:
            detail = f"Nothing would be kept from sight. {no_column(name, columns)}"
            found = error("unknown_column", "Unknown column.", detail)
            problems.append(place_of(job, ("source", "sensitive", number)).put(found, job.address))
    return problems


def no_column(name: str, columns: Collection[str], words: str = "") -> str:
    """The sentence about a name that is no column of the query, with those that are."""
    listed = ", ".join(list(columns)[:20]) + (", …" if len(columns) > 20 else "")
    return f'The query has no column "{name}"{words}.{did_you_mean(name, columns)} It has: {listed}.'


def _key_place(job: Job, number: int) -> Place:
    return place_of(job, ("source", "key", number))


# --- running it


class OutOfMemory(BatchopsError):
    """A query needs more memory than its connection may use."""


@contextmanager
def query_problems(job: Job) -> Iterator[None]:
    """Tell what DuckDB says while the job's query runs as BatchopsError, at its place.

    A full disk is no problem of the query, and passes as it is.
    """
    try:
        yield
    except duckdb.Error as problem:
        if is_unwritten(problem):
            raise
        kind = OutOfMemory if is_out_of_memory(problem) else BatchopsError
        raise kind(query_problem(job, problem, lines_before=1)) from None


def _one(con: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    row = con.execute(sql).fetchone()
    assert row is not None
    return tuple(row)


def _types(con: duckdb.DuckDBPyConnection, name: str) -> dict[str, str]:
    described = con.execute(f"SELECT * FROM {name} LIMIT 0").description
    return {column: str(kind) for column, kind, *_ in described}


def check_keys(con: duckdb.DuckDBPyConnection, job: Job, table: SourceTable, keys: str) -> None:
    """BatchopsError, with examples, where a key of the relation `keys(key)` of all rows is NULL or stands twice."""
    nulls, repeated = _one(con, f"SELECT count(*) - count(key), count(key) - count(DISTINCT key) FROM {keys}")
    problems = [
        *(_null_keys(con, job, table.name) if nulls else ()),
        *(_duplicate_keys(con, job, keys) if repeated else ()),
    ]
    if problems:
        raise BatchopsError(*problems)


def _null_keys(con: duckdb.DuckDBPyConnection, job: Job, name: str) -> list[Diagnostic]:
    keys = job.spec.source.key
    counts = ", ".join(f"count(*) FILTER ({quoted(key)} IS NULL)" for key in keys)
    problems = []
    for number, (key, count) in enumerate(zip(keys, _one(con, f"SELECT {counts} FROM {name}"), strict=True)):
        if count:
            shown = _beside_null(con, job, name, key)
            detail = f'"{key}" is NULL in {_rows(count)}{shown}. Every row needs a key: filter such rows in the query.'
            problems.append(_key_place(job, number).put(error("key_null", "NULL key.", detail), job.address))
    return problems


def _beside_null(con: duckdb.DuckDBPyConnection, job: Job, name: str, key: str) -> str:
    """Examples of rows without that key column: what the other key columns hold."""
    others = [other for other in job.spec.source.key if other != key and other not in job.spec.source.sensitive]
    if not others:
        return ""
    texts = ", ".join(f"CAST({quoted(other)} AS VARCHAR)" for other in others)
    rows = con.execute(f"SELECT {texts} FROM {name} WHERE {quoted(key)} IS NULL ORDER BY ALL LIMIT {_EXAMPLES}")
    shown = "; ".join(", ".join(f"{other} = {value}" for other, value in zip(others, row, strict=True))
                      for row in rows.fetchall())  # fmt: skip
    return f", such as {shown}"


def _duplicate_keys(con: duckdb.DuckDBPyConnection, job: Job, keys: str) -> list[Diagnostic]:
    grouped = f"SELECT key, count(*) AS n FROM {keys} WHERE key IS NOT NULL GROUP BY ALL HAVING count(*) > 1"
    counted = f"SELECT key, n, count(*) OVER () FROM ({grouped}) ORDER BY n DESC, key LIMIT {_EXAMPLES}"
    found = con.execute(counted).fetchall()
    source, total = job.spec.source, found[0][2]
    examples = ", ".join(f"{key[:80]} ({_rows(count)})" for key, count, _ in found) + (
        ", …" if total > len(found) else ""
    )
    shown = "" if set(source.key) & set(source.sensitive) else f": {examples}"
    columns = " + ".join(source.key)
    values = f"1 value of {columns} stands" if total == 1 else f"{total} values of {columns} stand"
    detail = f"Each key names one row, but {values} in several{shown}."
    return [place_of(job, ("source", "key")).put(error("key_duplicate", "Duplicate key.", detail), job.address)]


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


# --- what DuckDB says, in our words


_MENTIONED = re.compile(r"\n+LINE (\d+): (.*)\n( *)(\^+)")
_NAMED_FILE = re.compile(r'(?:(No files found that match the pattern)|Cannot access file) "([^"]+)"')
_UNBOUND = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException, duckdb.SyntaxException)


def query_problem(job: Job, problem: duckdb.Error, *, lines_before: int) -> Diagnostic:
    """DuckDB's error as a diagnostic at its line and column. `lines_before`: how many lines stood before the query."""
    text = str(problem)
    place = place_in(job, QUERY)
    if mentioned := _MENTIONED.search(text):
        line = _line(job.query, mentioned, lines_before)
        place = place_in(job, QUERY, line, *_columns(job.query, line, mentioned))
        text = text[: mentioned.start()]
    return place.put(_translated(problem, text, place.words), job.address)


def _line(query: str, mentioned: re.Match[str], lines_before: int) -> int:
    """The line of the query that DuckDB means; where more stood before it than was said, the line that it shows."""
    line, lines = max(int(mentioned[1]) - lines_before, 1), query.split("\n")
    if line > len(lines) or _window(mentioned) not in lines[line - 1]:
        return next((number for number, text in enumerate(lines, 1) if _window(mentioned) in text), line)
    return line


def _window(mentioned: re.Match[str]) -> str:
    """The part of a line that DuckDB shows."""
    return mentioned[2].removeprefix("...").removesuffix("...")


def _columns(query: str, line: int, mentioned: re.Match[str]) -> tuple[int, int]:
    """Column and length of what DuckDB points at. It shows a window of a long line, which is looked up in the query."""
    shown = mentioned[2]
    column = len(mentioned[3]) - len(f"LINE {mentioned[1]}: ")
    window = _window(mentioned)
    lines = query.split("\n")
    start = lines[line - 1].find(window) if line <= len(lines) else -1
    column = max(column + max(start, 0) - (3 if shown.startswith("...") else 0), 0)
    word = re.match(r"\w*", lines[line - 1][column:]) if line <= len(lines) else None
    return column + 1, max(len(mentioned[4]), len(word[0]) if word else 0)  # older engines mark one character


def _translated(problem: duckdb.Error, text: str, words: str) -> Diagnostic:
    message = " ".join(line.strip() for line in text.split("\n") if line.strip())
    if (named := _NAMED_FILE.search(message)) and (named[1] or is_absent(named[2])):
        detail = f'"{named[2]}"{words}: paths are relative to the project root.'
        return error("missing_file", "No such file.", detail)
    if isinstance(problem, duckdb.PermissionException):
        detail = (
            f"{message.partition(' - ')[0].removeprefix('Permission Error: ')}{words}. A query reads files in the "
            "project's own folders: no dot files, no state, no links to elsewhere; of a folder with dot files in it, "
            "single files and no pattern."
        )
        return error("outside_project", "Outside the project.", detail)
    if is_out_of_memory(problem):
        return out_of_memory(problem, LESS_AT_ONCE)
    if isinstance(problem, _UNBOUND):
        return error("query_invalid", "Query does not bind.", f"{message}{words}")
    return error("query_failed", "Query failed.", f"{_without_values(text)}{words}")


def _without_values(text: str) -> str:
    """The message without what it quotes of the data: names of columns, types and files stay."""
    lines = [line for line in text.split("\n") if line.strip() and not line.strip().startswith("Original Line")]
    message = " ".join(line.strip() for line in lines)[:600]
    return re.sub(r"(string|value|from|of) ('[^']*'|\"[^\"]*\")", r"\1 '…'", message)
