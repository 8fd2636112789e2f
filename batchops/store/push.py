"""Put a copy of a state in the state's place, when it is the same state further on; anything else has to be forced."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import duckdb

from batchops.diagnostics import BatchopsError, Diagnostic, error
from batchops.store.connection import attached, open_memory
from batchops.store.copies import Edit, backup, copy_file
from batchops.store.lease import locked
from batchops.store.store import Clock, utc_now


@dataclass(frozen=True)
class Facts:
    """What tells one state from another."""

    lineage: str
    serial: int
    fence: int


@dataclass(frozen=True)
class Pushed:
    """What was done: the serial the state has now, and where what stood there before is kept."""

    lineage: str
    serial: int
    kept: Path | None
    is_changed: bool


def push(
    source: Path,
    state_path: Path,
    *,
    force: bool = False,
    patience: timedelta = timedelta(0),
    clock: Clock = utc_now,
) -> Pushed:
    """Put a copy of `source` in the place of the state. Raises BatchopsError, and changes nothing, when it is of
    another lineage, older, or has gone another way, unless `force`; Leased while somebody works on the state.

    The serial goes up beyond both, so that saved plans are stale, and so does the fence.
    """
    incoming = _facts(source)
    with locked(state_path, patience):
        present = _present(state_path, force=force)
        if present is not None and present.serial > 0:
            differs = _difference(source, incoming, state_path, present)
            if differs is None and present.serial == incoming.serial:
                return Pushed(present.lineage, present.serial, None, is_changed=False)
            if differs is not None and not force:
                raise BatchopsError(differs)
        kept = _keep(state_path, present, clock())
        serial = max(incoming.serial, present.serial if present else 0) + 1
        fence = max(incoming.fence, present.fence if present else 0) + 1
        copy_file(source, state_path, _edit(serial, fence, clock()))
    return Pushed(incoming.lineage, serial, kept, is_changed=True)


def _facts(path: Path) -> Facts:
    con = open_memory()
    try:
        with attached(con, path, read_only=True):
            row = con.execute(
                "SELECT lineage::VARCHAR, serial, (SELECT coalesce(max(fence), 0) FROM state.lease) FROM state.meta"
            ).fetchone()
    finally:
        con.close()
    assert row is not None
    return Facts(*row)


def _present(state_path: Path, *, force: bool) -> Facts | None:
    """The state that stands there; None where none does, or where it cannot be read and is to be replaced anyway."""
    if not state_path.exists():
        return None
    try:
        return _facts(state_path)
    except BatchopsError:
        if not force:
            raise
        return None


def _difference(source: Path, incoming: Facts, state_path: Path, present: Facts) -> Diagnostic | None:
    """Why `source` is not this state further on, or None."""
    fixes = [f"batchops state push --force {shlex.quote(str(source))}"]
    if incoming.lineage != present.lineage:
        return error(
            "other_lineage",
            "The file is another state.",
            f"{source} has lineage {incoming.lineage}, the state has {present.lineage}: they do not know each other's"
            " answers. To replace the state all the same (it is backed up):",
            fixes=fixes,
        )
    if incoming.serial < present.serial:
        return error(
            "older_state",
            "The file is an older state.",
            f"{source} has serial {incoming.serial}, the state has {present.serial}: what was recorded since would be"
            " forgotten, batches that are in flight too. To go back all the same (the state is backed up):",
            fixes=fixes,
        )
    if _event(source, present.serial) != _event(state_path, present.serial):
        return error(
            "forked_state",
            "The file is this state, but went another way.",
            f"Serial {present.serial} of {source} is another change than that of the state: each has recorded what the"
            " other does not know. To replace the state all the same (it is backed up):",
            fixes=fixes,
        )
    return None


def _event(path: Path, serial: int) -> tuple[object, ...] | None:
    con = open_memory()
    try:
        with attached(con, path, read_only=True):
            return con.execute(
                "SELECT happened_at, kind, subject, detail::VARCHAR FROM state.events WHERE serial = ?", [serial]
            ).fetchone()
    finally:
        con.close()


def _keep(state_path: Path, present: Facts | None, now: datetime) -> Path | None:
    """Back up what stands in the place, or link it aside where it cannot be read; leave no log but the copy's."""
    log = state_path.with_name(f"{state_path.name}.wal")
    if present is not None:
        _merge_log(state_path, log)
        return backup(state_path, "push")
    if not state_path.exists():
        log.unlink(missing_ok=True)
        return None
    aside = state_path.with_name(f"{state_path.stem}-damaged-{now:%Y%m%dT%H%M%S}{state_path.suffix}")
    if log.exists():
        log.rename(aside.with_name(f"{aside.name}.wal"))
    try:
        aside.hardlink_to(state_path)  # so that a kill before the copy is there leaves no gap
    except OSError:
        state_path.rename(aside)
    return aside


def _merge_log(state_path: Path, log: Path) -> None:
    """What a killed writer left in the log belongs to the file that goes, and must not meet the one that comes."""
    if log.exists():
        con = open_memory()
        try:
            with attached(con, state_path, read_only=False):
                con.execute("CHECKPOINT state")
        finally:
            con.close()


def _edit(serial: int, fence: int, now: datetime) -> Edit:
    def edit(con: duckdb.DuckDBPyConnection) -> None:
        con.execute("UPDATE copy.meta SET serial = ?", [serial])
        con.execute("DELETE FROM copy.lease")
        con.execute("INSERT INTO copy.lease (fence) VALUES (?)", [fence])
        con.execute("INSERT INTO copy.events VALUES (?, ?, ?, 'pushed', '', '{}')", [serial, now, fence])

    return edit
