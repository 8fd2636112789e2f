"""What of a plan was sent: counted by what was planned, and noted in the changes, so that none is classified anew."""

from __future__ import annotations

from collections import Counter

from batchops.engine.gather import Gathered
from batchops.engine.manifest import due_by
from batchops.engine.run import Run
from batchops.engine.sources import WantedJob
from batchops.engine.submit import Submitted
from batchops.plan.model import Action
from batchops.store.changes import RequestState

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
    """How many rows were sent, by what was planned for them. When all were, the changes say so after it."""
    sent = due_by(done.due_by)
    if done.is_cut_short:  # what was sent is known to the state alone
        with run.store.reading(gathered.con):
            return _count(gathered, wanted, f"(SELECT c.* FROM (FROM {wanted.changes} WHERE {sent}) c {_IN_FLIGHT})")
    counts = _count(gathered, wanted, f"(FROM {wanted.changes} WHERE {sent})")
    gathered.con.execute(f"UPDATE {wanted.changes} SET action = 'in_flight' WHERE {sent}")
    return counts


def note_asked_by_others(gathered: Gathered, wanted: WantedJob) -> Counter[Action]:
    """Bring the changes of a job up to date after jobs before it were sent; its rows that these have asked for."""
    owed = f"(FROM {wanted.changes} WHERE action IN ('submit', 'resubmit', 'retry'))"
    before = _count(gathered, wanted, owed)
    gathered.classify(only=wanted)
    return before - _count(gathered, wanted, owed)


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
