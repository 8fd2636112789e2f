"""What DuckDB says when answer files cannot be read, told as that and not as a bug."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb

from batchops.diagnostics import BatchopsError, error
from batchops.exhaustion import exhausted
from batchops.store.connection import AS_WRITTEN, file_text
from batchops.store.integrity import what_is_wrong

_OF_SQL: Final = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)
_OF_STATE: Final = "Corrupt database file"
_TEXTS: Final = ("answer", "message", "model")
_READ: Final = frozenset({("submission_id", "UINTEGER"), ("line", "UINTEGER"), *((name, "VARCHAR") for name in _TEXTS)})


@contextmanager
def damage_told(con: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> Iterator[None]:
    """Raise BatchopsError where DuckDB cannot read the answer files `paths`, or finds no memory or room of its own."""
    try:
        yield
    except (duckdb.Error, UnicodeDecodeError) as problem:  # the latter where it tells a name that is no UTF-8
        told = exhausted(problem, scratch_folder(con)) or _damage(con, paths, problem)
        if told is None:
            raise
        raise told from problem


def scratch_folder(con: duckdb.DuckDBPyConnection) -> Path:
    """Where DuckDB puts what memory does not hold."""
    return Path(con.execute("SELECT current_setting('temp_directory')").fetchall()[0][0])


def damaged(problem: Exception) -> BatchopsError:
    """What to say when an answer file is not what was written."""
    detail = (
        f"{_reason(problem)}. `batchops doctor` says which file it is. Restore it from a copy, or run:"
        " batchops state repair"
    )
    return BatchopsError(error("answer_file_damaged", "The answers cannot be read.", detail))


def altered(con: duckdb.DuckDBPyConnection, folder: Path, paths: Collection[Path]) -> Iterator[Path]:
    """Those of the answer files `paths` that are not what a snapshot says was written."""
    recorded = con.execute("SELECT path, bytes, sha256 FROM main.answer_files WHERE dropped_at IS NULL").fetchall()
    for name, size_bytes, sha256 in recorded:
        if (path := folder / name) in paths and what_is_wrong(path, size_bytes, sha256) is not None:
            yield path


def is_of_sql(problem: duckdb.Error) -> bool:
    """DuckDB did not get as far as to read: the query itself is wrong."""
    return isinstance(problem, _OF_SQL)


def _damage(con: duckdb.DuckDBPyConnection, paths: Sequence[Path], problem: Exception) -> BatchopsError | None:
    """DuckDB says in many ways what is wrong with a file, most of them of no class.

    Of the state, which is read beside them, whoever attached it tells.
    """
    if not paths or isinstance(problem, duckdb.InterruptException) or _OF_STATE in str(problem):
        return None
    if isinstance(problem, _OF_SQL) and _are_ours(con, paths):
        return None
    return damaged(problem)


def _are_ours(con: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> bool:
    """Whether the files have the columns that are read: then what does not fit them is wrong SQL."""
    try:
        reads = [f"read_parquet({file_text(path)}, {AS_WRITTEN})" for path in paths]
        found = [con.execute(f"DESCRIBE FROM {read}").fetchall() for read in reads]
    except duckdb.Error:
        return False
    return all({(name, kind) for name, kind, *_ in columns} >= _READ for columns in found)


def _reason(problem: Exception) -> str:
    """The first line without what follows `value`: that is a piece of an answer."""
    return str(problem).splitlines()[0].partition(": value ")[0][:300].rstrip(".")
