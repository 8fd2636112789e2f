"""Submissions as recorded, ready to be polled, settled or fetched."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from batchops.engine.project import Project
from batchops.store.states import RequestState


@dataclass(frozen=True)
class Submission:
    """Our record of handing over a shard."""

    submission_id: int
    token: UUID
    address: str
    provider: str
    endpoint: str
    model: str
    phase: str
    fence: int
    requests: int
    est_tokens: int
    file_id: str | None
    file_created_at: datetime | None
    batch_id: str | None
    remote: dict[str, Any]
    sent_at: datetime | None
    is_own: bool = True
    """Of a job that was asked for, not of another one or of another environment that asks the same."""


OPEN_PHASES = ("intended", "creating", "created", "ended", "revoking")


def open_submissions(project: Project, addresses: Collection[str] | None = None) -> list[Submission]:
    """Submissions of this environment that are not finished, oldest first; only of `addresses` if given."""
    return [found for found in _open(project, addresses) if found.is_own]


def awaited_submissions(project: Project, addresses: Collection[str] | None = None) -> list[Submission]:
    """The open submissions whose end these jobs wait for: their own, and others that ask what their rows ask too.

    The ledger is shared: rows of another job or environment that asked the same first were handed over for these as
    well, and nobody else may ever come to fetch them.
    """
    found = _open(project, addresses)
    others = [submission.submission_id for submission in found if not submission.is_own]
    shared = _asked_by(project, addresses, others) if others else set()
    return [submission for submission in found if submission.is_own or submission.submission_id in shared]


def _open(project: Project, addresses: Collection[str] | None) -> list[Submission]:
    """Every open submission, oldest first; own are those of these jobs."""
    rows = project.reader.rows(
        f"""SELECT s.submission_id, s.token::VARCHAR AS token, j.address, s.provider, s.endpoint, s.model, s.phase,
                   s.fence, s.n AS requests, s.est_tokens, s.file_id, s.file_created_at, s.batch_id, s.remote,
                   s.sent_at, j.environment
            FROM state.submissions s JOIN state.jobs j USING (job_id)
            WHERE s.phase IN {OPEN_PHASES!r} ORDER BY s.submission_id"""
    )
    found = []
    for row in rows:
        is_own = row.pop("environment") == project.environment and (addresses is None or row["address"] in addresses)
        row["token"] = UUID(row["token"])
        row["remote"] = orjson.loads(row["remote"]) if row["remote"] else {}
        found.append(Submission(**row, is_own=is_own))
    return found


def _asked_by(project: Project, addresses: Collection[str] | None, submissions: Collection[int]) -> set[int]:
    """Those of `submissions` that have requests in flight on which rows of these jobs stand."""
    rows = project.reader.rows(
        f"""SELECT DISTINCT q.submission_id
            FROM state.requests q
            JOIN state.rows r USING (digest, round)
            JOIN state.jobs j ON j.job_id = r.job_id
            WHERE q.state = {RequestState.IN_FLIGHT} AND list_contains(?, q.submission_id)
              AND r.removed_at IS NULL AND j.removed_at IS NULL
              AND j.environment = ? AND (? OR list_contains(?, j.address))""",
        [list(submissions), project.environment, addresses is None, list(addresses or ())],
    )
    return {row["submission_id"] for row in rows}
