"""The document of `state list` as text: one line a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchops.grid import Head, grid

_COUNTS = ("total", "answered", "in_flight", "waiting", "given_up", "held", "pending")
_ALWAYS = ("total", "answered")


def render_list(document: Mapping[str, Any], *, width: int | None) -> str:
    """The text of a list document, without a newline at the end."""
    jobs = document["jobs"]
    if not jobs:
        return f"No job is on record in environment {document['environment']}."
    heads = [Head("JOB"), Head("PROVIDER"), Head("ROWS", right=True), Head("ANSWERED", right=True)]
    heads += [Head(name.replace("_", " ").upper(), right=True, optional=True) for name in _COUNTS[2:]]
    heads += [Head("LAST APPLIED"), Head("REMARK", optional=True)]
    return "\n".join(grid(heads, (_row(job) for job in jobs), width=width))


def _row(job: Mapping[str, Any]) -> list[str | None]:
    counts = [str(job["rows"][name]) if job["rows"][name] or name in _ALWAYS else None for name in _COUNTS]
    return [job["address"], job["provider"], *counts, job["last_applied"], _remark(job)]


def _remark(job: Mapping[str, Any]) -> str | None:
    said = [
        f"held: {job['held']}" if job["held"] else None,
        f"removed {job['removed_at']}" if job["removed_at"] else None,
        "protected" if job["protected"] else None,
    ]
    return ", ".join(text for text in said if text) or None
