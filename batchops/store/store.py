"""The state of a project: reads, and commits that are one transaction each.

`StateReader` cannot write. `StateStore.commit` performs named changes (of changes.py, job_changes.py or surgery.py)
under the lease's fence, and for each raises the serial by one and records an event: there is no other way to write.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import duckdb
import orjson

from batchops.diagnostics import Leased, error
from batchops.store import migrations
from batchops.store.connection import attached, borrowed_memory, open_memory
from batchops.store.copies import backup_attached
from batchops.store.recognise import Unwritable
from batchops.store.unwritten import with_note

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


class Change(Protocol):
    """A named change of the state, carried out inside one transaction on tables in `state.`."""

    @property
    def kind(self) -> str:
        """The word for the event."""

    @property
    def subject(self) -> str:
        """What changed: a job's address, a submission, or empty text."""

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any] | None:
        """Write; returns the event's detail."""


@dataclass(frozen=True)
class Identity:
    """Which state this is: `lineage` is set once, `serial` goes up by one with each commit."""

    lineage: str | None
    serial: int


class StateReader:
    """Reads the state file in short visits."""

    def __init__(self, path: Path, *, clock: Clock = utc_now) -> None:
        self.path = path
        self.clock = clock

    @property
    def exists(self) -> bool:
        return self.path.exists()

    @property
    def folder(self) -> Path:
        return self.path.parent

    @contextmanager
    def reading(self, con: duckdb.DuckDBPyConnection | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection with the tables under `state.`, for the length of the block; writers wait meanwhile.

        Give `con` to have the state beside the tables of a connection of yours. A state that does not exist yet
        reads as empty tables; one of an older version as it will be when the next writer has migrated it.
        """
        with borrowed_memory(con) as target, self._attached(target):
            yield target

    @contextmanager
    def _attached(self, con: duckdb.DuckDBPyConnection) -> Iterator[None]:
        if not self.exists:
            with _in_memory(con, migrations.STEPS):
                yield
            return
        with attached(con, self.path, read_only=True):
            steps = migrations.missing_steps(con)
            if not steps:
                yield
                return
            con.execute("ATTACH ':memory:' AS older")
            con.execute("COPY FROM DATABASE state TO older")
        with _in_memory(con, steps, source="older"):
            con.execute("DETACH older")
            yield

    def rows(self, sql: str, parameters: list[Any] | None = None) -> list[dict[str, Any]]:
        """All rows of a query over `state.*`, as dictionaries. For small answers."""
        with self.reading() as con:
            result = con.execute(sql, parameters or [])
            names = [column[0] for column in result.description or ()]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def identity(self) -> Identity:
        found = self.rows("SELECT lineage, serial FROM state.meta")
        return Identity(str(found[0]["lineage"]), found[0]["serial"]) if found else Identity(None, 0)


@contextmanager
def _in_memory(
    con: duckdb.DuckDBPyConnection, steps: Sequence[migrations.Step], *, source: str | None = None
) -> Iterator[None]:
    """Have a `state` that no file holds: a copy of `source`, if given, brought through `steps`."""
    con.execute("ATTACH ':memory:' AS state")
    try:
        if source is not None:
            con.execute(f"COPY FROM DATABASE {source} TO state")
        migrations.perform(con, steps)
        yield
    finally:
        con.execute("DETACH state")


class StateStore(StateReader):
    """Reads and writes; every commit happens under the lease whose `fence` it was opened with."""

    def __init__(self, path: Path, *, fence: int, clock: Clock = utc_now) -> None:
        super().__init__(path, clock=clock)
        self.fence = fence

    def commit(self, *changes: Change, con: duckdb.DuckDBPyConnection | None = None) -> int:
        """Perform the changes in one transaction; returns the new serial. Waits as long as a reader has the file.

        Give `con` when a change reads relations of a connection of yours. Raises Leased when the fence has moved,
        and BatchopsError when the file or its disk takes no more; nothing of the changes is recorded then.
        """
        try:
            with (
                borrowed_memory(con) as target,
                attached(target, self.path, read_only=False, patience_seconds=None),
            ):
                return self._in_transaction(target, changes)
        except Unwritable as problem:
            raise with_note(problem, self.path, changes, self.clock()) from problem.__cause__

    def _in_transaction(self, con: duckdb.DuckDBPyConnection, changes: Sequence[Change]) -> int:
        con.execute("BEGIN")
        try:
            self._check_fence(con)
            serial = max(self._perform(con, change) for change in changes)
        except BaseException:
            con.execute("ROLLBACK")
            raise
        con.execute("COMMIT")
        return serial

    def _check_fence(self, con: duckdb.DuckDBPyConnection) -> None:
        held = con.execute("SELECT fence FROM state.lease").fetchone()
        if held is None or held[0] != self.fence:
            raise Leased(
                error(
                    "lease_lost",
                    "The lease was taken by somebody else.",
                    "Nothing more is written by this process. What it had submitted is recorded, and is fetched by the"
                    " next apply.",
                )
            )

    def _perform(self, con: duckdb.DuckDBPyConnection, change: Change) -> int:
        now = self.clock()
        detail = change.perform(con, now)
        row = con.execute("UPDATE state.meta SET serial = serial + 1 RETURNING serial").fetchone()
        assert row is not None
        con.execute(
            "INSERT INTO state.events VALUES (?, ?, ?, ?, ?, ?)",
            [row[0], now, self.fence, change.kind, change.subject, orjson.dumps(detail or {}).decode()],
        )
        return int(row[0])


def ensure_state(path: Path, *, project: str, clock: Clock = utc_now) -> tuple[str, ...]:
    """Create the state file, or migrate it; only under the lease's lock. Returns the migration steps taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    con = open_memory()
    try:
        is_new = not path.exists()
        if is_new:
            _create(con, path, project, clock)
            return ()
        with attached(con, path, read_only=False, patience_seconds=None):
            if migrations.missing_steps(con):
                backup_attached(con, path, "migrate")
            return migrations.migrate(con)
    finally:
        con.close()


def _create(con: duckdb.DuckDBPyConnection, path: Path, project: str, clock: Clock) -> None:
    """Build the file under another name first: a kill in between leaves no half-made state."""
    fresh = path.with_name(f"{path.name}.{uuid.uuid4().hex}.new")
    with attached(con, fresh, read_only=False, is_new=True):
        migrations.create(con, lineage=uuid.uuid4(), project=project, now=clock())
        con.execute("CHECKPOINT state")
    fresh.rename(path)
