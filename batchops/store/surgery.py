"""Changes that a person asks for: named values like those in changes.py, made by `batchops state`, `import`
and `unlock`.

They move what is recorded; none of them can make a paid answer disappear from the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import duckdb

from batchops.store.changes import NewSubmission, PhaseConflict, to_json
from batchops.store.states import RequestState


@dataclass(frozen=True)
class BreakLease:
    """The holder on record is gone: its fence is no longer good."""

    holder: str
    host: str
    pid: int
    kind: ClassVar[str] = "unlocked"
    subject: str = ""

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        con.execute("UPDATE state.lease SET fence = fence + 1, holder = NULL")
        return {"holder": self.holder, "host": self.host, "pid": self.pid}


@dataclass(frozen=True)
class MoveJobs:
    """Jobs on record get other addresses and keep their rows, answers and batches. `moves` are pairs (from, to)."""

    environment: str
    moves: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "moved"

    @property
    def subject(self) -> str:
        return ", ".join(target for _, target in self.moves)

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        for source, target in self.moves:
            self._move(con, source, target)
        return {"moves": [list(move) for move in self.moves]}

    def _move(self, con: duckdb.DuckDBPyConnection, source: str, target: str) -> None:
        found = con.execute(
            "SELECT job_id FROM state.jobs WHERE environment = ? AND address = ? ORDER BY removed_at IS NULL DESC",
            [self.environment, source],
        ).fetchone()
        if found is None:
            raise PhaseConflict(f"{source} is not on record")
        # A job of that name which was forgotten leaves batches behind: what they cost is told under the name.
        left = "SELECT job_id FROM state.jobs WHERE environment = ? AND address = ?"
        names = [self.environment, target]
        con.execute(f"UPDATE state.submissions SET job_id = ? WHERE job_id IN ({left})", [found[0], *names])
        con.execute("DELETE FROM state.jobs WHERE environment = ? AND address = ?", names)
        con.execute("UPDATE state.jobs SET address = ? WHERE job_id = ?", [target, found[0]])


@dataclass(frozen=True)
class ForgetRows:
    """Forget which requests the rows of a job stand on: all of them and the job, or those with these keys."""

    environment: str
    address: str
    keys: tuple[str, ...] | None = None
    kind: ClassVar[str] = "forgotten"

    @property
    def subject(self) -> str:
        return self.address

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        job = "SELECT job_id FROM state.jobs WHERE environment = ? AND address = ?"
        names: list[Any] = [self.environment, self.address]
        if self.keys is None:
            forgotten = con.execute(f"DELETE FROM state.rows WHERE job_id IN ({job})", names).fetchone()
            con.execute(
                "UPDATE state.jobs SET removed_at = ?, held = NULL, protected = false"
                " WHERE environment = ? AND address = ?",
                [now, *names],
            )
        else:
            forgotten = con.execute(
                f"DELETE FROM state.rows WHERE job_id IN ({job}) AND list_contains(?::VARCHAR[], key)",
                [*names, list(self.keys)],
            ).fetchone()
        return {"rows": forgotten[0] if forgotten else 0, "whole_job": self.keys is None}


@dataclass(frozen=True)
class FetchAgain:
    """Answers on disk are lost or incomplete: their batches count as ended and not fetched, and the files as dropped.

    Tries that those batches had judged are taken back, so that fetching judges them anew.
    """

    submissions: Sequence[int]
    answer_files: Sequence[int]
    kind: ClassVar[str] = "reopened"
    subject: str = ""

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        chosen = list(self.submissions)
        con.execute(
            f"""UPDATE state.requests q SET state = {RequestState.IN_FLIGHT}, due_at = NULL,
                    attempts = CASE WHEN o.answer_file IS NULL THEN q.attempts ELSE greatest(q.attempts, 1) - 1 END,
                    free_attempts = CASE WHEN o.answer_file IS NULL THEN greatest(q.free_attempts, 1) - 1
                                         ELSE q.free_attempts END
                FROM (SELECT DISTINCT ON (submission_id, line) * FROM state.outcomes) o
                WHERE list_contains(?::UINTEGER[], q.submission_id)
                  AND o.submission_id = q.submission_id AND o.line = q.line""",
            [chosen],
        )
        con.execute("DELETE FROM state.outcomes WHERE list_contains(?::UINTEGER[], submission_id)", [chosen])
        con.execute(
            "UPDATE state.submissions SET phase = 'ended' WHERE list_contains(?::UINTEGER[], submission_id)", [chosen]
        )
        con.execute(
            "UPDATE state.answer_files SET dropped_at = ? WHERE list_contains(?::UINTEGER[], file_no)",
            [now, list(self.answer_files)],
        )
        return {"submissions": chosen, "answer_files": list(self.answer_files)}


_TRUTH = f"""
CREATE OR REPLACE TEMP TABLE truth AS
WITH tries AS (
    SELECT a.digest, a.round, a.attempt, a.submission_id, a.line, o.outcome,
           CASE WHEN o.outcome = 0 THEN 3 WHEN o.outcome IS NULL THEN 2 ELSE 1 END AS rank,
           CASE WHEN o.outcome = 0 THEN {RequestState.ANSWERED} WHEN o.outcome IS NULL THEN {RequestState.IN_FLIGHT}
                ELSE {RequestState.GIVEN_UP} END AS state
    FROM state.attempts a
    JOIN state.submissions s ON s.submission_id = a.submission_id AND s.phase NOT IN ('absent', 'abandoned')
    LEFT JOIN state.outcomes o ON o.submission_id = a.submission_id AND o.line = a.line
)
SELECT digest, round, greatest(count(outcome), coalesce(max(attempt) FILTER (outcome IS NOT NULL), 0)) AS attempts,
       unnest(arg_max(
    {{'state': state, 'outcome': outcome, 'submission_id': submission_id, 'line': line}}, (rank, submission_id, line)))
