"""Times the fetch of answers against reading the same files by hand: `fetching.py [ROWS…] [--embeddings ROWS]`.

Rows are submitted by the real command line to a service that has their answers ready (prepared_service.py), in batches
of at most 50,000. Timed is `batchops wait` from start to end: download, judging against the schema, answer files,
commits. The floor is DuckDB's typed `read_json` of the same result files with the answers taken apart; the script is
what people write first: `json.loads`, line by line.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from measuring import (
    HEADING,
    Against,
    Measured,
    about_runs,
    add_sizes,
    batchops,
    command_line,
    measure,
    median,
    middle,
    repeats_for,
)

HERE = Path(__file__).parent
CHAT_ROWS, EMBEDDING_ROWS = (10_000, 100_000, 1_000_000), (10_000,)
SETTINGS = 'project = "bench"\nprovider = "openai"\n[poll]\ninitial = "50ms"\n'
SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"enum": ["positive", "negative", "neutral"]},
        "confidence": {"type": "number"},
        "reason": {"type": "string"},
    },
    "required": ["label", "confidence", "reason"],
    "additionalProperties": False,
}
CHAT: dict[str, object] = {"model": "gpt-5-mini", "schema": SCHEMA, "template": "Label {{ id }}."}
EMBEDDINGS: dict[str, object] = {
    "model": "text-embedding-3-small",
    "endpoint": "/v1/embeddings",
    "template": "Row {{ id }}.",
}
READ_CHAT = """\
import duckdb
print(duckdb.execute('''
  SELECT count(custom_id), count(model), sum(i), sum(o), sum(c), sum(r), count(finish), count(a.label),
         sum(a.confidence), sum(strlen(a.reason))
  FROM (
    SELECT custom_id, b.model, b.usage.prompt_tokens AS i, b.usage.completion_tokens AS o,
           b.usage.prompt_tokens_details.cached_tokens AS c, b.usage.completion_tokens_details.reasoning_tokens AS r,
           b.choices[1].finish_reason AS finish,
           from_json(b.choices[1].message.content,
                     '{"label":"VARCHAR","confidence":"DOUBLE","reason":"VARCHAR"}') AS a
    FROM (
      SELECT custom_id, response.body AS b
      FROM read_json('answers/*.jsonl', format = 'newline_delimited', columns = {
        custom_id: 'VARCHAR', error: 'JSON',
        response: 'STRUCT(status_code INTEGER, body STRUCT(model VARCHAR,
          choices STRUCT(message STRUCT(content VARCHAR, refusal VARCHAR), finish_reason VARCHAR)[],
          usage STRUCT(prompt_tokens UINTEGER, completion_tokens UINTEGER,
            prompt_tokens_details STRUCT(cached_tokens UINTEGER),
            completion_tokens_details STRUCT(reasoning_tokens UINTEGER))))'})))''').fetchall())
"""
READ_VECTORS = """\
import duckdb
print(duckdb.execute('''
  SELECT count(custom_id), sum(len(response.body.data[1].embedding)), sum(response.body.data[1].embedding[1])
  FROM read_json('answers/*.jsonl', format = 'newline_delimited', columns = {custom_id: 'VARCHAR', error: 'JSON',
    response: 'STRUCT(status_code INTEGER, body STRUCT(data STRUCT(embedding DOUBLE[])[],
      usage STRUCT(prompt_tokens UINTEGER)))'})''').fetchall())
"""
COPY_OUT = """\
import duckdb
duckdb.execute("COPY (SELECT * EXCLUDE (raw) FROM 'state/answers/*.parquet') TO 'copied.jsonl' (FORMAT json)")
"""
SCRIPT = """\
import glob, json
found = {}
for path in sorted(glob.glob("answers/*.jsonl")):
    for text in open(path):
        line = json.loads(text)
        body = line["response"]["body"]
        if "choices" in body:
            found[line["custom_id"]] = json.loads(body["choices"][0]["message"]["content"])
        else:
            found[line["custom_id"]] = body["data"][0]["embedding"]
