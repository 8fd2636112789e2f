"""Memory and disks that do not suffice, told as that: not as a bug, as damage, or as a query that is wrong.

Knows what DuckDB and the system say then. Whoever opens a folder for what memory does not hold works in a block of
`temporary_folder` or `exhaustion_told`.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb

from batchops.diagnostics import BatchopsError, Diagnostic, error

MOVABLE: Final = (
    "What memory does not hold is put there; many long answers take twice their size. Make room, or name another folder"
    " in TMPDIR."
)
OF_PROJECT: Final = (
    "Rows, input files and results are put there while a command works. What was submitted is recorded. Make room; then"
    " run the same command again."
)
FEWER_ROWS: Final = (
    "Work on less at a time, as with --select or --limit, or where more memory is free. Nothing that was submitted is"
    " lost."
)
LESS_AT_ONCE: Final = (
    "Sorting, grouping and joining go to disk where they must; what is gathered into one value, as by list() or"
    " string_agg(), has to fit. Take fewer columns or rows, or prepare them in a file that the query reads."
)

_FULL: Final = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})
_OF_DISKS: Final = (duckdb.IOException, duckdb.TransactionException, duckdb.FatalException)
_DISK_IS_LIMIT: Final = "max_temp_directory_size"
"""DuckDB takes no more of the disk than was free when it began, and calls the end of it one of memory."""


def exhausted(problem: BaseException, folder: Path, *, advice: str = MOVABLE) -> BatchopsError | None:
    """What to say of a DuckDB that ran out of memory, or of room in `folder`; None of any other problem."""
    if is_out_of_memory(problem):
        return BatchopsError(out_of_memory(problem, FEWER_ROWS))
    if isinstance(problem, duckdb.OutOfMemoryException):
        return scratch_unwritable(folder, "No space is left on its disk", advice=advice)
    if isinstance(problem, _OF_DISKS) and str(folder) in str(problem):
        return scratch_unwritable(folder, _first_line(problem).rpartition(": ")[2].split('"')[0], advice=advice)
    return None


def is_out_of_memory(problem: BaseException) -> bool:
    """Memory was too little, and not the disk for what it does not hold."""
    if isinstance(problem, duckdb.OutOfMemoryException):
        return _DISK_IS_LIMIT not in str(problem)
    return isinstance(problem, MemoryError)


def is_unwritten(problem: duckdb.Error) -> bool:
    """A disk took no more of what DuckDB keeps there: never the fault of a query, which may only read."""
    if isinstance(problem, duckdb.OutOfMemoryException):
        return not is_out_of_memory(problem)
    return isinstance(problem, _OF_DISKS) and "Could not write" in str(problem)


def is_full(problem: BaseException) -> bool:
    """The system refused a write because disk, quota or the greatest size of a file is reached."""
    return isinstance(problem, OSError) and problem.errno in _FULL


def out_of_memory(problem: BaseException, advice: str) -> Diagnostic:
    """What to say when memory is too little."""
    said = _first_line(problem) or "Python found no more of it"
    return error("out_of_memory", "Memory does not suffice.", f"{said}. {advice}")


def scratch_unwritable(folder: Path, reason: str, *, advice: str = MOVABLE) -> BatchopsError:
    """What to say when the folder for what memory does not hold takes no more."""
    detail = f"{folder}: {reason}. {advice}"
    return BatchopsError(error("scratch_unwritable", "The temporary folder cannot be written.", detail))


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder below TMPDIR for what memory does not hold; BatchopsError where that, or memory, does not suffice."""
    try:
        made = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
    except OSError as problem:
        folder = Path(problem.filename).parent if problem.filename else Path(tempfile.tempdir or "TMPDIR")
        raise scratch_unwritable(folder, (problem.strerror or str(problem)).rstrip(".")) from problem
    with made as name, exhaustion_told(Path(name)):
        yield Path(name)


@contextmanager
def exhaustion_told(folder: Path, *, advice: str = MOVABLE) -> Iterator[None]:
    """Raise BatchopsError where the block runs out of memory, or DuckDB out of room in `folder`."""
    try:
        yield
    except (duckdb.Error, MemoryError) as problem:
        told = exhausted(problem, folder, advice=advice)
        if told is None:
            raise
        raise told from problem


@contextmanager
def work_told(folder: Path) -> Iterator[None]:
    """`exhaustion_told` for commands whose files are all in `folder`: a disk that Python finds full is its disk.

    Of a write the system tells no name; an error that has another one is of another file.
    """
    try:
        with exhaustion_told(folder, advice=OF_PROJECT):
            yield
    except OSError as problem:
        if not is_full(problem) or not Path(problem.filename or folder).is_relative_to(folder):
            raise
        raise scratch_unwritable(folder, str(problem.strerror), advice=OF_PROJECT) from problem


def _first_line(problem: BaseException) -> str:
    lines = str(problem).strip().splitlines()
    return lines[0][:300].rstrip(".") if lines else ""
