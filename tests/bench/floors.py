"""What sending is measured against: each a program of its own, `floors.py NAME`, in a folder with data/rows.parquet."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import duckdb
import jinja2
import orjson

BY_SQL = "{{ text }}"
BY_JINJA = "{{ text }}{% for i in [1] %}{% endfor %}"
"""Renders the same; loops are left to Jinja2."""


BODY = """concat('{"model":"gpt-5-mini","messages":[{"role":"system","content":"You label texts."},
{"role":"user","content":', to_json(text), '}],"max_completion_tokens":100}')""".replace("\n", "")
LINE = f"""concat('{{"custom_id":"', md5(id::VARCHAR), '-0-1","method":"POST","url":"/v1/chat/completions","body":',
{BODY}, '}}')"""


class Began:
    """Starts the clocks; `tell` prints seconds of the wall clock and of the processor since then, children included."""

    def __init__(self) -> None:
        self._wall, self._busy = time.perf_counter(), busy_seconds()

    def tell(self) -> None:
        print(json.dumps([time.perf_counter() - self._wall, busy_seconds() - self._busy]))


def busy_seconds() -> float:
    each = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in each)


def copy_by_engine() -> None:
    """DuckDB writes the request lines by itself."""
    con = duckdb.connect(config={"threads": 2, "memory_limit": "1GB", "preserve_insertion_order": False})
    con.execute(
        f"COPY (SELECT {LINE} FROM read_parquet('data/rows.parquet')) TO 'lines.jsonl'"
        " (FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER '\x01')"
    )


def script() -> None:
    """The loop that people write first."""
    rows = duckdb.execute("SELECT id, text FROM read_parquet('data/rows.parquet')").fetchall()
    with Path("lines.jsonl").open("w", encoding="utf-8") as file:
        for key, text in rows:
            line = {
                "custom_id": str(key),
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": "gpt-5-mini",
                    "messages": [
                        {"role": "system", "content": "You label texts."},
                        {"role": "user", "content": text},
                    ],
                    "max_completion_tokens": 100,
                },
            }
            file.write(json.dumps(line) + "\n")


def bare_jinja() -> None:
    """Jinja2 and orjson over the same rows and nothing else."""
    template = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(BY_JINJA)
    con = duckdb.connect(config={"threads": 2, "memory_limit": "1GB"})
    con.execute("CREATE TABLE source AS SELECT id, text FROM read_parquet('data/rows.parquet')")
    began = Began()
    result = con.execute("SELECT id, text FROM source")
    size = 0
    while rows := result.fetchmany(10_000):
        for key, text in rows:
            body = {
                "model": "gpt-5-mini",
                "messages": [
                    {"role": "system", "content": "You label texts."},
                    {"role": "user", "content": template.render(id=key, text=text)},
                ],
                "max_completion_tokens": 100,
            }
            size += len(orjson.dumps(body))
    began.tell()


FLOORS = {floor.__name__: floor for floor in (copy_by_engine, script, bare_jinja)}

if __name__ == "__main__":
    if sys.argv[1:] not in [[name] for name in FLOORS]:
        from measuring import command_line

        parser = command_line(__doc__)
        parser.add_argument("name", choices=FLOORS)
        parser.parse_args()
    FLOORS[sys.argv[1]]()