with open("script.jsonl", "w") as out:
    for identifier, answer in found.items():
        out.write(json.dumps({"custom_id": identifier, "answer": answer}) + "\\n")
"""


@contextmanager
def service(folder: Path, kind: str) -> Iterator[str]:
    """The prepared service; its address."""
    command = [sys.executable, str(HERE / "prepared_service.py"), str(folder), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def submit(folder: Path, spec: dict[str, object], rows: int, url: str) -> None:
    """A project whose rows are in flight, and answered at the service."""
    os.environ.update(OPENAI_BASE_URL=f"{url}/v1", OPENAI_API_KEY="sk-none")
    (folder / "jobs").mkdir()
    (folder / "batchops.toml").write_text(SETTINGS)
    source = {"query": f"SELECT i AS id FROM range({rows}) t(i)", "key": "id"}
    (folder / "jobs" / "bench.yaml").write_text(json.dumps({"name": "bench", "source": source, **spec}))
    measure(batchops("apply", "--auto-approve"), folder)
    release(url)


def release(url: str) -> None:
    """Have the service answer all that was asked."""
    urllib.request.urlopen(f"{url}/release", data=b"", timeout=600).close()


def fetch(folder: Path, repeats: int) -> Measured:
    """`batchops wait`, each time from the state as it was when all was in flight."""
    shutil.copytree(folder / "state", folder / "before")
    runs = []
    for _ in range(repeats):
        shutil.rmtree(folder / "state")
        shutil.copytree(folder / "before", folder / "state")
        runs.append(measure(batchops("wait"), folder))
    return middle(runs)


def fetching(kind: str, rows: int) -> None:
    """Print the lines of one size."""
    spec, read = (CHAT, READ_CHAT) if kind == "chat" else (EMBEDDINGS, READ_VECTORS)
    repeats = repeats_for(rows)
    with tempfile.TemporaryDirectory(prefix="batchops-bench-") as name:
        folder = Path(name)
        (folder / "answers").mkdir()
        with service(folder / "answers", kind) as url:
            submit(folder, spec, rows, url)
            size = sum(path.stat().st_size for path in (folder / "answers").iterdir()) / 1e6
            floor = median([sys.executable, "-c", read], folder, repeats=repeats)
            script = median([sys.executable, "-c", SCRIPT], folder, repeats=repeats)
            against = Against(floor, script, rows)
            against.tell(f"DuckDB: read_json, {kind}, {rows:,} rows, {size:,.0f} MB (floor)", floor)
            against.tell("a script: json.loads in a loop, answers into a file", script)
            against.tell("wait: download, judge, keep, commit", fetch(folder, repeats))
            answers = sum(path.stat().st_size for path in (folder / "state" / "answers").iterdir()) / 1e6
            print(f"{'':54} {answers:,.0f} MB of answers", flush=True)
            export(folder, repeats, script, rows)


def export(folder: Path, repeats: int, script: Measured, rows: int) -> None:
    """`results` into a file, against DuckDB copying the answers' text out of the same Parquet files."""
    floor = median([sys.executable, "-c", COPY_OUT], folder, repeats=repeats)
    against = Against(floor, script, rows)
    against.tell("DuckDB: COPY of the answers to JSON (floor)", floor)
    for kind in ("jsonl", "csv", "parquet"):
        words = batchops("results", "bench", "--format", kind, "-o", f"out.{kind}")
        against.tell(f"results --format {kind}", median(words, folder, repeats=repeats))


def main(chats: Sequence[int], embeddings: Sequence[int]) -> None:
    print(about_runs("fetch"))
    print(HEADING)
    for rows in chats:
        fetching("chat", rows)
    for rows in embeddings:
        fetching("embeddings", rows)


if __name__ == "__main__":
    parser = command_line(__doc__)
    add_sizes(parser, "rows", CHAT_ROWS)
    add_sizes(parser, "--embeddings", EMBEDDING_ROWS)
    asked = parser.parse_args()
    main(asked.rows or CHAT_ROWS, asked.embeddings or EMBEDDING_ROWS)
