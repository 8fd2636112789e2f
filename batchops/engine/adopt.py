"""Batches that this state did not make: found by our metadata, or named by the user, and taken over as paid answers.

The input file tells what was asked: each line is a request with a digest, whoever wrote it. So a lost state can be
rebuilt from the provider, and answers paid for by another tool satisfy the rows that ask the same.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from batchops.diagnostics import BatchopsError, error
from batchops.engine.judge import read_lines
from batchops.engine.project import Project
from batchops.engine.shards import parse_custom_id
from batchops.engine.work import new_work_folder
from batchops.plan.diff import ledger_digest
from batchops.providers.provider import BatchStatus, Missing, Provider, RemoteBatch
from batchops.request.digest import canonical, digest
from batchops.spec.job import Job
from batchops.store.changes import Created
from batchops.store.job_changes import JobRecord, RecordPlan
from batchops.store.states import RequestState
from batchops.store.store import StateStore
from batchops.store.surgery import Adopt, AdoptedLine

ORPHANS_SINCE = timedelta(days=30)
"""Result files live 30 days by default: what is older has nothing left to adopt."""


@dataclass(frozen=True)
class Orphan:
    """A batch with this project's and environment's metadata that state does not know."""

    provider: str
    batch: RemoteBatch

    @property
    def job(self) -> str:
        return self.batch.metadata.get("batchops_job", "JOB")


def find_orphans(project: Project, provider: Provider) -> Iterator[Orphan]:
    """Batches of this project and environment that state has never heard of, failed ones (unpaid) left out."""
    known = project.reader.rows("SELECT token::VARCHAR AS token, batch_id FROM state.submissions")
    tokens, ids = {row["token"] for row in known}, {row["batch_id"] for row in known}
    since = int((project.clock() - ORPHANS_SINCE).timestamp())
    for batch in provider.list_batches(since=since):
        is_ours = (
            batch.metadata.get("batchops_project") == project.name
            and batch.metadata.get("batchops_env") == project.environment
        )
        is_known = batch.id in ids or batch.metadata.get("batchops_submission") in tokens
        if is_ours and not is_known and batch.status is not BatchStatus.FAILED:
            yield Orphan(provider.name, batch)


def refuse_orphans(project: Project, provider: Provider) -> None:
    """Raise when the provider knows batches of ours that state does not: a lost state must never pay first."""
    found = list(find_orphans(project, provider))
    if found:
        raise BatchopsError(
            error(
                "unknown_batches",
                "The provider has batches of this project that the state does not know.",
                f"{len(found)} at {provider.name} carry the metadata of project {project.name}, environment"
                f" {project.environment}. The state was lost, or rolled back, or is another one; asking their rows"
                " again would pay for them twice. Restore the state, or adopt what is there:",
                fixes=[f"batchops import {orphan.job} {orphan.batch.id}" for orphan in found],
            )
        )


def adopt_batch(
    project: Project, store: StateStore, job: Job, batch_id: str, record: Callable[[], JobRecord | None]
) -> int:
    """Take over one batch for `job`; returns how many requests it holds. Fetch it afterwards like any other.

    `record` makes the record of a job that was never applied, once it is sure that there is something to adopt. A
    batch of a submission of ours whose fate was not known is that submission's.
    """
    provider = project.provider(job.provider)
    batch = _retrieve(provider, batch_id, job)
    rows = store.rows("SELECT count(*) AS known FROM state.submissions WHERE batch_id = ?", [batch_id])
    if rows[0]["known"]:
        raise BatchopsError(error("batch_known", "The batch is on record already.", f"{batch_id}: nothing to import."))
    if (unsettled := _unsettled_submission(store, batch)) is not None:
        store.commit(Created(unsettled["submission_id"], batch.id, batch.raw, unsettled["address"], adopted=True))
        return int(unsettled["n"])
    lines = _adopted_lines(project, provider, batch, job)
    if not lines:
        raise BatchopsError(
            error(
                "nothing_to_adopt",
                "The batch asks nothing that this job could use.",
                f"No line of the input file of {batch_id} is a request to {job.spec.endpoint}.",
                address=job.address,
            )
        )
    if (new := record()) is not None:
        store.commit(RecordPlan((new,), plan_id=f"import {batch_id}"))
    store.commit(_adoption(project, store, job, batch, lines))
    return len(lines)


def _retrieve(provider: Provider, batch_id: str, job: Job) -> RemoteBatch:
    try:
        return provider.retrieve(batch_id)
    except Missing as problem:
        raise BatchopsError(
            error(
                "unknown_batch",
                "The provider has no such batch.",
                f'{provider.name} knows no batch "{batch_id}", or this key does not see it.',
                address=job.address,
            )
        ) from problem


def _unsettled_submission(store: StateStore, batch: RemoteBatch) -> dict[str, Any] | None:
    """The submission that made this batch and did not hear of it, if there is one."""
    found = store.rows(
        """SELECT s.submission_id, s.n, j.address FROM state.submissions s JOIN state.jobs j USING (job_id)
           WHERE s.phase IN ('creating', 'revoking') AND (s.token::VARCHAR = ? OR s.file_id = ?)""",
        [batch.metadata.get("batchops_submission"), batch.input_file_id],
    )
    return found[0] if found else None


def _adoption(project: Project, store: StateStore, job: Job, batch: RemoteBatch, lines: Sequence[AdoptedLine]) -> Adopt:
    rows = store.rows("SELECT coalesce(max(submission_id), 0) + 1 AS next FROM state.submissions")
    return Adopt(
        submission_id=rows[0]["next"],
        token=_token(batch),
        address=job.address,
        environment=project.environment,
        provider=job.provider,
        endpoint=job.spec.endpoint,
        model=job.spec.model,
        fence=store.fence,
        file_id=batch.input_file_id or "",
        batch_id=batch.id,
        remote=batch.raw,
        expect={
            "schema": job.schema,
            "tools": job.spec.tools,
            "params": job.spec.params,
            "body": job.spec.body,
        },
        lines=lines,
    )


def _token(batch: RemoteBatch) -> uuid.UUID:
    try:
        return uuid.UUID(batch.metadata.get("batchops_submission", ""))
    except ValueError:
        return uuid.uuid4()


def _adopted_lines(project: Project, provider: Provider, batch: RemoteBatch, job: Job) -> list[AdoptedLine]:
    folder = new_work_folder(project)
    try:
        path = folder / "input.jsonl"
        _download_input(provider, batch, path, job)
        places = _Places(project)
        return [found for _, line in read_lines(path) if line and (found := _adopted_line(project, job, line, places))]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Places:
    """Where in the ledger a foreign request may stand: never where one is answered, in flight or given up."""

    def __init__(self, project: Project) -> None:
        rows = project.reader.rows(
            "SELECT digest::VARCHAR AS digest, round, state, attempts + free_attempts AS tries FROM state.requests"
        )
        self._known = {(row["digest"], row["round"]): (row["state"], row["tries"]) for row in rows}

    def take(self, digest: UUID) -> tuple[int, int]:
        """The round and attempt for one more request of this digest, which nobody else gets."""
        round_ = 0
        while True:
            state, tries = self._known.get((str(digest), round_), (RequestState.PENDING, 0))
            if state in {RequestState.PENDING, RequestState.WAITING}:
                self._known[str(digest), round_] = (RequestState.IN_FLIGHT, tries + 1)
                return round_, tries + 1
            round_ += 1


def _download_input(provider: Provider, batch: RemoteBatch, path: Path, job: Job) -> None:
    try:
        provider.download(batch.input_file_id or "", path)
    except Missing as problem:
        raise BatchopsError(
            error(
                "input_file_gone",
                "The batch's input file no longer exists.",
                f"{batch.id}: without it nobody can tell which row each answer belongs to. {problem.message}",
                address=job.address,
            )
        ) from problem


def _adopted_line(project: Project, job: Job, line: Mapping[str, Any], places: _Places) -> AdoptedLine | None:
    """The request of one input line; None when the line asks another endpoint, or has no body."""
    identifier, body = line.get("custom_id"), line.get("body")
    ours = parse_custom_id(identifier) if isinstance(identifier, str) else None
    if ours is not None:
        return AdoptedLine(*ours, custom_id=None)
    if not isinstance(body, dict) or not isinstance(identifier, str) or not _asks(project, job, line):
        return None
    raw = digest(job.spec.endpoint, str(body.get("model", "")), canonical(body))
    found = ledger_digest(raw, key="", is_simulated=project.is_simulated(job.provider), salt=None)
    return AdoptedLine(found, *places.take(found), custom_id=identifier)


def _asks(project: Project, job: Job, line: Mapping[str, Any]) -> bool:
    """Whether a line asks the endpoint of the job, however its provider writes that."""
    url = line.get("url")
    return isinstance(url, str) and project.profile(job.provider).endpoint(url) == job.spec.endpoint
