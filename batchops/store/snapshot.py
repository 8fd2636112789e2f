"""The tables of the state for readers: as they are, for the length of one question, or as a private copy of them.

A copy is taken in one short visit, and readers work on it for as long as they like.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import duckdb

from batchops.exhaustion import temporary_folder
from batchops.store.connection import open_memory, open_scratch, sql_text
from batchops.store.store import StateReader

TABLES = ("meta", "jobs", "rows", "requests", "submissions", "attempts", "outcomes", "answer_files", "events",
          "dropped")  # fmt: skip
READING_LIMIT, ANSWER_LIMIT, COPY_LIMIT, QUERY_LIMIT = "100MB", "250MB", "700MB", "1GB"
"""To count what stands, and to read one answer; for many answers, and for queries of users. Joins of ours spill: for
10,000,000 rows `status` takes as long with 100 MB as with 250 MB, and their answers with 700 MB as with 1 GB (measured,
2026-11)."""

LARGE_BYTES: Final = 200_000_000
"""A state of some three million rows: the copy of a larger one is kept in a file, for in memory it is not compressed,
and is spilled by what is joined with it."""


@contextmanager
def reading(
    state_path: Path, *, environment: str | None = None, memory_limit: str = READING_LIMIT
) -> Iterator[duckdb.DuckDBPyConnection]:
    """The tables of `snapshot` as views of the state: no row is copied, and writers wait until the block ends.

    For a question whose answer is small. Raises what `snapshot` raises, the same for what the block does with it.
    """
    with (
        temporary_folder("batchops-") as spill,
        closing(open_memory(memory_limit=memory_limit, temp_directory=spill)) as con,
        StateReader(state_path).reading(con),
    ):
        _make(con, "VIEW", environment)
        yield con


@contextmanager
def snapshot(
    state_path: Path, *, environment: str | None = None, memory_limit: str = COPY_LIMIT
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of its own with a copy of every table of the state (but the lease) in its main schema.

    The file is let go before the block begins, so writers do not wait for the reader. `environment` keeps only that
    slice of `jobs` and `rows`; the ledger is shared and comes whole. A state that does not exist yet reads as empty
    tables. Raises BatchopsError for a file that is busy too long, damaged, or of a newer version; and, also for what
    the block does with the connection, where memory or the temporary folder does not suffice.
    """
    with temporary_folder("batchops-") as spill:
        is_large = state_path.exists() and state_path.stat().st_size > LARGE_BYTES
        con = (
            open_scratch(spill, memory_limit=memory_limit)
            if is_large
            else open_memory(memory_limit=memory_limit, temp_directory=spill)
        )
        with closing(con):
            with StateReader(state_path).reading(con):
                _copy(con, environment)
            yield con


def _copy(con: duckdb.DuckDBPyConnection, environment: str | None) -> None:
    """Copy all tables in one transaction, so that they agree with each other."""
    con.execute("BEGIN")
    try:
        _make(con, "TABLE", environment)
    except BaseException:
        con.execute("ROLLBACK")
        raise
    con.execute("COMMIT")


def _make(con: duckdb.DuckDBPyConnection, kind: str, environment: str | None) -> None:
    """Make each table in the main schema, as a TABLE or a VIEW, of this environment where it is not None."""
    own = f"environment = {sql_text(environment or '')}"
    of_environment = {"jobs": own, "rows": f"job_id IN (SELECT job_id FROM state.jobs WHERE {own})"}
    for table in TABLES:
        chosen = of_environment.get(table, "true") if environment is not None else "true"
        con.execute(f"CREATE {kind} main.{table} AS SELECT * FROM state.{table} WHERE {chosen}")
