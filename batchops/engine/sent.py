"""What of a plan was sent: counted by what was planned, and noted in the changes, so that none is classified anew."""

from __future__ import annotations

from collections import Counter

from batchops.engine.gather import Gathered
from batchops.engine.manifest import due_by
from batchops.engine.run import Run
from batchops.engine.sources import WantedJob
from batchops.engine.submit import Submitted
from batchops.plan.model import Action
from batchops.store.states import RequestState

_IN_FLIGHT = f"""JOIN (FROM state.requests WHERE state = {RequestState.IN_FLIGHT}) q
    ON q.digest = c.digest AND q.round = c.round"""


def keep_planned(gathered: Gathered) -> None:
    """Make `planned_N(key, action)` of the rows that are to be asked again.

    Once recorded, a row of another digest reads as never asked.
    """
    for wanted in gathered.jobs:
        gathered.con.execute(
            f"CREATE OR REPLACE TABLE planned_{wanted.number} AS"
            f" SELECT key, action FROM {wanted.changes} WHERE action IN ('resubmit', 'retry')"
        )


def note_sent(run: Run, gathered: Gathered, wanted: WantedJob, done: Submitted) -> Counter[Action]:
    """How many rows were sent, by what was planned for them. The changes say so after it."""
    sent = due_by(done.due_by)
    if done.is_cut_short:  # what was sent is known to the state alone
        with run.store.reading(gathered.con):
            gathered.con.execute(
                f"CREATE OR REPLACE TABLE sent_{wanted.number} AS"
                f" SELECT c.key, c.action FROM (FROM {wanted.changes} WHERE {sent}) c {_IN_FLIGHT}"
            )
        counts = _count(gathered, wanted, f"sent_{wanted.number}")
        sent = f"key IN (SELECT key FROM sent_{wanted.number})"
    else:
        counts = _count(gathered, wanted, f"(FROM {wanted.changes} WHERE {sent})")
    gathered.con.execute(f"UPDATE {wanted.changes} SET action = 'in_flight' WHERE {sent}")
    return counts


def classify_anew(gathered: Gathered, *, only: WantedJob | None = None) -> Counter[Action]:
    """Bring the changes of every job, or of one, up to date with the state; how many rows are in flight only by that.

    `note_sent` has counted what a job sent to its end: these are rows that another job asked, or a send that failed.
    """
    jobs = gathered.jobs if only is None else (only,)
    for wanted in jobs:
        gathered.con.execute(
            f"CREATE OR REPLACE TABLE owed_{wanted.number} AS SELECT key, action FROM {wanted.changes}"
            " WHERE action IN ('submit', 'resubmit', 'retry')"
        )
    gathered.classify(only=only)
    counts: Counter[Action] = Counter()
    for wanted in jobs:
        asked = (
            f"SELECT o.* FROM owed_{wanted.number} o JOIN {wanted.changes} c USING (key) WHERE c.action = 'in_flight'"
        )
        counts.update(_count(gathered, wanted, f"({asked})"))
    return counts


def _count(gathered: Gathered, wanted: WantedJob, sent: str) -> Counter[Action]:
    rows = gathered.con.execute(
        f"""SELECT CASE c.action WHEN 'submit' THEN coalesce(p.action, c.action) ELSE c.action END AS told, count(*)
            FROM {sent} c LEFT JOIN planned_{wanted.number} p ON p.key = c.key GROUP BY told"""
    ).fetchall()
    return Counter({Action(action): count for action, count in rows})


def take_as_recorded(gathered: Gathered) -> None:
    """Have the changes say of what is reused and forgotten what `classify` would say once that is on record."""
    for wanted in gathered.jobs:
        gathered.con.execute(f"UPDATE {wanted.changes} SET action = 'unchanged' WHERE action = 'reuse'")
        gathered.con.execute(f"DELETE FROM {wanted.changes} WHERE action = 'forget'")
