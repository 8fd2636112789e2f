"""A few rows of a plan as they would be asked, before and after a change of the spec. Sensitive columns are masked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import duckdb
import orjson

from batchops.diagnostics import BatchopsError
from batchops.engine.gather import Gathered, WantedJob
from batchops.plan.keys import SENSITIVE, typed_key
from batchops.plan.model import Sample
from batchops.request.render import render_rows
from batchops.request.template import CompiledRequest, compile_request
from batchops.spec.job import Job, Message

_MASKED = 1_000_000
"""Added to a job's number: its sampled rows, with sensitive columns masked, are a relation of their own."""


def sample_rows(gathered: Gathered, wanted: WantedJob, count: int) -> tuple[Sample, ...]:
    """Up to `count` rows that would be paid for, chosen by hash of their key: the same ones each time."""
    con, number = gathered.con, wanted.number
    keys = [
        row[0]
        for row in con.execute(
            f"SELECT key FROM {wanted.changes} WHERE action IN ('submit', 'resubmit', 'retry')"
            " ORDER BY md5(key), key LIMIT ?",
            [count],
        ).fetchall()
    ]
    if not keys:
        return ()
    source = wanted.job.spec.source
    masked = [c for c in source.sensitive if c in wanted.table.columns]
    replaced = ", ".join(f"""'{SENSITIVE}' AS "{column.replace('"', '""')}\"""" for column in masked)
    con.execute(
        f"CREATE OR REPLACE TABLE source_{_MASKED + number} AS SELECT * {f'REPLACE ({replaced})' if masked else ''}"
        f" FROM source_{number} WHERE __key IN (SELECT unnest(?::VARCHAR[]))",
        [keys],
    )
    columns = {name: "VARCHAR" if name in masked else kind for name, kind in wanted.table.columns.items()}
    table = replace(wanted.table, job_no=_MASKED + number, columns=columns)
    after = _bodies(con, table, wanted.request)
    before = _bodies(con, table, _recorded_request(wanted))
    return tuple(
        Sample(
            key=typed_key(key, wanted.table.key_columns, wanted.table.key_types, sensitive=source.sensitive),
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
