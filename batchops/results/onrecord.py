"""What `state list` and `state show` print: the records themselves, as documents of plain JSON values.

Works on a snapshot of one environment; `status` and `explain` tell the same with what it means.
"""

from __future__ import annotations

from typing import Any

import duckdb
import orjson

from batchops.diagnostics import BatchopsError, error
from batchops.results.answers import OUTCOME_NAMES, STATES
from batchops.results.status import FORMAT_VERSION, utc_text

_JOB = f"""
SELECT j.job_id, j.address, j.provider, j.is_simulated, j.protected, j.held, {utc_text("j.removed_at")} AS removed_at,
       (SELECT {utc_text("max(t)")} FROM (
           SELECT e.happened_at AS t FROM main.events e WHERE e.kind = 'planned'
              AND coalesce(e.detail->>'environment', j.environment) = j.environment
              AND list_contains((e.detail->'jobs')::VARCHAR[], j.address)
           UNION ALL SELECT s.sent_at FROM main.submissions s WHERE s.job_id = j.job_id)) AS last_applied
FROM main.jobs j
"""


def list_document(con: duckdb.DuckDBPyConnection, environment: str) -> dict[str, Any]:
    """Every job on record by address: its rows by state, and when it was applied last."""
    counts = _rows_by_state(con)
    jobs = []
    for job in _dictionaries(con, f"{_JOB} ORDER BY j.address, j.job_id"):
        rows = counts.get(job.pop("job_id"), dict.fromkeys(STATES, 0))
        total = sum(rows.values())
        if total or job["removed_at"] is None:  # a job that was forgotten, rows and all, is no record any more
            jobs.append({**job, "rows": {"total": total, **rows}})
    return {"format_version": FORMAT_VERSION, "environment": environment, "state": _identity(con), "jobs": jobs}


def job_document(con: duckdb.DuckDBPyConnection, environment: str, job_id: int) -> dict[str, Any]:
    """The record of one job: what was applied, and the submissions made for it."""
    job = _dictionaries(con, f"{_JOB} WHERE j.job_id = ?", [job_id])[0]
    del job["job_id"]
    kept = con.execute(
        "SELECT render_id::VARCHAR, parts::VARCHAR, spec::VARCHAR FROM main.jobs WHERE job_id = ?", [job_id]
    ).fetchone()
    assert kept is not None
    rows = _rows_by_state(con).get(job_id, dict.fromkeys(STATES, 0))
    return {
        "format_version": FORMAT_VERSION,
        "environment": environment,
        **job,
        "rows": {"total": sum(rows.values()), **rows},
        "render_id": kept[0],
        "parts": orjson.loads(kept[1] or "null"),
        "spec": orjson.loads(kept[2] or "null"),
        "submissions": _submissions(con, job_id),
    }


def row_document(
    con: duckdb.DuckDBPyConnection, environment: str, job_id: int, address: str, key: str
) -> dict[str, Any]:
    """The record of one row: the request it stands on, and every try of it."""
    found = _dictionaries(
        con,
        f"""SELECT r.key, r.digest::VARCHAR AS digest, r.round, r.fingerprint::VARCHAR AS fingerprint,
                   {utc_text("r.removed_at")} AS removed_at, coalesce(q.state, 0) AS state, q.attempts, q.free_attempts,
                   {OUTCOME_NAMES}[q.outcome + 1] AS outcome, {utc_text("q.due_at")} AS due_at, q.submission_id, q.line
            FROM main.rows r LEFT JOIN main.requests q USING (digest, round) WHERE r.job_id = ? AND r.key = ?""",
        [job_id, key],
    )
    if not found:
        raise BatchopsError(error("unknown_row", "Unknown row.", f'{address} has no row "{key}" on record.'))
    row = found[0]
    tries = _dictionaries(
        con,
        f"""SELECT a.submission_id, a.line, a.round, a.attempt, s.phase, s.batch_id, {OUTCOME_NAMES}[o.outcome + 1]
                   AS outcome, o.http, o.code, o.answer_file
            FROM main.attempts a JOIN main.submissions s USING (submission_id)
            LEFT JOIN main.outcomes o ON o.submission_id = a.submission_id AND o.line = a.line
            WHERE a.digest::VARCHAR = ? ORDER BY a.submission_id, a.line""",
        [row["digest"]],
    )
    return {
        "format_version": FORMAT_VERSION,
        "environment": environment,
        "address": f"{address}@{key}",
        **row,
        "state": STATES[row["state"]],
        "tries": tries,
    }


def _rows_by_state(con: duckdb.DuckDBPyConnection) -> dict[int, dict[str, int]]:
    """All rows on record, those that left the source too."""
    counts: dict[int, dict[str, int]] = {}
    for job_id, state, count in con.execute(
        """SELECT r.job_id, coalesce(q.state, 0), count(*)
           FROM main.rows r LEFT JOIN main.requests q USING (digest, round) GROUP BY ALL"""
    ).fetchall():
        counts.setdefault(job_id, dict.fromkeys(STATES, 0))[STATES[state]] = count
    return counts


def _submissions(con: duckdb.DuckDBPyConnection, job_id: int) -> list[dict[str, Any]]:
    return _dictionaries(
        con,
        f"""SELECT submission_id, token::VARCHAR AS token, phase, provider, model, n AS requests, batch_id, file_id,
                   {utc_text("sent_at")} AS sent_at, {utc_text("ended_at")} AS ended_at
            FROM main.submissions WHERE job_id = ? ORDER BY submission_id""",
        [job_id],
    )


def _identity(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    found = _dictionaries(con, "SELECT lineage::VARCHAR AS lineage, serial FROM main.meta")
    return found[0] if found else {"lineage": None, "serial": 0}


def _dictionaries(
    con: duckdb.DuckDBPyConnection, sql: str, parameters: list[Any] | None = None
) -> list[dict[str, Any]]:
    result = con.execute(sql, parameters or [])
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
