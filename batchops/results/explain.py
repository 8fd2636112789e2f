"""The life of a job or of one row, from state alone: what was tried, how it ended, why it stands where it stands.

The results are documents of plain JSON values: `explain --json` prints them, `views.explain` shows them.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import orjson

from batchops.diagnostics import BatchopsError, UsageProblem, error
from batchops.plan.keys import key_text, typed_key
from batchops.results.answers import OUTCOME_NAMES, STATES, Answers, Selection, answer_relation
from batchops.results.damage import damage_told, damaged
from batchops.results.reasons import Standing, next_step, why
from batchops.results.recorded import RecordedJob
from batchops.results.status import FORMAT_VERSION, health, job_facts, last_said, remote_facts, utc_text
from batchops.store.connection import sql_text

_ADDRESS = re.compile(r"([a-z0-9][a-z0-9_-]{0,62}(?:\[[^@]*\])?)(?:@(.+))?", re.DOTALL)
_SHOWN_BATCHES = 20
_SHOWN_EVENTS = 20


def parse_address(text: str) -> tuple[str, str | None]:
    """The job and the row's key in `job`, `job@key`, `job@["a","b"]` and `job["gpt-5"]@key`."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        detail = f'"{text}" is no address. Write a job, or a job and the key of a row: review-sentiment@17'
        raise UsageProblem(error("invalid_address", "Invalid address.", detail))
    return found[1], found[2]


def recorded_key(job: RecordedJob, written: str) -> str:
    """The text that state keeps for a key as a user wrote it; see `key_text`."""
    return key_text(job.address, job.key_columns, written)


def explain_job(con: duckdb.DuckDBPyConnection, job: RecordedJob, *, now: datetime) -> dict[str, Any]:
    """What is known of a job: spec, rows, errors by class, batches, cost, events."""
    facts = job_facts(con, job.job_id, now)
    return {
        "format_version": FORMAT_VERSION,
        "address": job.address,
        "environment": job.environment,
        "provider": job.provider,
        "is_simulated": job.is_simulated,
        "endpoint": job.endpoint,
        "model": job.model,
        "key": list(job.key_columns),
        "parts": dict(job.parts),
        "protected": job.is_protected,
        "removed": job.is_removed,
        "held": job.held,
        "health": health(facts["rows"], is_held=job.held is not None),
        **facts,
        "errors": _errors(con, job),
        "all_batches": _batches(con, job),
        "events": _events(con, job),
    }


def _errors(con: duckdb.DuckDBPyConnection, job: RecordedJob) -> list[dict[str, Any]]:
    """Rows that did not succeed, by class and code of their latest try, with one key as an example."""
    found = con.execute(
        f"""
        SELECT {OUTCOME_NAMES}[s.outcome + 1] AS class, o.code, count(*), min(s.key)
        FROM main.standing s
        LEFT JOIN main.outcomes o ON o.submission_id = s.submission_id AND o.line = s.line
        WHERE s.job_id = ? AND s.outcome > 0 AND NOT s.is_removed GROUP BY ALL ORDER BY count(*) DESC, class, o.code
        """,
        [job.job_id],
    ).fetchall()
    return [{"class": name, "code": code, "rows": count, "example": _key(job, key)} for name, code, count, key in found]


def _batches(con: duckdb.DuckDBPyConnection, job: RecordedJob) -> list[dict[str, Any]]:
    """The latest batches of a job, newest first."""
    found = con.execute(
        f"""
        SELECT b.batch_id, b.phase, b.n, b.remote::VARCHAR, b.model, {utc_text("b.sent_at")}, {utc_text("b.ended_at")},
               (SELECT sum(t.cost_nano_usd) / 1e9
                FROM (SELECT submission_id, cost_nano_usd FROM main.outcomes
                      UNION ALL SELECT submission_id, cost_nano_usd FROM main.dropped) t
                WHERE t.submission_id = b.submission_id)
        FROM main.submissions b WHERE b.job_id = ? ORDER BY b.submission_id DESC LIMIT {_SHOWN_BATCHES}
        """,
        [job.job_id],
    ).fetchall()
    return [
        {
            "batch_id": batch_id,
            "phase": phase,
            "requests": requests,
            **remote_facts(last_said(remote)),
            "model": model,
            "sent_at": sent_at,
            "ended_at": ended_at,
            "cost_usd": cost_usd,
        }
        for batch_id, phase, requests, remote, model, sent_at, ended_at, cost_usd in found
    ]


