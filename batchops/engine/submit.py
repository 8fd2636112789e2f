"""Submit: hand shards to the provider, each exactly once.

Four steps, each on record before the next: intent (the shard and its manifest), upload, file id and fence in one
transaction right before the one create, and the outcome. Whatever dies in between is settled by the next apply.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count

from batchops.diagnostics import Diagnostic, error, warning
from batchops.engine.admission import Room, canary_limits
from batchops.engine.gather import Gathered
from batchops.engine.ledger import Submission
from batchops.engine.outgoing import Outgoing
from batchops.engine.run import Run
from batchops.engine.settle import settle_one, unasked
from batchops.engine.shards import Shard, shard_writer
from batchops.engine.sources import WantedJob
from batchops.engine.steps import reached
from batchops.plan.estimate import ShardLimits
from batchops.plan.events import BatchCreated
from batchops.providers.provider import (
    Denied,
    Provider,
    ProviderError,
    ProviderRefusal,
    QuotaExhausted,
    RemoteFile,
    Throttled,
    Uncertain,
    Unreachable,
)
from batchops.spec.job import Job
from batchops.store.changes import Created, Creating, Intend, Withdrawn

UPLOAD_TRIES = 3
BACKPRESSURE = timedelta(minutes=5)
"""How long rows wait after the provider said that too much is queued; doubled each time up to 80 minutes."""


@dataclass
class Submitted:
    """What one pass of submitting did."""

    due_by: datetime
    """What was due by then was to be sent."""
    requests: int = 0
    batches: int = 0
    is_cut_short: bool = False
    """Something due was left: the queue of the model is full, or the provider refused."""
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


def submit_job(run: Run, gathered: Gathered, wanted: WantedJob, limits: ShardLimits) -> Submitted:
    """Submit everything of one job that is due.

    Uploads run in parallel, and the next shard is written while the intent of the last is recorded.
    """
    done = Submitted(run.now)
    first = canary_limits(run, wanted, limits)
    if first is None:
        done.is_cut_short = True
        return done
    provider = run.project.provider(wanted.job.provider)
    parallel = run.project.settings.submit.parallel_uploads
    slots = threading.Semaphore(parallel)
    numbers = count(_next_number(run))  # under the lease nobody else makes submissions
    futures: list[Future[None]] = []

    def wait_for_turn() -> bool:
        slots.acquire()
        return not _is_over(run, done)

    with (
        ThreadPoolExecutor(max_workers=parallel) as pool,
        shard_writer(gathered, wanted, done.due_by, provider.profile) as writer,
    ):
        room = Room(run, wanted, provider, limits)
        outgoing = Outgoing(writer, room, first, lambda: not _is_over(run, done), is_canary=first is not limits)
        with closing(outgoing.shards(wait_for_turn)) as shards:
            for shard in shards:
                intent = _intend(run, gathered, wanted, shard, next(numbers))
                task = pool.submit(_hand_over, run, provider, wanted, shard, intent, done)
                task.add_done_callback(lambda _: slots.release())
                futures.append(task)
        if outgoing.is_cut_short:  # never back to false: those who send say it, too
            done.is_cut_short = True
    for task in futures:
        task.result()
    return done


def _is_over(run: Run, done: Submitted) -> bool:
    return run.is_stopping or done.is_cut_short


def _next_number(run: Run) -> int:
    rows = run.project.reader.rows("SELECT coalesce(max(submission_id), 0) + 1 AS next FROM state.submissions")
    return int(rows[0]["next"])


def _intend(run: Run, gathered: Gathered, wanted: WantedJob, shard: Shard, number: int) -> Intend:
    reached("before_intent")
    spec = wanted.job.spec
    intent = Intend(
        submission_id=number,
        token=shard.token,
        address=wanted.address,
        environment=run.project.environment,
        provider=wanted.job.provider,
        endpoint=spec.endpoint,
        model=shard.model,
        fence=run.store.fence,
        sha256=shard.sha256,
        shard_bytes=shard.shard_bytes,
        est_tokens=shard.est_tokens,
        requests=shard.requests,
        manifest=shard.manifest,
        expect={"schema": wanted.job.schema, "tools": spec.tools, "params": spec.params, "body": spec.body},
    )
    run.store.commit(intent, con=gathered.con)
    reached("after_intent")
    return intent


def _hand_over(run: Run, provider: Provider, wanted: WantedJob, shard: Shard, intent: Intend, done: Submitted) -> None:
    """Send one shard, and let go of its file, whatever came of it: a shard is never sent a second time."""
    try:
        _send(run, provider, wanted, shard, intent, done)
    finally:
        shard.path.unlink()


def _send(run: Run, provider: Provider, wanted: WantedJob, shard: Shard, intent: Intend, done: Submitted) -> None:
    """Upload, create, record; a definite no gives the rows back, an unknown is settled at once."""
    if run.is_stopping:  # nothing was sent of it yet
        run.store.commit(Withdrawn(intent.submission_id, "abandoned", reason="stopped before it was sent"))
        done.is_cut_short = True
        return
    try:
        remote_file = _upload(provider, shard, filename=f"batchops-{wanted.job.name}-{shard.token}.jsonl")
    except ProviderError as problem:
        _withdraw(run, wanted, intent, problem, done)
        return
    reached("after_upload")
    created_at = None if remote_file.created_at is None else datetime.fromtimestamp(remote_file.created_at, UTC)
    reached("before_creating")
    # Fence check, file id and "about to create" are one transaction: without it no create was ever sent.
    run.store.commit(Creating(intent.submission_id, remote_file.id, created_at, wanted.address))
    reached("before_create")
    try:
        batch = provider.create(
            input_file_id=remote_file.id,
            endpoint=provider.profile.path(wanted.job.spec.endpoint, shard.model),
            completion_window=wanted.job.spec.batch.completion_window,
            metadata=_metadata(run, wanted, shard),
            output_expires_after_seconds=_expiry_seconds(wanted.job),
        )
    except ProviderRefusal as problem:
        _withdraw(run, wanted, intent, problem, done)
        return
    except Uncertain:
        if not _settle_unknown(run, wanted, intent, remote_file, created_at):
            done.is_cut_short = True
            return
    else:
        reached("after_create")
        run.store.commit(Created(intent.submission_id, batch.id, batch.raw, wanted.address))
        reached("after_created")
        _announce(run, wanted, intent, batch.id)
    with done.lock:
        done.batches += 1
        done.requests += shard.requests


def _upload(provider: Provider, shard: Shard, *, filename: str) -> RemoteFile:
    """Upload the input file. After a lost reply it is looked for by name and size; a stray copy costs nothing."""
    for attempt in range(UPLOAD_TRIES):
        reached("before_upload")
        try:
            return provider.upload(shard.path, filename, model=shard.model)
        except Uncertain:
            if (found := provider.find_file(filename, shard.shard_bytes)) is not None:
                return found
            if attempt == UPLOAD_TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _metadata(run: Run, wanted: WantedJob, shard: Shard) -> dict[str, str]:
    return {
        **wanted.job.spec.batch.metadata,
        "batchops_submission": str(shard.token),
        "batchops_project": run.project.name,
        "batchops_env": run.project.environment,
        "batchops_job": wanted.address,
        "batchops_lineage": run.lineage,
    }


def _expiry_seconds(job: Job) -> int | None:
    expires = job.spec.batch.output_expires_after
    return None if expires is None else int(expires.total_seconds())


def _settle_unknown(
    run: Run,
    wanted: WantedJob,
    intent: Intend,
    remote_file: RemoteFile,
    created_at: datetime | None,
) -> bool:
    """The reply to a create was lost: find out now what became of it. True when a batch was found."""
    found = Submission(
        submission_id=intent.submission_id,
        token=intent.token,
        address=wanted.address,
        provider=wanted.job.provider,
        endpoint=intent.endpoint,
        model=intent.model,
        phase="creating",
        fence=intent.fence,
        requests=intent.requests,
        est_tokens=intent.est_tokens,
        file_id=remote_file.id,
        file_created_at=created_at,
        batch_id=None,
        remote={},
        sent_at=run.now,
    )
    try:
        if not settle_one(run, found):
            return False
    except ProviderError as again:
        run.tell(unasked(found, again))
        return False
    rows = run.project.reader.rows(
        "SELECT batch_id FROM state.submissions WHERE submission_id = ?", [intent.submission_id]
    )
    batch_id = rows[0]["batch_id"]
    if batch_id is None:
        return False
    _announce(run, wanted, intent, batch_id)
    return True


def _announce(run: Run, wanted: WantedJob, intent: Intend, batch_id: str) -> None:
    run.emit(
        BatchCreated(
            address=wanted.address,
            batch_id=batch_id,
            rows=intent.requests,
            provider=intent.provider,
            is_simulated=wanted.diff.is_simulated,
        )
    )


def _withdraw(run: Run, wanted: WantedJob, intent: Intend, problem: ProviderError, done: Submitted) -> None:
    """Nothing was created: give the rows back, later where the provider said to wait."""
    due_at = held = None
    if isinstance(problem, Throttled):
        due_at = run.now + _backpressure(run, intent, problem)
        run.full_until[intent.provider, intent.model] = due_at
    elif isinstance(problem, QuotaExhausted):
        held = f"quota exhausted at {wanted.job.provider}: {problem.code or problem.status}"
    reached("before_withdrawn")
    run.store.commit(
        Withdrawn(
            intent.submission_id,
            "abandoned",
            due_at=due_at,
            held_because=held,
            counts=isinstance(problem, Throttled),
            reason=f"{type(problem).__name__} {problem.code or problem.status or ''}".strip(),
        )
    )
    reached("after_withdrawn")
    if not isinstance(problem, Throttled):
        run.tell(_refusal(wanted, problem))
    done.is_cut_short = True


def _backpressure(run: Run, intent: Intend, problem: Throttled) -> timedelta:
    if problem.retry_after_seconds is not None and problem.code != "token_limit_exceeded":
        return timedelta(seconds=problem.retry_after_seconds)
    rows = run.project.reader.rows(
        "SELECT coalesce(max(free_attempts), 0) AS tries FROM state.requests WHERE submission_id = ?",
        [intent.submission_id],
    )
    return BACKPRESSURE * min(1 << int(rows[0]["tries"]), 16)


def denied(provider: str, problem: Denied, address: str | None = None) -> Diagnostic:
    """The key is wrong or does not see this: of one job, or of everything when it is None."""
    detail = f"{provider}: {problem.message} Check the API key, organisation and project."
    return error("provider_denied", "The provider refuses the credentials.", detail, address=address)


def _refusal(wanted: WantedJob, problem: ProviderError) -> Diagnostic:
    """Why the provider did not take a batch, and what to do."""
    provider = wanted.job.provider
    if isinstance(problem, Unreachable):
        return error(
            "provider_unreachable",
            "The provider could not be asked.",
            f"{provider}: {problem.message} Nothing was sent; the same command goes on from here.",
            address=wanted.address,
        )
    if isinstance(problem, Denied):
        return denied(provider, problem, wanted.address)
    if isinstance(problem, QuotaExhausted):
        return warning(
            "quota_exhausted",
            "The account has no money left.",
            f"{provider}: {problem.message} The job is held and burns no attempts. When that is mended:",
            address=wanted.address,
            fixes=[f"batchops retry {wanted.address}"],
        )
    return error(
        "batch_refused",
        "The provider refused the batch.",
        f"{provider}: {problem.message}{f' ({problem.code})' if problem.code else ''}",
        address=wanted.address,
    )
