"""What is on record of the jobs: read back, compared with the specs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from typing import Final

import orjson

from batchops.diagnostics import BatchopsError
from batchops.engine.project import Project
from batchops.engine.work import FRUGAL_LIMIT, Work
from batchops.plan.diff import RecordedJob
from batchops.plan.model import Action
from batchops.request.template import compile_request
from batchops.spec.job import Job
from batchops.store.states import RequestState

_STANDING: Final = f"""
    SELECT j.address,
           CASE WHEN q.state = {RequestState.IN_FLIGHT} THEN '{Action.IN_FLIGHT}'
                WHEN q.state = {RequestState.ANSWERED} THEN '{Action.UNCHANGED}'
                WHEN q.state = {RequestState.GIVEN_UP} THEN '{Action.FAILED}'
                WHEN q.state = {RequestState.HELD} OR j.held IS NOT NULL THEN '{Action.HELD}' END AS action,
           count(*)
    FROM state.rows r JOIN state.jobs j USING (job_id) LEFT JOIN state.requests q USING (digest, round)
    WHERE j.environment = ? AND j.removed_at IS NULL AND r.removed_at IS NULL GROUP BY ALL
"""


def read_recorded(project: Project) -> list[RecordedJob]:
    """The jobs of this environment as recorded, removed ones too."""
    rows = project.reader.rows(
        "SELECT job_id, address, provider, is_simulated, render_id, parts, spec, protected, held,"
        " removed_at IS NOT NULL AS is_removed, coalesce(rows, 0) AS rows FROM state.jobs"
        " LEFT JOIN (SELECT job_id, count(*) AS rows FROM state.rows GROUP BY job_id) USING (job_id)"
        " WHERE environment = ?",
        [project.environment],
    )
    return [
        RecordedJob(
            job_id=row["job_id"],
            address=row["address"],
            provider=row["provider"],
            is_simulated=row["is_simulated"],
            render_id=row["render_id"],
            parts=orjson.loads(row["parts"]),
            spec=orjson.loads(row["spec"]),
            is_protected=row["protected"],
            held=row["held"],
            is_removed=row["is_removed"],
            rows=row["rows"],
        )
        for row in rows
    ]


def count_standing(project: Project, addresses: Collection[str] | None) -> Counter[Action]:
    """How the rows on record stand, of the jobs at `addresses` (None: of all), without a look at any source."""
    counted: Counter[Action] = Counter()
    with closing(Work(project, memory=FRUGAL_LIMIT)) as work, project.reader.reading(work.con) as con:
        for address, action, count in con.execute(_STANDING, [project.environment]).fetchall():
            if action is not None and (addresses is None or address in addresses):
                counted[Action(action)] += count
    return counted


def modified_jobs(project: Project, jobs: Sequence[Job]) -> set[str]:
    """Addresses of jobs that are new, or whose query, prompt, model, params, schema or provider moved since applied.

    A job that cannot be compiled counts: planning it tells what is wrong with it.
    """
    recorded = {job.address: job for job in read_recorded(project) if not job.is_removed}
    return {job.address for job in jobs if _is_modified(job, recorded.get(job.address))}


def _is_modified(job: Job, recorded: RecordedJob | None) -> bool:
    if recorded is None or recorded.provider != job.provider or recorded.spec.get("query") != job.query:
        return True
    try:
        return dict(compile_request(job).parts) != recorded.parts
    except BatchopsError:
        return True


def removed_jobs(project: Project, recorded: Mapping[str, RecordedJob]) -> tuple[RecordedJob, ...]:
    """Recorded jobs that no spec declares any more, disabled ones and renamed ones not counted."""
    jobs = project.load().jobs
    declared = {job.address for job in jobs}
    moved = {job.spec.moved_from for job in jobs if job.address not in recorded}
    return tuple(job for address, job in recorded.items() if not job.is_removed and address not in declared | moved)
