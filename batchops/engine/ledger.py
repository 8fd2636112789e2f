"""Submissions as recorded, ready to be polled, settled or fetched."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from batchops.engine.project import Project


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


OPEN_PHASES = ("intended", "creating", "created", "ended", "revoking")


def open_submissions(project: Project, addresses: Collection[str] | None = None) -> list[Submission]:
    """Submissions of this environment that are not finished, oldest first; only of `addresses` if given."""
    rows = project.reader.rows(
        f"""SELECT s.submission_id, s.token::VARCHAR AS token, j.address, s.provider, s.endpoint, s.model, s.phase,
                   s.fence, s.n AS requests, s.est_tokens, s.file_id, s.file_created_at, s.batch_id, s.remote, s.sent_at
            FROM state.submissions s JOIN state.jobs j USING (job_id)
            WHERE j.environment = ? AND s.phase IN {OPEN_PHASES!r} ORDER BY s.submission_id""",
        [project.environment],
    )
    found = []
    for row in rows:
        row["token"] = UUID(row["token"])
        row["remote"] = orjson.loads(row["remote"]) if row["remote"] else {}
        found.append(Submission(**row))
    return [s for s in found if addresses is None or s.address in addresses]
