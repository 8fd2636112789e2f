"""Simulated answers: in the shape of their endpoint, as the request asked, the same for the same seed."""

from __future__ import annotations

import base64
import json
import math
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from batch_desk import Desk, serving

from batchops.server.answers import Simulated
from batchops.server.clock import Clock

SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["pos", "neg"]},
        "score": {"type": "integer", "minimum": 3, "maximum": 9},
        "why": {"type": ["string", "null"]},
    },
    "required": ["label", "score", "why"],
    "additionalProperties": False,
}
TOOL = {"name": "file_ticket", "description": "File it.", "parameters": SCHEMA, "strict": True}
MESSAGES = [{"role": "user", "content": "Great shoes."}]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with serving(tmp_path) as desk:
        yield desk


def answer(url: str, body: dict[str, Any], *, seed: int = 0) -> dict[str, Any]:
    reply = Simulated(seed=seed, clock=Clock(source=lambda: 1_800_000_000.0)).answer(url, body)
    assert reply.status == 200, reply.body
    made: dict[str, Any] = reply.body
    return made


def chat(seed: int = 0, **more: Any) -> dict[str, Any]:
    return answer("/v1/chat/completions", {"model": "gpt-4o-mini", "messages": MESSAGES, **more}, seed=seed)


def responses(**more: Any) -> dict[str, Any]:
    return answer("/v1/responses", {"model": "gpt-4o-mini", "input": "Great shoes.", **more})


def refused(url: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = Simulated(seed=0, clock=Clock()).answer(url, body)
    assert reply.status == 400
    problem: dict[str, Any] = reply.body["error"]
    return problem


ENDPOINTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"model": "gpt-4o-mini", "messages": MESSAGES}),
    ("/v1/responses", {"model": "gpt-5-mini", "input": "Great shoes."}),
    ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "Great shoes."}),
    ("/v1/moderations", {"model": "omni-moderation-latest", "input": "Great shoes."}),
    ("/v1/completions", {"model": "gpt-3.5-turbo-instruct", "prompt": "Great shoes."}),
]


@pytest.mark.parametrize(("url", "body"), ENDPOINTS)
def test_batch_of_every_endpoint_completes(desk: Desk, url: str, body: dict[str, Any]) -> None:
    lines = [{"custom_id": f"r{n}", "method": "POST", "url": url, "body": body} for n in range(3)]
    done = desk.wait(desk.submit(lines, url))
    assert done.status == "completed"
    bodies = [line["response"]["body"] for line in desk.lines(done.output_file_id)]
    assert len(bodies) == 3
    assert all(made["model"] == body["model"] for made in bodies)


def test_sdk_reads_real_time_answers_of_every_endpoint(desk: Desk) -> None:
    sdk = desk.sdk
    said = sdk.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hi"}])
    assert "no model was asked" in (said.choices[0].message.content or "")
    assert said.system_fingerprint == "batchops-simulated"
    written = sdk.responses.create(model="gpt-5-mini", input="Hi")
    assert "no model was asked" in written.output_text
    assert written.metadata == {"batchops": "simulated"}
    assert len(sdk.embeddings.create(model="text-embedding-3-small", input="Hi").data[0].embedding) == 1536
    assert sdk.moderations.create(input="Hi").results[0].flagged is False
    assert sdk.completions.create(model="babbage-002", prompt="Hi").choices[0].finish_reason == "stop"


@pytest.mark.parametrize(("url", "body"), ENDPOINTS)
def test_same_seed_and_request_give_the_same_answer(url: str, body: dict[str, Any]) -> None:
    assert answer(url, body) == answer(url, body)


def test_another_seed_or_another_request_gives_another_answer() -> None:
    text = chat()["choices"][0]["message"]["content"]
    assert chat(seed=1)["choices"][0]["message"]["content"] != text
    assert chat(temperature=0)["choices"][0]["message"]["content"] != text


# Structured output


def test_chat_answer_fits_the_schema_in_its_property_order() -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}
    made = json.loads(chat(response_format=shape)["choices"][0]["message"]["content"])
    jsonschema_rs.validate(SCHEMA, made)
    assert list(made) == ["label", "score", "why"]


def test_response_fits_the_schema() -> None:
    shape = {"format": {"type": "json_schema", "name": "answer", "strict": True, "schema": SCHEMA}}
    [message] = responses(text=shape)["output"]
    jsonschema_rs.validate(SCHEMA, json.loads(message["content"][0]["text"]))


def test_json_mode_gives_an_object() -> None:
    messages = [{"role": "user", "content": "Answer in JSON."}]
    made = answer(
        "/v1/chat/completions",
        {"model": "gpt-4o-mini", "messages": messages, "response_format": {"type": "json_object"}},
    )
    assert json.loads(made["choices"][0]["message"]["content"])["simulated"] is True


