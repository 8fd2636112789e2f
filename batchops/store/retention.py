"""What may be dropped from a state, and what is kept for ever.

Kept for ever: every answer that a row stands on or could go back to, one request for each digest ever asked with its
latest round and how often it was tried, every submission (a batch that is listed again is known), the latest try of
each request that is kept, and the events that say which plan was approved. With a try that is dropped go its line of
the manifest and its outcome; what it cost stays counted, in `dropped`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

import duckdb

from batchops.store.states import RequestState

_DONE = f"({RequestState.ANSWERED}, {RequestState.GIVEN_UP})"
_KEPT_EVENTS = "('planned')"
"""When a job was applied last, and whether a saved plan was begun: asked long after."""

_CLOSED = """
CREATE OR REPLACE TEMP TABLE closed AS
SELECT submission_id FROM state.submissions
WHERE phase IN ('fetched', 'absent', 'abandoned') AND coalesce(ended_at, sent_at, intent_at) < ?
"""

_OUTLIVED = f"""
CREATE OR REPLACE TEMP TABLE outlived AS
WITH answered AS (
    SELECT digest, max(round) AS round FROM state.requests WHERE state = {RequestState.ANSWERED} GROUP BY digest
)
SELECT q.digest, q.round FROM state.requests q JOIN answered a ON a.digest = q.digest AND q.round < a.round
WHERE q.state IN {_DONE}
  AND NOT EXISTS (FROM state.rows r WHERE r.digest = q.digest AND r.round < a.round)
  AND NOT EXISTS (FROM state.attempts t ANTI JOIN closed USING (submission_id)
                  WHERE t.digest = q.digest AND t.round = q.round)
"""
"""Requests that a later round of the same digest has answered, and that no row stands on or shows meanwhile."""

_SUPERSEDED = f"""
CREATE OR REPLACE TEMP TABLE superseded AS
SELECT a.submission_id, a.line FROM state.attempts a SEMI JOIN closed USING (submission_id)
SEMI JOIN outlived o ON o.digest = a.digest AND o.round = a.round
UNION
SELECT a.submission_id, a.line FROM state.attempts a SEMI JOIN closed USING (submission_id)
JOIN state.requests q ON q.digest = a.digest AND q.round = a.round
WHERE q.state IN {_DONE} AND q.submission_id > a.submission_id
"""
"""Lines of those requests, and lines before the latest one of a request that is answered or given up."""

_SUMS = """
INSERT INTO state.dropped
SELECT s.submission_id, count(*), count(*) FILTER (o.cost_nano_usd IS NULL AND o.input_tokens IS NOT NULL),
       sum(o.input_tokens), sum(o.cached_tokens), sum(o.output_tokens), sum(o.reasoning_tokens), sum(o.cost_nano_usd)
FROM superseded s LEFT JOIN state.outcomes o ON o.submission_id = s.submission_id AND o.line = s.line
GROUP BY s.submission_id
"""


@dataclass(frozen=True)
class Trim:
    """Drop what nobody needs: requests never asked that no row wants; tries and events from before a moment, if given.

    A try goes only when a later one of its request decided, or a later round was answered; see this module's head.
    """

    tries_before: datetime | None = None
    events_before: datetime | None = None
    kind: ClassVar[str] = "compacted"
    subject: str = ""

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        done = {"requests": _drop_unasked(con), "attempts": 0, "events": 0}
        if self.tries_before is not None:
            requests, done["attempts"] = _drop_tries(con, self.tries_before)
            done["requests"] += requests
        if self.events_before is not None:
            done["events"] = _count(
                con,
                f"""DELETE FROM state.events WHERE happened_at < ? AND kind NOT IN {_KEPT_EVENTS}
                    AND serial < (SELECT max(serial) FROM state.meta)""",
                [self.events_before],
            )
        return done


def _drop_unasked(con: duckdb.DuckDBPyConnection) -> int:
    return _count(
        con,
        f"""DELETE FROM state.requests q WHERE q.state = {RequestState.PENDING} AND q.submission_id IS NULL
              AND q.attempts + q.free_attempts = 0
              AND NOT EXISTS (FROM state.rows r WHERE r.digest = q.digest AND r.round = q.round)
              AND NOT EXISTS (FROM state.attempts a WHERE a.digest = q.digest AND a.round = q.round)""",
    )


def _drop_tries(con: duckdb.DuckDBPyConnection, before: datetime) -> tuple[int, int]:
    """Returns how many requests went, and how many tries."""
    con.execute(_CLOSED, [before])
    con.execute(_OUTLIVED)
    con.execute(_SUPERSEDED)
    con.execute(_SUMS)
    by_line = "USING superseded s WHERE s.submission_id = {0}.submission_id AND s.line = {0}.line"
    con.execute(f"DELETE FROM state.outcomes {by_line.format('outcomes')}")
    tries = _count(con, f"DELETE FROM state.attempts {by_line.format('attempts')}")
    requests = _count(
        con, "DELETE FROM state.requests q USING outlived o WHERE o.digest = q.digest AND o.round = q.round"
    )
    for table in ("superseded", "outlived", "closed"):
        con.execute(f"DROP TABLE {table}")
    return requests, tries


def _count(con: duckdb.DuckDBPyConnection, sql: str, parameters: list[Any] | None = None) -> int:
    row = con.execute(sql, parameters or []).fetchone()
    return int(row[0]) if row else 0
