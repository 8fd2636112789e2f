"""The passes over the sources: fingerprints of all rows first, and then only the rows that state cannot answer for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import duckdb

from batchops.plan.diff import DiffJob
from batchops.request.fence import unsteady_parts
from batchops.request.render import DIGEST_COLUMNS, blank_fingerprint, digest_rows, fingerprint, fingerprint_sql
from batchops.request.source import SourceTable, check_keys, estimated_rows, load_few, load_rows, query_problems
from batchops.request.template import CompiledRequest
from batchops.spec.job import Job

FEW_ROWS: Final = 10_000
"""A source of so few rows is held as a whole: to open the database once more would cost more."""

SURELY_MANY: Final = 10 * FEW_ROWS
"""What the engine must expect of a source that is not tried: its guesses may be far off."""


@dataclass(frozen=True)
class WantedJob:
    """One job with its rows in the work database, under relations named by `number`.

    `table` is the query; or the table `source_N`, once that holds every row that this command may render.
    """

    number: int
    job: Job
    request: CompiledRequest
    table: SourceTable
    diff: DiffJob

    @property
    def address(self) -> str:
        return self.job.address

    @property
    def changes(self) -> str:
        return self.diff.changes

    @property
    def is_all_open(self) -> bool:
        """Whether every row must be rendered: the job is new, or its request is not the one that was applied."""
        recorded = self.diff.recorded
        wanted = (self.request.render_id, self.diff.is_simulated)
        return recorded is None or (recorded.render_id, recorded.is_simulated) != wanted


def read_source(con: duckdb.DuckDBPyConnection, wanted: WantedJob, *, keeps_rows: bool) -> SourceTable:
    """Pass one: `desired_N(key, fingerprint)` of every row; where the rows are from now on, at hand or in the query.

    All rows of a new job, and of one whose request was edited, must be rendered anyhow: they are digested in this very
    pass; an apply loads them for it. `desired_N` is a view of the digests then. A query that gives other rows each time
    is run once. A small source is loaded, whoever asks.
    """
    if any(unsteady_parts(wanted.job.query)) or (keeps_rows and wanted.is_all_open):
        return take_snapshot(con, wanted)
    if _may_be_few(con, wanted) and (few := load_few(con, wanted.job, wanted.table, most=FEW_ROWS)) is not None:
        return _read_all(con, wanted, few)
    with query_problems(wanted.job):
        table = _read_all(con, wanted, wanted.table)
        if keeps_rows:
            con.execute(f"CREATE OR REPLACE TABLE source_{wanted.number} AS FROM {table.name} LIMIT 0")
        check_keys(con, wanted.job, table, wanted.diff.desired)
    return table


def _may_be_few(con: duckdb.DuckDBPyConnection, wanted: WantedJob) -> bool:
    """Of a large source the first rows would be read for nothing: what is recorded tells, or else what is expected."""
    if wanted.diff.recorded is not None:
        return wanted.diff.recorded.rows <= FEW_ROWS
    expected = estimated_rows(con, wanted.table)
    return expected is None or expected <= SURELY_MANY


def take_snapshot(con: duckdb.DuckDBPyConnection, wanted: WantedJob) -> SourceTable:
    """Run the query once and keep all its rows."""
    return _read_all(con, wanted, load_rows(con, wanted.job, wanted.table))


def _read_all(con: duckdb.DuckDBPyConnection, wanted: WantedJob, table: SourceTable) -> SourceTable:
    """Fingerprint every row in one pass; or digest it, where it must be rendered anyhow.

    Then its fingerprint only matters once it is recorded, which takes rows that are loaded.
    """
    n = wanted.number
    if wanted.is_all_open:
        made = fingerprint_sql(table, wanted.request, is_simulated=wanted.diff.is_simulated)
        needed = made if table.stream is None else "NULL"
        digest_rows(con, table, wanted.request, keys=None, into=f"digests_{n}", fingerprint=needed)
        blank = blank_fingerprint(is_simulated=wanted.diff.is_simulated)
        con.execute(
            f"CREATE OR REPLACE VIEW desired_{n} AS"
            f" SELECT key, coalesce(fingerprint, {blank}::UHUGEINT) AS fingerprint FROM digests_{n}"
        )
    else:
        _fingerprint(con, wanted, table, f"desired_{n}")
        con.execute(f"CREATE OR REPLACE TABLE digests_{n} ({DIGEST_COLUMNS})")
    return table


def load_missing(con: duckdb.DuckDBPyConnection, wanted: WantedJob) -> bool:
    """Load the rows of `missing_N`. False, and nothing loaded, where they are not what pass one saw."""
    n, table = wanted.number, wanted.table
    loading = replace(table, stream=f"loading_{n}")
    con.execute(f"CREATE OR REPLACE TABLE {loading.name} AS SELECT s.* FROM {table.chosen(f'missing_{n}')}")
    _fingerprint(con, wanted, loading, f"seen_{n}")
    con.execute(f"CREATE OR REPLACE TABLE expected_{n} AS FROM desired_{n} SEMI JOIN missing_{n} USING (key)")
    if not are_same(con, f"expected_{n}", f"seen_{n}", "l.fingerprint = r.fingerprint"):
        return False
    con.execute(f"INSERT INTO source_{n} FROM {loading.name}")
    con.execute(f"DROP TABLE {loading.name}")
    return True


def _fingerprint(con: duckdb.DuckDBPyConnection, wanted: WantedJob, table: SourceTable, into: str) -> None:
    fingerprint(con, table, wanted.request, into=into, is_simulated=wanted.diff.is_simulated)


def are_same(con: duckdb.DuckDBPyConnection, left: str, right: str, condition: str) -> bool:
    """Whether two relations hold the same keys, each once, and the condition over `l` and `r` for each."""
    matched = count_rows(con, f"{left} l JOIN {right} r ON l.key = r.key AND {condition}")
    return matched == count_rows(con, left) == count_rows(con, right)


def count_rows(con: duckdb.DuckDBPyConnection, relation: str) -> int:
    row = con.execute(f"SELECT count(*) FROM {relation}").fetchone()
    assert row is not None
    return int(row[0])
