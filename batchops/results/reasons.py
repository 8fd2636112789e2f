"""Why a row stands where it stands, and what happens next, in a sentence each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Standing:
    """Where a row stands; `latest` is the latest try of its round as `explain` shows it, `held` why its job is held."""

    state: str
    outcome: str | None
    attempts: int
    free_attempts: int
    due_at: str | None
    held: str | None
    latest: Mapping[str, Any] | None
    job: str
    is_answered_later: bool = False


def why(row: Standing) -> str:
    """The reason of the row's state."""
    match row.state:
        case "pending":
            return f"Not asked yet: the job is held ({row.held})." if row.held else "Not asked yet."
        case "in_flight":
            return _in_flight(row)
        case "answered":
            return _answered(row)
        case "waiting":
            return f"{_last_ending(row)} and it is asked again."
        case "given_up":
            return f"Given up after {_tries(row)}: {_lower(_last_ending(row))}."
        case _:
            return " ".join(["Held.", *([f"{row.held}."] if row.held else []), *_ending(row)])


def next_step(row: Standing, now: datetime) -> str:
    """What happens next, and the command for it where a human is needed."""
    if row.is_answered_later and row.state != "answered":
        return "The next apply uses the answer that a later round of this request brought, without paying."
    match row.state:
        case "pending" | "waiting" if row.held:
            return f"Nothing until: batchops retry {row.job}"
        case "pending":
            return f"The next apply{_due(row.due_at, now)} asks it."
        case "waiting":
            return f"The next apply{_due(row.due_at, now)} asks it again."
        case "in_flight":
            return "The next apply looks at the batch, and fetches it when it has ended."
        case "answered":
            return "Nothing, as long as its request stays the same."
        case _:
            return f"Nothing until another round is opened: batchops retry {row.job}"


def _answered(row: Standing) -> str:
    payer = (row.latest or {}).get("job")
    if payer is not None and payer != row.job:
        return f"Answered for {payer}, and used again here without paying."
    return f"Answered after {_tries(row)}."


def _in_flight(row: Standing) -> str:
    latest = row.latest or {}
    match latest.get("phase"):
        case "intended":
            return "About to be handed over; nothing was sent yet."
        case "creating" | "revoking":
            return "Handed over, and the reply of the provider was not seen; the next apply settles it."
        case "ended":
            return f"Batch {latest.get('batch_id')} has ended and is about to be fetched."
        case _:
            return f"In batch {latest.get('batch_id')} since {latest.get('sent_at')}."


def _ending(row: Standing) -> list[str]:
    spent = [f"{row.free_attempts} tries did not count, and no more are made."] if row.free_attempts >= 10 else []
    return [*([f"{_last_ending(row)}."] if row.outcome else []), *spent]


def _tries(row: Standing) -> str:
    counted = f"{row.attempts} attempt" + ("s" if row.attempts != 1 else "")
    return counted + (f" and {row.free_attempts} that did not count" if row.free_attempts else "")


def _last_ending(row: Standing) -> str:
    latest = row.latest or {}
    marks = [str(mark) for mark in (latest.get("http"), latest.get("code")) if mark is not None]
    return f"The latest try ended {row.outcome}" + (f" ({', '.join(marks)})" if marks and row.outcome else "")


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


def _due(due_at: str | None, now: datetime) -> str:
    if due_at is None or datetime.fromisoformat(due_at) <= now:
        return ""
    return f" from {due_at} on"
