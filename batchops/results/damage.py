"""What DuckDB says when answer files cannot be read or the temporary folder is full, told as that and not as a bug."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb

from batchops.diagnostics import BatchopsError, error
from batchops.store.connection import sql_text

_NO_DAMAGE: Final = (duckdb.OutOfMemoryException, duckdb.InterruptException)
_OF_SQL: Final = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)
_READ: Final = frozenset({"submission_id", "line", "answer", "message", "model"})


@contextmanager
def damage_told(con: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> Iterator[None]:
    """Raise BatchopsError where DuckDB cannot read the answer files `paths`, or not write its temporary folder."""
    try:
        yield
    except (duckdb.Error, UnicodeDecodeError) as problem:  # the latter where it tells a name that is no UTF-8
        told = no_room(con, problem) or _damage(con, paths, problem)
        if told is None:
            raise
        raise told from problem


def no_room(con: duckdb.DuckDBPyConnection, problem: Exception) -> BatchopsError | None:
    """What to say when DuckDB could not write what memory does not hold."""
    folder = scratch_folder(con)
    if not isinstance(problem, duckdb.IOException) or str(folder) not in str(problem):
        return None
    return scratch_unwritable(folder, _reason(problem).rpartition(": ")[2].split('"')[0])


def scratch_folder(con: duckdb.DuckDBPyConnection) -> Path:
    """Where DuckDB puts what memory does not hold."""
    return Path(con.execute("SELECT current_setting('temp_directory')").fetchall()[0][0])


def scratch_unwritable(folder: Path, reason: str) -> BatchopsError:
    """What to say when the temporary folder takes no more."""
    detail = (
        f"{folder}: {reason}. What memory does not hold is put there; many long answers take twice their size. Make"
        " room, or name another folder in TMPDIR."
    )
    return BatchopsError(error("scratch_unwritable", "The temporary folder cannot be written.", detail))


def damaged(problem: Exception) -> BatchopsError:
    """What to say when an answer file is not what was written."""
    detail = (
        f"{_reason(problem)}. `batchops doctor` says which file it is. Restore it from a copy, or run:"
        " batchops state repair"
    )
    return BatchopsError(error("answer_file_damaged", "The answers cannot be read.", detail))


def _damage(con: duckdb.DuckDBPyConnection, paths: Sequence[Path], problem: Exception) -> BatchopsError | None:
    """DuckDB says in many ways what is wrong with a file, most of them of no class."""
    if not paths or isinstance(problem, _NO_DAMAGE) or (isinstance(problem, _OF_SQL) and _are_ours(con, paths)):
        return None
    return damaged(problem)


def _are_ours(con: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> bool:
    """Whether the files have the columns that are read: then what does not fit them is wrong SQL."""
    files = ", ".join(sql_text(str(path)) for path in paths)
    try:
        found = con.execute(f"DESCRIBE FROM read_parquet([{files}])").fetchall()
    except duckdb.Error:
        return False
    return {name for name, *_ in found} >= _READ


def _reason(problem: Exception) -> str:
    """The first line without what follows `value`: that is a piece of an answer."""
    return str(problem).splitlines()[0].partition(": value ")[0][:300].rstrip(".")
