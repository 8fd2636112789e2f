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
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from batchops.diagnostics import Leased, error
from batchops.store.connection import attached, open_memory
from batchops.store.store import Clock, StateReader, StateStore, ensure_state, utc_now


@dataclass(frozen=True)
class Holder:
    """Who holds the lease."""

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
    columns = "lease_id::VARCHAR AS lease_id, holder, host, pid, run_url, taken_at"
    rows = StateReader(path).rows(f"SELECT {columns} FROM state.lease WHERE holder IS NOT NULL")
    return Holder(**rows[0]) if rows else None


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
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_path(path), timeout=patience.total_seconds())
    try:
        lock.acquire()
    except Timeout:
        raise _held_elsewhere(path) from None
    try:
        ensure_state(path, project=project, clock=clock)
        fence = _take(path, environ, clock())
        try:
            yield StateStore(path, fence=fence, clock=clock)
        finally:
            _give_back(path, fence)
    finally:
        lock.release()


def _take(path: Path, environ: Mapping[str, str], now: datetime) -> int:
    con = open_memory()
    try:
        with attached(con, path, read_only=False, patience_seconds=None):
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
    finally:
        con.close()


def _give_back(path: Path, fence: int) -> None:
    con = open_memory()
    try:
        with attached(con, path, read_only=False, patience_seconds=None):
            con.execute("UPDATE state.lease SET holder = NULL WHERE fence = ?", [fence])
    finally:
        con.close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _boot_id() -> str | None:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text(encoding="ascii").strip() if boot.exists() else None


def _held_elsewhere(path: Path) -> Leased:
    who = current_holder(path) if path.exists() else None
    if who is None:
        return Leased(
            error("lease_held", "The state is leased by somebody else.", "Another apply has just begun. Try again.")
        )
    where = f" ({who.run_url})" if who.run_url else ""
    return Leased(
        error(
            "lease_held",
            "The state is leased by somebody else.",
            f"{who.holder} on {who.host}, process {who.pid}{where}, since {who.taken_at:%Y-%m-%d %H:%M:%S} UTC."
            " Wait for it (--lock-timeout 10m). If that process hangs, end it, or take the lease from it:",
            fixes=[f"batchops unlock {who.lease_id}"],
        )
    )
