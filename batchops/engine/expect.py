"""What a job expects of its answers: its schema and its tools, compiled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from batchops.engine.judge import Expectation, Validator
from batchops.spec.job import Job


def expectation(job: Job) -> Expectation:
    """The expectation for every row of a job. Raises ValueError for a schema that is none, or that points elsewhere."""
    spec = job.spec
    has_list_input = spec.body is not None and isinstance(spec.body.get("input"), list)
    return Expectation(
        endpoint=spec.endpoint,
        schema=None if job.schema is None else _compiled(job.schema),
        tools=None if spec.tools is None else dict(_tool(tool) for tool in spec.tools),
        is_list=has_list_input,
    )


def _tool(tool: Mapping[str, Any]) -> tuple[str, Validator | None]:
    """Name and validator of a tool, in the form of chat completions (`function` inside) or of responses."""
    inner = tool.get("function") or tool.get("custom") or tool
    parameters = inner.get("parameters")
    return str(inner.get("name", "")), _compiled(parameters) if isinstance(parameters, Mapping) else None


def _compiled(schema: Mapping[str, Any]) -> Validator:
    return jsonschema_rs.validator_for(dict(schema), retriever=_refuse)


def _refuse(uri: str) -> Any:
    """A schema is complete in itself: judging never reads a network."""
    raise ValueError(f"the schema points to {uri}; write it in place")
