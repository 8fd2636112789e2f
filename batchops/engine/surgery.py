"""What a person does to jobs on record: cancel, retry, import. Each holds the lease for its own length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import orjson

from batchops.diagnostics import Diagnostic, UsageProblem, did_you_mean, error
from batchops.engine.adopt import adopt_batch
from batchops.engine.ahead import EndedBatch
from batchops.engine.approved import job_record
from batchops.engine.fetch import Fetching
from batchops.engine.gather import gather
from batchops.engine.ledger import Submission, open_submissions
from batchops.engine.project import Project
from batchops.engine.run import Run
from batchops.engine.settle import settle
from batchops.exhaustion import work_told
from batchops.plan.events import Event, StopFlag
from batchops.providers.provider import ProviderError
from batchops.spec.job import Job
from batchops.store.changes import Observed
from batchops.store.job_changes import HoldJobs, JobRecord, OpenRound
from batchops.store.store import StateReader, StateStore

Emit = Callable[[Event], None]

HELD_BY_CANCEL = "cancelled by hand"


def recorded_addresses(reader: StateReader, environment: str) -> tuple[str, ...]:
    """The jobs on record in an environment, those that left the project too."""
    rows = reader.rows("SELECT DISTINCT address FROM state.jobs WHERE environment = ? ORDER BY address", [environment])
    return tuple(str(row["address"]) for row in rows)


def addresses_of(project: Project, names: Iterable[str]) -> tuple[str, ...]:
    """The addresses that `names` mean, recorded or declared: a name without its matrix values means every instance.

    Raises UsageProblem with the nearest name for each that nothing is called.
    """
    known = sorted({*recorded_addresses(project.reader, project.environment),
                    *(job.address for job in project.load().jobs)})  # fmt: skip
    chosen: dict[str, None] = {}
    problems = []
    for name in names:
        found = [address for address in known if address == name or address.startswith(f"{name}[")]
        chosen |= dict.fromkeys(found)
        if not found:
            problems.append(unknown_job(name, known))
    if problems:
        raise UsageProblem(*problems)
    return tuple(chosen)


def unknown_job(name: str, known: Sequence[str]) -> Diagnostic:
    """Nothing is called so; the nearest name, or some that there are."""
    hint = did_you_mean(name, known) or (f" Known jobs: {', '.join(known[:10])}." if known else "")
    return error("unknown_job", "Unknown job.", f'No job is called "{name}".{hint}')


@dataclass(frozen=True)
class CancelledBatch:
    """A batch as the provider says it is after it was asked to cancel it."""

    address: str
    batch_id: str
    status: str
    completed: int | None
    total: int | None


@dataclass(frozen=True)
class Cancellation:
    """Which jobs are held now, what was cancelled, and what could not be."""

    held: tuple[str, ...]
    batches: tuple[CancelledBatch, ...]
    problems: tuple[Diagnostic, ...]


def cancel(
    project: Project,
    names: Sequence[str],
    *,
    emit: Emit,
    stop: StopFlag,
    lock_timeout: timedelta = timedelta(0),
) -> Cancellation:
    """Hold the jobs, then ask the provider to cancel what they have in flight. What it finished is fetched later.

    The hold comes first: a crash in between leaves nothing that would submit again.
    """
    chosen = addresses_of(project, names)
    recorded = set(recorded_addresses(project.reader, project.environment))
    held = tuple(address for address in chosen if address in recorded)
    if not held:
        return Cancellation((), (), ())
    with project.leased(lock_timeout) as store:
        run = Run(project, store, emit, stop)
        store.commit(HoldJobs(project.environment, held, HELD_BY_CANCEL))
        settle(run, open_submissions(project, held))
        batches = [batch for found in open_submissions(project, held) if (batch := _cancel_batch(run, found))]
    return Cancellation(held, tuple(batches), tuple(run.problems))


def _cancel_batch(run: Run, found: Submission) -> CancelledBatch | None:
    if found.phase != "created" or found.batch_id is None or run.is_stopping:
        return None
    try:
        batch = run.project.provider(found.provider).cancel(found.batch_id)
    except ProviderError as problem:
        run.problems.append(_not_cancelled(found, problem))
        return None
    run.store.commit(Observed(found.submission_id, batch.raw, ended=False, address=found.address))
    return CancelledBatch(found.address, batch.id, str(batch.status), batch.completed, batch.total)


def _not_cancelled(found: Submission, problem: ProviderError) -> Diagnostic:
    return error(
        "batch_not_cancelled",
        "A batch could not be cancelled.",
        f"{found.provider} about {found.batch_id}: {problem.message} Its job is held; the same command tries again.",
        address=found.address,
    )


@dataclass(frozen=True)
class Reopened:
    """A job that goes on: how many of its rows get another round, how many were waiting anyway, why it was held."""

    address: str
    rows: int
    waiting: int
    was_held: str | None


def retry(project: Project, names: Sequence[str], *, lock_timeout: timedelta = timedelta(0)) -> tuple[Reopened, ...]:
    """Give rows that were given up or held another round, and lift the hold of their jobs. Nothing is sent."""
    chosen = addresses_of(project, names)
    recorded = set(recorded_addresses(project.reader, project.environment))
    if not recorded & set(chosen):
        return tuple(Reopened(address, 0, 0, None) for address in chosen)
    with project.leased(lock_timeout) as store:
        return tuple(
            _reopen(store, project.environment, address) if address in recorded else Reopened(address, 0, 0, None)
            for address in chosen
        )


def _reopen(store: StateStore, environment: str, address: str) -> Reopened:
    before = store.rows(
        """SELECT any_value(j.held) AS held, count(*) FILTER (q.state = 3) AS waiting
           FROM state.jobs j LEFT JOIN state.rows r USING (job_id) LEFT JOIN state.requests q USING (digest, round)
           WHERE j.environment = ? AND j.address = ?""",
        [environment, address],
    )[0]
    detail = committed(store, store.commit(OpenRound(environment, address)))
    return Reopened(address, detail["rows"], before["waiting"], before["held"])


def committed(store: StateReader, serial: int) -> dict[str, Any]:
    """What the commit with this serial said it did."""
    rows = store.rows("SELECT detail::VARCHAR AS detail FROM state.events WHERE serial = ?", [serial])
    detail: dict[str, Any] = orjson.loads(rows[0]["detail"])
    return detail


@dataclass(frozen=True)
class Import:
    """One batch taken over: its requests, and whether they are fetched already or will be when it has ended."""

    batch_id: str
    requests: int
    is_fetched: bool
    status: str


def import_batches(
    project: Project,
    name: str,
    batch_ids: Sequence[str],
    *,
    emit: Emit,
    stop: StopFlag,
    lock_timeout: timedelta = timedelta(0),
) -> tuple[Import, ...]:
    """Take over batches made elsewhere as paid answers of a declared job, and fetch those that have ended.

    One after the other, in the order given: what a later batch knows of a request counts over an earlier one.
    """
    job = _declared(project, name)
    with work_told(project.work_folder.parent), project.leased(lock_timeout) as store:
        run = Run(project, store, emit, stop)
        return tuple(_import_batch(run, job, batch_id) for batch_id in dict.fromkeys(batch_ids))


def _declared(project: Project, name: str) -> Job:
    jobs = {job.address: job for job in project.jobs()}
    if name not in jobs:
        raise UsageProblem(unknown_job(name, sorted(jobs)))
    return jobs[name]


def _import_batch(run: Run, job: Job, batch_id: str) -> Import:
    project = run.project

    def record() -> JobRecord | None:
        return (
            None if job.address in recorded_addresses(run.store, project.environment) else _first_record(project, job)
        )

    requests = adopt_batch(project, run.store, job, batch_id, record)
    found = next(found for found in open_submissions(project) if found.batch_id == batch_id)
    remote = project.provider(found.provider).retrieve(batch_id)
    with closing(Fetching(run)) as fetching:
        is_fetched = remote.status.is_terminal and fetching.fetch(EndedBatch(found, remote, job))
    return Import(batch_id, requests, is_fetched, str(remote.status))


def _first_record(project: Project, job: Job) -> JobRecord:
    """The record of a job that was never applied: no row of it is asked, so none is recorded."""
    gathered = gather(project, [job], is_whole_project=False, keeps_rows=False, limit=1)
    try:
        return replace(job_record(project, gathered.jobs[0], is_limited=True), changes=None)
    finally:
        gathered.close()
