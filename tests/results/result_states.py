"""States made by hand: the tables of schema.sql in a real DuckDB file, and real Parquet answer files beside it."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import orjson

from batchops.results.recorded import RecordedJob, recorded_jobs
from batchops.spec.job import Outcome
from batchops.store import migrations
from batchops.store.connection import sql_text

START = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)
PENDING, IN_FLIGHT, ANSWERED, WAITING, GIVEN_UP, HELD = range(6)
SCHEMA = {
    "type": "object",
    "properties": {"sentiment": {"type": "string", "enum": ["pos", "neg"]}, "score": {"type": "number"}},
    "required": ["sentiment", "score"],
    "additionalProperties": False,
}
_ANSWER_COLUMNS = (
    "submission_id UINTEGER, line UINTEGER, digest UUID, round UTINYINT, attempt UTINYINT, outcome UTINYINT,"
    " answer VARCHAR, message VARCHAR, model VARCHAR, raw VARCHAR"
)


def digest(text: str) -> uuid.UUID:
    return uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16])


def ordinal(outcome: str | None) -> int | None:
    return None if outcome is None else list(Outcome).index(Outcome(outcome))


def the_job(con: duckdb.DuckDBPyConnection, address: str) -> RecordedJob:
    return {job.address: job for job in recorded_jobs(con)}[address]


@dataclass
class State:
    """Collects rows for every table; `write` makes the file. Nothing here checks that the whole makes sense."""

    path: Path
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    answers: dict[int, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, table: str, **columns: Any) -> None:
        self.tables.setdefault(table, []).append(columns)

    def job(
        self,
        address: str,
        *,
        key: tuple[str, ...] = ("id",),
        key_types: tuple[str, ...] = ("VARCHAR",),
        environment: str = "default",
        spec: dict[str, Any] | None = None,
        **columns: Any,
    ) -> int:
        job_id = len(self.tables.get("jobs", [])) + 1
        recorded = {
            "key": list(key),
            "key_types": list(key_types),
            "endpoint": "/v1/chat/completions",
            "model": "gpt-5-mini",
            **(spec or {}),
        }
        self.add(
            "jobs",
            **{
                "job_id": job_id,
                "environment": environment,
                "address": address,
                "provider": "local",
                "is_simulated": True,
                "render_id": digest(f"render {address}"),
                "parts": orjson.dumps({"prompt": "p1", "model": "m1", "params": "a1", "schema": None}).decode(),
                "spec": orjson.dumps(recorded).decode(),
                "protected": False,
                **columns,
            },
        )
        return job_id

    def submission(self, job_id: int, **columns: Any) -> int:
        number = len(self.tables.get("submissions", [])) + 1
        self.add(
            "submissions",
            **{
                "submission_id": number,
                "token": digest(f"token {number}"),
                "job_id": job_id,
                "provider": "local",
                "endpoint": "/v1/chat/completions",
                "model": "gpt-5-mini",
                "phase": "fetched",
                "fence": 1,
                "n": 1,
                "batch_id": f"batch_{number}",
                "intent_at": START,
                "sent_at": START + timedelta(seconds=2),
                **columns,
            },
        )
        return number

    def row(
        self, job_id: int, key: str, *, body: str | None = None, round: int = 0, removed: bool = False
    ) -> uuid.UUID:
        """A row that stands on the digest of `body`."""
        found = digest(body or f"{job_id} {key}")
        removed_at = START if removed else None
        self.add("rows", job_id=job_id, key=key, fingerprint=1, digest=found, round=round, removed_at=removed_at)
        return found

    def request(
        self, found: uuid.UUID, state: int, *, round: int = 0, outcome: str | None = None, **columns: Any
    ) -> None:
        defaults = {"attempts": 0, "free_attempts": 0}
        self.add(
            "requests", digest=found, round=round, state=state, outcome=ordinal(outcome), **{**defaults, **columns}
        )

    def outcome(
        self,
        submission_id: int,
        line: int,
        outcome: str,
        *,
        answer: Any = None,
        message: str | None = None,
        model: str | None = "gpt-5-mini-2025-08-07",
        raw_answer: str | None = None,
        file: int = 1,
        **columns: Any,
    ) -> None:
        """One try judged, with its line in answer file `file`."""
        self.add(
            "outcomes", submission_id=submission_id, line=line, outcome=ordinal(outcome), answer_file=file, **columns
        )
        text = raw_answer if raw_answer is not None else None if answer is None else orjson.dumps(answer).decode()
        self.answers.setdefault(file, []).append(
            {
                "submission_id": submission_id,
                "line": line,
                "outcome": ordinal(outcome),
                "answer": text,
                "message": message,
                "model": model,
            }
        )

    def answered(self, job_id: int, key: str, submission_id: int, line: int, answer: Any, **columns: Any) -> uuid.UUID:
        """A row answered at its first try."""
        found = self.row(job_id, key)
        self.request(found, ANSWERED, outcome="succeeded", attempts=1, submission_id=submission_id, line=line)
        self.add("attempts", submission_id=submission_id, line=line, digest=found, round=0, attempt=1)
        usage = {"input_tokens": 100, "cached_tokens": 0, "output_tokens": 20, "reasoning_tokens": 0}
        priced = {"http": 200, "finish": "stop", "cost_nano_usd": 32_500, **usage}
        self.outcome(submission_id, line, "succeeded", answer=answer, **{**priced, **columns})
        return found

    def write(self) -> Path:
        """Make the state file and its answer files; returns the path of the state."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for number, rows in self.answers.items():
            self._write_answers(number, rows)
        con = duckdb.connect(self.path, config={"storage_compatibility_version": "v1.5.0"})
        for step in migrations.STEPS:
            step.perform(con)
        identity = [digest("lineage"), 7, len(migrations.STEPS), 1, "reviews", START]
        con.execute("INSERT INTO meta VALUES (?, ?, ?, ?, ?, ?)", identity)
        for table, rows in self.tables.items():
            _insert(con, table, rows)
        for path in (self.path.parent / "answers").glob("*.parquet"):
            written = path.read_bytes()
            sums = [len(written), hashlib.sha256(written).digest(), f"answers/{path.name}"]
            con.execute("UPDATE answer_files SET bytes = ?, sha256 = ? WHERE path = ?", sums)
        con.close()
        return self.path

    def _write_answers(self, number: int, rows: list[dict[str, Any]]) -> None:
        path = self.path.parent / "answers" / f"{number}.parquet"
        path.parent.mkdir(exist_ok=True)
        con = duckdb.connect(":memory:")
        con.execute(f"CREATE TABLE a ({_ANSWER_COLUMNS})")
        _insert(con, "a", rows)
        con.execute(f"COPY a TO {sql_text(str(path))} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 2048)")
        con.close()
        self.add("answer_files", file_no=number, path=f"answers/{path.name}", n=len(rows))


