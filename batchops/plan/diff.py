"""Desired × recorded → one class and one reason for every row, in the engine.

Works on relations of the connection it is given, and knows no path: `desired_N` and `digests_N` hold what the specs
imply, an attached `state` holds what is recorded. Two narrow passes: fingerprints first, digests only for the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from uuid import UUID

import duckdb

from batchops.plan.model import Reason

_PART_REASONS = {
    "model": Reason.MODEL_CHANGED,
    "prompt": Reason.PROMPT_CHANGED,
    "schema": Reason.SCHEMA_CHANGED,
    "params": Reason.PARAMS_CHANGED,
}


@dataclass(frozen=True)
class RecordedJob:
    """A job as state has it."""

    job_id: int
    address: str
    provider: str
    is_simulated: bool
    parts: Mapping[str, str]
    spec: Mapping[str, object]
    is_protected: bool = False
    held: str | None = None
    is_removed: bool = False
    """No spec declared it at the last apply. It is remembered for the day it comes back: its protection holds."""


@dataclass(frozen=True)
class DiffJob:
    """What the diff needs to know of one job; `number` names its relations."""

    number: int
    parts: Mapping[str, str]
    is_simulated: bool
    salt: str | None
    """Text that makes digests of this job its own (`lifecycle.reuse: false`), or None."""
    keeps_answers: bool
    forgets_removed: bool
    recorded: RecordedJob | None

    @property
    def job_id(self) -> int:
        return self.recorded.job_id if self.recorded else -1

    @property
    def changes(self) -> str:
        return f"changes_{self.number}"


def ledger_digest(digest: UUID, *, key: str, is_simulated: bool, salt: str | None) -> UUID:
    """The digest under which the ledger keeps a request.

    A simulated answer must never stand in for a real one, and `reuse: false` asks each row for itself: such requests
    enter the ledger under digests of their own. `_salted_sql` says the same in SQL.
    """
    if not is_simulated and salt is None:
        return digest
    text = f"{digest}\x00{'simulated' if is_simulated else 'real'}"
    if salt is not None:
        text += f"\x00{salt}\x00{key}"
    return UUID(hashlib.sha256(text.encode()).hexdigest()[:32])


def _salted_sql(job: DiffJob, digest: str, key: str) -> str:
    if not job.is_simulated and job.salt is None:
        return digest
    parts = [f"{digest}::VARCHAR", "chr(0)", "'simulated'" if job.is_simulated else "'real'"]
    if job.salt is not None:
        parts += ["chr(0)", "'" + job.salt.replace("'", "''") + "'", "chr(0)", key]
    return f"sha256({' || '.join(parts)})[1:32]::UUID"


def find_unmatched(con: duckdb.DuckDBPyConnection, job: DiffJob, replaced: Iterable[str] | None = ()) -> str:
    """Pass one: the keys that must be rendered to be judged or sent. Returns the relation's name (key).

    `replaced` are keys that were asked to be paid for again; None means all of them.
    """
    con.execute(f"CREATE OR REPLACE TABLE replaced_{job.number} (key VARCHAR)")
    if replaced is None:
        con.execute(f"INSERT INTO replaced_{job.number} SELECT key FROM desired_{job.number}")
    else:
        con.execute(f"INSERT INTO replaced_{job.number} SELECT unnest(?::VARCHAR[])", [list(replaced)])
    name = f"unmatched_{job.number}"
    con.execute(
        f"""CREATE OR REPLACE TABLE {name} AS
            SELECT d.key FROM desired_{job.number} d
            LEFT JOIN (SELECT key, fingerprint, digest, round FROM state.rows WHERE job_id = {job.job_id}) r USING (key)
            LEFT JOIN state.requests q ON q.digest = r.digest AND q.round = r.round
            WHERE r.key IS NULL OR r.fingerprint <> d.fingerprint OR coalesce(q.state, 0) IN (0, 3)
               OR d.key IN (FROM replaced_{job.number})"""
    )
    return name


def classify(con: duckdb.DuckDBPyConnection, job: DiffJob) -> None:
    """Pass two: write `changes_N`. See diff.sql for the rules."""
    recorded = job.recorded
    con.execute(
        _diff_sql().format(
            n=job.number,
            job_id=job.job_id,
            salted=_salted_sql(job, "g.digest", "d.key"),
            keep=_flag(job.keeps_answers),
            forget=_flag(job.forgets_removed),
            held=_flag(recorded is not None and recorded.held is not None),
            change_reason=f"'{_changed_part(job)}'",
        )
    )


@cache
def _diff_sql() -> str:
    text = resources.files("batchops.plan").joinpath("diff.sql").read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _changed_part(job: DiffJob) -> Reason:
    """Why rows of this job changed: the first part of the spec that moved since it was applied, else the rows."""
    if job.recorded is not None:
        for part, reason in _PART_REASONS.items():
            if job.recorded.parts.get(part) != job.parts.get(part):
                return reason
    return Reason.ROW_CHANGED
