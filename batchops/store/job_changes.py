"""The changes of jobs and of the rows that stand on requests: what was approved, held, opened again, or removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import duckdb

from batchops.spec.job import Outcome
from batchops.store.changes import to_json
from batchops.store.states import RequestState


@dataclass(frozen=True)
class JobRecord:
    """A job as applied. `changes` names the work relation with its rows (see plan/diff.sql); None records no rows.

    Settled rows may be left out of them: `desired` names a relation (key) of all rows, if that is not `changes`.
    """

    environment: str
    address: str
    provider: str
    is_simulated: bool
    render_id: UUID
    parts: Mapping[str, str]
    spec: Mapping[str, Any]
    protected: bool
    moved_from: str | None = None
    changes: str | None = None
    desired: str | None = None
    is_limited: bool = False
    """Only some of the source's rows were looked at: nothing can be said of the others."""
    left: str | None = None
    """Where `is_limited`, a relation (key) of rows that have left the source all the same."""


@dataclass(frozen=True)
class RecordPlan:
    """What was approved: jobs, the request each row stands on now, and new requests as pending."""

    jobs: tuple[JobRecord, ...]
    plan_id: str
    kind: ClassVar[str] = "planned"
    subject: str = ""

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        for job in self.jobs:
            job_id, is_new = _record_job(con, job)
            if job.changes is None:
                continue
            if not is_new:
                _drop_moved(con, job_id, job.changes)
                _mark_removed(con, job_id, job, now)
            _record_rows(con, job_id, job.changes)
        return {
            "plan_id": self.plan_id,
            "environment": self.jobs[0].environment if self.jobs else None,
            "jobs": [job.address for job in self.jobs],
        }


def _record_job(con: duckdb.DuckDBPyConnection, job: JobRecord) -> tuple[int, bool]:
    """The job's number, and whether it had none."""
    found = con.execute(
        "SELECT job_id FROM state.jobs WHERE environment = ? AND address IN (?, ?) ORDER BY address = ? DESC LIMIT 1",
        [job.environment, job.address, job.moved_from or job.address, job.address],
    ).fetchone()
    values = [job.provider, job.is_simulated, job.render_id, to_json(job.parts), to_json(job.spec), job.protected]
    if found is not None:
        con.execute(
            "UPDATE state.jobs SET address = ?, provider = ?, is_simulated = ?, render_id = ?, parts = ?, spec = ?,"
            " protected = ?, removed_at = NULL WHERE job_id = ?",
            [job.address, *values, found[0]],
        )
        return int(found[0]), False
    row = con.execute("SELECT coalesce(max(job_id), 0) + 1 FROM state.jobs").fetchone()
    assert row is not None
    con.execute(
        "INSERT INTO state.jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
        [row[0], job.environment, job.address, *values],
    )
    return int(row[0]), True


def _drop_moved(con: duckdb.DuckDBPyConnection, job_id: int, changes: str) -> None:
    """Drop the rows that stand on another request from now on, and those to forget."""
    con.execute(
        f"DELETE FROM state.rows USING {changes} c WHERE rows.job_id = ? AND rows.key = c.key AND c.moves", [job_id]
    )


def _record_rows(con: duckdb.DuckDBPyConnection, job_id: int, changes: str) -> None:
    """Put the rows that moved on record, and open requests nobody has asked yet, in the order of the source.

    Requests that are sent together lie together: to update a stretch of 50,000 takes 0.1 s, scattered among a million
    it takes 0.6 s, and the next checkpoint writes the whole table anew (measured, 2026-11).
    """
    con.execute(
        f"INSERT INTO state.rows (job_id, key, fingerprint, digest, round)"
        f" SELECT ?, key, fingerprint, digest, round FROM {changes} WHERE moves AND action <> 'forget'",
        [job_id],
    )
    con.execute(
        f"""INSERT INTO state.requests (digest, round, state, attempts, free_attempts)
            SELECT c.digest, c.round, {RequestState.PENDING}, 0, 0 FROM {changes} c
            WHERE (action IN ('submit', 'resubmit', 'held') OR action = 'retry' AND moves)
              AND NOT EXISTS (FROM state.requests q WHERE q.digest = c.digest AND q.round = c.round)
            GROUP BY c.digest, c.round ORDER BY min(c.row)"""
    )


