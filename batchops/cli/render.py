"""`batchops render JOB`: the exact request bodies, one a line, as they would be sent."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from batchops.cli.options import Invocation, shared_options
from batchops.diagnostics import BatchopsError, UsageProblem, error

if TYPE_CHECKING:
    import duckdb

    from batchops.request.render import Rendered
    from batchops.request.source import SourceTable
    from batchops.request.template import CompiledRequest
    from batchops.spec.job import Job


@click.command("render")
@click.argument("job", metavar="JOB")
@click.option("--key", "keys", multiple=True, metavar="K", help='Only this row; several columns as ["a","b"].')
@click.option("--limit", type=click.IntRange(min=1), help="At most so many rows, chosen by hash of their key.")
@click.option("--explain", is_flag=True, help="Say on stderr which rows SQL renders and why not all.")
@shared_options(json=True)
def command(invocation: Invocation, job: str, keys: tuple[str, ...], limit: int | None, explain: bool) -> None:
    """Print the exact request bodies of a job, one JSON text a line. JOB may be JOB@KEY.

    With --json each line is {"job","key","digest","bytes","body"}. Nothing is sent and nothing is recorded.

    \b
    batchops render review-sentiment --limit 3
    batchops render review-sentiment@r-1042 | jq .
    """
    from batchops.exhaustion import temporary_folder
    from batchops.request.render import render_rows  # it imports duckdb
    from batchops.request.source import load_source, open_work
    from batchops.request.template import compile_request

    name, at, key = job.partition("@")
    wanted = (*keys, key) if at else keys
    found = _find(invocation, name)
    request = compile_request(found)
    with temporary_folder("batchops-render-") as folder:
        con = open_work(folder / "work.duckdb", invocation.root)
        try:
            table = load_source(con, 0, found, limit=None if wanted else limit or invocation.loaded.limit)
            relation = _relation(con, table, found, wanted) if wanted else None
            if explain:
                invocation.note(_explained(con, table, request))
            batches = render_rows(con, table, request, keys=relation)
            _print(_json_lines(batches, found, table) if invocation.json else _lines(batches))
        finally:
            con.close()


def _explained(con: duckdb.DuckDBPyConnection, table: SourceTable, request: CompiledRequest) -> str:
    """Which rows are rendered in the query engine, and why others are not."""
    from batchops.request.place import place_in
    from batchops.request.render import explain

    found = explain(con, table, request)
    lines = []
    for unfit in found.unfit:
        location = place_in(request.job, unfit.path, unfit.line).location
        place = f"{location.filename}:{location.start.line}" if location else f"line {unfit.line}"
        lines.append(f"  {place}: {unfit.reason}")
    if lines:
        return "\n".join(["Every row is rendered by Jinja2, because SQL cannot do exactly the same:", *lines])
    if found.by_sql == found.rows:
        return f"All {found.rows:,} rows are rendered in SQL."
    rest = found.rows - found.by_sql
    return (
        f"{found.by_sql:,} of {found.rows:,} rows are rendered in SQL, {rest:,} by Jinja2: they hold NULLs, very long "
        "texts, or characters or numbers that the two treat apart."
    )


def _find(invocation: Invocation, name: str) -> Job:
    from batchops.spec.load import load_project, select_jobs

    settings = invocation.loaded.settings
    project = load_project(invocation.root, default_provider=settings.provider, providers=tuple(settings.providers))
    (found,) = select_jobs(project.valid_jobs(), (name,), ()) or (None,)
    if found is None:
        raise UsageProblem(error("unknown_job", "Unknown job.", f'"{name}" is no single job.'))
    return found


def _relation(con: duckdb.DuckDBPyConnection, table: SourceTable, job: Job, keys: tuple[str, ...]) -> str:
    """A relation with the keys that were asked for; BatchopsError for one that no row has."""
    from batchops.plan.keys import key_text

    texts = [key_text(job.address, table.key_columns, key) for key in keys]
    con.execute("CREATE TABLE wanted AS SELECT DISTINCT unnest(?::VARCHAR[]) AS key", [texts])
    missing = con.execute(f"SELECT key FROM wanted ANTI JOIN {table.name} s ON s.__key = wanted.key").fetchall()
    if missing:
        shown = ", ".join(f"{job.address}@{key}" for (key,) in missing[:3])
        raise BatchopsError(error("unknown_row", "Unknown row.", f"The query has no row {shown}."))
    return "wanted"


def _lines(batches: Iterable[list[Rendered]]) -> Iterator[bytes]:
    return (row.body for rows in batches for row in rows)


def _json_lines(batches: Iterable[list[Rendered]], job: Job, table: SourceTable) -> Iterator[bytes]:
    import orjson

    from batchops.plan.keys import typed_key

    for rows in batches:
        for row in rows:
            line: dict[str, Any] = {
                "job": job.address,
                "key": typed_key(row.key, table.key_columns, table.key_types),
                "digest": str(row.digest),
                "bytes": len(row.body),
                "body": orjson.Fragment(row.body),
            }
            yield orjson.dumps(line)


def _print(lines: Iterable[bytes]) -> None:
    stream = sys.stdout.buffer
    for line in lines:
        stream.write(line + b"\n")
    stream.flush()
