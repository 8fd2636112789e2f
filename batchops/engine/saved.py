"""Saved plans: exactly what was reviewed, no prompt, and nothing twice.

A plan file is the plan's document and the digests of the rows it covers, keys only as hashes. It is stale when a
covered row changed or left its source, when the spec of one of its jobs moved, or when the job's recorded rows moved
otherwise than by fetching. Once it was applied its own id is on record: applying it again goes on where it stopped.

It names the rows on record, too, that had left the source: applied, it takes them off, as an apply without a file does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchops.diagnostics import Diagnostic, Stale, UsageProblem, error
from batchops.engine.gather import Gathered
from batchops.engine.project import Project
from batchops.engine.recorded import read_recorded, removed_jobs
from batchops.engine.sources import WantedJob
from batchops.plan.document import plan_document, plan_from_document, read_plan_document, write_plan_document
from batchops.plan.model import Action, Plan
from batchops.spec.job import Job

_LETTERS = {
    Action.SUBMIT: "s",
    Action.RESUBMIT: "c",
    Action.RETRY: "r",
    Action.REUSE: "u",
    Action.FORGET: "f",
}
"""How a covered row is written: 32 hex digits of its key's hash, 32 of its digest, 2 or more of the round, a letter."""

COVERED = "(" + ", ".join(f"'{action}'" for action in _LETTERS) + ")"


@dataclass(frozen=True)
class SavedPlan:
    """A plan file, read. `jobs` says for each address what it stood on and which rows are covered.

    `removed` are addresses that no spec declared any more when it was made.
    """

    path: Path
    plan: Plan
    jobs: Mapping[str, Mapping[str, Any]]
    removed: frozenset[str] = frozenset()


def save_plan(gathered: Gathered, plan: Plan, path: Path) -> None:
    """Write the plan and what it covers; the file is whole or not there at all."""
    document = plan_document(plan)
    document["covers"] = {
        "jobs": {wanted.address: _covered_job(gathered, wanted) for wanted in gathered.jobs},
        "removed": [job.address for job in gathered.removed],
    }
    write_plan_document(document, path)


def _covered_job(gathered: Gathered, wanted: WantedJob) -> dict[str, Any]:
    letter = " ".join(f"WHEN '{action}' THEN '{mark}'" for action, mark in _LETTERS.items())
    rows = gathered.con.execute(
        f"""SELECT md5(key) || replace(digest::VARCHAR, '-', '') || format('{{:02x}}', round)
                   || CASE action {letter} END AS row
            FROM {wanted.changes} WHERE action IN {COVERED} ORDER BY row"""
    ).fetchall()
    return {
        "request": str(wanted.request.render_id),
        "spec": _spec_hash(wanted.job),
        "slice": recorded_slice(gathered.project, wanted.address, wanted.job.spec.moved_from),
        "rows": [row[0] for row in rows],
        "left": _left(gathered, wanted),
    }


def _left(gathered: Gathered, wanted: WantedJob) -> list[str]:
    """The hashed keys of rows on record that left the source and are kept; with a limit nobody can tell."""
    if gathered.is_limited or wanted.diff.forgets_removed:
        return []
    with gathered.project.reader.reading(gathered.con):
        rows = gathered.con.execute(
            f"""SELECT md5(r.key) AS key_hash FROM state.rows r ANTI JOIN {wanted.diff.desired} d ON d.key = r.key
                WHERE r.job_id = ? AND r.removed_at IS NULL ORDER BY key_hash""",
            [wanted.diff.job_id],
        ).fetchall()
    return [row[0] for row in rows]


def _spec_hash(job: Job) -> str:
    """Of what may move money beside the requests: a retry rule can ask another model. Rows speak for the source."""
    spec = job.spec.model_dump_json(exclude={"description", "owner", "tags", "source"})
    return hashlib.sha256(f"{job.provider} {spec}".encode()).hexdigest()[:32]


