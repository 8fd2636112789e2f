"""A few rows of a plan as they would be asked, before and after a change of the spec. Sensitive columns are masked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import duckdb
import orjson

from batchops.diagnostics import BatchopsError
from batchops.engine.gather import Gathered
from batchops.engine.sources import WantedJob
from batchops.plan.keys import SENSITIVE, typed_key
from batchops.plan.model import Sample
from batchops.request.render import render_rows
from batchops.request.source import SourceTable, query_problems
from batchops.request.template import CompiledRequest, compile_request
from batchops.request.values import quoted
from batchops.spec.job import Job, Message

_MASKED = 1_000_000
"""Added to a job's number: its sampled rows, with sensitive columns masked, are a relation of their own."""


def sample_rows(gathered: Gathered, count: int) -> dict[str, tuple[Sample, ...]]:
    """Up to `count` rows of each job that would be paid for, by address: those with the smallest hash of their key."""
    chosen = [wanted for wanted in gathered.jobs if count and _choose(gathered.con, wanted, count)]
    streamed = [wanted for wanted in chosen if not gathered.holds_rows(wanted)]
    tables: dict[str, SourceTable] = {}
    if streamed:
        tables = gathered.work.read(
            lambda con: {wanted.address: _load(con, wanted, wanted.table) for wanted in streamed}
        )
    for wanted in chosen:
        if gathered.holds_rows(wanted):
            tables[wanted.address] = _load(gathered.con, wanted, wanted.table.loaded)
    return {wanted.address: _samples(gathered.con, wanted, tables[wanted.address]) for wanted in chosen}


def _choose(con: duckdb.DuckDBPyConnection, wanted: WantedJob, count: int) -> bool:
    """Make `sampled_N(key)`. False when no row would be paid for."""
    con.execute(
        f"CREATE OR REPLACE TABLE sampled_{wanted.number} AS SELECT key FROM {wanted.changes}"
        f" WHERE action IN ('submit', 'resubmit', 'retry') ORDER BY md5(key), key LIMIT {int(count)}"
    )
    return con.execute(f"FROM sampled_{wanted.number} LIMIT 1").fetchone() is not None


def _load(con: duckdb.DuckDBPyConnection, wanted: WantedJob, source: SourceTable) -> SourceTable:
    """The sampled rows as a table of their own, sensitive columns masked."""
    masked = [column for column in wanted.job.spec.source.sensitive if column in source.columns]
    replaced = ", ".join(f"'{SENSITIVE}' AS {quoted(column)}" for column in masked)
    columns = {name: "VARCHAR" if name in masked else kind for name, kind in source.columns.items()}
    table = replace(source, job_no=_MASKED + wanted.number, columns=columns, stream=None)
    with query_problems(wanted.job):
        con.execute(
            f"CREATE OR REPLACE TABLE {table.name} AS SELECT s.* {f'REPLACE ({replaced})' if masked else ''}"
            f" FROM {source.chosen(f'sampled_{wanted.number}')}"
        )
    return table


def _samples(con: duckdb.DuckDBPyConnection, wanted: WantedJob, table: SourceTable) -> tuple[Sample, ...]:
    source = wanted.job.spec.source
    after = _bodies(con, table, wanted.request)
    before = _bodies(con, table, _recorded_request(wanted))
    keys = [key for (key,) in con.execute(f"FROM sampled_{wanted.number} ORDER BY md5(key), key").fetchall()]
    return tuple(
        Sample(
            key=typed_key(key, table.key_columns, table.key_types, sensitive=source.sensitive),
            before=before.get(key),
            after=after[key],
        )
        for key in keys
        if key in after
    )


def _bodies(con: duckdb.DuckDBPyConnection, table: Any, request: CompiledRequest | None) -> dict[str, dict[str, Any]]:
    """Rendered bodies by key; nothing for a request that these rows no longer fit."""
    if request is None:
        return {}
    try:
        return {row.key: orjson.loads(row.body) for rows in render_rows(con, table, request) for row in rows}
    except BatchopsError:
        return {}


def _recorded_request(wanted: WantedJob) -> CompiledRequest | None:
    """The request as it was applied last, if that differs from the one wanted now."""
    recorded = wanted.diff.recorded
    if recorded is None or recorded.parts == wanted.request.parts:
        return None
    try:
        return compile_request(_recorded_job(wanted.job, dict(recorded.spec)))
    except (BatchopsError, ValueError, TypeError):  # an older spec that this version reads differently: show none
        return None


def _recorded_job(job: Job, recorded: dict[str, Any]) -> Job:
    template = recorded.get("template")
    messages = tuple(Message.model_validate(m) for m in template) if isinstance(template, list) else template
    tools = recorded.get("tools")
    spec = job.spec.model_copy(
        update={
            "model": recorded["model"],
            "endpoint": recorded["endpoint"],
            "template": messages,
            "body": recorded.get("body"),
            "params": recorded.get("params") or {},
            "tools": tuple(tools) if tools else None,
            "tool_choice": recorded.get("tool_choice"),
            "schema_": recorded.get("schema"),
        }
    )
    return replace(job, spec=spec, template=messages, schema=recorded.get("schema"))
