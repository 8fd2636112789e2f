"""Fetch: an ended batch becomes outcomes, verdicts and a file of answers, in one commit.

The truth is in the lines: which file one is in, and what the counts say, does not matter. Whatever was sent and is in
neither file is expired, cancelled, never executed or missing, by how the batch ended. One batch is held at a time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import orjson

from batchops.diagnostics import Diagnostic, error
from batchops.engine.download import ResultFiles, download, may_still_come
from batchops.engine.endings import describe_failure, is_full_queue, judge_unseen
from batchops.engine.expect import expectation
from batchops.engine.judge import Judged, judge, read_lines
from batchops.engine.ledger import Submission
from batchops.engine.retry import Cause, Verdict, verdict
from batchops.engine.run import Run
from batchops.engine.shards import custom_id
from batchops.engine.steps import reached
from batchops.engine.work import new_work_folder
from batchops.plan.events import BatchFetched, RowFailures
from batchops.plan.prices import Price, cost_nano_usd, price
from batchops.providers.provider import RemoteBatch
from batchops.request.answers import Usage
from batchops.spec.job import Job, Outcome, Retry
from batchops.store.changes import AnswerFile, Fetched, Observed, RequestState
from batchops.store.connection import open_memory, sql_text

ORDINAL = {outcome: number for number, outcome in enumerate(Outcome)}
CHUNK_LINES = 2_000
_STATES = {"waiting": RequestState.WAITING, "given_up": RequestState.GIVEN_UP, "held": RequestState.HELD}


@dataclass(frozen=True)
class Sent:
    """One line of a manifest, and what its request has behind it."""

    line: int
    digest: UUID
    round: int
    attempt: int
    foreign_id: str | None
    attempts: int
    free_attempts: int
    amendment: Mapping[str, Any] | None


@dataclass
class _Columns:
    """The judged relation, column by column, as `Fetched` wants it."""

    values: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, **row: Any) -> None:
        for name, value in row.items():
            self.values.setdefault(name, []).append(value)


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


def fetch(run: Run, found: Submission, remote: RemoteBatch, job: Job | None) -> bool:
    """Fetch one ended batch of `job`, None where no spec declares it any more.

    False when its files are not there yet; then the next look tries again.
    """
    provider = run.project.provider(found.provider)
    folder = new_work_folder(run.project)
    try:
        files = download(provider, remote, folder)
        fetching = _Fetching(run, found, remote, job.spec.retry if job else Retry(), folder)
        fetching.judge_files(files.paths)
        looks = int(found.remote.get("batchops_looks", 0))
        if fetching.unseen and may_still_come(remote, files, looks=looks, now=run.now):
            _note_look(run, found, remote, looks + 1)
            return False
        fetching.judge_unseen()
        fetching.commit()
        if is_full_queue(remote) and fetching.next_due_at is not None:
            run.full_until[found.provider, found.model] = fetching.next_due_at
        run.tell(*_problems(run, found, remote, files, job))
        return True
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _problems(
    run: Run, found: Submission, remote: RemoteBatch, files: ResultFiles, job: Job | None
) -> list[Diagnostic]:
    """What to tell of a batch that was fetched."""
    told = [
        error(
            "result_file_gone",
            "A result file no longer exists at the provider.",
            f"The {name} file of {found.batch_id} at {found.provider}: {message} Its rows count as missing, and the"
            " next plan asks them again; result files are kept for 30 days by default.",
            address=found.address,
        )
        for name, message in files.gone.items()
    ]
    failure = describe_failure(remote, found.address, found.provider, job, partial(_row_at, run, found))
    return [*told, failure] if failure is not None else told


def _row_at(run: Run, found: Submission, line: int) -> str | None:
    """The address of the row that a line (0-based) asks for; None where its key is sensitive."""
    rows = run.project.reader.rows(
        """SELECT r.key, j.address, j.spec FROM state.attempts a JOIN state.rows r USING (digest, round)
           JOIN state.jobs j ON j.job_id = r.job_id
           WHERE a.submission_id = ? AND a.line = ? ORDER BY j.address = ? DESC, r.key LIMIT 1""",
        [found.submission_id, line, found.address],
    )
    if not rows:
        return None
    spec = orjson.loads(rows[0]["spec"])
    is_sensitive = set(spec.get("key", ())) & set(spec.get("sensitive", ()))
    return None if is_sensitive else f"{rows[0]['address']}@{rows[0]['key']}"


def _note_look(run: Run, found: Submission, remote: RemoteBatch, looks: int) -> None:
    reached("before_observed")
    run.store.commit(
        Observed(found.submission_id, {**remote.raw, "batchops_looks": looks}, ended=False, address=found.address)
    )
    reached("after_observed")


class _Fetching:
    """The judging of one batch: lines in, two relations of a private DuckDB out."""

    def __init__(self, run: Run, found: Submission, remote: RemoteBatch, retry: Retry, folder: Path) -> None:
        self.run, self.found, self.remote, self.retry, self.folder = run, found, remote, retry, folder
        settings = run.project.provider_settings(found.provider).models.get(found.model)
        self.price: Price | None = price(found.model, settings.price if settings else None)
        self.expect_text, manifest = _manifest(run, found)
        self.request_body = {**(self.expect_text.get("body") or {}), **(self.expect_text.get("params") or {})}
        self.expectation = expectation(found.endpoint, self.expect_text)
        self.unseen = manifest
        self.judged = _Columns()
        self.answers = _Columns()
        self.answer_count = 0
        self.outcomes: Counter[Outcome] = Counter()
        self.states: Counter[RequestState] = Counter()
        self.cost_nano_usd: int | None = 0
        self.held_because: str | None = None
        self.next_due_at: datetime | None = None
        self.con = open_memory(temp_directory=folder / "spill")
        _create(self.con, "judged", JUDGED_TYPES)
        _create(self.con, "answers", ANSWER_TYPES)

    def judge_files(self, files: Sequence[Path]) -> None:
        """Answers first, then the rest: where a request came back twice its answer counts, wherever it stands."""
        for takes_answers in (True, False):
            if self.unseen:
                self._judge_lines(files, takes_answers=takes_answers)

    def _judge_lines(self, files: Sequence[Path], *, takes_answers: bool) -> None:
        for raw, line in (pair for path in files for pair in read_lines(path)):
            identifier = line.get("custom_id") if line else None
            sent = self.unseen.get(identifier) if isinstance(identifier, str) else None
            if sent is None:  # torn, foreign or repeated
                continue
            found = judge(line, self.expectation)
            if (found.outcome is Outcome.SUCCEEDED) == takes_answers:
                del self.unseen[str(identifier)]
                self._record(sent, found, raw=raw, cause=Cause.EXECUTED)

    def judge_unseen(self) -> None:
        """Lines that came back in no file, by how the batch ended."""
        for sent in list(self.unseen.values()):
            judged, cause = judge_unseen(self.remote, sent.line)
            self._record(sent, judged, raw=None, cause=cause)
        self.unseen.clear()

    def _record(self, sent: Sent, found: Judged, *, raw: bytes | None, cause: Cause) -> None:
        decided = self._decide(sent, found, cause)
        state = RequestState.ANSWERED if decided is None else _STATES[decided.state]
        due_at = self.run.now + decided.delay if decided and state is RequestState.WAITING else None
        self.next_due_at = due_at or self.next_due_at
        usage = found.usage
        cost = self._cost(usage) if raw is not None else 0
        self.outcomes[found.outcome] += 1
        self.states[state] += 1
        self.cost_nano_usd = None if cost is None or self.cost_nano_usd is None else self.cost_nano_usd + cost
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
            cost_nano_usd=cost,
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
        if len(self.judged.values["line"]) >= CHUNK_LINES:
            self._flush()

    def _add_answer(self, sent: Sent, found: Judged, raw: bytes) -> None:
        self.answer_count += 1
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
        """What becomes of the request; None when it is answered."""
        if found.outcome is Outcome.SUCCEEDED:
            return None
        return verdict(
            self.retry,
            found.outcome,
            attempts=sent.attempts,
            free_attempts=sent.free_attempts,
            body=self.request_body,
            url=self.found.endpoint,
            amendment=sent.amendment,
            jitter_seed=self.found.batch_id,
            cause=cause,
        )

    def _cost(self, usage: Usage) -> int | None:
        return None if self.price is None else cost_nano_usd(self.price, usage)

    def _flush(self) -> None:
        _insert(self.con, "judged", JUDGED_TYPES, self.judged)
        _insert(self.con, "answers", ANSWER_TYPES, self.answers)
        self.judged, self.answers = _Columns(), _Columns()

    def commit(self) -> None:
        """Put the answers on disk, fsynced under their final name, and only then commit what names them."""
        self._flush()
        reached("before_answers")
        answer_file = _write_answers(self.run, self.con, self.answer_count) if self.answer_count else None
        reached("after_answers")
        counts = {outcome.value: self.outcomes[outcome] for outcome in Outcome if self.outcomes[outcome]}
        if self.found.phase == "created":
            reached("before_ended")
            self.run.store.commit(
                Observed(self.found.submission_id, self.remote.raw, ended=True, address=self.found.address)
            )
            reached("after_ended")
        self.run.store.commit(
            Fetched(
                self.found.submission_id,
                "judged",
                answer_file,
                self.found.address,
                held_because=self.held_because,
                counts=counts,
            ),
            con=self.con,
        )
        reached("after_fetched")
        self.con.close()
        self._announce(counts)

    def _announce(self, counts: Mapping[str, int]) -> None:
        batch_id = self.found.batch_id or ""
        self.run.emit(
            BatchFetched(
                address=self.found.address,
                batch_id=batch_id,
                rows=sum(counts.values()),
                outcomes=counts,
                cost_usd=None if self.cost_nano_usd is None else self.cost_nano_usd / 1e9,
            )
        )
        failed = {name: count for name, count in counts.items() if name != Outcome.SUCCEEDED}
        if failed:
            states = self.states
            self.run.emit(
                RowFailures(
                    address=self.found.address,
                    batch_id=batch_id,
                    outcomes=failed,
                    retry=states[RequestState.WAITING],
                    given_up=states[RequestState.GIVEN_UP],
                    held=states[RequestState.HELD],
                )
            )


def _manifest(run: Run, found: Submission) -> tuple[dict[str, Any], dict[str, Sent]]:
    """What the answers are judged by, and every line sent, by its `custom_id`."""
    with run.project.reader.reading() as con:
        expect = con.execute(
            "SELECT expect FROM state.submissions WHERE submission_id = ?", [found.submission_id]
        ).fetchone()
        rows = con.execute(
            """SELECT a.line, a.digest, a.round, a.attempt, a.custom_id, q.attempts, q.free_attempts, q.amendment
               FROM state.attempts a JOIN state.requests q ON q.digest = a.digest AND q.round = a.round
               WHERE a.submission_id = ? ORDER BY a.line""",
            [found.submission_id],
        ).fetchall()
    sent = [
        Sent(line, digest, round_, attempt, foreign, attempts, free, orjson.loads(amendment) if amendment else None)
        for line, digest, round_, attempt, foreign, attempts, free, amendment in rows
    ]
    manifest = {s.foreign_id or custom_id(s.digest, s.round, s.attempt): s for s in sent}
    return orjson.loads(expect[0]) if expect and expect[0] else {}, manifest


def _create(con: duckdb.DuckDBPyConnection, name: str, types: Mapping[str, str]) -> None:
    con.execute(f"CREATE TABLE {name} ({', '.join(f'{column} {kind}' for column, kind in types.items())})")


def _insert(con: duckdb.DuckDBPyConnection, name: str, types: Mapping[str, str], columns: _Columns) -> None:
    if not columns.values:
        return
    chosen = ", ".join(f"unnest(?::{kind}[])" for kind in types.values())
    con.execute(f"INSERT INTO {name} SELECT {chosen}", [columns.values[column] for column in types])


def _write_answers(run: Run, con: duckdb.DuckDBPyConnection, lines: int) -> AnswerFile:
    folder = run.store.folder / "answers"
    folder.mkdir(exist_ok=True)
    rows = run.store.rows("SELECT coalesce(max(file_no), 0) + 1 AS next FROM state.answer_files")
    number = int(rows[0]["next"])
    while (final := folder / f"{number:06d}.parquet").exists():  # of a state that was pushed over, or of a kill
        number += 1
    draft = final.with_suffix(".parquet.new")
    con.execute(f"COPY (FROM answers ORDER BY line) TO {sql_text(str(draft))} (FORMAT parquet, COMPRESSION zstd)")
    with draft.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        os.fsync(file.fileno())
    draft.rename(final)
    _sync_folder(folder)
    return AnswerFile(number, f"answers/{final.name}", digest, final.stat().st_size, lines)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
