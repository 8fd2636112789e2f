"""From a job to what its answers must be."""

from __future__ import annotations

from typing import Any

import pytest

from batchops.engine.expect import expectation
from batchops.spec.job import FileText, Job, JobSpec

LABEL = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}


def job(schema: dict[str, Any] | None = None, **more: Any) -> Job:
    spec = JobSpec.model_validate({"name": "a", "model": "m", "source": {"query": "q", "key": "k"}, **more})
    assert not isinstance(spec.template, FileText)
    return Job(spec, "a", "local", "q", spec.template, schema, ())


def test_plain_job_expects_text() -> None:
    found = expectation(job(template="x"))
    assert (found.endpoint, found.schema, found.tools, found.is_list) == ("/v1/chat/completions", None, None, False)


def test_schema_of_the_job_is_compiled() -> None:
    found = expectation(job(LABEL, template="x")).schema
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
    tools = expectation(job(template="x", tools=[tool, {"type": "custom", "custom": {"name": "free"}}])).tools
    assert tools is not None
    assert list(tools) == ["label", "free"]
    assert tools["label"] is not None
    assert not tools["label"].is_valid({})
    assert tools["free"] is None


@pytest.mark.parametrize(("given", "expected"), [("{{ a }}", False), (["{{ a }}"], True)])
def test_list_input_expects_a_list(given: Any, expected: bool) -> None:
    assert expectation(job(endpoint="/v1/embeddings", body={"input": given})).is_list is expected


def test_schema_that_points_elsewhere_is_refused_without_going_there() -> None:
    with pytest.raises(ValueError, match="points to"):
        expectation(job({"$ref": "http://127.0.0.1:9/x.json"}, template="x"))
