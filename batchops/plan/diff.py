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

from batchops.plan.decide import ANSWERED, IN_FLIGHT, PENDING, WAITING
from batchops.plan.model import Action, Reason

MOST_TEMPORARY = 12_000_000
"""Rows whose changes may be a temporary table, where each takes some 100 bytes of memory until it is spilled. Beside
10,000,000 of them DuckDB still works in 250 MB; beside 40,000,000 it finds no room in 400 MB to tell equal requests
(measured, 2026-11)."""

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
    render_id: UUID | None = None
    """Of the request that was applied last; some rows may still stand on earlier ones."""
    is_protected: bool = False
    held: str | None = None
    is_removed: bool = False
    """No spec declared it at the last apply. It is remembered for the day it comes back: its protection holds."""
    rows: int = 0
    """How many rows are recorded."""

    @property
    def reuse(self) -> set[bool]:
        """Every value that `lifecycle.reuse` has had."""
        modes = self.spec.get("reuse")
        return set(modes) if isinstance(modes, list) else set()


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
    earlier_salts: tuple[str | None, ...] = ()
    """What stood for `salt` before `lifecycle.reuse` was switched: rows stay on digests that were made with it."""

    @property
    def looks_back(self) -> bool:
        """Whether a row may have been asked under a digest of its own, and an answer of any row is good now.

        Not the other way round: nobody can say which rows have asked a request that any may ask.
        """
        return self.salt is None and bool(self.earlier_salts)

    @property
    def job_id(self) -> int:
        return self.recorded.job_id if self.recorded else -1

    @property
    def desired(self) -> str:
        """The relation (key, fingerprint) of every row."""
        return f"desired_{self.number}"

    @property
    def changes(self) -> str:
        """The relation of what `classify` found, of all rows but the settled ones."""
        return f"changes_{self.number}"

    @property
    def settled(self) -> str:
        """The relation (action, rows): how many rows stand answered, or in flight, under their fingerprint."""
        return f"settled_{self.number}"


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


def _digest_sql(job: DiffJob) -> str:
    """The ledger's digest of a row: the one it stands on, where that is of the same request."""
    now = _salted_sql(job.salt, is_simulated=job.is_simulated)
    if job.looks_back:
        return f"coalesce(earlier_digest, {now})"
    same = "".join(
        f" WHEN recorded_digest = {_salted_sql(salt, is_simulated=job.is_simulated)} THEN recorded_digest"
        for salt in job.earlier_salts
    )
    return f"CASE{same} ELSE {now} END" if same else now


def _salted_sql(salt: str | None, *, is_simulated: bool) -> str:
    if not is_simulated and salt is None:
        return "body_digest"
    parts = ["body_digest::VARCHAR", "chr(0)", "'simulated'" if is_simulated else "'real'"]
    if salt is not None:
        parts += ["chr(0)", "'" + salt.replace("'", "''") + "'", "chr(0)", "key"]
    return f"sha256({' || '.join(parts)})[1:32]::UUID"


def find_open(
    con: duckdb.DuckDBPyConnection, job: DiffJob, replaced: Iterable[str] | None = (), *, settles_flight: bool = False
) -> None:
    """Pass one: set apart what is settled, rows that stand answered under their fingerprint.

    Makes `open_N` with the other rows beside what is recorded of them, the view `unmatched_N(key)` of those that must
    be rendered to be judged or sent, and `settled_N(action, rows)`, how many are settled. `replaced` are keys that were
    asked to be paid for again; None means all of them. `settles_flight`: rows that stand in flight under their
    fingerprint are settled, too, for whoever needs no more than their number.
    """
    n = job.number
    con.execute(f"CREATE OR REPLACE TABLE replaced_{n} (key VARCHAR)")
    if replaced is None:
        con.execute(f"INSERT INTO replaced_{n} SELECT key FROM desired_{n}")
    else:
        con.execute(f"INSERT INTO replaced_{n} SELECT unnest(?::VARCHAR[])", [list(replaced)])
    if job.recorded is not None:
        con.execute(_standing_sql(job, settles_flight=settles_flight))
    con.execute(f"CREATE OR REPLACE VIEW open_{n} AS {_open_sql(job)}")
    con.execute(
        f"CREATE OR REPLACE VIEW unmatched_{n} AS SELECT key FROM open_{n}"
        f" WHERE NOT is_matched OR is_replaced OR coalesce(standing_state, 0) IN ({PENDING}, {WAITING})"
    )
    in_flight = "0" if job.recorded is None else f"(SELECT count(*) FROM standing_{n} WHERE is_in_flight)"
    con.execute(
        f"""CREATE OR REPLACE TABLE settled_{n} AS
            SELECT '{Action.IN_FLIGHT}' AS action, {in_flight} AS rows UNION ALL
            SELECT '{Action.UNCHANGED}',
                   (SELECT count(*) FROM desired_{n}) - (SELECT count(*) FROM open_{n}) - {in_flight}"""
    )


