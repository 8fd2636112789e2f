"""Jobs on two axes: sync (the spec against what was applied) and health (how the rows are). No network, no source.

The result is a document of plain JSON values: `status --json` prints it, `views.status` shows it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

import duckdb
import orjson

from batchops.results.answers import STATES
from batchops.results.recorded import RecordedJob, recorded_jobs

FORMAT_VERSION = "1.0"
OPEN_PHASES = ("intended", "creating", "created", "ended", "revoking")
"""Phases of a submission that is not finished."""


@dataclass(frozen=True)
class DesiredJob:
    """What a spec says now. `parts` is None where it cannot be compiled; see `CompiledRequest.parts`."""

    address: str
    provider: str
    model: str
    is_simulated: bool
    parts: Mapping[str, str] | None = None
    max_failed: float | int = 0
    moved_from: str | None = None
    is_enabled: bool = True


@dataclass(frozen=True)
class Sync:
    """`state` is Synced, OutOfSync, Unknown, Missing or Removed; `changed` names the parts of the spec that moved."""

    state: str
    changed: tuple[str, ...] = ()


def compare(recorded: RecordedJob | None, desired: DesiredJob | None, *, has_unreadable: bool) -> Sync:
    """Compare what was applied with what the spec says, part by part; rows of the source are not looked at."""
    if recorded is None:
        return Sync("Missing")
    if desired is None:
        return Sync("Unknown" if has_unreadable and not recorded.is_removed else "Removed")
    if desired.parts is None:
        return Sync("Unknown")
    names = dict.fromkeys([*desired.parts, *recorded.parts])
    changed = [name for name in names if recorded.parts.get(name) != desired.parts.get(name)]
    changed += ["provider"] if desired.provider != recorded.provider else []
    changed += ["name"] if desired.address != recorded.address else []
    return Sync("OutOfSync", tuple(changed)) if changed else Sync("Synced")


def health(rows: Mapping[str, int], *, is_held: bool, max_failed: float | int = 0) -> str:
    """Held before Degraded before Progressing before Healthy.

    `rows` counts by state and in `total`; `max_failed` is what `retry` allows, a count or a share of the total.
    """
    allowed = max_failed * rows["total"] if isinstance(max_failed, float) else max_failed
    if rows["held"] or (is_held and (rows["pending"] or rows["waiting"])):  # a job with nothing to ask waits for nobody
        return "Held"
    if rows["given_up"] > allowed:
        return "Degraded"
    return "Progressing" if any(rows[state] for state in ("pending", "in_flight", "waiting")) else "Healthy"


def status_document(
    con: duckdb.DuckDBPyConnection,
    desired: Iterable[DesiredJob],
    *,
    project: str,
    environment: str,
    now: datetime,
    has_unreadable: bool = False,
    only: Collection[str] | None = None,
    remotes: Mapping[str, Mapping[str, Any]] | None = None,
    diagnostics: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Everything `status` shows of a snapshot.

    `has_unreadable` says that some spec file could not be read. `only` are the addresses to show. `remotes` is what the
    providers say now, by batch id; without it, and for a batch that is not in it, what they said last counts.
    """
    recorded = {job.address: job for job in recorded_jobs(con)}
    pairs = _pairs(recorded, {job.address: job for job in desired}, only)
    facts = _Facts(con, now, remotes or {})
    identity = con.execute("SELECT lineage::VARCHAR, serial FROM main.meta").fetchone() or (None, 0)
    return {
        "format_version": FORMAT_VERSION,
        "project": project,
        "environment": environment,
        "state": {"lineage": identity[0], "serial": identity[1]},
        "refreshed": remotes is not None,
        "jobs": [
            _job_document(before, after, facts, compare(before, after, has_unreadable=has_unreadable))
            for before, after in pairs
        ],
        "diagnostics": list(diagnostics),
    }


def _pairs(
    recorded: Mapping[str, RecordedJob], desired: Mapping[str, DesiredJob], only: Collection[str] | None
) -> list[tuple[RecordedJob | None, DesiredJob | None]]:
    """Each job once, by address; a renamed one is met by its new name. Disabled ones only when they were applied."""
    pairs: dict[str, tuple[RecordedJob | None, DesiredJob | None]] = {}
    met = set()
    for address, after in desired.items():
        before = recorded.get(address) or (recorded.get(after.moved_from) if after.moved_from else None)
        if before is not None or after.is_enabled:
            pairs[address] = (before, after)
        met |= {before.address} if before else set()
    pairs |= {address: (before, None) for address, before in recorded.items() if address not in met}
    return [pairs[address] for address in sorted(pairs) if only is None or address in only]


def _job_document(
    recorded: RecordedJob | None, desired: DesiredJob | None, facts: _Facts, sync: Sync
) -> dict[str, Any]:
    shown = desired or recorded
    assert shown is not None, "a pair has one side at least"
    job_id = recorded.job_id if recorded else -1
    known = facts.of(job_id)
    held = recorded.held if recorded else None
    max_failed = desired.max_failed if desired else 0
    return {
        "address": shown.address,
        "provider": shown.provider,
        "model": shown.model,
        "is_simulated": shown.is_simulated,
        "sync": sync.state,
        "changed": list(sync.changed),
        "health": health(known["rows"], is_held=held is not None, max_failed=max_failed),
        "held": held,
        **known,
    }