def recorded_slice(project: Project, address: str, moved_from: str | None) -> str:
    """A fingerprint of what state has of a job, untouched by submitting's own ledger and by fetching."""
    rows = project.reader.rows(
        """SELECT j.held, count(r.key) AS n,
                  coalesce(bit_xor(md5_number(r.key || '/' || r.digest::VARCHAR || '/' || r.round)), 0)::VARCHAR AS mix
           FROM state.jobs j LEFT JOIN state.rows r USING (job_id)
           WHERE j.environment = ? AND j.address IN (?, ?) AND j.removed_at IS NULL
           GROUP BY j.job_id, j.held, j.address ORDER BY j.address = ? DESC LIMIT 1""",
        [project.environment, address, moved_from or address, address],
    )
    return f"{rows[0]['n']}:{rows[0]['mix']}:{rows[0]['held'] or ''}" if rows else "absent"


def read_saved(path: Path) -> SavedPlan:
    """Read a plan file. Raises BatchopsError for anything else, one without what it covers included."""
    document = read_plan_document(path)
    covers = document.get("covers", {})
    jobs = covers.get("jobs")
    if not isinstance(jobs, dict):
        raise UsageProblem(
            error(
                "plan_without_rows",
                "The plan cannot be applied.",
                f'"{path}" does not say which rows it covers: it was printed, not saved. To save one:',
                fixes=["batchops plan --out plan.json"],
            )
        )
    return SavedPlan(path, plan_from_document(document), jobs, frozenset(covers.get("removed", ())))


def check_identity(project: Project, saved: SavedPlan) -> None:
    """Refuse a plan of another environment (usage) or of another state (stale)."""
    plan = saved.plan
    if plan.environment != project.environment:
        raise UsageProblem(
            error(
                "wrong_environment",
                "The plan is of another environment.",
                f'It was made for "{plan.environment}", and this is "{project.environment}". Apply it there:',
                fixes=[f"batchops apply --env {plan.environment} {saved.path}"],
            )
        )
    lineage = project.reader.identity().lineage
    if plan.lineage is not None and plan.lineage != lineage:
        raise Stale(
            _stale(f"It was made from state {plan.lineage}, and this is {lineage or 'none yet'}: another lineage.")
        )


def was_applied(project: Project, saved: SavedPlan) -> bool:
    """Whether this very plan was begun before: then applying it again goes on where it stopped."""
    rows = project.reader.rows(
        "SELECT count(*) AS n FROM state.events WHERE kind = 'planned' AND (detail ->> 'plan_id') = ?",
        [saved.plan.plan_id],
    )
    return bool(rows[0]["n"])


def restrict(gathered: Gathered, saved: SavedPlan, *, is_resumed: bool) -> None:
    """Hold the gathered rows against the saved plan, and leave only what it covers. Raises Stale naming what moved."""
    problems = []
    for wanted in gathered.jobs:
        covered = saved.jobs[wanted.address]
        _load_covered(gathered, wanted, covered["rows"])
        _load_left(gathered, wanted, covered.get("left", ()))
        problems += _moved(gathered, wanted, covered, is_resumed=is_resumed)
    declared = {job.address for job in gathered.project.load().jobs}
    problems += [_stale("This job is declared again.", address) for address in sorted(saved.removed & declared)]
    if problems:
        raise Stale(*problems)
    recorded = {job.address: job for job in read_recorded(gathered.project)}
    gathered.removed = tuple(job for job in removed_jobs(gathered.project, recorded) if job.address in saved.removed)
    gathered.replaced = {wanted.address: _still_replaced(gathered, wanted) for wanted in gathered.jobs}
    gathered.is_covered = True
    gathered.is_limited = True
    gathered.classify(first=True)
    # Rows to pay for again were read only now, and a source that moved meanwhile was read anew.
    if problems := [found for wanted in gathered.jobs for found in _rows_moved(gathered, wanted)]:
        raise Stale(*problems)


def _load_covered(gathered: Gathered, wanted: WantedJob, rows: list[str]) -> None:
    gathered.con.execute(
        f"""CREATE OR REPLACE TABLE covered_{wanted.number} AS
            SELECT row[1:32] AS key_hash, row[33:64]::UUID AS digest, ('0x' || row[65:-2])::USMALLINT AS round,
                   row[-1:] AS letter FROM (SELECT unnest(?::VARCHAR[]) AS row)""",
        [rows],
    )


