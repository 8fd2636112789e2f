"""Answers as a relation: rows ⋈ requests ⋈ the latest outcome ⋈ the answer files, one line for each row of a job.

Knows the tables of a snapshot and the answer files beside the state; writes neither.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from batchops.diagnostics import BatchopsError, error
from batchops.exhaustion import scratch_unwritable
from batchops.results.damage import damage_told, scratch_folder
from batchops.results.ordering import Amount, Ordering, amount, has_many_rows
from batchops.results.recorded import RecordedJob
from batchops.spec.job import UNSEEN, Outcome
from batchops.store.connection import AS_WRITTEN, file_text, lift_memory_limit, sql_text

T = TypeVar("T")

FAILED = "failed"
"""A status to ask for: every row that was given up, whatever its class."""

PENDING, IN_FLIGHT, HELD = "pending", "in_flight", "held"
STATUSES = (*Outcome, PENDING, IN_FLIGHT, HELD, FAILED)
STATES = ("pending", "in_flight", "answered", "waiting", "given_up", "held")
"""Words for `requests.state`, in its order."""

GIVEN_UP = STATES.index("given_up")
_BATCH_OF_ROWS = 2048
_LONG_TOGETHER = 64

# Which request stands for each row: its own, or, while a new round has not been asked yet, the round before. And its
# latest try that was judged or is in flight: a try that was withdrawn leaves the request without one.
_STANDING = """
CREATE OR REPLACE VIEW main.standing AS
WITH unasked AS (SELECT digest, round FROM main.requests WHERE state = 0 AND outcome IS NULL AND round > 0),
earlier AS (
    SELECT u.digest, u.round, max(q.round) AS asked_round
    FROM unasked u JOIN main.requests q ON q.digest = u.digest AND q.round < u.round
    WHERE q.state <> 0 OR q.outcome IS NOT NULL
    GROUP BY ALL
),
withdrawn AS (SELECT digest, round FROM main.requests WHERE submission_id IS NULL AND outcome IS NOT NULL),
judged AS (
    SELECT w.digest, w.round, max(a.submission_id) AS submission_id, arg_max(a.line, a.submission_id) AS line
    FROM withdrawn w
    JOIN main.attempts a ON a.digest = w.digest AND a.round = w.round
    JOIN main.outcomes o ON o.submission_id = a.submission_id AND o.line = a.line
    GROUP BY ALL
)
SELECT r.job_id, r.key, r.digest, r.removed_at IS NOT NULL AS is_removed,
       q.round, coalesce(q.state, 0) AS state, coalesce(q.attempts, 0) AS attempts, q.outcome,
       coalesce(q.submission_id, j.submission_id) AS submission_id, coalesce(q.line, j.line) AS line
