"""The documents of `explain` as text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from batchops.grid import Head, grid
from batchops.terminal import visible
from batchops.views.status import cost_text, usd


def render_job(document: Mapping[str, Any], *, width: int | None) -> str:
    """A job: what it is, how its rows are, what failed, its batches and the latest events."""
    rows = {state: count for state, count in document["rows"].items() if count and state != "total"}
    counted = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in rows.items())
    simulated = " (simulated answers)" if document["is_simulated"] else ""
    facts = {
        "Provider": f"{document['provider']}{simulated}, {document['endpoint']}, model {document['model']}",
        "Environment": document["environment"],
        "Key": ", ".join(document["key"]),
        "Health": document["health"],
        "Rows": f"{document['rows']['total']}" + (f": {counted}" if counted else ""),
        "Spent": cost_text(document["cost"]) or "nothing",
        "Next retry": document["next_retry_at"],
        "Held": document["held"],
        "Protected": "yes" if document["protected"] else None,
        "Removed": "from the project; its answers are kept" if document["removed"] else None,
        "Spec": ", ".join(f"{name} {str(part)[:12]}" for name, part in document["parts"].items() if part),
    }
    lines = [
        *_facts(document["address"], facts),
        *_errors(document, width),
        *_batches(document, width),
        *_events(document, width),
    ]
    return "\n".join(lines)


def render_row(document: Mapping[str, Any], *, width: int | None) -> str:
    """A row: why it stands where it stands, what comes next, its answer as JSON text, and every try."""
    answer = None if document["answer"] is None else json.dumps(document["answer"], ensure_ascii=False)
    facts = {
        "Key": json.dumps(document["key"], ensure_ascii=False),
        "Status": document["status"],
        "Why": document["why"],
        "Next": document["next"],
        "Digest": f"{document['digest']}, round {document['round']}",
        "Left the source": document["removed_at"],
        "Next try changes": json.dumps(document["amendment"]) if document["amendment"] else None,
        "Spent": cost_text(document["cost"]) or "nothing",
        "Answer": answer,
    }
    return "\n".join([*_facts(document["address"], facts), *_tries(document, width)])


def _facts(title: str, facts: Mapping[str, str | None]) -> Iterator[str]:
    yield visible(title)
    shown = {name: text for name, text in facts.items() if text}
    margin = max(map(len, shown))
    for name, text in shown.items():
        yield f"  {name:<{margin}}  {visible(text)}"


def _errors(document: Mapping[str, Any], width: int | None) -> Iterator[str]:
    if not document["errors"]:
        return
    yield "\nRows whose latest try did not succeed:"
    heads = [Head("CLASS"), Head("CODE", optional=True), Head("ROWS", right=True), Head("FOR EXAMPLE")]
    rows = (
        [
            found["class"],
            found["code"],
            str(found["rows"]),
            json.dumps(found["example"], ensure_ascii=False),
        ]
        for found in document["errors"]
    )
    yield from _indented(grid(heads, rows, width=_inside(width)))


def _batches(document: Mapping[str, Any], width: int | None) -> Iterator[str]:
    if not document["all_batches"]:
        return
    yield "\nBatches, newest first:"
    heads = [Head("BATCH"), Head("STATUS"), Head("REQUESTS", right=True), Head("FAILED", right=True, optional=True)]
    heads += [Head("SENT", optional=True), Head("ENDED", optional=True), Head("COST", right=True, optional=True)]
    yield from _indented(grid(heads, (_batch_row(batch) for batch in document["all_batches"]), width=_inside(width)))


def _batch_row(batch: Mapping[str, Any]) -> list[str | None]:
    done = str(batch["requests"]) if batch["completed"] is None else f"{batch['completed']}/{batch['requests']}"
    status = batch["status"] or batch["phase"]
    failed = str(batch["failed"]) if batch["failed"] else None
    cost = None if batch["cost_usd"] is None else usd(batch["cost_usd"])
    return [batch["batch_id"] or "(none yet)", status, done, failed, batch["sent_at"], batch["ended_at"], cost]


def _events(document: Mapping[str, Any], width: int | None) -> Iterator[str]:
    if not document["events"]:
        return
    yield "\nEvents, newest first:"
    heads = [Head("WHEN"), Head("SERIAL", right=True), Head("WHAT"), Head("DETAIL")]
    rows = (
        [event["happened_at"], str(event["serial"]), event["kind"], json.dumps(event["detail"], ensure_ascii=False)]
        for event in document["events"]
    )
    yield from _indented(grid(heads, rows, width=_inside(width)))


_TRIES = {
    "round": "ROUND",
    "attempt": "TRY",
    "batch_id": "BATCH",
    "sent_at": "SENT",
    "outcome": "OUTCOME",
    "http": "HTTP",
    "code": "CODE",
    "finish_reason": "FINISH",
    "input_tokens": "IN",
    "output_tokens": "OUT",
    "cost_usd": "COST",
    "job": "JOB",
    "message": "MESSAGE",
}
_NUMBERS = frozenset({"round", "attempt", "http", "input_tokens", "output_tokens", "cost_usd"})


def _tries(document: Mapping[str, Any], width: int | None) -> Iterator[str]:
    if not document["tries"]:
        return
    yield "\nTries, oldest first:"
    heads = [Head(title, right=name in _NUMBERS, optional=True) for name, title in _TRIES.items()]
    rows = ([_try_cell(name, tried, document["job"]) for name in _TRIES] for tried in document["tries"])
    yield from _indented(grid(heads, rows, width=_inside(width)))


def _try_cell(name: str, tried: Mapping[str, Any], job: str) -> str | None:
    value = tried[name]
    if name == "outcome" and value is None:
        return f"({tried['phase']})"
    if value is None or (name == "job" and value == job):
        return None
    return usd(value) if name == "cost_usd" else str(value)


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def _inside(width: int | None) -> int | None:
    return None if width is None else max(1, width - 2)