def _value(answer: str) -> Any:
    """The answer that was written as this text. BatchopsError where it is not what was written."""
    try:
        return orjson.loads(answer)
    except orjson.JSONDecodeError as problem:
        raise damaged(problem) from None


def _events(con: duckdb.DuckDBPyConnection, job: RecordedJob) -> list[dict[str, Any]]:
    """The latest events about a job, newest first."""
    found = con.execute(
        f"""
        SELECT serial, {utc_text("happened_at")}, kind, detail::VARCHAR FROM main.events
        WHERE list_contains(string_split(subject, ', '), ?) ORDER BY serial DESC LIMIT {_SHOWN_EVENTS}
        """,
        [job.address],
    ).fetchall()
    return [
        {"serial": serial, "happened_at": at, "kind": kind, "detail": orjson.loads(detail) if detail else {}}
        for serial, at, kind, detail in found
    ]


def explain_row(
    con: duckdb.DuckDBPyConnection, job: RecordedJob, key: str, *, folder: Path, now: datetime
) -> dict[str, Any]:
    """What is known of a row: its request, every try of it, why it stands where it stands and what comes next."""
    request = _request(con, job, key)
    tries = _tries(con, request["digest"], folder)
    answers = Answers(con, job, folder, Selection(everything=True))
    status, answer, model = _shown(answers, key)
    standing = Standing(
        state=request["state"],
        outcome=request["outcome"],
        attempts=request["attempts"],
        free_attempts=request["free_attempts"],
        due_at=request["due_at"],
        held=job.held,
        latest=next((tried for tried in reversed(tries) if tried["round"] == request["round"]), None),
        job=job.address,
        is_answered_later=_is_answered_later(con, request),
    )
    return {
        "format_version": FORMAT_VERSION,
        "address": f"{job.address}@{key}",
        "job": job.address,
        "key": _key(job, key),
        "provider": job.provider,
        "is_simulated": job.is_simulated,
        **request,
        "status": status,
        "model": model,
        "why": why(standing),
        "next": next_step(standing, now),
        "answer": None if answer is None else _value(answer),
        "cost": _cost(tries),
        "tries": tries,
    }


def _cost(tries: list[dict[str, Any]]) -> dict[str, Any]:
    known = [tried["cost_usd"] for tried in tries if tried["cost_usd"] is not None]
    unknown = sum(tried["cost_usd"] is None and tried["input_tokens"] is not None for tried in tries)
    return {"spent_usd": None if unknown and not known else sum(known, 0.0), "unknown_requests": unknown}


def _request(con: duckdb.DuckDBPyConnection, job: RecordedJob, key: str) -> dict[str, Any]:
    found = con.execute(
        f"""
        SELECT replace(r.digest::VARCHAR, '-', ''), r.round, {utc_text("r.removed_at")}, coalesce(q.state, 0),
               {OUTCOME_NAMES}[q.outcome + 1], coalesce(q.attempts, 0), coalesce(q.free_attempts, 0),
               {utc_text("q.due_at")}, q.amendment
        FROM main.rows r LEFT JOIN main.requests q USING (digest, round)
        WHERE r.job_id = ? AND r.key = ?
        """,
        [job.job_id, key],
    ).fetchone()
    if found is None:
        raise _unknown_row(con, job, key)
    digest, round_, removed_at, state, outcome, attempts, free_attempts, due_at, amendment = found
    return {
        "digest": digest,
        "round": round_,
        "removed_at": removed_at,
        "state": STATES[state],
        "outcome": outcome,
        "attempts": attempts,
        "free_attempts": free_attempts,
        "due_at": due_at,
        "amendment": orjson.loads(amendment) if amendment else None,
    }


