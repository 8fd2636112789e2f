"""Times `plan` against the engine making the same texts and hashes: `make bench`, or `planning.py ROWS…`.

The floor is hand-written SQL: DuckDB reads the same Parquet file, makes the same request texts, and keeps a key and a
SHA-256 for each row in a file. Plans are fresh processes of the command line, start-up and all. A state in which every
row is answered is made by recording a plan and marking its requests, which is what an apply leaves behind.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import duckdb
from floors import BY_SQL
from measuring import (
    HEADING,
    Against,
    Measured,
    about_runs,
    batchops,
    measure,
    median,
    middle,
    repeats_for,
    sizes_asked,
)

from batchops.engine.approved import job_record
from batchops.engine.gather import gather
from batchops.engine.project import open_project
from batchops.settings import load_settings
from batchops.store.job_changes import RecordPlan

SIZES = (10_000, 100_000, 1_000_000)
PLAN = batchops("plan", "--offline")
TEXT = "'Row ' || i || ' says \"hello\", éè and goes on. ' || repeat(md5(i::VARCHAR), 14)"
"""About 500 bytes of text with quotes and accents, different in each row."""

SETTINGS = 'project = "bench"\nprovider = "openai"\n'
JOB = """\
name: bench
source:
  query: SELECT id, text FROM read_parquet('data/rows.parquet')
  key: id
model: gpt-5-mini
template:
  - {{role: system, content: You label texts.}}
  - {{role: user, content: "{template}"}}
params: {{max_completion_tokens: 100}}
"""
FLOOR = """\
import duckdb, os
if os.path.exists('floor.duckdb'): os.remove('floor.duckdb')
con = duckdb.connect('floor.duckdb', config={'threads': 2, 'memory_limit': '300MB', 'preserve_insertion_order': False})
con.execute('''
  CREATE TABLE digests AS
  SELECT id::VARCHAR AS key, sha256(concat('batchops 1\\n/v1/chat/completions\\n10:gpt-5-mini\\n',
    '{"model":"gpt-5-mini","messages":[{"role":"system","content":"You label texts."},{"role":"user","content":',
    to_json(text), '}],"max_completion_tokens":100}'))[1:32]::UUID AS digest
  FROM read_parquet('data/rows.parquet')''')
"""
SCRIPT = """\
import duckdb, json
rows = duckdb.execute("SELECT id, text FROM read_parquet('data/rows.parquet')").fetchall()
with open('lines.jsonl', 'w') as file:
    for key, text in rows:
        messages = [{'role': 'system', 'content': 'You label texts.'}, {'role': 'user', 'content': text}]
        body = {'model': 'gpt-5-mini', 'messages': messages, 'max_completion_tokens': 100}
        line = {'custom_id': str(key), 'method': 'POST', 'url': '/v1/chat/completions', 'body': body}
        file.write(json.dumps(line) + '\\n')
"""


def make_project(folder: Path, rows: int, *, template: str = BY_SQL) -> None:
    """A project of one job over `rows` rows of Parquet, to be answered by OpenAI; nothing here connects to it."""
    for name in ("jobs", "data"):
        (folder / name).mkdir(parents=True)
    (folder / "batchops.toml").write_text(SETTINGS)
    write_job(folder, template)
    write_rows(folder, rows)


def write_job(folder: Path, template: str) -> None:
    (folder / "jobs" / "bench.yaml").write_text(JOB.format(template=template))


def write_rows(folder: Path, rows: int, *, changed_percent: int = 0) -> None:
    """`rows` rows as Parquet, so many percent of them not as they were."""
    edit = f"CASE WHEN hash(i) % 100 < {changed_percent} THEN ' Edited.' ELSE '' END"
    target = folder / "data" / "rows.parquet"
    with duckdb.connect() as con:
        con.execute("SET enable_progress_bar = false")
        con.execute(f"COPY (SELECT i AS id, {TEXT} || {edit} AS text FROM range({rows}) t(i)) TO '{target}'")


def answer_all() -> None:
    """Approve the plan of the project in this folder, and have every request of it answered. In its own process."""
    root = Path.cwd()
    with open_project(root, load_settings(root, environ={})) as project:
        with project.leased(timedelta(0)) as store:
            gathered = gather(project, project.jobs(), is_whole_project=True, keeps_rows=True)
            records = tuple(job_record(project, wanted, is_limited=False) for wanted in gathered.jobs)
            store.commit(RecordPlan(records, "plan"), con=gathered.con)
            gathered.close()
        with duckdb.connect(project.state_path) as con:
            con.execute("UPDATE requests SET state = 2, outcome = 0, attempts = 1, submission_id = 1, line = 0")


def in_turns(folder: Path, repeats: int) -> dict[str, Measured]:
    """The floor, the script and a first plan, one after the other, again and again: each meets the same machine."""
    commands = {"floor": [sys.executable, "-c", FLOOR], "script": [sys.executable, "-c", SCRIPT], "plan": PLAN}
    runs: dict[str, list[Measured]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            runs[name].append(measure(command, folder))
    return {name: middle(measured) for name, measured in runs.items()}


def bench(rows: int, repeats: int) -> None:
    with tempfile.TemporaryDirectory(prefix="batchops-bench-") as name:
        folder = Path(name)
        make_project(folder, rows)
        first = in_turns(folder, repeats)
        against = Against(first["floor"], first["script"], rows)
        against.tell(f"DuckDB: request texts and SHA-256, {rows:,} rows (floor)", first["floor"])
        against.tell("a script: json.dumps in a loop, all sent again", first["script"])
        against.tell("plan, first time", first["plan"])
        measure([sys.executable, __file__, "--answer"], folder)
        against.tell("plan, nothing changed", median(PLAN, folder, repeats=repeats))
        write_rows(folder, rows, changed_percent=1)
        against.tell("plan, 1 % of the rows changed", median(PLAN, folder, repeats=repeats))
        write_job(folder, "Label this: {{ text }}")
        against.tell("plan, prompt edited: every row changed", median(PLAN, folder, repeats=repeats))


def main(sizes: Sequence[int]) -> None:
    print(about_runs("plan"))
    print(HEADING)
    for rows in sizes:
        bench(rows, repeats_for(rows))


if __name__ == "__main__":
    if sys.argv[1:] == ["--answer"]:
        answer_all()
    else:
        main(sizes_asked(__doc__, SIZES))
