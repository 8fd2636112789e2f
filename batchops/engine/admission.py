"""Whether a shard may be sent now: room in the model's queue, batches left in the hour, a canary before the crowd."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from batchops.diagnostics import Diagnostic, error, warning
from batchops.engine.judging import ORDINAL
from batchops.engine.manifest import Cut
from batchops.engine.run import Run
from batchops.engine.sources import WantedJob
from batchops.plan.estimate import ShardLimits
from batchops.providers.provider import Provider
from batchops.spec.job import Outcome

CANARY_REQUESTS: Final = 100
"""What is asked first after a batch that failed for one and the same reason: a wrong parameter costs so many lines."""

_PERMANENT: Final = (Outcome.BAD_REQUEST, Outcome.NOT_FOUND)
_OPEN: Final = "('intended', 'creating', 'created', 'revoking')"


class Room:
    """The room that a provider has for the shards of one job. Asked before one is written, and told of each.

    The state is read once and then only before the answer is no: while a job is submitted nobody else sends anything,
    so that what was counted since is never too little. A shard counts from when it is begun, until its intent says so.
    """

    def __init__(self, run: Run, wanted: WantedJob, provider: Provider, limits: ShardLimits) -> None:
        self._run, self._name, self._limits = run, wanted.job.provider, limits
        self._most_batches = provider.profile.max_batches_per_hour
        self._unrecorded: list[Cut] = []
        self._forget()

    def _forget(self) -> None:
        self._sent: int | None = None
        self._queued: dict[str, int] = {}

    def has(self, cut: Cut) -> bool:
        """Whether this shard may be sent now. Alone in the queue of its model a shard is always let through."""
        now = self._run.now
        if self._run.full_until.get((self._name, cut.model), now) > now:
            return False
        if self._has(cut):
            return True
        self._forget()
        return self._has(cut)

    def _has(self, cut: Cut) -> bool:
        if self._sent is None:
            self._sent = _sent_in_last_hour(self._run, self._name) + len(self._unrecorded)
        if self._sent >= self._most_batches:
            return False
        if self._limits.max_tokens is None:
            return True
        if cut.model not in self._queued:
            begun = sum(other.tokens for other in self._unrecorded if other.model == cut.model)
            self._queued[cut.model] = _queued_tokens(self._run, self._name, cut.model) + begun
        queued = self._queued[cut.model]
        return queued == 0 or queued + cut.tokens <= self._limits.max_tokens

    def take(self, cut: Cut) -> None:
        """This shard is begun."""
        self._unrecorded.append(cut)
        if self._sent is not None:
            self._sent += 1
        if cut.model in self._queued:
            self._queued[cut.model] += cut.tokens

    def note_recorded(self, cut: Cut) -> None:
        """The intent of this shard is in the state."""
        self._unrecorded.remove(cut)


def _queued_tokens(run: Run, provider: str, model: str) -> int:
    rows = run.project.reader.rows(
        f"""SELECT coalesce(sum(est_tokens), 0)::UBIGINT AS queued FROM state.submissions
            WHERE provider = ? AND model = ? AND phase IN {_OPEN}""",
        [provider, model],
    )
    return int(rows[0]["queued"])


def _sent_in_last_hour(run: Run, provider: str) -> int:
    rows = run.project.reader.rows(
        # One that is only intended is on its way to be sent, by another thread of ours.
        "SELECT count(*) AS n FROM state.submissions WHERE provider = ? AND (sent_at > ? OR phase = 'intended')",
        [provider, run.now - timedelta(hours=1)],
    )
    return int(rows[0]["n"])


def canary_limits(run: Run, wanted: WantedJob, limits: ShardLimits) -> ShardLimits | None:
    """The limits for what is sent now: small ones after a batch that failed as one; None: nothing now.

    While such a canary is under way nothing else of the job is sent. One that fails too ends the job's part of this
    apply.
    """
    failure = _common_failure(run, wanted)
    if failure is None:
        return limits
    if wanted.address in run.canaries:
        if not _is_under_way(run, wanted):
            run.tell(_failed_again(wanted, failure))
        return None
    if _is_under_way(run, wanted):
        return None
    run.canaries.add(wanted.address)
    run.tell(_canary_first(wanted, failure))
    return replace(limits, max_requests=min(limits.max_requests, CANARY_REQUESTS))


def _common_failure(run: Run, wanted: WantedJob) -> str | None:
    """The error that most lines of the job's latest batch ended with, if it is one that lasts."""
    recorded = wanted.diff.recorded
    if recorded is None:
        return None
    permanent = tuple(ORDINAL[outcome] for outcome in _PERMANENT)
    rows = run.project.reader.rows(
        f"""WITH latest AS (
                SELECT submission_id FROM state.submissions WHERE job_id = ? AND phase = 'fetched'
                ORDER BY ended_at DESC, submission_id DESC LIMIT 1
            )
            SELECT any_value(o.code) AS code, count(*) AS n, (SELECT count(*) FROM state.outcomes
                   WHERE submission_id = (FROM latest)) AS total
            FROM state.outcomes o WHERE submission_id = (FROM latest) AND outcome IN {permanent!r}
            GROUP BY o.outcome, o.code ORDER BY n DESC LIMIT 1""",
        [recorded.job_id],
    )
    if not rows or rows[0]["n"] * 2 <= rows[0]["total"] or rows[0]["n"] < 2:
        return None
    return str(rows[0]["code"] or "an error")


def _is_under_way(run: Run, wanted: WantedJob) -> bool:
    assert wanted.diff.recorded is not None
    rows = run.project.reader.rows(
        "SELECT count(*) AS n FROM state.submissions WHERE job_id = ?"
        " AND phase IN ('intended', 'creating', 'created', 'ended', 'revoking')",
        [wanted.diff.recorded.job_id],
    )
    return bool(rows[0]["n"])


def _canary_first(wanted: WantedJob, failure: str) -> Diagnostic:
    return warning(
        "canary_first",
        "A few rows are asked first.",
        f"Most lines of the last batch ended with {failure}. At most {CANARY_REQUESTS} rows are asked now; the others"
        " follow when these are answered.",
        address=wanted.address,
    )


def _failed_again(wanted: WantedJob, failure: str) -> Diagnostic:
    return error(
        "canary_failed",
        "The rows that were asked first failed too.",
        f"Most of them ended with {failure}. The others were not asked. Mend the job, then apply again.",
        address=wanted.address,
    )
