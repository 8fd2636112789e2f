"""The document of `status` as text: one line a job, then what is in flight and what comes next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from batchops.grid import Head, grid
from batchops.terminal import visible
from batchops.views.durations import in_words

_COUNTS = {
    "total": "ROWS",
    "answered": "ANSWERED",
    "in_flight": "IN FLIGHT",
    "waiting": "RETRY",
    "given_up": "FAILED",
    "held": "HELD",
    "pending": "PENDING",
}
_ALWAYS = ("total", "answered")


def render_status(
    document: Mapping[str, Any], *, width: int | None, is_narrowed: bool = False, disabled: int = 0
) -> str:
    """The text of a status document, without a newline at the end.

    `is_narrowed`: it is about selected jobs alone. `disabled` says how many of those that it is about are disabled.
    """
    jobs = document["jobs"]
    if not jobs:
        return _without_jobs(is_narrowed=is_narrowed, disabled=disabled)
    seen = "asked just now" if document["refreshed"] else "as last seen (the next apply or wait looks again)"
    lines = [*_table(jobs, width), *_notes(jobs, seen)]
    return "\n".join(lines)


def _without_jobs(*, is_narrowed: bool, disabled: int) -> str:
    place = "selected" if is_narrowed else "declared under jobs/"
    if disabled == 1:
        return f"No jobs: the only one {place} is disabled, and was not applied."
    if disabled:
        return f"No jobs: all {disabled:,} that are {place} are disabled, and none was applied."
    if is_narrowed:
        return "No job is selected."
    return "No jobs: none is declared under jobs/, and none was applied."


def _table(jobs: list[Mapping[str, Any]], width: int | None) -> Iterator[str]:
    heads = [Head("JOB"), Head("SYNC"), Head("HEALTH")]
    heads += [Head(title, right=True, optional=name not in _ALWAYS) for name, title in _COUNTS.items()]
    heads += [Head("COST", right=True, optional=True), Head("MODEL"), Head("PROVIDER")]
    return grid(heads, (_row(job) for job in jobs), width=width)


def _row(job: Mapping[str, Any]) -> list[str | None]:
    counts = [str(job["rows"][name]) if job["rows"][name] or name in _ALWAYS else None for name in _COUNTS]
    changed = f" ({', '.join(job['changed'])})" if job["changed"] else ""
    provider = f"{job['provider']} (simulated)" if job["is_simulated"] else job["provider"]
    head = [job["address"], job["sync"] + changed, job["health"]]
    return [*head, *counts, cost_text(job["cost"]), job["model"], provider]


def cost_text(cost: Mapping[str, Any]) -> str | None:
    """`$0.0123`, with a plus where the price of some requests is not known; None when nothing was spent."""
    spent, unknown = cost["spent_usd"], cost["unknown_requests"]
    if spent is None:
        return "unknown" if unknown else None
    if not spent and not unknown:
        return None
    return usd(spent) + (" + unknown" if unknown else "")


def usd(amount: float) -> str:
    """`$1,234.50`, `$0.0123`, `$0.000033`: enough digits to tell small amounts apart."""
    digits = 2 if amount >= 1 else 4 if amount >= 0.01 else 6
    return f"${amount:,.{digits}f}"


def _notes(jobs: list[Mapping[str, Any]], seen: str) -> Iterator[str]:
    open_batches = [(job["address"], batch) for job in jobs for batch in job["batches"]]
    if open_batches:
        yield f"\nIn flight, {seen}:"
        for address, batch in open_batches:
            yield f"  {visible(batch_text(batch))}  {address}"
    for job in jobs:
        if job["next_retry_at"]:
            yield f"\nNext retry of {job['address']}: {job['next_retry_at']}"
        if job["held"]:
            yield f"\n{job['address']} is held: {visible(job['held'])}. To go on: batchops retry {job['address']}"


def batch_text(batch: Mapping[str, Any]) -> str:
    """`batch_abc  in_progress  120/1000 done, 3 failed, sent 5 min ago`."""
    done = "" if batch["completed"] is None else f"{batch['completed']}/"
    failed = f", {batch['failed']} failed" if batch["failed"] else ""
    age = f", sent {in_words(batch['age_seconds'])} ago" if batch["age_seconds"] is not None else ""
    unit = "done" if done else "requests"
    name = batch["batch_id"] or "(no batch id yet)"
    return f"{name}  {batch['status'] or batch['phase']}  {done}{batch['requests']} {unit}{failed}{age}"
