"""From what was recorded of a job to what its answers must be."""

from __future__ import annotations

from typing import Any

import pytest

from batchops.engine.expect import expectation

CHAT = "/v1/chat/completions"
LABEL = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}


@pytest.mark.parametrize("recorded", [{}, {"schema": None, "tools": None, "body": None}, {"tools": []}])
def test_plain_job_expects_text(recorded: dict[str, Any]) -> None:
    found = expectation(CHAT, recorded)
    assert (found.endpoint, found.schema, found.tools, found.is_list) == (CHAT, None, None, False)


def test_schema_is_compiled() -> None:
    found = expectation(CHAT, {"schema": LABEL}).schema
    assert found is not None
    assert found.is_valid({"label": "x"})
    assert not found.is_valid({})


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "function": {"name": "label", "parameters": LABEL}},
        {"type": "function", "name": "label", "parameters": LABEL},
    ],
)
def test_parameters_of_a_tool_are_compiled_in_both_forms(tool: dict[str, Any]) -> None:
    tools = expectation(CHAT, {"tools": [tool, {"type": "custom", "custom": {"name": "free"}}]}).tools
    assert tools is not None
    assert list(tools) == ["label", "free"]
    assert tools["label"] is not None
    assert not tools["label"].is_valid({})
    assert tools["free"] is None


@pytest.mark.parametrize(("given", "expected"), [("{{ a }}", False), (["{{ a }}"], True)])
def test_list_input_expects_a_list(given: Any, expected: bool) -> None:
    assert expectation("/v1/embeddings", {"body": {"input": given}}).is_list is expected


def test_schema_that_points_elsewhere_is_refused_without_going_there() -> None:
    with pytest.raises(ValueError, match="points to"):
        expectation(CHAT, {"schema": {"$ref": "http://127.0.0.1:9/x.json"}})
