"""Every answer fits the schemas of OpenAI's own OpenAPI text."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from batch_desk import Desk, chat, serving
from openai.types import Batch

OFFICIAL = json.loads((Path(__file__).parent / "data" / "openai_schemas.json").read_text(encoding="utf-8"))
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
TOOL = {"name": "act", "description": "Act.", "parameters": SCHEMA, "strict": True}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with serving(tmp_path) as desk:
        yield desk


def fits(name: str, value: Any) -> None:
    validator = jsonschema_rs.validator_for({**OFFICIAL, "$ref": f"#/components/schemas/{name}"})
    wrong = [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(value)]
    assert wrong == []


def present(value: Any) -> Any:
    """The value without its null keys: the text's own examples have them where its schemas do not."""
    if isinstance(value, dict):
        return {key: present(held) for key, held in value.items() if held is not None}
    return [present(held) for held in value] if isinstance(value, list) else value


def test_files_fit(desk: Desk) -> None:
    fits("ListFilesResponse", desk.raw("GET", "/v1/files").json())
    file_id = desk.upload([chat("a")])
    fits("OpenAIFile", present(desk.raw("GET", f"/v1/files/{file_id}").json()))
    fits("ListFilesResponse", present(desk.raw("GET", "/v1/files").json()))
    fits("DeleteFileResponse", desk.raw("DELETE", f"/v1/files/{file_id}").json())


def _has_status(status: str, batch: Batch) -> bool:
    return batch.status == status


def test_batches_fit_in_every_state(desk: Desk) -> None:
    fits("ListBatchesResponse", desk.raw("GET", "/v1/batches").json())
    good = [chat("a"), chat("b")]
    fates: list[list[dict[str, Any]]] = [
        [],
        [{"effect": "expire"}],
        [{"effect": "cancel"}],
        [{"effect": "stall", "status": "validating"}],
    ]
    fates += [[{"effect": "stall", "at": 0.5}], [{"effect": "stall", "status": "finalizing"}]]
    for fate in fates:
        desk.control("faults", {"rules": [{"on": "batch", **rule} for rule in fate]})
        batch = desk.submit(good)
        wanted = fate[0].get("status", "in_progress") if fate and fate[0]["effect"] == "stall" else None
        desk.wait(batch, functools.partial(_has_status, wanted) if wanted else None)
        fits("Batch", present(desk.raw("GET", f"/v1/batches/{batch.id}").json()))
    failed = desk.wait(desk.submit([{}]))
    fits("Batch", present(desk.raw("GET", f"/v1/batches/{failed.id}").json()))
    stalled = desk.raw("GET", "/v1/batches").json()["data"][1]["id"]
    fits("Batch", present(desk.raw("POST", f"/v1/batches/{stalled}/cancel").json()))
    fits("ListBatchesResponse", present(desk.raw("GET", "/v1/batches").json()))


CHAT = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Hi"}]}
RESPONSE = {"model": "gpt-5-mini", "input": "Hi"}
ANSWERS: list[tuple[str, str, dict[str, Any]]] = [
    ("chat/completions", "CreateChatCompletionResponse", CHAT),
    ("chat/completions", "CreateChatCompletionResponse", {**CHAT, "n": 2, "max_completion_tokens": 3}),
    (
        "chat/completions",
        "CreateChatCompletionResponse",
        {**CHAT, "tools": [{"type": "function", "function": TOOL}], "tool_choice": "required"},
    ),
    ("responses", "Response", RESPONSE),
    ("responses", "Response", {**RESPONSE, "reasoning": {"effort": "low"}, "metadata": {"a": "b"}, "store": False}),
    ("responses", "Response", {**RESPONSE, "tools": [{"type": "function", **TOOL}], "tool_choice": "required"}),
    (
        "responses",
        "Response",
        {
            **RESPONSE,
            "instructions": "Be brief.",
            "text": {"format": {"type": "json_schema", "name": "a", "strict": True, "schema": SCHEMA}},
        },
    ),
    ("embeddings", "CreateEmbeddingResponse", {"model": "text-embedding-3-small", "input": ["a", "b"]}),
    ("moderations", "CreateModerationResponse", {"input": ["a", "b"]}),
    ("moderations", "CreateModerationResponse", {"input": "a", "model": None}),
    (
        "moderations",
        "CreateModerationResponse",
        {"input": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "https://e.com/a.png"}}]},
    ),
]


@pytest.mark.parametrize(("path", "name", "body"), ANSWERS)
def test_answers_fit(desk: Desk, path: str, name: str, body: dict[str, Any]) -> None:
    answered = desk.raw("POST", f"/v1/{path}", json=body)
    assert answered.status_code == 200
    fits(name, answered.json())


@pytest.mark.parametrize("effect", ["length", "refusal", "content_filter", "empty", "invalid_json"])
@pytest.mark.parametrize(
    ("url", "name", "body"),
    [("/v1/chat/completions", "CreateChatCompletionResponse", CHAT), ("/v1/responses", "Response", RESPONSE)],
)
def test_spoiled_answers_fit(desk: Desk, effect: str, url: str, name: str, body: dict[str, Any]) -> None:
    desk.control("faults", {"rules": [{"on": "line", "effect": effect}]})
    done = desk.wait(desk.submit([{"custom_id": "a", "method": "POST", "url": url, "body": body}], url))
    [line] = desk.lines(done.output_file_id)
    fits(name, line["response"]["body"])
