"""Reply bodies, read."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from batchops.request.answers import READERS, Usage, parse_body, read
from batchops.spec.job import JobSpec


def test_every_endpoint_of_a_job_has_a_reader() -> None:
    endpoint = JobSpec.model_fields["endpoint"].annotation
    assert set(getattr(endpoint, "__args__", ())) == set(READERS)


def test_unknown_endpoint_and_foreign_body_are_none() -> None:
    assert read("/v1/images/generations", {}) is None
    assert read("/v1/embeddings", "<html>") is None
    assert parse_body("[1]") is None


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}, Usage(3, None, 2, None)),
        (
            {
                "input_tokens": 3,
                "input_tokens_details": {"cached_tokens": 1},
                "output_tokens": 2,
                "output_tokens_details": {"reasoning_tokens": 0},
            },
            Usage(3, 1, 2, 0),
        ),
        ({"prompt_tokens": 3, "prompt_tokens_details": None}, Usage(3, None, None, None)),
        ({"prompt_tokens": -1, "completion_tokens": True}, Usage()),
        (None, Usage()),
        ("x", Usage()),
    ],
)
def test_usage_is_read_in_both_spellings(usage: Any, expected: Usage) -> None:
    for url in ("/v1/chat/completions", "/v1/responses", "/v1/completions"):
        found = read(url, {"usage": usage})
        assert found is not None
        assert found.usage == expected


def test_embeddings_have_no_output_tokens() -> None:
    found = read("/v1/embeddings", {"data": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}})
    assert found is not None
    assert found.usage == Usage(8, None, 0, None)


def test_vectors_keep_the_order_of_their_inputs() -> None:
    numbers = [3, 0, 2, 1]
    found = read("/v1/embeddings", {"data": [{"index": n, "embedding": [n]} for n in numbers]})
    unnumbered = read("/v1/embeddings", {"data": [{"embedding": [n]} for n in numbers]})
    assert found is not None
    assert unnumbered is not None
    assert found.values == ([0], [1], [2], [3])
    assert unnumbered.values == ([3], [0], [2], [1])


def test_silence_differs_from_no_place_to_speak() -> None:
    silent = read("/v1/chat/completions", {"choices": [{"message": {"content": None}}]})
    nothing = read("/v1/chat/completions", {"choices": []})
    assert silent is not None
    assert nothing is not None
    assert (silent.text, nothing.text) == ("", None)


def test_first_of_several_choices_and_calls_counts() -> None:
    calls = [{"function": {"name": name, "arguments": "{}"}} for name in ("one", "two")]
    body = {"choices": [{"message": {"tool_calls": calls}}, {"message": {"content": "other"}}]}
    found = read("/v1/chat/completions", orjson.dumps(body).decode())
    assert found is not None
    assert found.tool_call is not None
    assert found.tool_call.name == "one"


@pytest.mark.parametrize(
    ("url", "body"),
    [
        (
            "/v1/chat/completions",
            {
                "choices": [
                    {"message": {"tool_calls": [{"type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}]}}
                ]
            },
        ),
        ("/v1/responses", {"output": [{"type": "custom_tool_call", "name": "sql", "input": "SELECT 1"}]}),
    ],
)
def test_input_of_a_custom_tool_is_its_arguments(url: str, body: dict[str, Any]) -> None:
    found = read(url, body)
    assert found is not None
    assert found.tool_call is not None
    assert (found.tool_call.name, found.tool_call.arguments) == ("sql", "SELECT 1")
