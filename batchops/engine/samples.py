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
    chosen = {wanted.address: (wanted, keys) for wanted in gathered.jobs if (keys := _chosen(gathered, wanted, count))}
    shown: dict[str, tuple[Sample, ...]] = {}
    streamed = [address for address, (wanted, _) in chosen.items() if not gathered.holds_rows(wanted)]
    if streamed:
        shown = gathered.work.read_apart(
            lambda con: {address: _samples(con, *chosen[address], is_loaded=False) for address in streamed}
        )
    held = [address for address in chosen if address not in shown]
    return shown | {address: _samples(gathered.con, *chosen[address], is_loaded=True) for address in held}


def _chosen(gathered: Gathered, wanted: WantedJob, count: int) -> list[str]:
    rows = gathered.con.execute(
        f"SELECT key FROM {wanted.changes} WHERE action IN ('submit', 'resubmit', 'retry')"
        f" ORDER BY hash(key), key LIMIT {int(count)}"
    )
    return [key for (key,) in rows.fetchall()]


def _samples(
    con: duckdb.DuckDBPyConnection, wanted: WantedJob, keys: list[str], *, is_loaded: bool
) -> tuple[Sample, ...]:
    """The rows of these keys before and after, read from the loaded source or from the query."""
    table = _load(con, wanted, wanted.table.loaded if is_loaded else wanted.table, keys)
    after = _bodies(con, table, wanted.request)
    before = _bodies(con, table, _recorded_request(wanted))
    return tuple(
        Sample(
            key=typed_key(key, table.key_columns, table.key_types, sensitive=wanted.job.spec.source.sensitive),
            before=before.get(key),
            after=after[key],
        )
        for key in keys
        if key in after
    )


def _load(con: duckdb.DuckDBPyConnection, wanted: WantedJob, source: SourceTable, keys: list[str]) -> SourceTable:
    """The rows of these keys as a table of their own, sensitive columns masked."""
    masked = [column for column in wanted.job.spec.source.sensitive if column in source.columns]
    replaced = ", ".join(f"'{SENSITIVE}' AS {quoted(column)}" for column in masked)
    columns = {name: "VARCHAR" if name in masked else kind for name, kind in source.columns.items()}
    table = replace(source, job_no=_MASKED + wanted.number, columns=columns, stream=None)
    sampled = f"sampled_{wanted.number}"
    con.execute(f"CREATE OR REPLACE TABLE {sampled} AS SELECT unnest(?::VARCHAR[]) AS key", [keys])
    with query_problems(wanted.job):
        con.execute(
            f"CREATE OR REPLACE TABLE {table.name} AS SELECT s.* {f'REPLACE ({replaced})' if masked else ''}"
            f" FROM {source.chosen(sampled)}"
        )
    return table


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