def job_facts(con: duckdb.DuckDBPyConnection, job_id: int, now: datetime) -> dict[str, Any]:
    """Rows by state, open batches, the next retry and the cost of one job, as `status_document` has them."""
    return _Facts(con, now).of(job_id)


class _Facts:
    """What the tables say of each job, by job number; a handful of scans for all jobs together."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        now: datetime,
        remotes: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> None:
        self.rows = _rows_by_state(con)
        self.batches = _open_batches(con, now, remotes)
        self.costs = _costs(con)
        self.due = dict(
            con.execute(
                f"""
                SELECT r.job_id, {utc_text("min(q.due_at)")}
                FROM main.rows r JOIN main.requests q USING (digest, round)
                WHERE q.state IN (0, 3) AND r.removed_at IS NULL GROUP BY r.job_id
                """
            ).fetchall()
        )

    def of(self, job_id: int) -> dict[str, Any]:
        rows = self.rows.get(job_id, dict.fromkeys(STATES, 0))
        spent_usd, unknown = self.costs.get(job_id, (0.0, 0))
        return {
            "rows": {"total": sum(rows.values()), **rows},
            "batches": self.batches.get(job_id, []),
            "next_retry_at": self.due.get(job_id),
            "cost": {"spent_usd": spent_usd, "unknown_requests": unknown},
        }


def _costs(con: duckdb.DuckDBPyConnection) -> dict[int, tuple[float | None, int]]:
    """USD spent by each job, None where nothing of it is known, and how many priced tries have no price."""
    found = con.execute(
        """
        SELECT b.job_id, sum(t.cost_nano_usd) / 1e9, sum(t.unpriced)::BIGINT
        FROM (SELECT submission_id, cost_nano_usd,
                     (cost_nano_usd IS NULL AND input_tokens IS NOT NULL)::UINTEGER AS unpriced FROM main.outcomes
              UNION ALL SELECT submission_id, cost_nano_usd, unpriced FROM main.dropped) t
        JOIN main.submissions b USING (submission_id) GROUP BY b.job_id
        """
    ).fetchall()
    return {job_id: (0.0 if spent is None and not unknown else spent, unknown) for job_id, spent, unknown in found}


def _rows_by_state(con: duckdb.DuckDBPyConnection) -> dict[int, dict[str, int]]:
    found = con.execute(
        """
        SELECT r.job_id, coalesce(q.state, 0), count(*)
        FROM main.rows r LEFT JOIN main.requests q USING (digest, round)
        WHERE r.removed_at IS NULL GROUP BY ALL
        """
    ).fetchall()
    counts: dict[int, dict[str, int]] = {}
    for job_id, state, count in found:
        counts.setdefault(job_id, dict.fromkeys(STATES, 0))[STATES[state]] = count
    return counts


def _open_batches(
    con: duckdb.DuckDBPyConnection, now: datetime, remotes: Mapping[str, Mapping[str, Any]]
) -> dict[int, list[dict[str, Any]]]:
    found = con.execute(
        f"""
        SELECT job_id, batch_id, phase, n, remote::VARCHAR, {utc_text("coalesce(sent_at, intent_at)")},
               epoch(?::TIMESTAMPTZ) - epoch(coalesce(sent_at, intent_at))
        FROM main.submissions WHERE phase IN {OPEN_PHASES!r} ORDER BY submission_id
        """,
        [now.isoformat()],
    ).fetchall()
    batches: dict[int, list[dict[str, Any]]] = {}
    for job_id, batch_id, phase, requests, remote, sent_at, age in found:
        batches.setdefault(job_id, []).append(
            {
                "batch_id": batch_id,
                "phase": phase,
                "requests": requests,
                **remote_facts(remotes.get(batch_id) or last_said(remote)),
                "sent_at": sent_at,
                "age_seconds": None if age is None else round(age),
            }
        )
    return batches


def last_said(remote: str | None) -> dict[str, Any]:
    """The batch as the provider last told it, from a cell of `submissions`; empty when it told nothing."""
    return dict(orjson.loads(remote)) if remote else {}


def remote_facts(said: Mapping[str, Any]) -> dict[str, Any]:
    """Status and counts of a batch as a provider told them; None where it told nothing."""
    counts = said.get("request_counts") or {}
    status = said.get("status")
    return {
        "status": status.lower() if isinstance(status, str) else None,
        "completed": counts.get("completed"),
        "failed": counts.get("failed"),
    }


def utc_text(expression: str) -> str:
    """SQL for a TIMESTAMPTZ as `2026-11-22T10:00:00Z`, in a connection that speaks UTC."""
    return f"strftime({expression}::TIMESTAMP, '%Y-%m-%dT%H:%M:%SZ')"
