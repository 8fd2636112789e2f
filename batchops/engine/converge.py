"""Converge: the loop of one apply. Settle, poll, fetch; submit what is approved and due; again, to the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta

from batchops.diagnostics import BatchopsError, Diagnostic, ExitCode, Severity, error, prevailing, warning
from batchops.engine.adopt import refuse_orphans
from batchops.engine.ahead import EndedBatch
from batchops.engine.approved import is_on_record, job_record
from batchops.engine.fetch import Fetching
from batchops.engine.gather import Gathered
from batchops.engine.hold import hold_unseen
from batchops.engine.ledger import Submission, awaited_submissions
from batchops.engine.look import NotShown, Sighting, look
from batchops.engine.planning import assemble, shard_limits
from batchops.engine.recorded import count_standing
from batchops.engine.run import Run
from batchops.engine.scope import Scope
from batchops.engine.sent import classify_anew, keep_planned, note_sent, take_as_recorded
from batchops.engine.settle import settle
from batchops.engine.sources import WantedJob
from batchops.engine.steps import reached
from batchops.engine.submit import denied, submit_job
from batchops.plan.events import ApplyComplete, BatchProgress, DiagnosticFound
from batchops.plan.model import Action, BatchAction, JobPlan, Plan
from batchops.providers.provider import Denied, ProviderError, ProviderRefusal, RemoteBatch
from batchops.request.failures import RowsFailed
from batchops.spec.job import Job
from batchops.store.changes import Observed
from batchops.store.job_changes import ForgetJobs, RecordPlan

LISTS_NOTHING = {404, 405, 501}
"""HTTP statuses of a service that has no listing of batches."""

Summary = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class ApplyResult:
    """What an apply did, and the exit code it earned."""

    summary: Summary
    exit_code: int
    diagnostics: tuple[Diagnostic, ...] = ()


class Convergence:
    """One apply or wait: what it may touch, and what it has done so far."""

    def __init__(self, run: Run, jobs: Sequence[Job], scope: Scope, *, fail_fast: bool = False) -> None:
        self.run = run
        self.project = run.project
        self.jobs = jobs
        self.addresses = scope.addresses(jobs)
        self.fail_fast = fail_fast
        self.rows: Counter[Action] = Counter()
        self.batches: Counter[BatchAction] = Counter()
        self.codes: set[int] = set()
        self._declared = {job.address: job for job in (*run.project.load().jobs, *jobs)}
        self._unseen: set[int] = set()
        self._not_shown = NotShown()

    def refresh(self) -> bool:
        """Settle, poll and fetch everything open, once. True when anything moved."""
        settled = settle(self.run, awaited_submissions(self.project, self.addresses))
        self.batches[BatchAction.SETTLE] += settled
        sightings = look(self.project, self.addresses)
        moved = settled > 0
        with closing(Fetching(self.run, self._ended(sightings))) as fetching:
            for sighting in sightings:
                if self.run.is_stopping:
                    break
                moved |= self._take_in(sighting, fetching)
        self._not_shown.note(sightings)
        hold_unseen(self.run, sightings)
        self._unseen = {sighting.submission.submission_id for sighting in sightings if sighting.is_gone}
        if self._unseen:
            self.codes.add(ExitCode.ERROR)
        return moved

    def _take_in(self, sighting: Sighting, fetching: Fetching) -> bool:
        """Record one sighting, and fetch when its batch has ended. True when the state moved."""
        found = sighting.submission
        remote = sighting.remote
        try:
            if found.phase == "ended" and found.batch_id is not None:
                remote = self.project.provider(found.provider).retrieve(found.batch_id)
            if remote is None:
                return False
            self._announce(found, remote)
            if not remote.status.is_terminal:
                self._note(found, remote)
                return False
            is_fetched = fetching.fetch(self._ended_batch(found, remote))
        except ProviderError as problem:
            self.run.tell(_unfetched(found, problem))
            self.codes.add(ExitCode.ERROR)
            return False
        self.batches[BatchAction.FETCH] += is_fetched
        return is_fetched

    def _ended_batch(self, found: Submission, remote: RemoteBatch) -> EndedBatch:
        return EndedBatch(found, remote, self._declared.get(found.address))

    def _ended(self, sightings: Sequence[Sighting]) -> list[EndedBatch]:
        """The batches that were just seen to have ended."""
        return [
            self._ended_batch(sighting.submission, sighting.remote)
            for sighting in sightings
            if sighting.remote is not None
            and sighting.remote.status.is_terminal
            and sighting.submission.phase == "created"
        ]

    def _announce(self, found: Submission, remote: RemoteBatch) -> None:
        self.run.emit(
            BatchProgress(found.address, remote.id, remote.status, remote.total, remote.completed, remote.failed)
        )

    def _note(self, found: Submission, remote: RemoteBatch) -> None:
        """Keep what a batch looks like for `status`, when it changed."""
        seen = ("status", "request_counts")
        if any(remote.raw.get(name) != found.remote.get(name) for name in seen):
            reached("before_observed")
            self.run.store.commit(Observed(found.submission_id, remote.raw, ended=False, address=found.address))
            reached("after_observed")

    def _refuse_orphans(self, gathered: Gathered) -> None:
        """Before the first create: a state that was lost must not pay again for what the provider has."""
        for name in sorted({w.job.provider for w in gathered.jobs if self._owes(gathered, w)}):
            try:
                refuse_orphans(self.project, self.project.provider(name))
            except ProviderRefusal as problem:
                if problem.status not in LISTS_NOTHING:
                    raise BatchopsError(_unlisted(name, problem)) from problem
                self.run.tell(_unlistable(name, problem))
            except ProviderError as problem:
                raise BatchopsError(_unlisted(name, problem)) from problem

    def record(self, gathered: Gathered, plan: Plan) -> None:
        """Put the approved plan on record: from here on its rows are owed."""
        keep_planned(gathered)
        records = tuple(
            job_record(self.project, wanted, is_limited=gathered.is_limited, left=gathered.left_of(wanted))
            for wanted in gathered.jobs
        )
        for job in plan.jobs:
            for action in (Action.REUSE, Action.FORGET):
                self.rows[action] += job.rows.get(action, 0)
        if not is_on_record(gathered, records):
            reached("before_record")
            self.run.store.commit(RecordPlan(records, plan.plan_id), con=gathered.con)
            reached("after_record")
        if gathered.removed:
            forgotten = tuple(job.address for job in gathered.removed if job.spec.get("on_remove") == "forget")
            addresses = tuple(job.address for job in gathered.removed)
            self.run.store.commit(ForgetJobs(self.project.environment, addresses, forgotten))
            reached("after_forget")
        gathered.refresh_recorded()

    def submit(self, gathered: Gathered, *, spared: Collection[str | None] = ()) -> bool:
        """Submit everything due of every job but the `spared`; one job's trouble does not stop the others.

        True when all was sent, and the changes of every job say so.
        """
        is_complete, is_first = True, True
        for wanted in gathered.jobs:
            if not self._owes(gathered, wanted):
                continue
            if self.run.is_stopping or wanted.address in spared:
                is_complete = False
                continue
            if not is_first:  # a job before this one may have asked the same just now
                self.rows.update(classify_anew(gathered, only=wanted))
            is_first = False
            try:
                is_complete &= self._submit_job(gathered, wanted)
            except ProviderError as problem:
                self.run.tell(_unsubmitted(wanted, problem))
                is_complete = False
            except RowsFailed as problem:  # in the words of a retry rule: the plan rendered all others
                self.run.tell(*problem.diagnostics)
                is_complete = False
            if self.fail_fast and self._has_errors():
                return False
        return is_complete

    def _owes(self, gathered: Gathered, wanted: WantedJob) -> bool:
        row = gathered.con.execute(
            f"SELECT count(*) FROM {wanted.changes} WHERE action IN ('submit', 'resubmit', 'retry')"
            " AND coalesce(due_at <= ?, true)",
            [self.run.now],
        ).fetchone()
        return bool(row and row[0])

    def _is_due(self, gathered: Gathered) -> bool:
        return any(self._owes(gathered, wanted) for wanted in gathered.jobs if wanted.address not in self._troubled())

    def _submit_job(self, gathered: Gathered, wanted: WantedJob) -> bool:
        """Submit what is due of one job. True when all was sent, and its changes say so."""
        done = submit_job(self.run, gathered, wanted, shard_limits(self.project, wanted.job))
        self.batches[BatchAction.CREATE] += done.batches
        self.rows.update(note_sent(self.run, gathered, wanted, done))
        return not done.is_cut_short

    def _classify(self, gathered: Gathered) -> None:
        self.rows.update(classify_anew(gathered))

    def converge(self, gathered: Gathered, plan: Plan, *, wait: bool, timeout: timedelta | None) -> ApplyResult:
        """Record and submit the approved plan; with `wait` go on until nothing is in flight or due."""
        deadline = _deadline(timeout)
        self._refuse_orphans(gathered)
        self.record(gathered, plan)
        is_current = self.submit(gathered)
        if not is_current and not self.run.is_stopping and not self._is_over():
            gathered.refresh_recorded()  # a refusal may have held the job
            self._classify(gathered)  # once more where a create was lost and its batch is proven absent
            self.submit(gathered, spared=self._troubled())
        interval = self._first_interval()
        if wait and not is_current:
            self._classify(gathered)
        while wait and not self.run.is_stopping and not self._is_over():
            pause = self._pause_before_next(gathered, interval)
            if pause is None or not self._pause(pause, deadline):
                break
            has_moved, is_current = self.refresh(), False
            interval = self._first_interval() if has_moved else self._longer(interval)
            if has_moved or self._is_due(gathered):
                gathered.refresh_recorded()
                self._classify(gathered)
                self.submit(gathered, spared=self._troubled())
                self._classify(gathered)
        if is_current:  # to classify every row anew would only tell what is known
            take_as_recorded(gathered)
        else:
            gathered.refresh_recorded()
            self._classify(gathered)
        return self.finish(gathered)

    def poll_until_idle(self, timeout: timedelta | None) -> None:
        """Poll and fetch until nothing is in flight, submitting nothing."""
        deadline, interval = _deadline(timeout), self._first_interval()
        while True:
            moved = self.refresh()
            if self.run.is_stopping or self._is_over() or not self._in_flight():
                return
            interval = self._first_interval() if moved else self._longer(interval)
            if not self._pause(interval, deadline):
                return

    def _pause(self, seconds: float, deadline: float) -> bool:
        """Wait, at most up to the deadline, for one last look there. False when it is over."""
        left = deadline - time.monotonic()
        if left <= 0 or (seconds > left and not self._in_flight()):
            self.codes.add(ExitCode.TIMED_OUT)
            return False
        return not self.run.pause(min(seconds, left))

    def _pause_before_next(self, gathered: Gathered, interval: float) -> float | None:
        """Seconds until something may have moved; None when nothing is in flight or due any more."""
        pauses = []
        if self._in_flight():
            pauses.append(interval)
        troubled = self._troubled()
        for wanted in gathered.jobs:
            if wanted.address in troubled:
                continue
            row = gathered.con.execute(
                f"SELECT count(*), min(coalesce(due_at, ?)) FROM {wanted.changes}"
                " WHERE action IN ('submit', 'resubmit', 'retry')",
                [self.run.now],
            ).fetchone()
            assert row is not None
            if row[0]:
                due_in = (row[1] - self.run.now).total_seconds()
                pauses.append(due_in if due_in > 0 else interval)  # due and not sent: there was no room for it
        return min(pauses, default=None)

    def _in_flight(self) -> bool:
        """Whether a batch is open that the provider shows us, of a job without trouble: for others nobody waits."""
        troubled = self._troubled()
        return any(
            found.submission_id not in self._unseen and found.address not in troubled
            for found in awaited_submissions(self.project, self.addresses)
        )

    def _first_interval(self) -> float:
        return self.project.settings.poll.initial.total_seconds()

    def _longer(self, interval: float) -> float:
        return min(interval * 1.5, self.project.settings.poll.max.total_seconds())

    def _is_put_off(self, job: JobPlan) -> bool:
        """Whether rows are left of a job whose provider said, in this very apply, that it takes no more for now."""
        return (job.provider, job.model) in self.run.full_until and _owed(job) > 0

    def _has_errors(self) -> bool:
        return any(problem.severity is Severity.ERROR for problem in self.run.problems)

    def _troubled(self) -> set[str | None]:
        """Addresses of jobs that met an error in this apply, which a person must look at; None for one of no job."""
        return {problem.address for problem in self.run.problems if problem.severity is Severity.ERROR}

    def _is_over(self) -> bool:
        """Whether an error ends it all: any at all with `--fail-fast`, otherwise one that is of no single job."""
        return self._has_errors() if self.fail_fast else None in self._troubled()

    def finish(self, gathered: Gathered | None) -> ApplyResult:
        """Say what was done and what is left; emits the last event."""
        jobs: tuple[JobPlan, ...] = ()
        if gathered is None:
            self.rows.update(count_standing(self.project, self.addresses))
        else:
            after = assemble(gathered, look(self.project, self.addresses, offline=True), samples=0)
            jobs = after.jobs
            for action in (Action.IN_FLIGHT, Action.UNCHANGED, Action.FAILED, Action.HELD):
                self.rows[action] = after.rows(action)
        self.batches[BatchAction.IN_FLIGHT] = len(awaited_submissions(self.project, self.addresses))
        self.run.tell(*(_put_off(self.run, job) for job in jobs if self._is_put_off(job)))
        self.run.tell(*self._not_shown.problems())
        if self._has_errors():
            self.codes.add(ExitCode.ERROR)
        if any(job.health in {"Degraded", "Held"} for job in jobs):
            self.codes.add(ExitCode.ROWS_FAILED)
        if self.run.is_stopping:
            self.codes.add(ExitCode.INTERRUPTED)
        summary = {
            "rows": {action.value: self.rows[action] for action in Action},
            "batches": {action.value: self.batches[action] for action in BatchAction},
        }
        code = prevailing(self.codes)
        for problem in self.run.problems:
            self.run.emit(DiagnosticFound(problem))
        self.run.emit(ApplyComplete(summary, code))
        return ApplyResult(summary, code, tuple(self.run.problems))


def _deadline(timeout: timedelta | None) -> float:
    return float("inf") if timeout is None else time.monotonic() + timeout.total_seconds()


def _owed(job: JobPlan) -> int:
    return sum(count for action, count in job.rows.items() if action.is_paid)


def _put_off(run: Run, job: JobPlan) -> Diagnostic:
    until = run.full_until[job.provider, job.model]
    return warning(
        "provider_full",
        "The provider takes no more for now.",
        f"{job.provider} has room for {job.model} from {until:%Y-%m-%d %H:%M:%S} UTC on at the earliest. {_owed(job):,}"
        " of the rows wait for that; they burn no attempt. To go on then:",
        address=job.address,
        fixes=["batchops apply --wait"],
    )


def _unfetched(found: Submission, problem: ProviderError) -> Diagnostic:
    return error(
        "batch_not_fetched",
        "A batch could not be fetched.",
        f"{found.provider} about {found.batch_id}: {problem.message} Nothing was recorded by halves; the next apply"
        " fetches it again.",
        address=found.address,
    )


def _unlistable(provider: str, problem: ProviderError) -> Diagnostic:
    return warning(
        "batches_not_listed",
        "The provider does not list batches.",
        f"{provider} answered {problem.status}. A batch whose reply is lost cannot be found there, and a lost state"
        " would not be noticed: keep the state safe.",
    )


def _unlisted(provider: str, problem: ProviderError) -> Diagnostic:
    if isinstance(problem, Denied):
        return denied(provider, problem)
    return error(
        "provider_unreachable",
        "The provider could not be asked.",
        f"{provider} did not list its batches: {problem.message} Nothing was sent; the same command goes on from here.",
    )


def _unsubmitted(wanted: WantedJob, problem: ProviderError) -> Diagnostic:
    return error(
        "batch_refused",
        "The provider refused the batch.",
        f"{wanted.job.provider}: {problem.message}",
        address=wanted.address,
    )
