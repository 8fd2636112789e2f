"""The lease: one apply at a time.

Who is alive is told by a lock of the operating system on `batchops.lease`, held for the whole apply: it dies with its
process, also by kill -9, and process ids lie across containers. The row in the state says who holds it since when,
and carries the fence, a number that goes up with each holder and is checked by every commit.
"""

from __future__ import annotations

import getpass
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
from filelock import FileLock, Timeout

from batchops.diagnostics import BatchopsError, Leased, error
from batchops.store.connection import attached, borrowed_memory
from batchops.store.copies import backup
from batchops.store.recognise import Unwritable, first_line
from batchops.store.store import Clock, StateReader, StateStore, ensure_state, utc_now
from batchops.store.surgery import BreakLease


@dataclass(frozen=True)
class Holder:
    """Who holds the lease."""

    fence: int
    lease_id: str
    holder: str
    host: str
    pid: int
    run_url: str | None
    taken_at: datetime


def lock_path(state_path: Path) -> Path:
    return state_path.with_suffix(".lease")


def run_url(environ: Mapping[str, str]) -> str | None:
    """The page of the CI run that this process belongs to, if any."""
    if {"GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID"} <= environ.keys():
        return f"{environ['GITHUB_SERVER_URL']}/{environ['GITHUB_REPOSITORY']}/actions/runs/{environ['GITHUB_RUN_ID']}"
    return environ.get("CI_JOB_URL") or environ.get("BUILD_URL")


def current_holder(path: Path) -> Holder | None:
    """Who holds the lease, as recorded."""
    columns = "fence, lease_id::VARCHAR AS lease_id, holder, host, pid, run_url, taken_at"
    rows = StateReader(path).rows(f"SELECT {columns} FROM state.lease WHERE holder IS NOT NULL")
    return Holder(**rows[0]) if rows else None


@contextmanager
def locked(path: Path, patience: timedelta = timedelta(0)) -> Iterator[None]:
    """Hold the lock that tells who is alive, whatever the state file looks like. Raises Leased while another has it."""
    lock = FileLock(lock_path(path), timeout=patience.total_seconds())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise _held_elsewhere(path) from None
    except OSError as problem:
        raise Unwritable(path, first_line(problem)) from problem
    try:
        yield
    finally:
        lock.release()


@contextmanager
def leased(
    path: Path,
    *,
    project: str,
    environ: Mapping[str, str],
    patience: timedelta = timedelta(0),
    clock: Clock = utc_now,
) -> Iterator[StateStore]:
    """Hold the lease, and hand out the store that may write. Raises Leased when another process holds it.

    Creates or migrates the state file on the way: every read-write open happens under the lock.
    """
    with locked(path, patience):
        ensure_state(path, project=project, clock=clock)
        store = StateStore(path, fence=take(path, environ, clock()), clock=clock)
        try:
            yield store
        finally:
            with suppress(BatchopsError, duckdb.Error):  # the lock alone tells who is alive; the row is for people
                _give_back(path, store.fence)


def unlock(path: Path, lease_id: str, *, clock: Clock = utc_now) -> tuple[Holder, Path]:
    """Break the recorded lease `lease_id`; returns whose it was, and the backup. Raises Leased while its process lives.

    The fence goes up, so that a holder which comes back from wherever it was can write nothing more.
    """
    if not path.exists():
        raise BatchopsError(error("not_leased", "Nobody holds the lease.", f"There is no state at {path}."))
    try:
        with locked(path):
            who = current_holder(path)
            if who is None:
                raise BatchopsError(error("not_leased", "Nobody holds the lease.", "There is nothing to unlock."))
            if who.lease_id != lease_id:
                raise _other_lease(lease_id, who)
            kept = backup(path, "unlock")
            StateStore(path, fence=who.fence, clock=clock).commit(BreakLease(who.holder, who.host, who.pid))
            return who, kept
    except Leased as problem:
        raise _still_alive(path, problem) from None


def take(path: Path, environ: Mapping[str, str], now: datetime) -> int:
    """Put this process on record as the holder; returns its fence. Only under the lock."""
    with borrowed_memory() as con, attached(con, path, read_only=False, patience_seconds=None):
        row = con.execute("SELECT coalesce(max(fence), 0) + 1 FROM state.lease").fetchone()
        assert row is not None
        con.execute("BEGIN")
        con.execute("DELETE FROM state.lease")
        con.execute(
            "INSERT INTO state.lease VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, ?)",
            [
                row[0],
                uuid.uuid4(),
                _user(),
                socket.gethostname(),
                _boot_id(),
                os.getpid(),
                run_url(environ),
                now,
            ],
        )
        con.execute("COMMIT")
        return int(row[0])


def _give_back(path: Path, fence: int) -> None:
    with borrowed_memory() as con, attached(con, path, read_only=False, patience_seconds=None):
        con.execute("UPDATE state.lease SET holder = NULL WHERE fence = ?", [fence])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _boot_id() -> str | None:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text(encoding="ascii").strip() if boot.exists() else None


def _held_elsewhere(path: Path) -> Leased:
    who = _recorded_holder(path)
    if who is None:
        return Leased(
            error("lease_held", "The state is leased by somebody else.", "Another command has just begun. Try again.")
        )
    return Leased(
        error(
            "lease_held",
            "The state is leased by somebody else.",
            f"{_describe(who)}. Wait for it (--lock-timeout 10m). If that process hangs, end it: its lease ends with"
            " it. If nobody is there any more:",
            fixes=[f"batchops unlock {who.lease_id}"],
        )
    )


def _recorded_holder(path: Path) -> Holder | None:
    """Who holds the lease, as far as the state can be read: a damaged file does not hide that somebody has the lock."""
    try:
        return current_holder(path) if path.exists() else None
    except BatchopsError:
        return None


def _describe(who: Holder) -> str:
    where = f" ({who.run_url})" if who.run_url else ""
    return f"{who.holder} on {who.host}, process {who.pid}{where}, since {who.taken_at:%Y-%m-%d %H:%M:%S} UTC"


def _other_lease(lease_id: str, who: Holder) -> BatchopsError:
    return BatchopsError(
        error(
            "other_lease",
            "The lease is another one.",
            f"{lease_id} is not held. The lease on record is of {_describe(who)}. To break that one:",
            fixes=[f"batchops unlock {who.lease_id}"],
        )
    )


def _still_alive(path: Path, held: Leased) -> Leased:
    """The operating system says that the holder lives: breaking its lease would let two processes pay."""
    who = _recorded_holder(path)
    if who is None:
        return held
    return Leased(
        error(
            "lease_alive",
            "The holder of the lease is alive.",
            f"{_describe(who)}: it holds the lock on {lock_path(path)}, which dies with its process. End the process;"
            " then nothing needs to be unlocked.",
        )
    )
