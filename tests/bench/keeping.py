"""How many bytes a row takes in a state, before and after compaction, and how long that takes: `keeping.py [ROWS]`.

The state is made by SQL as an apply of one job leaves it: shards of 50,000 lines, every row answered, one of 20 only at
its second try, an event for each step of a batch, answers of about 100 characters in replies of about 500.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
from measuring import size_asked

from batchops.engine.compaction import compact
from batchops.engine.project import open_project
from batchops.settings import load_settings
from batchops.store import migrations
from batchops.store.connection import attached, open_memory, sql_text
from batchops.store.footprint import Footprint, footprint
from batchops.store.store import StateReader

ROWS = 1_000_000
SHARD = 50_000
RETRIED = 20
"""One row in so many was truncated first and answered in a later batch."""

FIRST = """
INSERT INTO state.submissions (submission_id, token, job_id, provider, endpoint, model, phase, fence, shard_bytes, n,
                               est_tokens, file_id, batch_id, remote, intent_at, sent_at, ended_at, expect)
SELECT s, md5('token ' || s)::UUID, 1, 'openai', '/v1/chat/completions', 'gpt-5-mini', 'fetched', 1, 30_000_000, n,
       5_000_000, 'file-' || md5('f' || s), 'batch_' || md5('b' || s), '{"status":"completed"}', $before,
       $before, $before,
       '{"params":{"max_completion_tokens":100}}'
FROM (SELECT s, count(*)::UINTEGER AS n FROM tries GROUP BY s);
INSERT INTO state.attempts (submission_id, line, digest, round, attempt)
SELECT s, line, md5(i::VARCHAR)::UUID, 0, attempt FROM tries ORDER BY s, line;
INSERT INTO state.outcomes (submission_id, line, outcome, http, finish, input_tokens, cached_tokens, output_tokens,
                            reasoning_tokens, cost_nano_usd, answer_file)
SELECT s, line, CASE WHEN is_last THEN 0 ELSE 7 END, 200, CASE WHEN is_last THEN 'stop' ELSE 'length' END,
       80 + hash(i) % 200, 0, 10 + hash(-i) % 60, 0, 15_000 + hash(i) % 90_000, s
FROM tries ORDER BY s, line;
INSERT INTO state.requests (digest, round, state, attempts, free_attempts, outcome, submission_id, line)
SELECT md5(i::VARCHAR)::UUID, 0, 2, attempt, 0, 0, s, line FROM tries WHERE is_last;
INSERT INTO state.rows (job_id, key, fingerprint, digest, round)
SELECT 1, 'r-' || i, md5_number('row ' || i), md5(i::VARCHAR)::UUID, 0 FROM range($rows::BIGINT) r(i);
INSERT INTO state.events
SELECT row_number() OVER (), $before, 1, kind, 'bench',
       '{"submission_id":' || s || ',"batch_id":"batch_' || md5('b' || s) || '"}'
FROM (SELECT DISTINCT s FROM tries),
     (SELECT unnest(['intended', 'creating', 'created', 'observed', 'fetched']) AS kind);
"""
ANSWERS = """
COPY (SELECT s AS submission_id, line, md5(i::VARCHAR)::UUID AS digest, 0::USMALLINT AS round, attempt,
             0::UTINYINT AS outcome,
             '{{"label":"good","why":"' || md5(i::VARCHAR) || ' ' || md5((-i)::VARCHAR) || '"}}' AS answer,
             NULL::VARCHAR AS message, 'gpt-5-mini' AS model,
             '{{"id":"chatcmpl-' || md5('c' || i) || '","custom_id":"' || md5(i::VARCHAR) || '-0-1","body":"' ||
             md5(i::VARCHAR) || ' ' || md5((-i)::VARCHAR) || '"' || repeat(' ', 300) || '}}' AS raw
      FROM tries WHERE s = {number}) TO {path} (FORMAT parquet, COMPRESSION zstd)
