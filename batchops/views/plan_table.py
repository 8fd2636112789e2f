"""What a plan says, in words and in reading order: the table, the notes and the summary that text and markdown share.

The dangerous comes first (paying again, discarding, cancelling), then the expensive, then by address.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from batchops.plan.model import Action, BatchAction, Estimate, JobPlan, Plan, Reason
from batchops.units import format_usd

Step = Action | BatchAction

SYMBOLS: dict[Step, tuple[str, str]] = {
    Action.RESUBMIT: ("~", "resubmit"),
    Action.FORGET: (".", "forget"),
    BatchAction.CANCEL: ("x", "cancel"),
    Action.SUBMIT: ("+", "submit"),
    Action.RETRY: ("r", "retry"),
    BatchAction.SETTLE: ("?", "settle"),
    BatchAction.FETCH: ("<=", "fetch"),
    Action.REUSE: ("=", "reuse"),
}
"""What a step is drawn as, and its verb. The order is the order within a job."""

DANGEROUS = frozenset({Action.RESUBMIT, Action.FORGET, BatchAction.CANCEL})

REASONS = {
    Reason.NEW_JOB: "new job",
    Reason.NEW_ROW: "new rows",
    Reason.PROMPT_CHANGED: "prompt changed",
    Reason.MODEL_CHANGED: "model changed",
    Reason.PARAMS_CHANGED: "params changed",
    Reason.SCHEMA_CHANGED: "schema changed",
    Reason.ROW_CHANGED: "rows changed",
    Reason.ROW_FAILED: "rows failed",
    Reason.BATCH_EXPIRED: "batch expired",
    Reason.REQUESTED: "requested",
    Reason.ROW_REMOVED: "rows left the source",
    Reason.PROVIDER_CHANGED: "provider changed",
    Reason.ADOPTED: "adopted",
    Reason.IN_FLIGHT: "in flight",
    Reason.ANSWERED: "answered before",
}

_CHANGED = (
    Reason.PROMPT_CHANGED,
    Reason.MODEL_CHANGED,
    Reason.PARAMS_CHANGED,
    Reason.SCHEMA_CHANGED,
    Reason.ROW_CHANGED,
    Reason.PROVIDER_CHANGED,
)
_EXPLAINS: dict[Step, tuple[Reason, ...]] = {
    Action.FORGET: (Reason.ROW_REMOVED,),
    Action.RETRY: (Reason.REQUESTED, Reason.ROW_FAILED, Reason.BATCH_EXPIRED),
    Action.RESUBMIT: (*_CHANGED, Reason.REQUESTED),
    Action.SUBMIT: (Reason.NEW_JOB, Reason.NEW_ROW, *_CHANGED, Reason.REQUESTED),
    Action.REUSE: (Reason.ANSWERED, Reason.ADOPTED, *_CHANGED, Reason.NEW_JOB, Reason.NEW_ROW),
}
"""Which reasons may stand behind an action; a plan counts them by job only."""

_BATCH_WORDS = {
    BatchAction.CANCEL: "asked for",
    BatchAction.SETTLE: "a reply was lost",
    BatchAction.FETCH: "ended",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table: a step of one job. `cost` is the whole job's, on its first paid line."""

    step: Step
    address: str
    count: int
    reason: str
    cost: Estimate | None = None

    @property
    def symbol(self) -> str:
        return SYMBOLS[self.step][0]

    @property
    def amount(self) -> str:
        """`1,200 rows`, `1 batch`."""
        return counted(self.count, "batch" if isinstance(self.step, BatchAction) else "row")


def entries(plan: Plan) -> list[Entry]:
    """The table: every step of every job that does something, in reading order."""
    return [entry for job in reading_order(plan.jobs) for entry in _entries_of(job, plan.created_at)]


def reading_order(jobs: Iterable[JobPlan]) -> list[JobPlan]:
    """Dangerous jobs first, then by cost, the unknown before all; then by address."""

    def rank(job: JobPlan) -> tuple[bool, float, str]:
        is_dangerous = any(job.rows.get(step) or job.batches.get(step) for step in DANGEROUS)  # type: ignore[call-overload]
        cost = math.inf if job.cost.high_usd is None else job.cost.high_usd
        return not is_dangerous, -cost, job.address

    return sorted(jobs, key=rank)


def _entries_of(job: JobPlan, now: datetime) -> Iterator[Entry]:
    reasons = _reasons(job)
    cost: Estimate | None = job.cost
    for step in SYMBOLS:
        count = job.batches.get(step, 0) if isinstance(step, BatchAction) else job.rows.get(step, 0)
        if not count:
            continue
        is_paid = isinstance(step, Action) and step.is_paid
        yield Entry(step, job.address, count, _why(step, job, reasons, now), cost if is_paid else None)
        cost = None if is_paid else cost


def _why(step: Step, job: JobPlan, reasons: dict[Step, str], now: datetime) -> str:
    if isinstance(step, BatchAction):
        return _BATCH_WORDS[step]
    why = reasons.get(step, "")
    has_moment = step is Action.RETRY or (step.is_paid and not job.rows.get(Action.RETRY))
    if has_moment and job.due_at is not None and job.due_at > now:
        return f"due {due(job.due_at, now)}: {why}".removesuffix(": ")
    return why