@pytest.mark.parametrize(
    "choice",
    [
        None,
        "auto",
        "required",
        {"type": "function", "function": {"name": "file_ticket"}},
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"function": {"name": "file_ticket"}}]}},
    ],
)
def test_chat_calls_the_tool_with_arguments_that_fit(choice: Any) -> None:
    other = {"type": "function", "function": {"name": "other", "parameters": {"type": "object", "properties": {}}}}
    tools = [{"type": "function", "function": TOOL}, *([other] if isinstance(choice, dict) else [])]
    more = {} if choice is None else {"tool_choice": choice}
    said = chat(tools=tools, **more)["choices"][0]
    [call] = said["message"]["tool_calls"]
    assert (said["finish_reason"], said["message"]["content"]) == ("tool_calls", None)
    assert (call["type"], call["function"]["name"]) == ("function", "file_ticket")
    jsonschema_rs.validate(SCHEMA, json.loads(call["function"]["arguments"]))


def test_tool_choice_none_gives_text() -> None:
    said = chat(tools=[{"type": "function", "function": TOOL}], tool_choice="none")["choices"][0]
    assert "tool_calls" not in said["message"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "file_ticket"}])
def test_response_calls_the_tool_with_arguments_that_fit(choice: Any) -> None:
    [call] = responses(tools=[{"type": "function", **TOOL}], tool_choice=choice)["output"]
    assert (call["type"], call["name"], call["status"]) == ("function_call", "file_ticket", "completed")
    jsonschema_rs.validate(SCHEMA, json.loads(call["arguments"]))


# Caps, usage, refusals


def test_cap_below_the_answer_ends_it_with_length() -> None:
    said = chat(max_completion_tokens=5)
    assert said["choices"][0]["finish_reason"] == "length"
    assert said["usage"]["completion_tokens"] == 5


def test_cap_below_a_structured_answer_cuts_its_json() -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}
    said = chat(response_format=shape, max_completion_tokens=3)["choices"][0]
    assert said["finish_reason"] == "length"
    with pytest.raises(json.JSONDecodeError):
        json.loads(said["message"]["content"])


def test_response_over_its_cap_is_incomplete() -> None:
    schema = {**SCHEMA, "properties": {"long": {"type": "string", "minLength": 200}}, "required": ["long"]}
    shape = {"format": {"type": "json_schema", "name": "answer", "strict": True, "schema": schema}}
    made = responses(text=shape, max_output_tokens=16)
    assert made["status"] == "incomplete"
    assert made["incomplete_details"] == {"reason": "max_output_tokens"}
    assert made["usage"]["output_tokens"] == 16


def test_cap_that_fits_the_answer_is_never_used_up_by_reasoning() -> None:
    body = {"model": "gpt-5", "messages": MESSAGES, "max_completion_tokens": 20, "reasoning_effort": "high"}
    made = answer("/v1/chat/completions", body)
    assert made["choices"][0]["finish_reason"] == "stop"
    details = made["usage"]["completion_tokens_details"]
    assert 0 < details["reasoning_tokens"] < made["usage"]["completion_tokens"] == 20


def test_every_copy_asked_for_is_given() -> None:
    choices = chat(n=3)["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in choices}) == 3


REFUSALS: list[tuple[str, dict[str, Any], str | None, str]] = [
    ("/v1/chat/completions", {"model": "gpt-5-mini", "messages": MESSAGES, "max_tokens": 9}, "unsupported_parameter",
     "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."),
    ("/v1/responses", {"model": "gpt-5-mini", "input": "x", "max_output_tokens": 15}, "integer_below_min_value",
     "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 15 instead."),
    ("/v1/chat/completions",
     {"model": "gpt-4o", "messages": MESSAGES, "response_format": {"type": "json_schema", "json_schema": {
         "name": "a", "strict": True, "schema": {"type": "object", "properties": {"x": {"type": "string"}}}}}},
     "invalid_json_schema",
     "Invalid schema for response_format 'a': In context=(), 'additionalProperties' is required to be supplied and to "
     "be false."),
    ("/v1/chat/completions", {"model": "gpt-4o", "messages": MESSAGES, "response_format": {"type": "json_object"}},
     None, "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."),
    ("/v1/embeddings", {"model": "text-embedding-3-small", "input": ["x"] * 2049}, None,
     "Invalid 'input': array too long. Expected an array with maximum length 2048, but got an array with length 2049 "
     "instead."),
    ("/v1/embeddings", {"model": "text-embedding-3-small", "input": ["x", "word " * 8000]}, None,
     "This model's maximum context length is 8192 tokens, however you requested 10000 tokens. Please reduce your "
     "prompt."),
    ("/v1/embeddings", {"model": "text-embedding-3-small", "input": [[1] * 8193]}, None,
     "This model's maximum context length is 8192 tokens, however you requested 8193 tokens. Please reduce your "
     "prompt."),
    ("/v1/embeddings", {"model": "text-embedding-3-small", "input": ["x" * 32_000] * 40}, "max_tokens_per_request",
     "Requested 320000 tokens, max 300000 tokens per request"),
]  # fmt: skip


@pytest.mark.parametrize(("url", "body", "code", "message"), REFUSALS)
def test_request_that_the_service_refuses_is_refused(url: str, body: dict[str, Any], code: str, message: str) -> None:
    problem = refused(url, body)
    assert (problem["code"], problem["message"]) == (code, message)


def test_refused_lines_go_to_the_error_file(desk: Desk) -> None:
    body = {"model": "gpt-5-mini", "messages": MESSAGES}
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": {**body, **more}}
        for name, more in (("good", {}), ("bad", {"max_tokens": 9}))
    ]
    done = desk.wait(desk.submit(lines))
    assert done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": 2, "completed": 1, "failed": 1}
    [line] = desk.lines(done.error_file_id)
    assert (line["custom_id"], line["error"], line["response"]["status_code"]) == ("bad", None, 400)
    assert line["response"]["body"]["error"]["code"] == "unsupported_parameter"


