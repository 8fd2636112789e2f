"""`batchops query SQL`: one SELECT over answers and state."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from batchops.cli.options import Invocation, shared_options
from batchops.cli.reading import copied_state, state_path
from batchops.diagnostics import BatchopsError, UsageProblem, error

if TYPE_CHECKING:
    import duckdb

    from batchops.results.query import Found
    from batchops.results.sinks import Target

FORMATS = ("table", "jsonl", "csv", "json")
_NUMBERS = ("INT", "DOUBLE", "FLOAT", "DECIMAL")


@click.command("query")
@click.argument("sql")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Default: a table; with --json, json.")
@shared_options(json=True)
def command(invocation: Invocation, sql: str, form: str | None) -> None:
    """Run one DuckDB SELECT over results."JOB", requests, attempts, batches, rows, jobs and events.

    SQL may be - to read it from stdin.

    \b
    batchops query 'SELECT sentiment, count(*) FROM results."review-sentiment" GROUP BY ALL'
    batchops query 'SELECT job, sum(cost_usd) FROM batches GROUP BY ALL' --format csv
    """
    from batchops.results.output import open_output

    if invocation.json and form not in {None, "json"}:
        raise UsageProblem(error("format_conflict", "Formats conflict.", f"--json is json, --format says {form}."))
    wanted = form or ("json" if invocation.json else "table")
    with ExitStack() as stack:
        found = _answered(invocation, stack, sys.stdin.read() if sql == "-" else sql)
        is_json = wanted in {"json", "jsonl"}
        if is_json and (twice := [name for name, count in Counter(found.columns).items() if count > 1]):
            detail = f'Several columns are called "{twice[0]}"; an object holds one. Rename with AS.'
            raise UsageProblem(error("duplicate_column", "Duplicate column.", detail))
        with open_output(None) as target:
            for line in _lines(found, wanted, target):
                target.stream.write(line)


def _answered(invocation: Invocation, stack: ExitStack, sql: str) -> Found:
    """What a query finds, to be read while `stack` is open; with all memory where what is allowed is too little."""
    from batchops.results.query import QueryOutOfMemory

    try:
        return _asked(invocation, stack.enter_context(copied_state(invocation, for_queries=True)), sql)
    except QueryOutOfMemory:
        stack.close()
    return _asked(
        invocation, stack.enter_context(copied_state(invocation, for_queries=True)), sql, with_all_memory=True
    )


def _asked(invocation: Invocation, con: duckdb.DuckDBPyConnection, sql: str, *, with_all_memory: bool = False) -> Found:
    from batchops.results.query import QueryOutOfMemory, QueryRoom
    from batchops.views.diagnostics import render_text

    room = QueryRoom(con, state_path(invocation).parent)
    room.prepare(with_all_memory=with_all_memory)
    told = list(room.problems)
    try:
        return room.run(sql)
    except BatchopsError as problem:
        is_final = with_all_memory or not isinstance(problem, QueryOutOfMemory)
        told = [each for each in told if is_final and each not in problem.diagnostics]
        raise
    finally:
        if told:
            invocation.note(render_text(told, color=invocation.colors(sys.stderr)))


def _lines(found: Found, form: str, target: Target) -> Iterable[bytes]:
    match form:
        case "jsonl":
            return _json_lines(found)
        case "json":
            return _json_array(found)
        case "csv":
            return _csv_lines(found)
        case _:
            return _table_lines(found, target.width)


def _json_lines(found: Found) -> Iterable[bytes]:
    from batchops.results.values import json_text

    return (json_text(dict(zip(found.columns, row, strict=True))) + b"\n" for row in found.rows)


def _json_array(found: Found) -> Iterable[bytes]:
    """An array with an object a line, so that a million rows stream."""
    separator = b"["
    for line in _json_lines(found):
        yield separator + b"\n " + line.rstrip(b"\n")
        separator = b","
    yield b"[]\n" if separator == b"[" else b"\n]\n"


def _csv_lines(found: Found) -> Iterable[bytes]:
    from batchops.results.sinks.csv import csv_line
    from batchops.results.values import text

    yield csv_line(found.columns)
    for row in found.rows:
        yield csv_line(map(text, row))


def _table_lines(found: Found, width: int | None) -> Iterable[bytes]:
    from batchops.grid import Head, grid
    from batchops.results.values import text

    heads = [
        Head(name, right=any(mark in kind.upper() for mark in _NUMBERS) and not kind.endswith("]"))
        for name, kind in zip(found.columns, found.types, strict=True)
    ]
    return (line.encode() + b"\n" for line in grid(heads, ([text(v) for v in row] for row in found.rows), width=width))
