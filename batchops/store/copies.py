"""Whole copies of the state: backups before surgery, files for `state pull`, and a copy that takes the state's place.

DuckDB copies (`COPY FROM DATABASE`), never Python: opening the file beside DuckDB would drop its lock. A copy is made
under a name ending in `.new`, brought to the disk and only then renamed, so that a kill leaves no half copy.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from batchops.store.connection import STORAGE_VERSION, attached, open_memory, sql_text

KEPT_BACKUPS = 10

Edit = Callable[[duckdb.DuckDBPyConnection], None]


def backup(state_path: Path, verb: str) -> Path:
    """Copy the state to `backups/<serial>-<verb>.duckdb` beside it, and let go of the oldest beyond ten."""
    con = open_memory()
    try:
        with attached(con, state_path, read_only=True):
            return backup_attached(con, state_path, verb)
    finally:
        con.close()


def backup_attached(con: duckdb.DuckDBPyConnection, state_path: Path, verb: str) -> Path:
    """`backup` of a state that is attached already."""
    row = con.execute("SELECT serial FROM state.meta").fetchone()
    assert row is not None
    folder = state_path.parent / "backups"
    folder.mkdir(exist_ok=True)
    target = folder / f"{row[0]}-{verb}.duckdb"
    copy_attached(con, target)
    for old in backups(state_path)[KEPT_BACKUPS:]:
        old.unlink(missing_ok=True)
    return target


def backups(state_path: Path) -> list[Path]:
    """The backups beside a state, newest first."""
    found = (state_path.parent / "backups").glob("*.duckdb")
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


def copy_file(source: Path, target: Path, edit: Edit | None = None) -> None:
    """Copy the state file `source` to `target`, consistent as of one moment; a running apply goes on.

    `target` may be the state's own path, under the lease's lock: readers that have the old file keep it to the end of
    their visit.
    """
    con = open_memory()
    try:
        with attached(con, source, read_only=True):
            copy_attached(con, target, edit)
    finally:
        con.close()


def nobody_holds(con: duckdb.DuckDBPyConnection) -> None:
    """The edit of a copy that goes elsewhere: nobody works on it."""
    con.execute("UPDATE copy.lease SET holder = NULL")


def copy_attached(con: duckdb.DuckDBPyConnection, target: Path, edit: Edit | None = None) -> None:
    """Copy the attached `state` to `target`; `edit` may change the copy, attached as `copy`, before it is named."""
    with _draft(target) as draft:
        con.execute(f"ATTACH {sql_text(str(draft))} AS copy (STORAGE_VERSION {sql_text(STORAGE_VERSION)})")
        try:
            con.execute("COPY FROM DATABASE state TO copy")
            if edit is not None:
                edit(con)
            con.execute("CHECKPOINT copy")
        finally:
            con.execute("DETACH copy")


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A name beside `target` that becomes `target` when the block ends well."""
    draft = target.with_name(f"{target.name}.{uuid.uuid4().hex}.new")
    try:
        yield draft
        to_disk(draft)
        draft.replace(target)
        to_disk(target.parent)
    finally:
        draft.unlink(missing_ok=True)
        draft.with_name(f"{draft.name}.wal").unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Have a file, or the names in a folder, outlast a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
