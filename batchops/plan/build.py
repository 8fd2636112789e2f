"""From classified rows to a `Plan`: counts, reasons, cost, batches and samples of each job."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import orjson

from batchops.plan.diff import RecordedJob
from batchops.plan.estimate import Load, ShardLimits, count_shards, count_waves, estimate, loads_of, total
from batchops.plan.model import Action, BatchAction, Estimate, JobPlan, Reason, Sample
from batchops.plan.prices import Price


@dataclass(frozen=True)
class JobFacts:
    """What is known of a job beside its rows."""

    address: str
    provider: str
    model: str
    is_simulated: bool
    changes: str
    settled: str
    recorded: RecordedJob | None
    is_protected: bool
    limits: ShardLimits
    rate: Callable[[str | None], tuple[Price | None, int | None]]
    """The price and the output cap of requests, by their amendment as JSON; None where they go as the spec says."""
    has_output: bool
    typical_output_tokens: float | None
    max_failed: float | int
    batches: Mapping[BatchAction, int]
    spec: Mapping[str, Any]
    samples: tuple[Sample, ...] = ()
    besides: str | None = None
    """A relation of requests (digest, round) that other jobs of the plan ask and pay."""


def build_job(con: duckdb.DuckDBPyConnection, facts: JobFacts, now: datetime) -> JobPlan:
    """Count the changes relation of one job."""
    rows, reasons = _counts(con, facts)
    load, due = loads_of(con, facts.changes, due_at=now, besides=facts.besides)
    batches = dict(facts.batches)
    if due.requests:
        batches[BatchAction.CREATE] = count_shards(due, facts.limits)
    return JobPlan(
        address=facts.address,
        provider=facts.provider,
        model=facts.model,
        is_simulated=facts.is_simulated,
        rows={action: rows[action] for action in Action if action in rows},
        batches={action: batches[action] for action in BatchAction if batches.get(action)},
        reasons={reason: reasons[reason] for reason in Reason if reason in reasons},
        cost=_cost(con, facts, load),
        sync=_sync(rows, facts),
        health=_health(rows, facts),
        diff=spec_diff(facts.recorded.spec if facts.recorded else None, facts.spec),
        samples=facts.samples,
        waves=count_waves(load, facts.limits),
        is_protected=facts.is_protected,
        due_at=_next_due(con, facts.changes),
    )


def _cost(con: duckdb.DuckDBPyConnection, facts: JobFacts, load: Load) -> Estimate:
    """The price of the load. Tries with another output cap or model than the spec's are priced by those."""
    amended = con.execute(
        f"""SELECT DISTINCT amendment FROM {facts.changes}
            WHERE amendment IS NOT NULL AND action IN ('submit', 'resubmit', 'retry') ORDER BY amendment"""
    ).fetchall()
    if not amended:
        return _priced(facts, load, None)
    parts = [_priced(facts, _alike(con, facts, amendment), amendment) for amendment in (None, *(a for (a,) in amended))]
    return total(parts)


def _priced(facts: JobFacts, load: Load, amendment: str | None) -> Estimate:
    price, cap = facts.rate(amendment)
    typical = facts.typical_output_tokens
    return estimate(load, price, cap=cap, typical_output_tokens=typical, has_output=facts.has_output)


def _alike(con: duckdb.DuckDBPyConnection, facts: JobFacts, amendment: str | None) -> Load:
    """The requests to be paid that go with this amendment."""
    text = "NULL" if amendment is None else "'" + amendment.replace("'", "''") + "'"
    alike = f"(FROM {facts.changes} WHERE amendment IS NOT DISTINCT FROM {text})"
    return loads_of(con, alike, due_at=None, besides=facts.besides)[0]


def _counts(con: duckdb.DuckDBPyConnection, facts: JobFacts) -> tuple[dict[Action, int], dict[Reason, int]]:
    """How many rows there are of each action, and of each reason but that of unchanged rows."""
    rows: dict[Action, int] = {}
    reasons: dict[Reason, int] = {}
    for action, reason, count in con.execute(
        f"""SELECT action, '{Reason.IN_FLIGHT}', rows FROM {facts.settled} WHERE rows > 0
            UNION ALL SELECT action, reason, count(*) FROM {facts.changes} GROUP BY ALL"""
    ).fetchall():
        rows[Action(action)] = rows.get(Action(action), 0) + count
        if action != Action.UNCHANGED:
            reasons[Reason(reason)] = reasons.get(Reason(reason), 0) + count
    return rows, reasons


def _sync(rows: Mapping[Action, int], facts: JobFacts) -> str:
    moved = {Action.SUBMIT, Action.RESUBMIT, Action.REUSE, Action.FORGET}
    return "OutOfSync" if facts.recorded is None or any(rows.get(a) for a in moved) else "Synced"


def _health(rows: Mapping[Action, int], facts: JobFacts) -> str:
    total = sum(rows.values())
    allowed = facts.max_failed * total if isinstance(facts.max_failed, float) else facts.max_failed
    if rows.get(Action.HELD):  # also every row that a held job would ask
        return "Held"
    if rows.get(Action.FAILED, 0) > allowed:
        return "Degraded"
    return "Progressing" if rows.get(Action.IN_FLIGHT) or rows.get(Action.RETRY) else "Healthy"


def _next_due(con: duckdb.DuckDBPyConnection, changes: str) -> datetime | None:
    row = con.execute(f"SELECT min(due_at) FROM {changes} WHERE action IN ('submit', 'resubmit', 'retry')").fetchone()
    return row[0] if row else None


_SHOWN_PARTS = ("endpoint", "model", "template", "body", "params", "schema", "tools", "tool_choice")


def spec_diff(recorded: Mapping[str, Any] | None, desired: Mapping[str, Any]) -> str:
    """A unified diff of what shapes the request, recorded against desired; empty for a new or unchanged job."""
    if recorded is None:
        return ""
    before, after = _lines(recorded), _lines(desired)
    return "\n".join(difflib.unified_diff(before, after, "recorded", "desired", lineterm="", n=3))


def _lines(spec: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for part in _SHOWN_PARTS:
        value = spec.get(part)
        if value is None or value == {}:
            continue
        lines += _part_lines(part, value)
    return lines


def _part_lines(part: str, value: Any) -> list[str]:
    if part == "template" and isinstance(value, str):
        return ["template:", *(f"  {line}" for line in value.splitlines())]
    if part == "template" and isinstance(value, list):
        lines = ["template:"]
        for message in value:
            content = message["content"]
            text = content if isinstance(content, str) else orjson.dumps(content, option=orjson.OPT_INDENT_2).decode()
            lines += [f"  {message['role']}:", *(f"    {line}" for line in text.splitlines())]
        return lines
    if isinstance(value, str):
        return [f"{part}: {value}"]
    return [
        f"{part}:",
        *(f"  {line}" for line in orjson.dumps(value, option=orjson.OPT_INDENT_2).decode().splitlines()),
    ]
