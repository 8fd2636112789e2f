"""Short visits to the state file: attach it to a connection, do one thing, let it go.

DuckDB locks the file for its whole process: while one writes, no other may even read. So nobody holds it: a visit takes
11–15 ms (measured, 2026-11), and whoever finds it taken tries again. Inside one process a lock of ours keeps visits
apart, because the lock of the operating system does not tell two DuckDB instances of one process from each other.
Python itself never opens the file: closing such a handle would drop DuckDB's lock without a word.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from batchops.diagnostics import BatchopsError, error
from batchops.store.recognise import (
    is_damage,
    is_locked,
    is_unwritable,
    recognise,
    refuse_absent,
    unreadable,
    version_of,
)

STORAGE_VERSION = "v1.5.0"
"""Files that DuckDB 1.5 and 2.x both read and write."""

READ_PATIENCE_SECONDS = 60.0
AS_WRITTEN = "hive_partitioning = false"
"""An option for every read of a file of ours: without it, of folders above the file named `state=ca` and `model=large`
the columns `state` and `model` are made, which stand before its own."""
_CONFIG = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
_PATTERN = re.compile(r"[*?[]")
_visit = threading.RLock()
_idle: list[duckdb.DuckDBPyConnection] = []


def sql_text(value: str) -> str:
    """`value` as a SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def file_text(path: Path) -> str:
    """The SQL literal by which a reader finds this file alone: `*`, `?` and `[` in a path are a pattern to it."""
    return sql_text(_PATTERN.sub(r"[\g<0>]", str(path)))


def open_memory(
    *, memory_limit: str = "1GB", threads: int = 2, temp_directory: Path | None = None
) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that installs nothing, speaks UTC, and spills to `temp_directory`."""
    return _opened(":memory:", memory_limit, threads, temp_directory)


def open_scratch(folder: Path, *, memory_limit: str) -> duckdb.DuckDBPyConnection:
    """As `open_memory`, with its tables in a file of `folder`: compressed, and in memory only while they are read."""
    return _opened(str(folder / "scratch.duckdb"), memory_limit, threads=2, temp_directory=folder)


def _opened(database: str, memory_limit: str, threads: int, temp_directory: Path | None) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(database, config=dict(_CONFIG))
    limit_resources(con, memory_limit=memory_limit, threads=threads, temp_directory=temp_directory)
    return con


@contextmanager
def borrowed_memory(con: duckdb.DuckDBPyConnection | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """`con`, or an empty in-memory DuckDB for the length of the block; leave it empty, it serves the next block too.

    Making one costs 30 ms of processor time, attaching a file to it 1 ms (measured, 2026-11): an apply makes dozens of
    short visits.
    """
    if con is not None:
        yield con
        return
    try:
        lent = _idle.pop()
    except IndexError:
        lent = open_memory()
    try:
        yield lent
    except BaseException:
        lent.close()
        raise
    _idle.append(lent)


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


def lift_memory_limit(con: duckdb.DuckDBPyConnection) -> None:
    """Allow the instance most of the machine's memory, as DuckDB does by itself."""
    con.execute("RESET memory_limit")  # in 1.5 that alone changes what it shows, and not what it enforces
    con.execute(
        "SET memory_limit = " + sql_text(con.execute("SELECT current_setting('memory_limit')").fetchall()[0][0])
    )


@contextmanager
def attached(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    *,
    read_only: bool,
    is_new: bool = False,
    patience_seconds: float | None = READ_PATIENCE_SECONDS,
) -> Iterator[None]:
    """Have the state file attached to `con` as `state` for the length of the block.

    Tries again while another process has the file, up to `patience_seconds` (None: without limit, for a writer whose
    outcome must not be lost). Raises BatchopsError with its own sentence for a file that is busy, damaged, foreign or
    too new, and has then written nothing; Unwritable when the disk takes no more. Only with `is_new` a file is made
    where none is.
    """
    options = "READ_ONLY" if read_only else "READ_WRITE"
    if is_new:
        options = f"STORAGE_VERSION {sql_text(STORAGE_VERSION)}"
    statement = f"ATTACH {sql_text(str(path))} AS state ({options})"
    with _visit:
        version = None
        if not is_new:
            refuse_absent(path)
            version = version_of(path)
        _attach(con, statement, path, patience_seconds)
        try:
            if not is_new:
                recognise(con, path, version)
            yield
        except duckdb.Error as problem:
            if is_damage(problem) or (is_unwritable(problem) and not read_only):
                raise unreadable(path, problem) from problem  # a damaged block is found only when it is read
            raise
        finally:
            _detach(con)


def _detach(con: duckdb.DuckDBPyConnection) -> None:
    """Let the file go. Without room to merge its log into it the log stays beside it, and is read on the next visit."""
    try:
        con.execute("DETACH state")
    except duckdb.IOException as problem:
        if "CHECKPOINT during DETACH failed" not in str(problem):
            raise


def _attach(con: duckdb.DuckDBPyConnection, statement: str, path: Path, patience_seconds: float | None) -> None:
    deadline = None if patience_seconds is None else time.monotonic() + patience_seconds
    pause = 0.004
    while True:
        try:
            con.execute(statement)
        except duckdb.Error as problem:
            if not is_locked(problem):
                raise unreadable(path, problem) from problem
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


def _holder(problem: duckdb.Error) -> str:
    text = str(problem)
    return text[text.find("Conflicting lock") :].split(". See", maxsplit=1)[0] + "." if "PID" in text else "unknown."
