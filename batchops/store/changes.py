"""The changes that a submission goes through. Each is a value; `perform` writes it inside the transaction of a commit.

Together with those of jobs (job_changes.py) and of surgery (surgery.py) they are all there are.

Where uniqueness matters a change proves it in the same transaction: an UPDATE that must hit exactly one submission in
the phase it expects, or the commit is rolled back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import duckdb
import orjson

from batchops.store.states import RequestState

_SENDABLE = f"({RequestState.PENDING}, {RequestState.WAITING})"

FREE_ATTEMPTS = 10
"""Tries that cost nothing (expired, cancelled, never executed, too much queued) before a row is held."""


class PhaseConflict(Exception):
    """A submission is not in the phase that a change expects: another process moved it. The commit is rolled back."""


def to_json(value: Any) -> str:
    """The text of a JSON column."""
    return orjson.dumps(value).decode()


def _advance(
    con: duckdb.DuckDBPyConnection, submission_id: int, phases: Sequence[str], assignment: str, values: list[Any]
) -> None:
    """Move one submission on, if it is in one of `phases`; else raise PhaseConflict."""
    marks = ", ".join("?" for _ in phases)
    moved = con.execute(
        f"UPDATE state.submissions SET {assignment} WHERE submission_id = ? AND phase IN ({marks})"
        " RETURNING submission_id",
        [*values, submission_id, *phases],
    ).fetchall()
    if len(moved) != 1:
        raise PhaseConflict(f"submission {submission_id} is not in phase {' or '.join(phases)}")


def _hold(con: duckdb.DuckDBPyConnection, submission_id: int, because: str) -> None:
    """Let the submission's job submit nothing more until `retry`."""
    con.execute(
        "UPDATE state.jobs SET held = ? WHERE job_id = (SELECT job_id FROM state.submissions WHERE submission_id = ?)",
        [because, submission_id],
    )


@dataclass(frozen=True)
class NewSubmission:
    """A submission that enters the state: its number and token, whose it is, and where it is answered."""

    submission_id: int
    token: UUID
    address: str
    environment: str
    provider: str
    endpoint: str
    model: str
    fence: int

    @property
    def subject(self) -> str:
        return self.address


@dataclass(frozen=True)
class Intend(NewSubmission):
    """Before anything is sent: the shard and its manifest. All its requests are in flight from here on.

    `manifest` names a relation of the caller's connection, one row for each request: line, digest, round, attempt,
    body_digest.
    """

    sha256: bytes
    shard_bytes: int
    est_tokens: int
    requests: int
    manifest: str
    expect: Mapping[str, Any]
    kind: ClassVar[str] = "intended"

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        job = con.execute(
            "SELECT job_id FROM state.jobs WHERE environment = ? AND address = ?", [self.environment, self.address]
        ).fetchone()
        assert job is not None, "a job is recorded before it submits"
        con.execute(
            "INSERT INTO state.submissions VALUES (?, ?, ?, ?, ?, ?, 'intended', ?, ?, ?, ?, ?, NULL, NULL, NULL, NULL,"
            " ?, NULL, NULL, ?)",
            [
                self.submission_id,
                self.token,
                job[0],
                self.provider,
                self.endpoint,
                self.model,
                self.fence,
                self.sha256,
                self.shard_bytes,
                self.requests,
                self.est_tokens,
                now,
                to_json(self.expect),
            ],
        )
        con.execute(
            f"""INSERT INTO state.attempts
                SELECT ?, line, digest, round, attempt, body_digest, NULL FROM {self.manifest}""",
            [self.submission_id],
        )
        if self._take(con) != self.requests:
            raise PhaseConflict("a request of this shard is already in flight or answered")
        return {"submission_id": self.submission_id, "token": str(self.token), "requests": self.requests}

    def _take(self, con: duckdb.DuckDBPyConnection) -> int:
        """Put the requests in flight that may be sent; returns how many were.

        First tries lie together in the order of their lines (see `RecordPlan`): they are looked for from the first
        line's request on, and in the whole ledger only what is not found there.
        """
        first = con.execute(
            f"SELECT rowid FROM state.requests WHERE state IN {_SENDABLE} AND digest ="
            " (SELECT digest FROM state.attempts WHERE submission_id = ? AND line = 0) LIMIT 1",
            [self.submission_id],
        ).fetchone()
        taken = 0
        if first is not None:
            taken = self._take_among(con, f"q.rowid BETWEEN {first[0]} AND {first[0] + self.requests - 1}")
        return taken if taken == self.requests else taken + self._take_among(con, "true")

    def _take_among(self, con: duckdb.DuckDBPyConnection, condition: str) -> int:
        row = con.execute(
            f"""UPDATE state.requests q SET state = {RequestState.IN_FLIGHT}, submission_id = ?, line = a.line,
                    due_at = NULL
                FROM state.attempts a WHERE a.submission_id = ? AND a.digest = q.digest AND a.round = q.round
                  AND q.state IN {_SENDABLE} AND {condition}""",
            [self.submission_id, self.submission_id],
        ).fetchone()
        return int(row[0]) if row else 0


@dataclass(frozen=True)
class Creating:
    """The file is there and the create is about to be sent. Without this commit no create was ever sent."""

    submission_id: int
    file_id: str
    file_created_at: datetime | None
    address: str
    kind: ClassVar[str] = "creating"

    @property
    def subject(self) -> str:
        return self.address

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        _advance(
            con,
            self.submission_id,
            ["intended"],
            "phase = 'creating', file_id = ?, file_created_at = ?, sent_at = ?",
            [self.file_id, self.file_created_at, now],
        )
        return {"submission_id": self.submission_id, "file_id": self.file_id}


