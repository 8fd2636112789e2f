"""The judging of one batch: result files in, two relations of a private DuckDB out, `judged` and `answers`.

Two paths, one result. Lines that provably succeeded are judged inside the engine (bulk.py); all others one by one by
`judge`, which is what the engine's path is held against. Where a request came back twice its answer counts, wherever it
stands, and of two answers the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import duckdb
import orjson

from batchops.engine.bulk import FOUND, cost_sql, read_file
from batchops.engine.endings import judge_unseen
from batchops.engine.expect import expectation, schemas_of
from batchops.engine.judge import Judged, judge, line_object, read_lines, stripped
from batchops.engine.ledger import Submission
from batchops.engine.retry import Cause, Verdict, verdict
from batchops.plan.prices import Price, cost_nano_usd
from batchops.providers.provider import RemoteBatch
from batchops.spec.job import Outcome, Retry
from batchops.store.connection import AS_WRITTEN, file_text, sql_text
from batchops.store.states import RequestState
from batchops.store.store import StateReader

ORDINAL = {outcome: number for number, outcome in enumerate(Outcome)}
CHUNK_LINES = 1_000
_SMALLEST_BUFFER = 1 << 20
_STATES = {"waiting": RequestState.WAITING, "given_up": RequestState.GIVEN_UP, "held": RequestState.HELD}

Place: TypeAlias = tuple[int, int]
"""Where a line stands: which file, and a number that grows with the lines of it."""

MANIFEST = """
    SELECT a.line, a.digest, a.round, a.attempt, q.attempts, q.free_attempts, q.amendment,
           coalesce(a.custom_id, concat(replace(a.digest::VARCHAR, '-', ''), '-', a.round, '-', a.attempt)) AS id
    FROM state.attempts a JOIN state.requests q ON q.digest = a.digest AND q.round = a.round
    WHERE a.submission_id = ?
