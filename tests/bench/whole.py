"""Times the whole path against the script that people write: `whole.py [ROWS…]`, a million unless told otherwise.

Both ask the same questions about the same Parquet file, of the same service (prepared_service.py), through the same
SDK, in files of 50,000 lines: written, uploaded, created; then downloaded, read, and the answers written to a file.
The script does no more than that: it judges no answer, keeps nothing on record, and a second run pays for all again.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import planning
from fetching import SCHEMA, release, service
from measuring import HEADING, Against, Measured, batchops, measure, sizes_asked

ASK = """\
import duckdb, json
from openai import OpenAI
client = OpenAI()
rows = duckdb.execute("SELECT id, text FROM read_parquet('data/rows.parquet')").fetchall()
schema = {"name": "answer", "strict": True, "schema": json.load(open("form.json"))}
form = {"type": "json_schema", "json_schema": schema}
batches = []
for start in range(0, len(rows), 50_000):
    with open("lines.jsonl", "w") as file:
        for key, text in rows[start:start + 50_000]:
            messages = [{"role": "system", "content": "You label texts."}, {"role": "user", "content": text}]
            body = {"model": "gpt-5-mini", "messages": messages, "response_format": form, "max_completion_tokens": 100}
            line = {"custom_id": str(key), "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\\n")
    uploaded = client.files.create(file=open("lines.jsonl", "rb"), purpose="batch")
    batches.append(client.batches.create(
        input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h").id)
json.dump(batches, open("batches.json", "w"))
"""
TAKE = """\
import json
from openai import OpenAI
client = OpenAI()
with open("answers.jsonl", "w") as out:
    for batch_id in json.load(open("batches.json")):
        batch = client.batches.retrieve(batch_id)
        assert batch.status == "completed"
        for text in client.files.content(batch.output_file_id).text.splitlines():
            line = json.loads(text)
            answer = json.loads(line["response"]["body"]["choices"][0]["message"]["content"])
            out.write(json.dumps({"id": line["custom_id"], **answer}) + "\\n")
"""


def whole(rows: int) -> None:
    """Print the lines of one size."""
    with tempfile.TemporaryDirectory(prefix="batchops-bench-") as name:
        folder = Path(name)
        planning.make_project(folder, rows)
        job = folder / "jobs" / "bench.yaml"
        job.write_text(f"{job.read_text()}schema: {json.dumps(SCHEMA)}\n")
        (folder / "form.json").write_text(json.dumps(SCHEMA))
        parts = {"ask": [sys.executable, "-c", ASK], "take": [sys.executable, "-c", TAKE]}
        script = path(folder, f"a script, {rows:,} rows", parts, rows=rows)
        parts = {
            "apply": batchops("apply", "--auto-approve"),
            "wait": batchops("wait"),
            "results": batchops("results", "bench", "-o", "out.jsonl"),
        }
        path(folder, f"batchops, {rows:,} rows", parts, rows=rows, script=script)


def path(folder: Path, who: str, parts: dict[str, list[str]], *, rows: int, script: Measured | None = None) -> Measured:
    """Run these commands, the first before the service answers; their sum, and the most memory of any."""
    runs = []
    answers = folder / f"answers-{len(list(folder.iterdir()))}"
    answers.mkdir()
    with service(answers, "chat") as url:
        os.environ.update(OPENAI_BASE_URL=f"{url}/v1", OPENAI_API_KEY="sk-none")
        for what, command in parts.items():
            runs.append(measure(command, folder))
            Against(rows=rows).tell(f"{who}: {what}", runs[-1])
            if len(runs) == 1:
                release(url)
    summed = Measured(sum(r.seconds for r in runs), sum(r.cpu_seconds for r in runs), max(r.peak_mb for r in runs))
    Against(script=script or summed, rows=rows).tell(f"{who}: whole", summed)
    return summed


if __name__ == "__main__":
    sizes = sizes_asked(__doc__, [1_000_000])
    print(f"the whole path: one run each\n{HEADING}")
    for rows in sizes:
        whole(rows)
