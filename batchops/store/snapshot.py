"""A private copy of the state, taken in one short visit: readers work on it for as long as they like."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from batchops.diagnostics import BatchopsError, error
from batchops.store import migrations
from batchops.store.connection import attached, open_memory

TABLES = ("meta", "jobs", "rows", "requests", "submissions", "attempts", "outcomes", "answer_files", "events")
_OF_ENVIRONMENT = {
    "jobs": "WHERE environment = $environment",
    "rows": "WHERE job_id IN (SELECT job_id FROM state.jobs WHERE environment = $environment)",
}


@contextmanager
def snapshot(state_path: Path, *, environment: str | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory connection with a copy of every table of the state (but the lease) in its main schema.

    The file is let go before the block begins, so writers do not wait for the reader. `environment` keeps only that
    slice of `jobs` and `rows`; the ledger is shared and comes whole. A state that does not exist yet reads as empty
    tables. Raises BatchopsError for a file that is busy too long, damaged, or of a newer version.
    """
    with tempfile.TemporaryDirectory(prefix="batchops-") as spill:
        con = open_memory(temp_directory=Path(spill))
        try:
            if state_path.exists():
                with attached(con, state_path, read_only=True):
                    _copy_whole(con, state_path, environment)
            else:
                con.execute(migrations.schema_sql())
            yield con
        finally:
            con.close()


def _copy_whole(con: duckdb.DuckDBPyConnection, state_path: Path, environment: str | None) -> None:
    """Copy all tables in one transaction, so that they agree with each other."""
    con.execute("BEGIN")
    try:
        _copy(con, environment)
    except BaseException as problem:
        con.execute("ROLLBACK")
        if isinstance(problem, duckdb.Error):  # a damaged block is found only when it is read
            raise _damaged(state_path, problem) from problem
        raise
    con.execute("COMMIT")


def _copy(con: duckdb.DuckDBPyConnection, environment: str | None) -> None:
    version = con.execute("SELECT schema_version FROM state.meta").fetchone()
    migrations.check_version(version[0] if version else 0)
    for table in TABLES:
        where = _OF_ENVIRONMENT.get(table, "") if environment is not None else ""
        parameters = {"environment": environment} if where else None
        con.execute(f"CREATE TABLE main.{table} AS SELECT * FROM state.{table} {where}", parameters)


def _damaged(state_path: Path, problem: duckdb.Error) -> BatchopsError:
    detail = f"{state_path}: {str(problem).splitlines()[0][:300]}. Nothing was written to it. Restore a backup."
    return BatchopsError(error("state_damaged", "The state file cannot be read.", detail))