def _is_answered_later(con: duckdb.DuckDBPyConnection, request: dict[str, Any]) -> bool:
    """A later round of the same request was answered, opened by another row that asks it: the next apply uses that."""
    answered = STATES.index("answered")
    found = con.execute(
        f"SELECT count(*) FROM main.requests WHERE digest = ?::UUID AND round > ? AND state = {answered}",
        [request["digest"], request["round"]],
    ).fetchone()
    return found is not None and found[0] > 0


def _key(job: RecordedJob, key: str) -> dict[str, Any]:
    return typed_key(key, job.key_columns, job.key_types)


def _unknown_row(con: duckdb.DuckDBPyConnection, job: RecordedJob, key: str) -> BatchopsError:
    near = con.execute(
        "SELECT key FROM main.rows WHERE job_id = ? ORDER BY jaro_winkler_similarity(key, ?) DESC, key LIMIT 1",
        [job.job_id, key],
    ).fetchone()
    hint = f" Did you mean {job.address}@{near[0]}?" if near else " No row of this job was asked yet."
    detail = f'No row of {job.address} has the key "{key}".{hint}'
    return BatchopsError(error("unknown_row", "Unknown row.", detail))


def _shown(answers: Answers, key: str) -> tuple[str, str | None, str | None]:
    sql = f"SELECT status, answer, model FROM ({answers.source()}) WHERE key = {sql_text(key)}"
    with damage_told(answers.con, answers.paths):
        found = answers.con.execute(sql).fetchone()
    assert found is not None, "the row is there: its request was found"
    return found


def _tries(con: duckdb.DuckDBPyConnection, digest: str, folder: Path) -> list[dict[str, Any]]:
    """Every try of a request in any round and job, oldest first."""
    files = con.execute(
        """
        SELECT DISTINCT f.path FROM main.attempts a
        JOIN main.outcomes o ON o.submission_id = a.submission_id AND o.line = a.line
        JOIN main.answer_files f ON f.file_no = o.answer_file AND f.dropped_at IS NULL
        WHERE a.digest = ?::UUID
        """,
        [digest],
    ).fetchall()
    paths = [folder / path for (path,) in files if (folder / path).is_file()]
    with damage_told(con, paths):
        return _told_of_tries(con, digest, answer_relation(paths))


def _told_of_tries(con: duckdb.DuckDBPyConnection, digest: str, said: str) -> list[dict[str, Any]]:
    result = con.execute(
        f"""
        SELECT j.address AS job, a.round, a.attempt, b.batch_id, b.phase, b.provider, b.model, a.line,
               {utc_text("b.sent_at")} AS sent_at, {utc_text("b.ended_at")} AS ended_at,
               {OUTCOME_NAMES}[o.outcome + 1] AS outcome, o.http, o.code, t.message, o.finish AS finish_reason,
               o.input_tokens, o.output_tokens, o.cached_tokens, o.reasoning_tokens,
               o.cost_nano_usd / 1e9 AS cost_usd, replace(a.body_digest::VARCHAR, '-', '') AS body_digest
        FROM main.attempts a
        JOIN main.submissions b USING (submission_id)
        LEFT JOIN main.jobs j USING (job_id)
        LEFT JOIN main.outcomes o ON o.submission_id = a.submission_id AND o.line = a.line
        LEFT JOIN {said} t ON t.submission_id = a.submission_id AND t.line = a.line
        WHERE a.digest = ?::UUID ORDER BY a.submission_id
        """,
        [digest],
    )
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