"""
OF_ITS_REQUESTS = "AND q.submission_id = ?"
"""Of those requests alone whose latest try this is. They stand together, so the rest of the ledger is not read."""

JUDGED_TYPES = {
    "line": "UINTEGER", "digest": "UUID", "round": "USMALLINT", "outcome": "UTINYINT", "http": "USMALLINT",
    "code": "VARCHAR", "finish": "VARCHAR", "input_tokens": "UINTEGER", "cached_tokens": "UINTEGER",
    "output_tokens": "UINTEGER", "reasoning_tokens": "UINTEGER", "cost_nano_usd": "UBIGINT", "has_line": "BOOLEAN",
    "state": "UTINYINT", "counts": "BOOLEAN", "due_at": "TIMESTAMPTZ", "amendment": "VARCHAR",
}  # fmt: skip
ANSWER_TYPES = {
    "submission_id": "UINTEGER", "line": "UINTEGER", "digest": "UUID", "round": "USMALLINT", "attempt": "UTINYINT",
    "outcome": "UTINYINT", "answer": "VARCHAR", "message": "VARCHAR", "model": "VARCHAR", "raw": "VARCHAR",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sent:
    """One line of a manifest, and what its request has behind it."""

    line: int
    digest: UUID
    round: int
    attempt: int
    attempts: int
    free_attempts: int
    amendment: str | None


class Unwanted(Exception):
    """Nobody waits for this judging any more."""


class _Spool:
    """Rows of a relation on their way into the engine, as JSON lines in a file: they take no memory, however long."""

    def __init__(self, path: Path, types: Mapping[str, str]) -> None:
        self.path, self.types = path, types
        self.file = path.open("wb")
        self.rows, self.longest = 0, 0

    def add(self, **row: Any) -> None:
        written = self.file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        self.rows, self.longest = self.rows + 1, max(self.longest, written)

    def close(self) -> None:
        self.file.close()

    def relation(self) -> str:
        """SQL of all rows; nothing may be added after it."""
        self.close()
        if not self.rows:
            return f"(SELECT {', '.join(f'NULL::{kind} AS {name}' for name, kind in self.types.items())} WHERE false)"
        columns = ", ".join(f"{name}: {sql_text(kind)}" for name, kind in self.types.items())
        return (
            f"read_json({file_text(self.path)}, format = 'newline_delimited', columns = {{{columns}}},"
            f" maximum_object_size = {max(_SMALLEST_BUFFER, 2 * self.longest)}, {AS_WRITTEN})"
        )


@dataclass(frozen=True)
class Totals:
    """What became of a batch. `cost_nano_usd` is None where a price or a count of tokens is not known.

    Lines that failed without tokens add nothing: only finished ones are billed (Batch guide, 2026-08).
    """

    outcomes: Mapping[Outcome, int]
    states: Mapping[RequestState, int]
    cost_nano_usd: int | None
    answers: int
    fast_lines: int


class Judging:
    """Judges the lines of one batch; `judged` and `answers` are complete after `finish`. Close it.

    Its relations are made in `con` and stay there; they read files in `folder`. Once `is_wanted` says no, judging
    raises Unwanted.
    """

    def __init__(
        self,
        reader: StateReader,
        found: Submission,
        remote: RemoteBatch,
        retry: Retry,
        price: Price | None,
        *,
        con: duckdb.DuckDBPyConnection,
        folder: Path,
        now: datetime,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self.con, self._is_wanted = con, is_wanted
        self.found, self.remote, self.retry, self.price, self.now = found, remote, retry, price, now
        self.con.execute("SET preserve_insertion_order = true")  # of two answers the first counts
        for table, types in (("judged", JUDGED_TYPES), ("found", FOUND)):
            self.con.execute(f"CREATE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in types.items())})")
        self.con.execute(
            "CREATE TABLE accepted (place BIGINT, line UINTEGER, digest UUID, round USMALLINT, attempt UTINYINT)"
        )
        expect = self._read_state(reader)
        self.request_body = {**(expect.get("body") or {}), **(expect.get("params") or {})}
        self.expectation, self.schemas = expectation(found.endpoint, expect), schemas_of(expect)
        self.judged = _Spool(folder / "judged.jsonl", JUDGED_TYPES)
        self.answers = _Spool(folder / "answers.jsonl", ANSWER_TYPES)
        self.files: list[_File] = []
        self.unseen: dict[str, Sent] = {}
        self.strays = 0
        """Lines that are torn, or foreign; counted where something that was sent is in no other."""
        self._sent_ids: frozenset[str] = frozenset()
        self.verdicts: dict[tuple[Any, ...], Verdict] = {}
        self.held_because: str | None = None
        self.next_due_at: datetime | None = None

    def close(self) -> None:
        """Let go of the files that lines are written to."""
        self.judged.close()
        self.answers.close()

    def _read_state(self, reader: StateReader) -> dict[str, Any]:
        """Make `manifest`, every line sent; returns what the answers are judged by."""
        number = [self.found.submission_id]
        with reader.reading(self.con):
            expect = self.con.execute("SELECT expect FROM state.submissions WHERE submission_id = ?", number).fetchone()
            self.con.execute(f"CREATE TABLE manifest AS {MANIFEST} {OF_ITS_REQUESTS}", number * 2)
            sent = self.con.execute(
                "SELECT count(*), count(custom_id) FROM state.attempts WHERE submission_id = ?", number
            ).fetchone()
            assert sent is not None
            if sent[0] != self._count("manifest"):  # some were asked again, or answered by another batch
                self.con.execute(f"CREATE OR REPLACE TABLE manifest AS {MANIFEST}", number)
        if sent[1]:  # names of others may be twice, ours are not
            self.con.execute("DELETE FROM manifest m USING manifest n WHERE m.id = n.id AND m.line < n.line")
        return orjson.loads(expect[0]) if expect and expect[0] else {}

    def judge_files(self, paths: Sequence[Path]) -> None:
        """Judge every line; `unseen` is what was sent and is in no file."""
        for path in paths:
            self._check()
            first = self._count("found")
            is_read = read_file(self.con, path, self.expectation, self.schemas)
            self.files.append(_File(path, first, self._count("found") if is_read else None))
        self._accept()
        self.unseen = self._sent("(FROM manifest ANTI JOIN accepted USING (line))")
        earlier = self._accepted_places() if self._has_rest() else {}
        self._sent_ids = frozenset(self.unseen) | frozenset(earlier)
        for takes_answers in (True, False):
            if self.unseen or earlier:
                self._judge_rest(earlier, takes_answers=takes_answers)

    def _check(self) -> None:
        if not self._is_wanted():
            raise Unwanted

    def _count(self, table: str) -> int:
        row = self.con.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert row is not None
        return int(row[0])

    def _accept(self) -> None:
        """Take the answers that the engine found, where the request has one alone; others are the judge's."""
        self.con.execute(
            """INSERT INTO accepted
               SELECT f.place, m.line, m.digest, m.round, m.attempt FROM manifest m JOIN (
                   SELECT id, min(rowid) AS place FROM found WHERE answer IS NOT NULL GROUP BY id HAVING count(*) = 1
               ) f USING (id)"""
        )

    def _has_rest(self) -> bool:
        return self._count("accepted") < self._count("found") or any(file.end is None for file in self.files)

    def _sent(self, relation: str) -> dict[str, Sent]:
        rows = self.con.execute(
            f"""SELECT id, line, digest, round, attempt, attempts, free_attempts, amendment
                FROM {relation} ORDER BY line"""
        ).fetchall()
        return {identifier: Sent(*rest) for identifier, *rest in rows}

    def _accepted_places(self) -> dict[str, Place]:
        rows = self.con.execute("SELECT m.id, a.place FROM accepted a JOIN manifest m USING (line)").fetchall()
        return {identifier: (self._file_at(place), place) for identifier, place in rows}

    def _file_at(self, place: int) -> int:
        return next(n for n, file in enumerate(self.files) if file.end is not None and file.first <= place < file.end)

    def _rest(self) -> Iterator[tuple[Place, bytes, dict[str, Any] | None]]:
        """The lines that the engine did not take, file by file, in order."""
        for number, file in enumerate(self.files):
            if file.end is None:
                for place, (raw, line) in enumerate(read_lines(file.path)):
                    yield (number, place), raw, line
                continue
            for first in range(file.first, file.end, CHUNK_LINES):
                yield from self._not_accepted(number, first, min(first + CHUNK_LINES, file.end))

    def _not_accepted(self, number: int, first: int, end: int) -> Iterator[tuple[Place, bytes, dict[str, Any] | None]]:
        """Those of a few neighbouring lines of a file. A sort of all would hold their texts in memory."""
        rows = self.con.execute(
            """SELECT rowid, raw FROM found WHERE rowid >= $first AND rowid < $end
               AND rowid NOT IN (SELECT place FROM accepted WHERE place >= $first AND place < $end) ORDER BY rowid""",
            {"first": first, "end": end},
        ).fetchall()
        for place, text in rows:
            if raw := stripped(text.encode()):
                yield (number, place), raw, line_object(raw)

    def _judge_rest(self, earlier: dict[str, Place], *, takes_answers: bool) -> None:
        for place, raw, line in self._rest():
            self._check()
            identifier = line.get("custom_id") if line else None
            if not isinstance(identifier, str) or identifier not in self._sent_ids:
                self.strays += takes_answers
                continue
            sent = self.unseen.get(identifier)
            if sent is None and not (takes_answers and place < earlier.get(identifier, (-1, -1))):
                continue  # repeated
            found = judge(line, self.expectation)
            if (found.outcome is Outcome.SUCCEEDED) != takes_answers:
                continue
            if sent is None:
                sent = self._withdraw(identifier)
                del earlier[identifier]
            self.unseen.pop(identifier, None)
            self._record(sent, found, raw=raw, cause=Cause.EXECUTED)

    def _withdraw(self, identifier: str) -> Sent:
        """Give up an answer that the engine found: an earlier one, in an odd form, came to light."""
        relation = f"(FROM manifest SEMI JOIN accepted USING (line) WHERE id = {sql_text(identifier)})"
        sent = self._sent(relation)[identifier]
        self.con.execute("DELETE FROM accepted WHERE line = ?", [sent.line])
        return sent

    def judge_unseen(self) -> None:
        """Lines that came back in no file, by how the batch ended."""
        for sent in self.unseen.values():
            judged, cause = judge_unseen(self.remote, sent.line)
            self._record(sent, judged, raw=None, cause=cause)
        self.unseen = {}

    def _record(self, sent: Sent, found: Judged, *, raw: bytes | None, cause: Cause) -> None:
        decided = self._decide(sent, found, cause)
        state = RequestState.ANSWERED if decided is None else _STATES[decided.state]
        due_at = self.now + decided.delay if decided and state is RequestState.WAITING else None
        self.next_due_at = due_at or self.next_due_at
        usage = found.usage
        self.judged.add(
            line=sent.line,
            digest=sent.digest,
            round=sent.round,
            outcome=ORDINAL[found.outcome],
            http=found.http,
            code=found.code,
            finish=found.finish,
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost_nano_usd=cost_nano_usd(self.price, usage) if raw is not None else 0,
            has_line=raw is not None,
            state=int(state),
            counts=decided is None or decided.counts,
            due_at=due_at,
            amendment=orjson.dumps(decided.amendment).decode() if decided and decided.amendment else None,
        )
        if decided is not None and decided.stops_job:
            self.held_because = decided.rule
        if raw is not None:
            self._add_answer(sent, found, raw)

    def _add_answer(self, sent: Sent, found: Judged, raw: bytes) -> None:
        self.answers.add(
            submission_id=self.found.submission_id,
            line=sent.line,
            digest=sent.digest,
            round=sent.round,
            attempt=sent.attempt,
            outcome=ORDINAL[found.outcome],
            answer=None if found.answer is None else orjson.dumps(found.answer).decode(),
            message=found.message,
            model=found.model,
            raw=raw.decode("utf-8", "replace"),
        )

    def _decide(self, sent: Sent, found: Judged, cause: Cause) -> Verdict | None:
        """What becomes of the request; None when it is answered. Many that failed together share one verdict."""
        if found.outcome is Outcome.SUCCEEDED:
            return None
        alike = (found.outcome, sent.attempts, sent.free_attempts, sent.amendment, cause)
        if alike not in self.verdicts:
            self.verdicts[alike] = verdict(
                self.retry,
                found.outcome,
                attempts=sent.attempts,
                free_attempts=sent.free_attempts,
                body=self.request_body,
                url=self.found.endpoint,
                amendment=orjson.loads(sent.amendment) if sent.amendment else None,
                jitter_seed=self.found.batch_id,
                cause=cause,
            )
        return self.verdicts[alike]

    def finish(self) -> Totals:
        """Complete `judged` and make `answers`; no line may be judged after it."""
        self.con.execute("SET preserve_insertion_order = false")  # from here on it does not matter, and costs time
        self.con.execute(
            f"""INSERT INTO judged
                SELECT a.line, a.digest, a.round, {ORDINAL[Outcome.SUCCEEDED]}, f.http, NULL, f.finish, f.input_tokens,
                       f.cached_tokens, f.output_tokens, f.reasoning_tokens, {cost_sql(self.price)}, true,
                       {RequestState.ANSWERED}, true, NULL, NULL
                FROM found f JOIN accepted a ON a.place = f.rowid
                UNION ALL FROM {self.judged.relation()}"""
        )
        of_engine = f"""
            SELECT {self.found.submission_id}::UINTEGER AS submission_id, a.line, a.digest, a.round, a.attempt,
                   {ORDINAL[Outcome.SUCCEEDED]}::UTINYINT AS outcome, f.answer, NULL::VARCHAR AS message, f.model, f.raw
            FROM found f JOIN accepted a ON a.place = f.rowid"""
        half = self._count("found") // 2  # so few rows are one piece of work to the engine, unless they are two
        self.con.execute(
            f"""CREATE VIEW answers AS {of_engine} WHERE f.rowid < {half}
                UNION ALL {of_engine} WHERE f.rowid >= {half} UNION ALL FROM {self.answers.relation()}"""
        )
        return self._totals()

    def _totals(self) -> Totals:
        outcomes = dict(self.con.execute("SELECT outcome, count(*) FROM judged GROUP BY ALL").fetchall())
        states = dict(self.con.execute("SELECT state, count(*) FROM judged GROUP BY ALL").fetchall())
        row = self.con.execute(
            """SELECT CASE WHEN count(*) FILTER (cost_nano_usd IS NULL AND (input_tokens IS NOT NULL OR http = 200)) = 0
                           THEN coalesce(sum(cost_nano_usd), 0) END,
                      count(*) FILTER (has_line) FROM judged"""
        ).fetchone()
        assert row is not None
        return Totals(
            {outcome: outcomes[n] for outcome, n in ORDINAL.items() if n in outcomes},
            {RequestState(state): count for state, count in states.items()},
            int(row[0]) if row[0] is not None else None,
            row[1],
            self._count("accepted"),
        )


@dataclass(frozen=True)
class _File:
    """A result file; its lines are the rows of `found` from `first` to before `end`, which is None if they are not."""

    path: Path
    first: int
    end: int | None
