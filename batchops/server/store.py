"""Files and batches that survive a kill: SQLite in WAL mode, one commit for each change, fsynced.

Rows are frozen values. Times are epoch seconds of the server's clock. An `owner` is the digest of a bearer key, or
empty.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, filename TEXT NOT NULL,
    purpose TEXT NOT NULL, bytes INTEGER NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER, deleted_at INTEGER
);
CREATE INDEX IF NOT EXISTS files_by_owner ON files (owner, created_at, seq);
CREATE INDEX IF NOT EXISTS files_by_expiry ON files (expires_at) WHERE deleted_at IS NULL;
CREATE TABLE IF NOT EXISTS batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, status TEXT NOT NULL,
    model TEXT, enqueued_tokens INTEGER NOT NULL, document BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS batches_by_owner ON batches (owner, seq);
CREATE INDEX IF NOT EXISTS batches_unfinished ON batches (owner, model)
    WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling');
CREATE TABLE IF NOT EXISTS executions (
    batch_id TEXT NOT NULL, owner TEXT NOT NULL, custom_id TEXT NOT NULL, times INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS executions_by_batch ON executions (batch_id);
CREATE TABLE IF NOT EXISTS events (
    id TEXT PRIMARY KEY, batch_id TEXT NOT NULL, type TEXT NOT NULL, created_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL, due_at REAL
);
CREATE INDEX IF NOT EXISTS events_due ON events (due_at) WHERE due_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""
_UNFINISHED = "status IN ('validating', 'in_progress', 'finalizing', 'cancelling')"
_FILE_COLUMNS = "id, owner, filename, purpose, bytes, created_at, expires_at"


@dataclass(frozen=True, slots=True)
class File:
    id: str
    owner: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as the service knows it. Counts and usage are final only when its status is."""

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    metadata: dict[str, str] | None = None
    output_expires_seconds: int | None = None
    status: str = "validating"
    model: str | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    enqueued_tokens: int = 0
    fate: dict[str, Any] | None = None
    """What a fault plan has decided for this batch when it was created."""


@dataclass(frozen=True, slots=True)
class Event:
    """The news that a batch has ended; `due_at` is when it is sent next."""

    id: str
    batch_id: str
    type: str
    created_at: int
    attempts: int
    due_at: float


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _batch(document: bytes) -> Batch:
    return Batch(**orjson.loads(document))