"""


def make_state(root: Path, rows: int) -> None:
    """A project at `root` with a state of one job whose `rows` rows are all answered."""
    (root / "batchops.toml").write_text('project = "bench"\nprovider = "local"\n')
    (root / "state" / "answers").mkdir(parents=True)
    before = datetime.now(UTC) - timedelta(days=60)
    con = open_memory(memory_limit="2GB", temp_directory=root / "spill")
    with attached(con, root / "state" / "batchops.duckdb", read_only=False, is_new=True):
        migrations.create(con, lineage=uuid.uuid4(), project="bench", now=before)
        con.execute(
            "INSERT INTO state.jobs (job_id, environment, address, provider, is_simulated, render_id, parts, spec,"
            " protected) VALUES (1, 'default', 'bench', 'openai', false, uuid(), '{}', '{}', false)"
        )
        _make_tries(con, rows)
        for statement in FIRST.split(";\n"):
            if statement.strip():
                named = {name: value for name, value in (("before", before), ("rows", rows)) if f"${name}" in statement}
                con.execute(statement, named)
        _make_answers(con, root / "state" / "answers")
        con.execute("UPDATE state.meta SET serial = (SELECT max(serial) FROM state.events)")
    con.close()


def _make_tries(con: duckdb.DuckDBPyConnection, rows: int) -> None:
    """`tries(i, s, line, attempt, is_last)`: first tries in shards of their order, second ones in shards behind."""
    con.execute(
        f"""CREATE TABLE tries AS
            SELECT i, (1 + i // {SHARD})::UINTEGER AS s, (i % {SHARD})::UINTEGER AS line, 1::UTINYINT AS attempt,
                   i % {RETRIED} <> 0 AS is_last FROM range({rows}) t(i)
            UNION ALL
            SELECT i, (100_000 + i // {RETRIED} // {SHARD})::UINTEGER, (i // {RETRIED} % {SHARD})::UINTEGER,
                   2::UTINYINT, true FROM range(0, {rows}, {RETRIED}) t(i)"""
    )


def _make_answers(con: duckdb.DuckDBPyConnection, folder: Path) -> None:
    numbers = [number for (number,) in con.execute("SELECT DISTINCT s FROM tries ORDER BY s").fetchall()]
    for number in numbers:
        path = folder / f"{number:06d}.parquet"
        con.execute(ANSWERS.format(number=number, path=sql_text(str(path))))
        con.execute(
            "INSERT INTO state.answer_files SELECT ?, ?, ?, ?, count(*), NULL FROM tries WHERE s = ?",
            [number, f"answers/{path.name}", _sha256(path), path.stat().st_size, number],
        )


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def told(what: str, found: Footprint) -> None:
    """One line: bytes a row in the state, bytes an answer in the answer files."""
    state, answers = found.state_bytes_per_row or 0, found.answer_bytes_per_answer or 0
    print(f"{what:34} {found.state_bytes / 1e6:8.1f} MB, {state:6.1f} bytes a row of the state;"
          f" {found.answer_bytes / 1e6:8.1f} MB, {answers:6.1f} bytes an answer", flush=True)  # fmt: skip


def main(rows: int) -> None:
    with tempfile.TemporaryDirectory(prefix="batchops-bench-") as name:
        root = Path(name)
        make_state(root, rows)
        told(f"{rows:,} rows answered", footprint(StateReader(root / "state" / "batchops.duckdb")))
        with open_project(root, load_settings(root, environ={})) as project:
            for what, age in (("compact", None), ("compact --keep-attempts 30d", timedelta(days=30))):
                started = time.perf_counter()
                done = compact(project, keep_attempts=age, keep_events=age)
                seconds = time.perf_counter() - started
                told(what, done.after)
                print(f"{'':34} {seconds:.1f} s; dropped {done.attempts:,} tries and {done.events:,} events,"
                      f" merged {done.merged_files} answer files")  # fmt: skip


if __name__ == "__main__":
    main(size_asked(__doc__, ROWS))