FROM tries GROUP BY digest, round
"""
"""What the batches tell of each request: answered, still somewhere in a batch, or tried and given up.

Tries are counted by their number as well: one that was dropped, or never became a batch, is not to be used again.
"""

_DOUBTED = f"""
CREATE OR REPLACE TEMP TABLE doubted AS
SELECT digest, round FROM (SELECT digest, round FROM state.rows UNION SELECT digest, round FROM truth)
ANTI JOIN state.requests USING (digest, round)
UNION
SELECT digest, round FROM state.requests q LEFT JOIN state.submissions s USING (submission_id)
WHERE q.state = {RequestState.IN_FLIGHT} AND coalesce(s.phase, 'absent') IN ('fetched', 'absent', 'abandoned')
UNION
SELECT digest, round FROM state.requests q ANTI JOIN state.outcomes o USING (submission_id, line)
WHERE q.state = {RequestState.ANSWERED}
  AND (digest, round) IN (SELECT (digest, round) FROM truth WHERE state = {RequestState.ANSWERED})
"""
"""Requests that are missing, or that say something else than their batch."""


@dataclass(frozen=True)
class Mend:
    """Put right what the rest of the state leaves no doubt about. Where doubt is left a request is not asked again."""

    kind: ClassVar[str] = "repaired"
    subject: str = ""

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        done = {
            "rows_without_job": _count(
                con, "DELETE FROM state.rows WHERE job_id NOT IN (SELECT job_id FROM state.jobs)"
            ),
            "repeated_requests": _keep_one(con, "requests", "digest, round", _BEST_REQUEST),
            "repeated_rows": _keep_one(con, "rows", "job_id, key", "removed_at IS NULL DESC, round DESC"),
            "requests": _rebuild_requests(con),
        }
        con.execute(
            "UPDATE state.meta SET serial = greatest(serial, (SELECT coalesce(max(serial), 0) FROM state.events))"
        )
        return done


_BEST_REQUEST = f"""state = {RequestState.ANSWERED} DESC, state = {RequestState.IN_FLIGHT} DESC,
                    attempts + free_attempts DESC"""


def _keep_one(con: duckdb.DuckDBPyConnection, table: str, key: str, best: str) -> int:
    """Of rows that are recorded twice keep the best one; returns how many went."""
    return _count(
        con,
        f"""DELETE FROM state.{table} WHERE rowid IN (
                SELECT rowid FROM state.{table} QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {best}) > 1)""",
    )


def _rebuild_requests(con: duckdb.DuckDBPyConnection) -> int:
    con.execute(_TRUTH)
    con.execute(_DOUBTED)
    con.execute("DELETE FROM state.requests q USING doubted d WHERE d.digest = q.digest AND d.round = q.round")
    rebuilt = _count(
        con,
        f"""INSERT INTO state.requests (digest, round, state, attempts, free_attempts, outcome, submission_id, line)
            SELECT d.digest, d.round, coalesce(t.state, {RequestState.PENDING}), coalesce(t.attempts, 0), 0, t.outcome,
                   t.submission_id, t.line
            FROM doubted d LEFT JOIN truth t ON t.digest = d.digest AND t.round = d.round""",
    )
    con.execute("DROP TABLE truth")
    con.execute("DROP TABLE doubted")
    return rebuilt


def _count(con: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = con.execute(sql).fetchone()
    return int(row[0]) if row else 0


@dataclass(frozen=True)
class AdoptedLine:
    """One request of a batch that this state did not send; `custom_id` only where the line is not ours."""

    digest: UUID
    round: int
    attempt: int
    custom_id: str | None


@dataclass(frozen=True)
class Adopt(NewSubmission):
    """Take over a batch of another state or another tool: its requests are in flight until it is fetched."""

    file_id: str
    batch_id: str
    remote: Mapping[str, Any]
    expect: Mapping[str, Any]
    lines: Sequence[AdoptedLine]
    kind: ClassVar[str] = "adopted"

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        known = con.execute("SELECT count(*) FROM state.submissions WHERE batch_id = ?", [self.batch_id]).fetchone()
        if known is None or known[0]:
            raise PhaseConflict(f"batch {self.batch_id} is on record already")
        con.execute(
            """INSERT INTO state.submissions SELECT ?, ?, job_id, ?, ?, ?, 'created', ?, NULL, NULL, ?, 0, ?, NULL, ?,
               ?, ?, ?, NULL, ? FROM state.jobs WHERE environment = ? AND address = ?""",
            [
                self.submission_id,
                self.token,
                self.provider,
                self.endpoint,
                self.model,
                self.fence,
                len(self.lines),
                self.file_id,
                self.batch_id,
                to_json(self.remote),
                now,
                now,
                to_json(self.expect),
                self.environment,
                self.address,
            ],
        )
        con.execute(
            "INSERT INTO state.attempts SELECT ?, unnest(range(?)), unnest(?::UUID[]), unnest(?::USMALLINT[]),"
            " unnest(?::UTINYINT[]), NULL, unnest(?::VARCHAR[])",
            [
                self.submission_id,
                len(self.lines),
                [line.digest for line in self.lines],
                [line.round for line in self.lines],
                [line.attempt for line in self.lines],
                [line.custom_id for line in self.lines],
            ],
        )
        con.execute(
            f"""UPDATE state.requests q SET state = {RequestState.IN_FLIGHT}, submission_id = a.submission_id,
                    line = a.line, due_at = NULL
                FROM state.attempts a WHERE a.submission_id = ? AND a.digest = q.digest AND a.round = q.round
                  AND q.state <> {RequestState.ANSWERED}""",
            [self.submission_id],
        )
        con.execute(
            f"""INSERT INTO state.requests (digest, round, state, attempts, free_attempts, submission_id, line)
                SELECT digest, round, {RequestState.IN_FLIGHT}, 0, 0, submission_id, line FROM state.attempts a
                WHERE submission_id = ?
                  AND NOT EXISTS (FROM state.requests q WHERE q.digest = a.digest AND q.round = a.round)""",
            [self.submission_id],
        )
        return {"submission_id": self.submission_id, "batch_id": self.batch_id, "requests": len(self.lines)}