def _load_left(gathered: Gathered, wanted: WantedJob, hashes: Sequence[str]) -> None:
    """Make `left_N(key)` of these rows; one that is back in the source meanwhile is none of them."""
    with gathered.project.reader.reading(gathered.con):
        gathered.con.execute(
            f"""CREATE OR REPLACE TABLE left_{wanted.number} AS
                SELECT r.key FROM state.rows r ANTI JOIN {wanted.diff.desired} d ON d.key = r.key
                WHERE r.job_id = {wanted.diff.job_id} AND md5(r.key) IN (SELECT unnest(?::VARCHAR[]))""",
            [list(hashes)],
        )


def _moved(gathered: Gathered, wanted: WantedJob, covered: Mapping[str, Any], *, is_resumed: bool) -> list[Diagnostic]:
    address, moved_from = wanted.address, wanted.job.spec.moved_from
    if covered["request"] != str(wanted.request.render_id) or covered.get("spec") != _spec_hash(wanted.job):
        return [_stale("The spec of this job has changed.", address)]
    if not is_resumed and covered["slice"] != recorded_slice(gathered.project, address, moved_from):
        return [_stale("What state has of this job was changed by another command.", address)]
    return _rows_moved(gathered, wanted)


def _rows_moved(gathered: Gathered, wanted: WantedJob) -> list[Diagnostic]:
    n, address = wanted.number, wanted.address
    with gathered.project.reader.reading(gathered.con):
        row = gathered.con.execute(
            f"""SELECT count(*) FILTER (d.key IS NULL), count(*) FILTER (d.key IS NOT NULL AND d.digest <> c.digest),
                       any_value(d.key) FILTER (d.digest <> c.digest)
                FROM covered_{n} c LEFT JOIN {_standing(wanted)} d ON md5(d.key) = c.key_hash
                WHERE c.letter <> 'f'"""
        ).fetchone()
    back = gathered.con.execute(
        f"""SELECT count(*) FROM covered_{n} c JOIN desired_{n} d ON md5(d.key) = c.key_hash WHERE c.letter = 'f'"""
    ).fetchone()
    assert row is not None
    assert back is not None
    told = []
    if row[0]:
        told.append(_stale(f"{row[0]:,} of its rows left the source.", address))
    if row[1]:
        told.append(_stale(f"{row[1]:,} of its rows changed.", address))
    if back[0]:
        told.append(_stale(f"{back[0]:,} rows that it would forget came back.", address))
    return told


def _standing(wanted: WantedJob) -> str:
    """Every wanted row (key, digest, action) as a subquery, settled ones too. The state must be attached."""
    return f"""(SELECT d.key, coalesce(c.digest, r.digest) AS digest, coalesce(c.action, 'unchanged') AS action
                FROM {wanted.diff.desired} d LEFT JOIN {wanted.changes} c USING (key)
                LEFT JOIN state.rows r ON r.key = d.key AND r.job_id = {wanted.diff.job_id})"""


def _still_replaced(gathered: Gathered, wanted: WantedJob) -> set[str]:
    """Keys to pay for again that this plan has not yet paid for: their planned round is not on the ledger."""
    with gathered.project.reader.reading(gathered.con):
        rows = gathered.con.execute(
            f"""SELECT d.key FROM covered_{wanted.number} c JOIN {_standing(wanted)} d ON md5(d.key) = c.key_hash
                WHERE c.letter IN ('c', 'r') AND d.action IN ('unchanged', 'failed', 'held', 'in_flight')
                  AND NOT EXISTS (FROM state.requests q WHERE q.digest = c.digest AND q.round = c.round)"""
        ).fetchall()
    return {row[0] for row in rows}


def _stale(detail: str, address: str | None = None) -> Diagnostic:
    return error(
        "stale_plan",
        "The saved plan is stale.",
        f"{detail} Nothing was submitted. Plan again, and have that reviewed:",
        address=address,
        fixes=["batchops plan --out plan.json"],
    )