def _mark_removed(con: duckdb.DuckDBPyConnection, job_id: int, job: JobRecord, now: datetime) -> None:
    """Rows that left the source keep their answers; since when they are gone is on record, until they come back."""
    is_there = f"key IN (SELECT key FROM {job.desired or job.changes})"
    if (has_left := left_sql(job, is_there)) is not None:
        con.execute(
            f"UPDATE state.rows SET removed_at = ? WHERE job_id = ? AND removed_at IS NULL AND {has_left}",
            [now, job_id],
        )
    con.execute(
        f"UPDATE state.rows SET removed_at = NULL WHERE job_id = ? AND removed_at IS NOT NULL AND {is_there}", [job_id]
    )


def left_sql(job: JobRecord, is_there: str) -> str | None:
    """SQL for the rows that have left the source, given that for those that are there; None where none can be told."""
    if not job.is_limited:
        return f"NOT {is_there}"
    return None if job.left is None else f"key IN (SELECT key FROM {job.left})"


@dataclass(frozen=True)
class HoldJobs:
    """Submit nothing more for these jobs until `retry`; without a reason, let them submit again."""

    environment: str
    addresses: tuple[str, ...]
    because: str | None
    kind: ClassVar[str] = "held"

    @property
    def subject(self) -> str:
        return ", ".join(self.addresses)

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        con.execute(
            "UPDATE state.jobs SET held = ? WHERE environment = ? AND list_contains(?::VARCHAR[], address)",
            [self.because, self.environment, list(self.addresses)],
        )
        return {"because": self.because}


_TRUNCATED = tuple(Outcome).index(Outcome.TRUNCATED)
_GIVEN_UP = f"({RequestState.GIVEN_UP}, {RequestState.HELD})"


@dataclass(frozen=True)
class OpenRound:
    """Give rows that were given up or held another round, and let their job submit again.

    Where another job has opened a round for the same request already, the rows stand on that one. A request whose
    answer was truncated goes on with the next larger cap; every other begins as it did the first time.
    """

    environment: str
    address: str
    kind: ClassVar[str] = "retried"

    @property
    def subject(self) -> str:
        return self.address

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        job = con.execute(
            "UPDATE state.jobs SET held = NULL WHERE environment = ? AND address = ? RETURNING job_id",
            [self.environment, self.address],
        ).fetchone()
        assert job is not None
        con.execute(
            f"""CREATE TEMP TABLE reopened AS
                WITH latest AS (SELECT digest, max(round) AS round, arg_max(state, round) AS state
                                FROM state.requests GROUP BY digest)
                SELECT r.key, r.digest, CASE WHEN l.state IN {_GIVEN_UP} THEN l.round + 1 ELSE l.round END AS round
                FROM state.rows r JOIN state.requests q USING (digest, round) JOIN latest l USING (digest)
                WHERE r.job_id = ? AND r.removed_at IS NULL AND q.state IN {_GIVEN_UP}""",
            [job[0]],
        )
        count = con.execute(
            "UPDATE state.rows r SET round = o.round FROM reopened o WHERE r.job_id = ? AND r.key = o.key", [job[0]]
        ).fetchone()
        con.execute(
            f"""INSERT INTO state.requests (digest, round, state, attempts, free_attempts, amendment)
                SELECT DISTINCT o.digest, o.round, {RequestState.PENDING}, 0, 0,
                       CASE WHEN l.outcome = {_TRUNCATED} THEN l.amendment END
                FROM reopened o LEFT JOIN state.requests l ON l.digest = o.digest AND l.round = o.round - 1
                WHERE NOT EXISTS (FROM state.requests q WHERE q.digest = o.digest AND q.round = o.round)"""
        )
        con.execute("DROP TABLE reopened")
        return {"rows": count[0] if count else 0}


@dataclass(frozen=True)
class ForgetJobs:
    """Jobs that left the project: mark them removed, and drop the rows of those that say `on_remove: forget`."""

    environment: str
    addresses: tuple[str, ...]
    forgotten: tuple[str, ...]
    kind: ClassVar[str] = "removed"

    @property
    def subject(self) -> str:
        return ", ".join(self.addresses)

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        con.execute(
            """DELETE FROM state.rows WHERE job_id IN (SELECT job_id FROM state.jobs
                WHERE environment = ? AND list_contains(?::VARCHAR[], address))""",
            [self.environment, list(self.forgotten)],
        )
        con.execute(
            "UPDATE state.jobs SET removed_at = ? WHERE environment = ? AND list_contains(?::VARCHAR[], address)",
            [now, self.environment, list(self.addresses)],
        )
        return {"forgotten": list(self.forgotten)}