@dataclass(frozen=True)
class Created:
    """The provider has the batch; `adopted` says that it was found by its metadata after a lost reply."""

    submission_id: int
    batch_id: str
    remote: Mapping[str, Any]
    address: str
    adopted: bool = False
    kind: ClassVar[str] = "created"

    @property
    def subject(self) -> str:
        return self.address

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        _advance(
            con,
            self.submission_id,
            ["creating", "revoking"],
            "phase = 'created', batch_id = ?, remote = ?",
            [self.batch_id, to_json(self.remote)],
        )
        return {"submission_id": self.submission_id, "batch_id": self.batch_id, "adopted": self.adopted}


@dataclass(frozen=True)
class Revoking:
    """Several looks found no batch: its input file is about to be deleted, so that a late create fails unpaid."""

    submission_id: int
    kind: ClassVar[str] = "revoking"
    subject: str = ""

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        _advance(con, self.submission_id, ["creating"], "phase = 'revoking'", [])
        return {"submission_id": self.submission_id}


@dataclass(frozen=True)
class Withdrawn:
    """This submission never happened at the provider: its requests may be asked again, no attempt burnt.

    `phase` is `abandoned` (the create was never sent, or refused) or `absent` (proven so after a lost reply).
    `due_at` delays the next try; `held_because` holds the job; `counts` adds to the tries that cost nothing.
    """

    submission_id: int
    phase: str
    due_at: datetime | None = None
    held_because: str | None = None
    counts: bool = False
    reason: str = ""
    kind: ClassVar[str] = "withdrawn"
    subject: str = ""

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        _advance(
            con, self.submission_id, ["intended", "creating", "revoking"], "phase = ?, ended_at = ?", [self.phase, now]
        )
        con.execute(
            f"""UPDATE state.requests SET due_at = ?, submission_id = NULL, line = NULL,
                    state = CASE WHEN free_attempts + ?::UTINYINT >= {FREE_ATTEMPTS} THEN {RequestState.HELD}
                                 WHEN outcome IS NULL THEN {RequestState.PENDING}
                                 ELSE {RequestState.WAITING} END,
                    free_attempts = free_attempts + ?::UTINYINT
                WHERE submission_id = ? AND state = {RequestState.IN_FLIGHT}""",
            [self.due_at, self.counts, self.counts, self.submission_id],
        )
        if self.held_because is not None:
            _hold(con, self.submission_id, self.held_because)
        return {"submission_id": self.submission_id, "phase": self.phase, "reason": self.reason}


@dataclass(frozen=True)
class Observed:
    """A batch as last seen. `ended` moves the submission to its next phase."""

    submission_id: int
    remote: Mapping[str, Any]
    ended: bool
    address: str
    kind: ClassVar[str] = "observed"

    @property
    def subject(self) -> str:
        return self.address

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        phase = "ended" if self.ended else "created"
        _advance(
            con,
            self.submission_id,
            ["created", "ended"],
            "phase = ?, remote = ?, ended_at = CASE WHEN ? THEN coalesce(ended_at, ?) END",
            [phase, to_json(self.remote), self.ended, now],
        )
        return {"submission_id": self.submission_id, "status": self.remote.get("status")}


@dataclass(frozen=True)
class AnswerFile:
    """An immutable Parquet file of answers that is already on disk; `path` is relative to the state's folder."""

    file_no: int
    path: str
    sha256: bytes
    size_bytes: int
    lines: int


@dataclass(frozen=True)
class Fetched:
    """All lines of an ended batch judged, in one transaction: outcomes, verdicts, and the file of answers.

    `judged` names a relation of the caller's connection, one row for each line of the manifest: line, digest, round,
    outcome, http, code, finish, input_tokens, cached_tokens, output_tokens, reasoning_tokens, cost_nano_usd, has_line,
    state, counts, due_at, amendment.
    """

    submission_id: int
    judged: str
    answer_file: AnswerFile | None
    address: str
    held_because: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    kind: ClassVar[str] = "fetched"

    @property
    def subject(self) -> str:
        return self.address

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        _advance(con, self.submission_id, ["ended"], "phase = 'fetched'", [])
        file_no = self.answer_file.file_no if self.answer_file else None
        con.execute(
            f"""INSERT INTO state.outcomes SELECT ?, line, outcome, http, code, finish, input_tokens, cached_tokens,
                    output_tokens, reasoning_tokens, cost_nano_usd, CASE WHEN has_line THEN ?::UINTEGER END
                FROM {self.judged}""",
            [self.submission_id, file_no],
        )
        con.execute(
            f"""UPDATE state.requests q SET state = j.state, outcome = j.outcome, due_at = j.due_at,
                    amendment = j.amendment, attempts = q.attempts + j.counts::UTINYINT,
                    free_attempts = q.free_attempts + (NOT j.counts)::UTINYINT
                FROM {self.judged} j WHERE j.digest = q.digest AND j.round = q.round AND q.submission_id = ?""",
            [self.submission_id],
        )
        if self.answer_file is not None:
            con.execute(
                "INSERT INTO state.answer_files VALUES (?, ?, ?, ?, ?, NULL)",
                [
                    file_no,
                    self.answer_file.path,
                    self.answer_file.sha256,
                    self.answer_file.size_bytes,
                    self.answer_file.lines,
                ],
            )
        if self.held_because is not None:
            _hold(con, self.submission_id, self.held_because)
        return {"submission_id": self.submission_id, "outcomes": dict(self.counts)}