def _standing_sql(job: DiffJob, *, settles_flight: bool) -> str:
    """Make `standing_N`, every row that is not settled as answered; of one settled in flight no more than that it is.

    A request that was given another round may have an answer of it: its rows are never settled in flight.
    """
    n = job.number
    is_in_flight = (
        f"is_matched AND NOT is_replaced AND standing_state = {IN_FLIGHT}"
        " AND r.digest NOT IN (SELECT digest FROM state.requests WHERE round > 0)"
    )
    held = ("key", "fingerprint", "recorded_fingerprint", "recorded_digest")
    return f"""CREATE OR REPLACE TABLE standing_{n} AS
        SELECT * REPLACE ({", ".join(f"CASE WHEN NOT is_in_flight THEN {name} END AS {name}" for name in held)})
        FROM (
            SELECT d.key, d.fingerprint, r.key IS NOT NULL AS is_recorded, r.fingerprint AS recorded_fingerprint,
                   r.digest AS recorded_digest, r.round AS recorded_round, q.state AS standing_state,
                   q.outcome AS standing_outcome, p.key IS NOT NULL AS is_replaced,
                   coalesce(r.fingerprint = d.fingerprint, false) AS is_matched,
                   coalesce({is_in_flight if settles_flight else "false"}, false) AS is_in_flight
            FROM desired_{n} d
            LEFT JOIN (SELECT key, fingerprint, digest, round FROM state.rows WHERE job_id = {job.job_id}) r USING (key)
            LEFT JOIN state.requests q ON q.digest = r.digest AND q.round = r.round
            LEFT JOIN replaced_{n} p USING (key)
            WHERE NOT (is_matched AND NOT is_replaced AND coalesce(q.state, 0) = {ANSWERED})
        )"""


_UNRECORDED = """false AS is_recorded, NULL::UHUGEINT AS recorded_fingerprint, NULL::UUID AS recorded_digest,
    NULL::USMALLINT AS recorded_round, NULL::UTINYINT AS standing_state, NULL::UTINYINT AS standing_outcome,
    p.key IS NOT NULL AS is_replaced, false AS is_matched"""


def _open_sql(job: DiffJob) -> str:
    """Rows that are not settled: all of them, where nothing is recorded that they could stand on."""
    n = job.number
    if job.recorded is not None:
        return f"SELECT * EXCLUDE (is_in_flight) FROM standing_{n} WHERE NOT is_in_flight"
    return f"SELECT d.key, d.fingerprint, {_UNRECORDED} FROM desired_{n} d LEFT JOIN replaced_{n} p USING (key)"


def _rendered_sql(job: DiffJob) -> str:
    """Open rows beside what was made of them. All rows of a new job are digested: it is read from there alone."""
    n = job.number
    made = "g.digest AS body_digest, g.body_bytes, g.input_tokens, g.inputs, g.row, g.body_hash"
    if job.looks_back:
        return (
            f"SELECT o.*, {made}, e.digest AS earlier_digest FROM open_{n} o LEFT JOIN digests_{n} g USING (key)"
            f" LEFT JOIN earlier_{n} e USING (key)"
        )
    if job.recorded is not None:
        return f"SELECT o.*, {made} FROM open_{n} o LEFT JOIN digests_{n} g USING (key)"
    return f"SELECT g.key, g.fingerprint, {_UNRECORDED}, {made} FROM digests_{n} g LEFT JOIN replaced_{n} p USING (key)"


def _earlier_sql(job: DiffJob) -> str:
    """Make `earlier_N(key, digest)`: rows that do better under a digest of before than under that of now.

    `choose_digest` in decide.py states the rule for one row.
    """
    n = job.number
    digests = ", ".join(_salted_sql(salt, is_simulated=job.is_simulated) for salt in (job.salt, *job.earlier_salts))
    return f"""CREATE OR REPLACE TABLE earlier_{n} AS
        WITH tried AS (
            SELECT key, unnest([{digests}]) AS digest, unnest(range({len(job.earlier_salts) + 1})) AS nth,
                   digest IS NOT DISTINCT FROM recorded_digest AS is_standing
            FROM (SELECT o.*, g.digest AS body_digest FROM open_{n} o JOIN digests_{n} g USING (key))
        ),
        ledger AS (
            SELECT digest, bool_or(state = {ANSWERED}) AS is_answered, arg_max(state, round) AS latest_state
            FROM state.requests WHERE digest IN (SELECT digest FROM tried) GROUP BY digest
        ),
        ranked AS (
            SELECT t.key, t.digest, t.nth, row_number() OVER (
                PARTITION BY t.key
                ORDER BY CASE WHEN l.is_answered OR t.is_standing AND l.latest_state = {IN_FLIGHT} THEN 0
                              WHEN l.latest_state = {IN_FLIGHT} THEN 1
                              WHEN l.latest_state = {WAITING} THEN 2 ELSE 3 END,
                         NOT t.is_standing, t.nth) AS place
            FROM tried t LEFT JOIN ledger l USING (digest)
        )
        SELECT key, digest FROM ranked WHERE place = 1 AND nth > 0"""


def classify(con: duckdb.DuckDBPyConnection, job: DiffJob, *, is_temporary: bool = False) -> None:
    """Pass two: write `changes_N`. See diff.sql for the rules.

    As a temporary table it is gone with the connection, and takes a third of the work to make: nothing is compressed.
    So the changes of more than MOST_TEMPORARY rows are a usual one all the same.
    """
    recorded = job.recorded
    is_temporary = is_temporary and _open_rows(con, job) <= MOST_TEMPORARY
    if job.looks_back:
        con.execute(_earlier_sql(job))
    con.execute(f"CREATE OR REPLACE VIEW rendered_{job.number} AS {_rendered_sql(job)}")
    con.execute(
        _diff_sql().format(
            n=job.number,
            kind="TEMPORARY TABLE" if is_temporary else "TABLE",
            job_id=job.job_id,
            salted=_digest_sql(job),
            materialized="MATERIALIZED" if recorded else "NOT MATERIALIZED",
            keep=_flag(job.keeps_answers),
            forget=_flag(job.forgets_removed),
            held=_flag(recorded is not None and recorded.held is not None),
            change_reason=f"'{_changed_part(job)}'",
        )
    )


def _open_rows(con: duckdb.DuckDBPyConnection, job: DiffJob) -> int:
    row = con.execute(f"SELECT count(*) FROM {'digests' if job.recorded is None else 'open'}_{job.number}").fetchone()
    assert row is not None
    return int(row[0])


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