def _insert(con: duckdb.DuckDBPyConnection, table: str, rows: list[dict[str, Any]]) -> None:
    """Each set of columns in one statement, as JSON: DuckDB 1.5 takes 60 µs for every value of a list."""
    shapes: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        shapes.setdefault(tuple(row), []).append(row)
    described = con.execute(f"DESCRIBE {table}").fetchall()
    types = {name: kind.replace("JSON", "VARCHAR") for name, kind, *_ in described}  # JSON is given as text
    for names, alike in shapes.items():
        shape = orjson.dumps([{name: types[name] for name in names}]).decode()
        con.execute(
            f"INSERT INTO {table} ({', '.join(names)}) SELECT row.* FROM (SELECT unnest(from_json(?, ?)) AS row)",
            [orjson.dumps(alike).decode(), shape],
        )


def every_state(path: Path) -> State:
    """One job with a row in every state a row can be in."""
    state = State(path)
    job = state.job("review-sentiment", key=("review_id",), key_types=("BIGINT",), spec={"schema": SCHEMA})
    first = state.submission(job, n=6, remote='{"request_counts": {"total": 6, "completed": 3, "failed": 3}}')
    second = state.submission(
        job,
        n=1,
        phase="created",
        batch_id="batch_second",
        sent_at=START + timedelta(minutes=5),
        remote='{"status": "in_progress", "request_counts": {"total": 1, "completed": 0, "failed": 0}}',
    )
    state.answered(job, "10", first, 0, {"sentiment": "pos", "score": 0.75})
    state.answered(job, "9", first, 1, {"sentiment": "neg", "score": 1e-7})
    _failed(state, job, "11", first, 2, state_no=WAITING, outcome="rate_limited", http=429, code="slow_down")
    _failed(state, job, "12", first, 3, state_no=GIVEN_UP, outcome="refused", http=200, finish="stop")
    _failed(state, job, "13", first, 4, state_no=HELD, outcome="quota_exhausted", http=429, code="insufficient_quota")
    again = state.row(job, "14")
    state.add("attempts", submission_id=first, line=5, digest=again, round=0, attempt=1)
    state.outcome(first, 5, "server_error", message="The server had an error.", http=500)
    state.add("attempts", submission_id=second, line=0, digest=again, round=0, attempt=2)
    state.request(again, IN_FLIGHT, outcome="server_error", attempts=1, submission_id=second, line=0)
    state.request(state.row(job, "15"), PENDING)
    gone = state.row(job, "16", removed=True)
    state.request(gone, GIVEN_UP, outcome="not_found", attempts=1, submission_id=first, line=99)
    return state


def _failed(
    state: State, job: int, key: str, submission: int, line: int, *, state_no: int, outcome: str, **more: Any
) -> None:
    found = state.row(job, key)
    due = START + timedelta(minutes=4) if state_no == WAITING else None
    state.request(found, state_no, outcome=outcome, attempts=1, submission_id=submission, line=line, due_at=due)
    state.add("attempts", submission_id=submission, line=line, digest=found, round=0, attempt=1)
    state.outcome(submission, line, outcome, message=f"About {outcome}.", model=None, **more)