def _reasons(job: JobPlan) -> dict[Step, str]:
    """The reasons behind each action: handed out greedily, each as often as the plan counts it."""
    left = dict(job.reasons)
    said: dict[Step, str] = {}
    for step, admitted in _EXPLAINS.items():
        need, parts = job.rows.get(Action(step), 0), []
        for reason in admitted:
            most = _requested_retries(job) if (step, reason) == (Action.RETRY, Reason.REQUESTED) else need
            if (taken := min(need, most, left.get(reason, 0))) > 0:
                need, left[reason] = need - taken, left[reason] - taken
                parts.append((reason, taken))
        said[step] = _join(parts)
    return said


def _requested_retries(job: JobPlan) -> int:
    """How many of the rows to retry are so because somebody asked: those that no failure is left for.

    Failures are counted also of rows that nobody asks again.
    """
    failures = job.reasons.get(Reason.ROW_FAILED, 0) + job.reasons.get(Reason.BATCH_EXPIRED, 0)
    others = job.rows.get(Action.FAILED, 0) + job.rows.get(Action.HELD, 0)
    return job.rows.get(Action.RETRY, 0) - max(0, failures - others)


def _join(parts: list[tuple[Reason, int]]) -> str:
    if len(parts) == 1:
        return REASONS[parts[0][0]]
    return ", ".join(f"{REASONS[reason]} ({count:,})" for reason, count in sorted(parts, key=lambda part: -part[1]))


def notes(plan: Plan) -> list[str]:
    """What is neither done nor changed but must be known, a sentence each."""
    said = []
    if empty := [job.address for job in plan.jobs if not job.rows and not job.batches]:
        said.append(f"No rows come from the source query of {', '.join(empty)}.")
    if flying := plan.rows(Action.IN_FLIGHT):
        said.append(f"In flight: {counted(flying, 'row')} in {counted(plan.batches(BatchAction.IN_FLIGHT), 'batch')}.")
    if failed := plan.rows(Action.FAILED):
        said.append(
            f"Given up: {counted(failed, 'row')} ({_addresses(plan, Action.FAILED)}); `batchops retry` asks again."
        )
    if held := plan.rows(Action.HELD):
        said.append(f"Held: {counted(held, 'row')} ({_addresses(plan, Action.HELD)}); `batchops explain` says why.")
    if waves := [f"{job.address} in {job.waves}" for job in plan.jobs if job.waves > 1]:
        said.append(f"Waves, one after another to stay within the provider's limits: {', '.join(waves)}.")
    if simulated := [job.address for job in plan.jobs if job.is_simulated and _is_paid(job)]:
        said.append(
            f"Simulated answers: {', '.join(simulated)}. The local provider makes them up and charges nothing; the"
            " estimate is what real ones would cost."
        )
    if plan.reused_usd:
        said.append(f"Reusing paid answers saves {format_usd(plan.reused_usd)}.")
    return said


def _addresses(plan: Plan, action: Action) -> str:
    return ", ".join(job.address for job in plan.jobs if job.rows.get(action))


def _is_paid(job: JobPlan) -> bool:
    return any(job.rows.get(action) for action in Action if action.is_paid)


def summary(plan: Plan) -> str:
    """The verdict: `Plan: 1,200 to submit, 14 to retry, 2 batches to fetch. Estimated $1.10–$1.62 (limit $50.00).`"""
    if not plan.has_changes:
        answered = plan.rows(Action.UNCHANGED)
        return f"No changes. {counted(answered, 'row')} answered." if answered else "No changes."
    changes: tuple[Step, ...] = tuple(action for action in Action if action.is_change)
    order = (*changes, BatchAction.FETCH, BatchAction.SETTLE, BatchAction.CANCEL)
    parts = [_part(plan, step) for step in order]
    return f"Plan: {', '.join(part for part in parts if part)}.{_estimated(plan)}"


def _part(plan: Plan, step: Step) -> str:
    verb = SYMBOLS[step][1]
    if isinstance(step, BatchAction):
        return f"{counted(plan.batches(step), 'batch')} to {verb}" if plan.batches(step) else ""
    return f"{plan.rows(step):,} to {verb}" if plan.rows(step) else ""


def _estimated(plan: Plan) -> str:
    if not any(_is_paid(job) for job in plan.jobs):
        return ""
    limit = "" if plan.limit_usd is None else f" (limit {format_usd(plan.limit_usd)})"
    cost = plan.cost
    if cost.low_usd is None:
        models = f": no price known for {', '.join(plan.unknown_models)}" if plan.unknown_models else ""
        return f" Cost unknown{limit}{models}."
    uncapped = ": not every job caps its output" if cost.high_usd is None else ""
    return f" Estimated {cost_range(cost)}{limit}{uncapped}."


def legend(shown: Iterable[Entry]) -> str:
    """The symbols that occur, and no others."""
    used = {entry.step for entry in shown}
    return "  ".join(f"{symbol} {verb}" for step, (symbol, verb) in SYMBOLS.items() if step in used)


def counted(number: int, noun: str) -> str:
    """`1 row`, `1,200 rows`, `2 batches`."""
    plural = f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def cost_range(cost: Estimate) -> str:
    """`$1.10–$1.62`; one amount where both print alike; what is unknown is said to be."""
    if cost.low_usd is None:
        return "cost unknown"
    if cost.high_usd is None:
        return f"{format_usd(cost.low_usd)} or more"
    low, high = format_usd(cost.low_usd), format_usd(cost.high_usd)
    return low if low == high else f"{low}–{high}"


def due(moment: datetime, now: datetime) -> str:
    """`in 4 min`, `in 2 h`, `now`."""
    left = moment - now
    if left <= timedelta(0):
        return "now"
    seconds = left.total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (seconds >= size and unit == "min"):
            return f"in {math.ceil(seconds / size)} {unit}"
    return f"in {math.ceil(seconds)} s"
