"""A private copy of the state, taken in one short visit: readers work on it for as long as they like."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from batchops.exhaustion import temporary_folder
from batchops.store.connection import open_memory
from batchops.store.store import StateReader

TABLES = ("meta", "jobs", "rows", "requests", "submissions", "attempts", "outcomes", "answer_files", "events",
          "dropped")  # fmt: skip
_OF_ENVIRONMENT = {
    "jobs": "WHERE environment = $environment",
    "rows": "WHERE job_id IN (SELECT job_id FROM state.jobs WHERE environment = $environment)",
}


MEMORY_LIMIT, GENEROUS_LIMIT = "400MB", "1GB"
"""The copy spills. All tables joined with their answers, and queries of users, are better off with more."""


@contextmanager
def snapshot(
    state_path: Path, *, environment: str | None = None, memory_limit: str = MEMORY_LIMIT
) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory connection with a copy of every table of the state (but the lease) in its main schema.

    The file is let go before the block begins, so writers do not wait for the reader. `environment` keeps only that
    slice of `jobs` and `rows`; the ledger is shared and comes whole. A state that does not exist yet reads as empty
    tables. Raises BatchopsError for a file that is busy too long, damaged, or of a newer version; and, also for what
    the block does with the connection, where memory or the temporary folder does not suffice.
    """
    with temporary_folder("batchops-") as spill:
        con = open_memory(memory_limit=memory_limit, temp_directory=spill)
        try:
            with StateReader(state_path).reading(con):
                _copy(con, environment)
            yield con
        finally:
            con.close()


def _copy(con: duckdb.DuckDBPyConnection, environment: str | None) -> None:
    """Copy all tables in one transaction, so that they agree with each other."""
    con.execute("BEGIN")
    try:
        for table in TABLES:
            where = _OF_ENVIRONMENT.get(table, "") if environment is not None else ""
            parameters = {"environment": environment} if where else None
            con.execute(f"CREATE TABLE main.{table} AS SELECT * FROM state.{table} {where}", parameters)
    except BaseException:
        con.execute("ROLLBACK")
        raise
    con.execute("COMMIT")
