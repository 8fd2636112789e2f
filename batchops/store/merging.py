"""Small answer files into large ones, and lines of dropped tries out of them. The old files stay on disk for a while.

A merged file is on disk, synced and counted, before the commit that names it; a kill in between leaves a file that no
state names. An old file is removed by a later apply, when no reader can still be on its way through it and no backup
names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import duckdb

from batchops.diagnostics import BatchopsError
from batchops.store.answerfiles import SMALL, draft_answers, name_answers
from batchops.store.changes import AnswerFile, PhaseConflict
from batchops.store.connection import AS_WRITTEN, file_text, open_memory
from batchops.store.copies import backups
from batchops.store.integrity import lost_files
from batchops.store.store import StateReader

SMALL_BYTES = 16_000_000
FULL_BYTES = 64_000_000
DEAD_SHARE = 0.2
"""A file is written anew when it is small, and has a neighbour, or when so many of its lines are of dropped tries."""

READERS_LEAVE = timedelta(hours=1)


@dataclass(frozen=True)
class _File:
    number: int
    path: str
    live_bytes: int
    has_dead_lines: bool


@dataclass(frozen=True)
class Merged:
    """Outcomes whose answers were in the files `old` have them in `new`; None when none is left."""

    old: Sequence[int]
    new: AnswerFile | None
    kind: ClassVar[str] = "merged"
    subject: str = ""

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        old, lines = list(self.old), self.new.lines if self.new else 0
        moved = con.execute(
            "UPDATE state.outcomes SET answer_file = ? WHERE list_contains(?::UINTEGER[], answer_file)",
            [self.new.file_no if self.new else None, old],
        ).fetchone()
        if moved != (lines,):
            raise PhaseConflict(f"{moved} outcomes stand in files of which {lines} lines were merged")
        con.execute(
            "UPDATE state.answer_files SET dropped_at = ? WHERE list_contains(?::UINTEGER[], file_no)", [now, old]
        )
        if self.new is not None:
            con.execute(
                "INSERT INTO state.answer_files VALUES (?, ?, ?, ?, ?, NULL)",
                [self.new.file_no, self.new.path, self.new.sha256, self.new.size_bytes, lines],
            )
        return {"old": old, "new": self.new.file_no if self.new else None, "lines": lines}


def merge(reader: StateReader, folder: Path) -> Iterator[Merged]:
    """Write the files that are due, one by one; commit each `Merged` before the next is asked for."""
    for group in _groups(_files(reader)):
        yield Merged([file.number for file in group], _written(reader, group, folder))


def _files(reader: StateReader) -> Iterator[_File]:
    """The files on record that are on disk as they were written."""
    lost = {file.file_no for file in lost_files(reader)}
    rows = reader.rows(
        """SELECT f.file_no, f.path, f.bytes, f.n, count(o.line) AS live
           FROM state.answer_files f LEFT JOIN state.outcomes o ON o.answer_file = f.file_no
           WHERE f.dropped_at IS NULL GROUP BY ALL ORDER BY f.file_no"""
    )
    for row in rows:
        if row["file_no"] not in lost:
            share = row["live"] / max(row["n"], row["live"], 1)
            yield _File(row["file_no"], row["path"], int(row["bytes"] * share), share < 1 - DEAD_SHARE)


def _groups(files: Iterator[_File]) -> Iterator[list[_File]]:
    """Neighbours that fill a file together, in the order of their numbers."""
    group: list[_File] = []
    for file in files:
        if file.live_bytes >= SMALL_BYTES and not file.has_dead_lines:
            continue
        if group and sum(each.live_bytes for each in group) + file.live_bytes > FULL_BYTES:
            yield from _if_due(group)
            group = []
        group.append(file)
    yield from _if_due(group)


def _if_due(group: list[_File]) -> Iterator[list[_File]]:
    if len(group) > 1 or any(file.has_dead_lines for file in group):
        yield group


def _written(reader: StateReader, group: Sequence[_File], folder: Path) -> AnswerFile | None:
    con = open_memory(temp_directory=folder / "spill")
    try:
        _load_live(con, reader, group)
        row = con.execute("SELECT count(*) FROM live").fetchone()
        lines = row[0] if row else 0
        if not lines:
            return None
        live = _live_lines([reader.folder / file.path for file in group])
        draft = draft_answers(con, live, folder / "answers.parquet", lines=lines, level=SMALL)
        return name_answers(reader, draft)
    finally:
        con.close()


def _load_live(con: duckdb.DuckDBPyConnection, reader: StateReader, group: Sequence[_File]) -> None:
    """`live(filename, submission_id, line)`: the lines that outcomes stand in."""
    paths = {file.number: str(reader.folder / file.path) for file in group}
    con.execute(
        "CREATE TABLE files AS SELECT unnest(?::UINTEGER[]) AS file_no, unnest(?::VARCHAR[]) AS filename",
        [list(paths), list(paths.values())],
    )
    with reader.reading(con):
        con.execute(
            """CREATE TABLE live AS SELECT f.filename, o.submission_id, o.line
               FROM state.outcomes o JOIN files f ON f.file_no = o.answer_file"""
        )


def _live_lines(paths: Sequence[Path]) -> str:
    listed = ", ".join(map(file_text, paths))
    files = f"read_parquet([{listed}], filename = true, union_by_name = true, {AS_WRITTEN})"
    return f"(SELECT p.* EXCLUDE (filename) FROM {files} p SEMI JOIN live USING (filename, submission_id, line))"


def sweep_answers(reader: StateReader) -> int:
    """Remove files whose answers have long been elsewhere, but for those that a backup names; returns how many."""
    rows = reader.rows(
        """SELECT path FROM state.answer_files WHERE dropped_at < ?
           AND path NOT IN (SELECT path FROM state.answer_files WHERE dropped_at IS NULL)""",
        [reader.clock() - READERS_LEAVE],
    )
    leavings = {row["path"] for row in rows if (reader.folder / row["path"]).is_file()}
    leavings -= _named_by_backups(reader.path) if leavings else set()
    for path in leavings:
        (reader.folder / path).unlink(missing_ok=True)
    return len(leavings)


def _named_by_backups(state_path: Path) -> set[str]:
    """The answer files of every backup; a backup that cannot be read is none."""
    named: set[str] = set()
    for kept in backups(state_path):
        try:
            rows = StateReader(kept).rows("SELECT path FROM state.answer_files WHERE dropped_at IS NULL")
        except BatchopsError:
            continue
        named |= {row["path"] for row in rows}
    return named