class Store:
    """Reads and writes by any thread. A write returns when it is on disk."""

    def __init__(self, path: Path) -> None:
        self._writer, self._write_lock = _open(path), threading.Lock()
        self._writer.executescript(_SCHEMA)
        self._reader, self._read_lock = _open(path), threading.Lock()

    def close(self) -> None:
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    def _read(self, sql: str, *values: object) -> list[Any]:
        with self._read_lock:
            return self._reader.execute(sql, values).fetchall()

    # Files

    def add_file(self, file: File) -> None:
        with self._writing() as connection:
            _insert_file(connection, file)

    def file(self, owner: str, file_id: str, *, now: int) -> File | None:
        rows = self._read(
            f"SELECT {_FILE_COLUMNS} FROM files WHERE id = ? AND owner = ? AND {_PRESENT}", file_id, owner, now
        )
        return File(*rows[0]) if rows else None

    def files(
        self, owner: str, *, now: int, limit: int, purpose: str | None, after: str | None, newest_first: bool
    ) -> tuple[list[File], bool]:
        """One page and whether more follow. Raises LookupError for a cursor that names no file of this owner."""
        where, values = f"owner = ? AND {_PRESENT}", [owner, now]
        if purpose is not None:
            where, values = where + " AND purpose = ?", [*values, purpose]
        if after is not None:
            cursor = self._read("SELECT created_at, seq FROM files WHERE id = ? AND owner = ?", after, owner)
            if not cursor:
                raise LookupError(after)
            where += f" AND (created_at, seq) {'<' if newest_first else '>'} (?, ?)"
            values += cursor[0]
        way = "DESC" if newest_first else "ASC"
        sql = f"SELECT {_FILE_COLUMNS} FROM files WHERE {where} ORDER BY created_at {way}, seq {way} LIMIT ?"
        rows = [File(*row) for row in self._read(sql, *values, limit + 1)]
        return rows[:limit], len(rows) > limit

    def delete_file(self, owner: str, file_id: str, *, now: int) -> bool:
        """Whether there was such a file. Its row stays behind so that a listing's cursor still finds its place."""
        with self._writing() as connection:
            gone = connection.execute(
                f"UPDATE files SET deleted_at = ?3 WHERE id = ?1 AND owner = ?2 AND {_PRESENT.replace('?', '?3')}",
                (file_id, owner, now),
            )
            return gone.rowcount > 0

    def expire_files(self, *, now: int) -> list[str]:
        """Mark what has outlived its `expires_at` as deleted; returns the ids."""
        if not self._read("SELECT 1 FROM files WHERE deleted_at IS NULL AND expires_at <= ? LIMIT 1", now):
            return []
        with self._writing() as connection:
            gone = connection.execute(
                "UPDATE files SET deleted_at = ?1 WHERE deleted_at IS NULL AND expires_at <= ?1 RETURNING id", (now,)
            )
            return [file_id for (file_id,) in gone]

    def stored_bytes(self, owner: str) -> int:
        rows = self._read("SELECT coalesce(sum(bytes), 0) FROM files WHERE owner = ? AND deleted_at IS NULL", owner)
        return int(rows[0][0])

    def file_count(self, owner: str, *, purpose: str | None = None, is_lasting: bool = False) -> int:
        """How many files there are: all, those of a purpose, or those that never expire."""
        sql = "SELECT count(*) FROM files WHERE owner = ?1 AND deleted_at IS NULL AND purpose = coalesce(?2, purpose)"
        return int(self._read(f"{sql} AND expires_at IS NULL" if is_lasting else sql, owner, purpose)[0][0])

    def file_ids(self) -> set[str]:
        return {file_id for (file_id,) in self._read("SELECT id FROM files WHERE deleted_at IS NULL")}

    # Batches

    def add_batch(self, batch: Batch) -> int:
        """Returns its ordinal: 1 for the first batch this store ever held."""
        with self._writing() as connection:
            added = connection.execute(
                "INSERT INTO batches (id, owner, status, model, enqueued_tokens, document) VALUES (?, ?, ?, ?, ?, ?)",
                (batch.id, batch.owner, batch.status, batch.model, batch.enqueued_tokens, orjson.dumps(batch)),
            )
            return int(added.lastrowid or 0)

    def batch(self, owner: str, batch_id: str) -> Batch | None:
        rows = self._read("SELECT document FROM batches WHERE id = ? AND owner = ?", batch_id, owner)
        return _batch(rows[0][0]) if rows else None

    def any_batch(self, batch_id: str) -> Batch:
        """A batch whoever owns it. Raises LookupError."""
        rows = self._read("SELECT document FROM batches WHERE id = ?", batch_id)
        if not rows:
            raise LookupError(batch_id)
        return _batch(rows[0][0])

    def ordinal(self, batch_id: str) -> int:
        return int(self._read("SELECT seq FROM batches WHERE id = ?", batch_id)[0][0])

    def batches(
        self, owner: str, *, limit: int, after: str | None, keep: Callable[[Batch], bool] = lambda _: True
    ) -> tuple[list[Batch], bool]:
        """One page, newest first, and whether more follow. Raises LookupError for an unknown cursor."""
        before = 1 << 62
        if after is not None:
            cursor = self._read("SELECT seq FROM batches WHERE id = ? AND owner = ?", after, owner)
            if not cursor:
                raise LookupError(after)
            before = cursor[0][0]
        found: list[Batch] = []
        sql = "SELECT seq, document FROM batches WHERE owner = ? AND seq < ? ORDER BY seq DESC LIMIT ?"
        while len(found) <= limit and (rows := self._read(sql, owner, before, limit + 1)):
            found += [batch for _, document in rows if keep(batch := _batch(document))]
            before = rows[-1][0]
        return found[:limit], len(found) > limit

    def unfinished(self) -> list[Batch]:
        """Every batch that has not ended, oldest first."""
        rows = self._read(f"SELECT document FROM batches WHERE {_UNFINISHED} ORDER BY seq")
        return [_batch(document) for (document,) in rows]

    def open_batches(self, owner: str) -> int:
        """How many batches have not ended."""
        return int(self._read(f"SELECT count(*) FROM batches WHERE owner = ? AND {_UNFINISHED}", owner)[0][0])

    def enqueued_tokens(self, owner: str, model: str) -> int:
        """Prompt tokens of the model in unfinished batches."""
        sql = f"SELECT coalesce(sum(enqueued_tokens), 0) FROM batches WHERE owner = ? AND model = ? AND {_UNFINISHED}"
        return int(self._read(sql, owner, model)[0][0])

    def change_batch(
        self,
        batch_id: str,
        change: Callable[[Batch], Batch],
        *,
        files: Sequence[File] = (),
        executions: Mapping[str, int] | None = None,
        event: Event | None = None,
    ) -> Batch:
        """Read, change and write in one transaction, with all that comes with the change."""
        with self._writing() as connection:
            before = _locked_batch(connection, batch_id)
            after = change(before)
            if after is before:
                return before
            for file in files:
                _insert_file(connection, file)
            _insert_executions(connection, after, (executions or {}).items())
            if event is not None:
                _insert_event(connection, event)
            _replace_batch(connection, after)
            return after

    def begin_batch(self, batch_id: str, change: Callable[[Batch], Batch], *, now: int) -> Batch | None:
        """`change_batch` if the batch's input file still exists; None if it does not. One transaction."""
        with self._writing() as connection:
            before = _locked_batch(connection, batch_id)
            found = connection.execute(
                f"SELECT 1 FROM files WHERE id = ? AND owner = ? AND {_PRESENT}",
                (before.input_file_id, before.owner, now),
            ).fetchone()
            if found is None:
                return None
            after = change(before)
            _replace_batch(connection, after)
            return after

    # The ledger and other facts

    def executions(self, owner: str, batch_id: str | None = None) -> Iterator[tuple[str, str, int]]:
        """(batch id, custom_id, times) of every line of an ended batch that was executed."""
        if batch_id is None:
            yield from self._read("SELECT batch_id, custom_id, times FROM executions WHERE owner = ?", owner)
        else:
            sql = "SELECT batch_id, custom_id, times FROM executions WHERE owner = ? AND batch_id = ?"
            yield from self._read(sql, owner, batch_id)

    def next_event(self) -> Event | None:
        """The event that is due first, if any is still to be sent."""
        rows = self._read(
            "SELECT id, batch_id, type, created_at, attempts, due_at FROM events WHERE due_at IS NOT NULL "
            "ORDER BY due_at LIMIT 1"
        )
        return Event(*rows[0]) if rows else None

    def settle_event(self, event_id: str, *, attempts: int, due_at: float | None) -> None:
        """Note a delivery; None: the event is not sent again."""
        with self._writing() as connection:
            connection.execute("UPDATE events SET attempts = ?, due_at = ? WHERE id = ?", (attempts, due_at, event_id))

    def fact(self, name: str) -> Any:
        rows = self._read("SELECT value FROM facts WHERE name = ?", name)
        return orjson.loads(rows[0][0]) if rows else None

    def set_fact(self, name: str, value: object) -> None:
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, orjson.dumps(value)))


