"""Jobs made in one line, and what they render."""

from __future__ import annotations

from typing import Any

import duckdb
import orjson

from batchops.request.render import Rendered, render_rows
from batchops.request.source import SourceTable, load_source
from batchops.request.template import compile_request
from batchops.spec.job import FileText, Job, JobSpec


def make_job(
    template: Any = "{{ id }}",
    *,
    query: str = "SELECT 1 AS id",
    key: str | list[str] = "id",
    nulls: str = "error",
    sensitive: list[str] | None = None,
    schema: dict[str, Any] | None = None,
    **fields: Any,
) -> Job:
    """A job as `load` would make it, without places."""
    source = {"query": query, "key": key, "nulls": nulls, "sensitive": sensitive or []}
    spec = JobSpec.model_validate({"name": "labels", "model": "m", "source": source, "template": template, **fields})
    assert not isinstance(spec.template, FileText)
    return Job(spec, spec.name, "local", query, spec.template, schema, ("jobs/a.yaml",))


def render_all(con: duckdb.DuckDBPyConnection, job: Job) -> dict[str, Rendered]:
    """Load a job's source and render all of it: key → rendered row."""
    table = load_source(con, 0, job)
    return {row.key: row for rows in render_rows(con, table, compile_request(job)) for row in rows}


def contents(con: duckdb.DuckDBPyConnection, job: Job) -> dict[str, str]:
    """Key → the text of the last message."""
    return {key: orjson.loads(row.body)["messages"][-1]["content"] for key, row in render_all(con, job).items()}


def prompt_of(template: str, row: dict[str, Any], *, nulls: str = "error") -> str:
    """The text that a template makes of a row."""
    body = compile_request(make_job(template, nulls=nulls)).body(row)
    return str(body["messages"][0]["content"])


def table_of(con: duckdb.DuckDBPyConnection, job: Job) -> SourceTable:
    """The job's source, loaded as job 0."""
    return load_source(con, 0, job)


def loaded_rows(con: duckdb.DuckDBPyConnection, job: Job) -> int:
    """Load the job's source as job 0: how many rows it has."""
    row = con.execute(f"SELECT count(*) FROM {load_source(con, 0, job).name}").fetchone()
    assert row is not None
    return int(row[0])