def test_batch_of_refused_lines_has_no_output_file(desk: Desk) -> None:
    body = {"model": "gpt-5-mini", "messages": MESSAGES, "max_tokens": 1}
    done = desk.wait(desk.submit([{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}]))
    assert (done.status, done.output_file_id) == ("completed", None)
    assert len(desk.lines(done.error_file_id)) == 1


HOSTILE_BODIES: list[dict[str, Any]] = [
    {"model": "gpt-4o", "messages": [1, None, {"content": {"a": 1}}], "tools": 3, "n": "x"},
    {"model": "gpt-4o", "messages": MESSAGES, "response_format": 7, "max_completion_tokens": "many"},
    {"model": "gpt-4o", "messages": MESSAGES, "response_format": {"type": "json_schema", "json_schema": {
        "name": "a", "schema": {"type": "wrong", "minLength": "x", "$ref": 3}}}},
    {"model": "gpt-4o", "messages": MESSAGES, "tools": [{"function": {"name": "x", "parameters": 3}}]},
    {"model": "gpt-4o", "messages": MESSAGES, "tool_choice": {"function": 3}, "tools": [{}]},
]  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE_BODIES)
def test_line_with_a_hostile_body_never_stops_its_batch(desk: Desk, body: dict[str, Any]) -> None:
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": held}
        for name, held in (("bad", body), ("good", {"model": "gpt-4o", "messages": MESSAGES}))
    ]
    done = desk.wait(desk.submit(lines))
    assert done.status == "completed"
    assert "good" in {line["custom_id"] for line in desk.lines(done.output_file_id)}
    answered = desk.raw("POST", "/v1/chat/completions", json=body)
    assert answered.status_code in {200, 400}


# Vectors and moderations


def test_embedding_is_a_unit_vector_of_the_dimensions_asked_for() -> None:
    for model, asked, length in (
        ("text-embedding-3-small", {}, 1536),
        ("text-embedding-3-large", {}, 3072),
        ("text-embedding-3-large", {"dimensions": 256}, 256),
    ):
        made = answer("/v1/embeddings", {"model": model, "input": "Hi", **asked})
        vector = made["data"][0]["embedding"]
        assert len(vector) == length
        assert math.isclose(math.hypot(*vector), 1.0, abs_tol=1e-6)


def test_embeddings_of_many_inputs_are_numbered_and_depend_on_the_text_alone() -> None:
    made = answer("/v1/embeddings", {"model": "text-embedding-3-small", "input": ["a", "b", "a"], "dimensions": 4})
    assert [one["index"] for one in made["data"]] == [0, 1, 2]
    first, second, third = (one["embedding"] for one in made["data"])
    assert first == third != second


def test_embedding_is_packed_when_asked() -> None:
    plain = {"model": "text-embedding-3-small", "input": "a", "dimensions": 8}
    packed = answer("/v1/embeddings", {**plain, "encoding_format": "base64"})["data"][0]["embedding"]
    unpacked = array("f", base64.b64decode(packed))
    vector = answer("/v1/embeddings", plain)["data"][0]["embedding"]
    assert all(math.isclose(a, b, abs_tol=1e-7) for a, b in zip(unpacked, vector, strict=True))


@pytest.mark.parametrize(("given_input", "results"), [("a", 1), (["a", "b"], 2), ([{"type": "text", "text": "a"}], 1)])
def test_moderation_has_one_result_for_each_input(given_input: Any, results: int) -> None:
    made = answer("/v1/moderations", {"input": given_input})
    assert len(made["results"]) == results
    for result in made["results"]:
        assert result["categories"].keys() == result["category_scores"].keys()
        assert len(result["categories"]) == 13
        assert not result["flagged"]


def test_moderation_line_needs_no_model(desk: Desk) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/moderations", "body": {"input": "x"}}
    done = desk.wait(desk.submit([line], "/v1/moderations"))
    assert (done.status, done.model) == ("completed", "omni-moderation-latest")