_PRESENT = "deleted_at IS NULL AND (expires_at IS NULL OR expires_at > ?)"


def _insert_file(connection: sqlite3.Connection, file: File) -> None:
    connection.execute(
        f"INSERT INTO files ({_FILE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (file.id, file.owner, file.filename, file.purpose, file.bytes, file.created_at, file.expires_at),
    )


def _insert_executions(connection: sqlite3.Connection, batch: Batch, executions: Iterable[tuple[str, int]]) -> None:
    connection.executemany(
        "INSERT INTO executions VALUES (?, ?, ?, ?)",
        ((batch.id, batch.owner, custom_id, times) for custom_id, times in executions),
    )


def _insert_event(connection: sqlite3.Connection, event: Event) -> None:
    values = (event.id, event.batch_id, event.type, event.created_at, event.attempts, event.due_at)
    connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", values)


def _locked_batch(connection: sqlite3.Connection, batch_id: str) -> Batch:
    found = connection.execute("SELECT document FROM batches WHERE id = ?", (batch_id,)).fetchone()
    if found is None:
        raise LookupError(batch_id)
    return _batch(found[0])


def _replace_batch(connection: sqlite3.Connection, batch: Batch) -> None:
    connection.execute(
        "UPDATE batches SET status = ?, model = ?, enqueued_tokens = ?, document = ? WHERE id = ?",
        (batch.status, batch.model, batch.enqueued_tokens, orjson.dumps(batch), batch.id),
    )