FROM main.rows r
LEFT JOIN earlier e ON e.digest = r.digest AND e.round = r.round
LEFT JOIN main.requests q ON q.digest = r.digest AND q.round = coalesce(e.asked_round, r.round)
LEFT JOIN judged j ON j.digest = q.digest AND j.round = q.round
"""

OUTCOME_NAMES = "[" + ", ".join(sql_text(outcome.value) for outcome in Outcome) + "]"
"""SQL: the list of outcome classes, in the order that state records."""

_NO_ANSWERS = (
    "(SELECT NULL::UINTEGER AS submission_id, NULL::UINTEGER AS line, NULL::VARCHAR AS answer,"
    " NULL::VARCHAR AS message, NULL::VARCHAR AS model WHERE false)"
)


_ERRORS = """TRY_CAST(json_extract(b.remote, '$.errors.data') AS STRUCT(line BIGINT, message VARCHAR)[])"""
_SAYINGS = " ".join(f"WHEN {sql_text(outcome)} THEN {sql_text(said)}" for outcome, said in UNSEEN.items())
_MESSAGE = f"""coalesce(
    list_filter({_ERRORS}, lambda e: e.line = o.line + 1)[1].message,
    list_filter({_ERRORS}, lambda e: e.line IS NULL)[1].message,
    CASE j.class {_SAYINGS} END)"""
"""SQL: what its batch said of a request, or how it ended; it counts where no line says more."""


@dataclass(frozen=True)
class Selection:
    """Which rows to show. By default: those that were asked and are still in the source."""

    statuses: frozenset[str] = frozenset()
    limit: int | None = None
    everything: bool = False

    def where(self) -> str:
        """An SQL condition on the columns of `recorded_rows`."""
        present = "true" if self.everything else "NOT is_removed"
        if not self.statuses:
            return f"{present} AND ({self.everything} OR status <> '{PENDING}')"
        named = ", ".join(sql_text(status) for status in sorted(self.statuses - {FAILED})) or "NULL"
        failed = f" OR state = {GIVEN_UP}" if FAILED in self.statuses else ""
        return f"{present} AND (status IN ({named}){failed})"


@dataclass(frozen=True)
class Answers:
    """The answers of one job in a snapshot, sorted by key. `folder` is where answer-file paths start."""

    con: duckdb.DuckDBPyConnection
    job: RecordedJob
    folder: Path
    selection: Selection = Selection()
    standing: str = "main.standing"
    """The relation that tells on which request each row stands."""

    def materialized(self) -> Answers:
        """The same, with `standing` in a table where many rows are in it: one join less in all that follows."""
        if not has_many_rows(self.con, self.job.job_id):
            return self
        table = "main.stood"
        rows = f"FROM {self.standing} WHERE job_id = {self.job.job_id}"
        self._within_memory(lambda: self.con.execute(f"CREATE OR REPLACE TABLE {table} AS {rows}"))
        return replace(self, standing=table)

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """See `answer_paths`."""
        return self._within_memory(partial(answer_paths, self.con, self.job, self.folder, self.standing))

    @cached_property
    def _amount(self) -> Amount:
        with damage_told(self.con, self.paths):
            return amount(self.con, self.job.job_id, self.paths)

    @property
    def are_long(self) -> bool:
        """Whether the answers are too long to be held in memory a few ten thousand at a time, as embeddings are."""
        return self._amount is Amount.LONG

    def source(self) -> str:
        """SQL of every row of the job; see `with_answers`."""
        return with_answers(f"({self._rows()})", answer_relation(self.paths))

    def _rows(self) -> str:
        return recorded_rows(self.job, self.standing)

    def select(self, columns: str) -> str:
        """SQL for `columns` of the selected rows, in the order of their keys."""
        by, limit, where = order(self.job), self.selection.limit, self.selection.where()
        if self._amount is Amount.FEW:
            top = "" if limit is None else f" LIMIT {limit}"
            return f"SELECT {columns} FROM ({self.source()}) WHERE {where} ORDER BY {', '.join(by)}{top}"
        rows = f"FROM ({self._rows()}) WHERE {where}"
        ordering = Ordering(self.con, rows, answer_relation(self.paths), with_answers, by, limit)
        if self._amount is Amount.MANY or (limit is not None and limit <= _BATCH_OF_ROWS):
            return f"SELECT {columns} FROM ({self._prepared(ordering.by_join)})"
        return f"SELECT {columns} FROM ({self._prepared(partial(ordering.by_file, scratch_folder(self.con)))})"

    def _prepared(self, ordering: Callable[[], str]) -> str:
        """What `ordering` makes; again with all the memory it asks for, where what was allowed is too little."""
        try:
            with damage_told(self.con, self.paths):
                return self._within_memory(ordering)
        except OSError as problem:
            raise scratch_unwritable(scratch_folder(self.con), problem.strerror or str(problem)) from problem

    def stream(self, columns: str) -> Iterator[tuple[Any, ...]]:
        """The selected rows, one by one; see `batches`."""
        return itertools.chain.from_iterable(self.batches(columns))

    def batches(self, columns: str) -> Iterator[Sequence[tuple[Any, ...]]]:
        """The selected rows, a few thousand in memory at a time. The connection is busy until the end."""
        sql, together = self.select(columns), _LONG_TOGETHER if self.are_long else _BATCH_OF_ROWS
        with damage_told(self.con, self.paths):
            batch = self._within_memory(lambda: self.con.execute(sql).fetchmany(together))
            while batch:
                yield batch
                batch = self.con.fetchmany(together)

    def execute(self, sql: str) -> duckdb.DuckDBPyConnection:
        """Run SQL of `select`; once more with all the memory it asks for, where what was allowed is too little."""
        return self._within_memory(partial(self.con.execute, sql))

    def _within_memory(self, step: Callable[[], T]) -> T:
        try:
            return step()
        except duckdb.OutOfMemoryException:  # before the first row: none of them would come out twice
            lift_memory_limit(self.con)
            return step()


def prepare(con: duckdb.DuckDBPyConnection) -> None:
    """Make the view of this module in a snapshot."""
    con.execute(_STANDING)


def recorded_rows(job: RecordedJob, standing: str) -> str:
    """SQL of what the state alone knows of each row, for `with_answers`; `standing` is that relation or a copy."""
    has_ended = "s.state IN (2, 3, 4, 5) OR (s.state = 0 AND s.outcome IS NOT NULL)"
    return f"""
    WITH judged AS (
        SELECT *, CASE WHEN has_ended THEN line END AS judged_line FROM (
            SELECT s.*, {OUTCOME_NAMES}[s.outcome + 1] AS class, ({has_ended}) AS has_ended
            FROM {standing} s WHERE s.job_id = {job.job_id})
    )
    SELECT j.key, j.state, j.is_removed,
           CASE WHEN j.state = 1 THEN '{IN_FLIGHT}' WHEN j.state = 5 THEN '{HELD}'
                ELSE coalesce(j.class, '{PENDING}') END AS status,
           CASE WHEN j.has_ended AND j.class <> 'succeeded' THEN j.class END AS error_class,
           CASE WHEN j.has_ended AND j.class <> 'succeeded' THEN o.code END AS error_code,
           CASE WHEN j.has_ended AND j.class <> 'succeeded' THEN {_MESSAGE} END AS told_of_batch,
           j.attempts, coalesce(b.model, {sql_text(job.model) if job.model else "NULL"}) AS asked_model,
           o.finish AS finish_reason,
           o.input_tokens, o.output_tokens, o.cached_tokens, o.reasoning_tokens,
           o.cost_nano_usd / 1e9 AS cost_usd,
           b.batch_id, replace(j.digest::VARCHAR, '-', '') AS digest,
           j.state = 2 AS has_answer, o.submission_id, o.line
    FROM judged j
    LEFT JOIN main.submissions b ON b.submission_id = j.submission_id
    LEFT JOIN main.outcomes o ON o.submission_id = j.submission_id AND o.line = j.judged_line
    """


def with_answers(rows: str, answers: str) -> str:
    """SQL of each of `rows`, a relation of `recorded_rows`, with what its line in the relation `answers` says.

    One line a row: key, status, answer (JSON text), error_*, attempts, model, tokens, cost, batch, digest; and
    `has_answer`, `submission_id` and `line`, which tell where the answer is from.
    """
    return f"""
    SELECT r.* EXCLUDE (told_of_batch, asked_model), CASE WHEN r.has_answer THEN a.answer END AS answer,
           CASE WHEN r.error_class IS NOT NULL AND a.line IS NOT NULL THEN a.message ELSE r.told_of_batch END
               AS error_message,
           coalesce(a.model, r.asked_model) AS model
    FROM {answers} a RIGHT JOIN {rows} r ON a.submission_id = r.submission_id AND a.line = r.line
    """


def answer_relation(paths: Sequence[Path]) -> str:
    """SQL of the lines in these answer files."""
    files = ", ".join(map(file_text, paths))
    return f"read_parquet([{files}], {AS_WRITTEN})" if files else _NO_ANSWERS


def order(job: RecordedJob) -> tuple[str, ...]:
    """Sort expressions over `key`: integers by value, all else by text; the whole text decides the rest."""
    parts = key_parts(job)
    numbers = (f"TRY_CAST({part} AS HUGEINT)" if is_integer else part for part, is_integer in parts)
    return (*(f"{expression} NULLS LAST" for expression in numbers), "key")


def key_parts(job: RecordedJob) -> tuple[tuple[str, bool], ...]:
    """For each key column: SQL of its text, and whether it is an integer; see `typed_key` for keys of another shape."""
    if len(job.key_columns) == 1:
        return (("key", job.integer_keys[0]),)
    valid = "CASE WHEN json_valid(key) THEN key END"
    fits = f"coalesce(json_type({valid}) = 'ARRAY' AND json_array_length({valid}) = {len(job.key_columns)}, false)"
    parts = f"""from_json(CASE WHEN {fits} THEN key END, '["VARCHAR"]')"""
    return tuple(
        (f"CASE WHEN {fits} THEN {parts}[{index}] {'ELSE key ' * (index == 1)}END", is_integer)
        for index, is_integer in enumerate(job.integer_keys, start=1)
    )


def answer_paths(con: duckdb.DuckDBPyConnection, job: RecordedJob, folder: Path, standing: str) -> tuple[Path, ...]:
    """The answer files that this job's rows point into. Raises BatchopsError when one is gone."""
    found = con.execute(
        f"""
        SELECT path FROM main.answer_files WHERE dropped_at IS NULL AND file_no IN (
            SELECT answer_file FROM main.outcomes
            SEMI JOIN (SELECT submission_id, line FROM {standing} WHERE job_id = ?) USING (submission_id, line))
        ORDER BY path
        """,
        [job.job_id],
    ).fetchall()
    paths = tuple(folder / path for (path,) in found)
    for path in paths:
        if not path.is_file():
            detail = f"{path} is named by the state and is not there. Restore it, or run: batchops state repair"
            raise BatchopsError(error("answer_file_missing", "An answer file is missing.", detail, address=job.address))
    return paths
