"""What the answers of a submission are judged by: its schema and its tools, compiled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from batchops.engine.judge import Expectation, Validator


def expectation(endpoint: str, expect: Mapping[str, Any]) -> Expectation:
    """From what was recorded when it was sent: `schema`, `tools`, `body`, each only where the job has one.

    Raises ValueError for a schema that is none, or that points elsewhere.
    """
    schema, tools = expect.get("schema"), expect.get("tools")
    return Expectation(
        endpoint,
        schema=_compiled(schema) if schema else None,
        tools=dict(_tool(tool) for tool in tools) if tools else None,
        is_list=isinstance((expect.get("body") or {}).get("input"), list),
    )


def schemas_of(expect: Mapping[str, Any]) -> dict[str, Any]:
    """The schemas behind an expectation: of the answer under "", of each tool's parameters under its name."""
    tools = [_named(tool) for tool in expect.get("tools") or ()]
    return {**{name: inner.get("parameters") for name, inner in tools}, "": expect.get("schema") or None}


def _tool(tool: Mapping[str, Any]) -> tuple[str, Validator | None]:
    name, inner = _named(tool)
    parameters = inner.get("parameters")
    return name, _compiled(parameters) if isinstance(parameters, Mapping) else None


def _named(tool: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Name and description of a tool, in the form of chat completions (`function` inside) or of responses."""
    inner = tool.get("function") or tool.get("custom") or tool
    return str(inner.get("name", "")), inner


def _compiled(schema: Mapping[str, Any]) -> Validator:
    return jsonschema_rs.validator_for(dict(schema), retriever=_refuse)


def _refuse(uri: str) -> Any:
    """A schema is complete in itself: judging never reads a network."""
    raise ValueError(f"the schema points to {uri}; write it in place")
