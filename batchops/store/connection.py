"""Short visits to the state file: attach it to a connection, do one thing, let it go.

DuckDB locks the file for its whole process: while one writes, no other may even read. So nobody holds it: a visit takes
11–15 ms (measured, 2026-11), and whoever finds it taken tries again. Inside one process a lock of ours keeps visits
apart, because the lock of the operating system does not tell two DuckDB instances of one process from each other.
Python itself never opens the file: closing such a handle would drop DuckDB's lock without a word.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from batchops.diagnostics import BatchopsError, error

STORAGE_VERSION = "v1.5.0"
"""Files that DuckDB 1.5 and 2.x both read and write."""

READ_PATIENCE_SECONDS = 60.0
_CONFIG = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
_visit = threading.RLock()


def sql_text(value: str) -> str:
    """`value` as a SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def open_memory(
    *, memory_limit: str = "1GB", threads: int = 2, temp_directory: Path | None = None
) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that installs nothing, speaks UTC, and spills to `temp_directory`."""
    con = duckdb.connect(":memory:", config=dict(_CONFIG))
    limit_resources(con, memory_limit=memory_limit, threads=threads, temp_directory=temp_directory)
    return con


def limit_resources(
    con: duckdb.DuckDBPyConnection, *, memory_limit: str, threads: int, temp_directory: Path | None = None
) -> None:
    """Bound what one instance may use. Row order is not kept: whoever needs an order asks for it."""
    con.execute(f"SET memory_limit={sql_text(memory_limit)}")
    con.execute(f"SET threads={threads}")
    con.execute("SET preserve_insertion_order=false")
    con.execute("SET TimeZone='UTC'")
    if temp_directory is not None:
        con.execute(f"SET temp_directory={sql_text(str(temp_directory))}")


@contextmanager
def attached(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    *,
    read_only: bool,
    patience_seconds: float | None = READ_PATIENCE_SECONDS,
) -> Iterator[None]:
    """Have the state file attached to `con` as `state` for the length of the block.

    Tries again while another process has the file, up to `patience_seconds` (None: without limit, for a writer whose
    outcome must not be lost). Raises BatchopsError with its own sentence for a busy, damaged or unreadable file.
    """
    options = "READ_ONLY" if read_only else f"STORAGE_VERSION {sql_text(STORAGE_VERSION)}"
    statement = f"ATTACH {sql_text(str(path))} AS state ({options})"
    with _visit:
        _attach(con, statement, path, patience_seconds)
        try:
            yield
        finally:
            con.execute("DETACH state")


def _attach(con: duckdb.DuckDBPyConnection, statement: str, path: Path, patience_seconds: float | None) -> None:
    deadline = None if patience_seconds is None else time.monotonic() + patience_seconds
    pause = 0.004
    while True:
        try:
            con.execute(statement)
        except duckdb.Error as problem:
            if not _is_locked(problem):
                raise _unreadable(path, problem) from problem
            if deadline is not None and time.monotonic() > deadline:
                raise BatchopsError(
                    error(
                        "state_busy",
                        "The state is busy.",
                        f"Another process has had {path} open for {patience_seconds:.0f} s: {_holder(problem)}"
                        " End it, or try again.",
                    )
                ) from problem
            time.sleep(pause * (0.5 + random.random()))  # noqa: S311  jitter, not a secret
            pause = min(pause * 1.5, 0.1)
        else:
            return


def _is_locked(problem: duckdb.Error) -> bool:
    text = str(problem)
    return "Could not set lock" in text or "Conflicting lock" in text


def _holder(problem: duckdb.Error) -> str:
    text = str(problem)
    return text[text.find("Conflicting lock") :].split(". See", maxsplit=1)[0] + "." if "PID" in text else "unknown."


def _unreadable(path: Path, problem: duckdb.Error) -> BatchopsError:
    text = str(problem)
    if "version number" in text:
        return BatchopsError(
            error(
                "state_too_new",
                "The state file is of a newer DuckDB.",
                f"{path} was written by a DuckDB that this one ({duckdb.__version__}) cannot read. Upgrade it:",
                fixes=["pip install --upgrade duckdb"],
            )
        )
    return BatchopsError(
        error(
            "state_damaged",
            "The state file cannot be read.",
            f"{path}: {text.splitlines()[0][:300]}. Nothing was written to it. Restore a backup from state/backups, or"
            " move the file away; the next apply then offers to adopt the batches that the provider still knows.",
        )
    )
