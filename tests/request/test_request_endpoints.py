"""Bodies of all five endpoints, byte for byte."""

from __future__ import annotations

from typing import Any

import pytest
from request_parts import make_job

from batchops.request.endpoints import ENDPOINTS, schema_name
from batchops.request.template import compile_request
from batchops.request.tokens import count_inputs, estimate_tokens

SCHEMA = {"type": "object", "title": "Sentiment of a review", "properties": {"b": {"type": "string"}, "a": {}}}
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{ t }}", "name": "ann"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        pytest.param({"template": "{{ t }}"}, b'"messages":[{"role":"user","content":"x"}]', id="chat text"),
        pytest.param(
            {"template": MESSAGES},
            b'"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"x","name":"ann"}]',
            id="chat messages",
        ),
        pytest.param(
            {"template": [{"role": "user", "content": [{"type": "text", "text": "{{ t }}"}, {"type": "image_url",
             "image_url": {"url": "https://i/{{ t }}.png", "detail": "low"}}]}]},
            b'"messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url","image_url":'
            b'{"url":"https://i/x.png","detail":"low"}}]}]',
            id="chat content parts",
        ),
        pytest.param(
            {"template": "{{ t }}", "params": {"temperature": 0.2, "max_completion_tokens": 9, "user": "{{ t }}"}},
            b'"messages":[{"role":"user","content":"x"}],"temperature":0.2,"max_completion_tokens":9,"user":"{{ t }}"',
            id="params in the user's order, not templates",
        ),
        pytest.param(
            {"template": "{{ t }}", "schema": SCHEMA, "params": {"seed": 1}},
            b'"messages":[{"role":"user","content":"x"}],"seed":1,"response_format":{"type":"json_schema","json_schema":'
            b'{"name":"Sentiment_of_a_review","strict":true,"schema":{"type":"object","title":"Sentiment of a review",'
            b'"properties":{"b":{"type":"string"},"a":{}}}}}',
            id="chat schema",
        ),
        pytest.param(
            {"template": "{{ t }}", "tools": [TOOL], "tool_choice": "required"},
            b'"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f",'
            b'"parameters":{"type":"object"}}}],"tool_choice":"required"',
            id="tools",
        ),
        pytest.param({"endpoint": "/v1/responses", "template": "{{ t }}"}, b'"input":"x"', id="responses text"),
        pytest.param(
            {"endpoint": "/v1/responses", "template": "{{ t }}", "schema": {"type": "object"},
             "params": {"text": {"verbosity": "low"}, "max_output_tokens": 5}},
            b'"input":"x","max_output_tokens":5,"text":{"verbosity":"low","format":{"type":"json_schema",'
            b'"name":"answer","strict":true,"schema":{"type":"object"}}}',
            id="responses schema beside other text params",
        ),
        pytest.param(
            {"endpoint": "/v1/responses", "template": MESSAGES},
            b'"input":[{"role":"system","content":"Be brief."},{"role":"user","content":"x","name":"ann"}]',
            id="responses messages",
        ),
        pytest.param(
            {"endpoint": "/v1/embeddings", "template": "{{ t }}", "params": {"dimensions": 8}},
            b'"input":"x","dimensions":8',
            id="embeddings",
        ),
        pytest.param({"endpoint": "/v1/moderations", "template": "{{ t }}"}, b'"input":"x"', id="moderations"),
        pytest.param(
            {"endpoint": "/v1/completions", "template": "{{ t }}", "params": {"max_tokens": 5}},
            b'"prompt":"x","max_tokens":5',
            id="completions",
        ),
        pytest.param(
            {"endpoint": "/v1/embeddings", "template": None, "body": {"input": ["{{ t }}", "a"], "n": [1, None]}},
            b'"input":["x","a"],"n":[1,null]',
            id="body mapping",
        ),
        pytest.param(
            {"template": None, "body": {"model": "m", "messages": [{"role": "user", "content": "{{ t }}"}]},
             "params": {"seed": 7}},
            b'"messages":[{"role":"user","content":"x"}],"seed":7',
            id="body mapping with params",
        ),
    ],
)  # fmt: skip
def test_body_of_an_endpoint_has_its_keys_in_the_documented_order(fields: dict[str, Any], body: bytes) -> None:
    schema = fields.pop("schema", None)
    request = compile_request(make_job(schema=schema, **fields))
    assert request.canonical({"t": "x"}) == b'{"model":"m",' + body + b"}"


def test_caps_are_named_for_the_endpoints_that_have_one() -> None:
    assert {url: endpoint.caps for url, endpoint in ENDPOINTS.items()} == {
        "/v1/chat/completions": ("max_completion_tokens", "max_tokens"),
        "/v1/responses": ("max_output_tokens",),
        "/v1/embeddings": (),
        "/v1/moderations": (),
        "/v1/completions": ("max_tokens",),
    }


@pytest.mark.parametrize(
    ("title", "name"),
    [("Answer", "Answer"), ("für Übung!", "f_r_bung"), ("…", "answer"), ("x" * 70, "x" * 64), (3, "answer")],
)
def test_name_of_a_response_format_is_the_title_in_the_letters_allowed(title: Any, name: str) -> None:
    assert schema_name({"title": title}) == name


def test_schema_without_a_title_is_called_answer() -> None:
    assert schema_name({}) == "answer"


@pytest.mark.parametrize(
    ("body", "tokens", "inputs"),
    [
        ({"input": "abcde"}, 2, 1),
        ({"input": ["abcd", "é"]}, 2, 2),
        ({"input": [1, 2, 3]}, 3, 1),
        ({"input": [[1, 2], [3]]}, 3, 2),
        ({"prompt": "abcd" * 10, "suffix": "ignored"}, 10, 1),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "abcd"}, {"type": "image_url",
          "image_url": {"url": "data:image/png;base64,AAAAAAAAAAAAAAAA"}}]}]}, 1, 1),
        ({}, 0, 1),
    ],
)  # fmt: skip
def test_tokens_are_a_quarter_of_the_prompt_text(body: dict[str, Any], tokens: int, inputs: int) -> None:
    url = "/v1/embeddings"
    assert (estimate_tokens(body, url), count_inputs(body, url)) == (tokens, inputs)


def test_tokens_of_rendered_texts_equal_those_of_the_body() -> None:
    request = compile_request(make_job([*MESSAGES, {"role": "assistant", "content": "{{ t }} é"}]))
    row = {"t": "some words here"}
    assert request.input_tokens(request.rendered(row)) == estimate_tokens(request.body(row), request.url) == 11
