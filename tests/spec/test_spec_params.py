"""Params of a job, held to its endpoint and model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from spec_bench import JOB, Load, placed


@pytest.mark.parametrize(
    ("model", "endpoint", "params", "codes"),
    [
        ("gpt-5-mini", "chat/completions", {"max_tokens": 5}, ["token_cap"]),
        ("gpt-5-mini", "chat/completions", {"max_completion_tokens": 5}, []),
        ("o3", "chat/completions", {"max_tokens": 5}, ["token_cap"]),
        ("o4-mini-2025-04-16", "chat/completions", {"max_tokens": 5}, ["token_cap"]),
        ("openai/gpt-5.4", "chat/completions", {"max_tokens": 5}, ["token_cap"]),
        ("ft:gpt-4o-mini:acme::x", "chat/completions", {"max_tokens": 5}, []),
        ("gpt-4o", "chat/completions", {"max_tokens": 5, "max_completion_tokens": 5}, ["token_cap"]),
        ("gpt-4o", "chat/completions", {"max_output_tokens": 50}, ["token_cap"]),
        ("gpt-4o", "chat/completions", {"max_tokens": 0}, ["token_cap"]),
        ("gpt-4o", "chat/completions", {"max_tokens": True}, ["token_cap"]),
        ("gpt-4o", "chat/completions", {"max_tokens": "5"}, ["token_cap"]),
        ("llama-3", "chat/completions", {"max_tokens": 5, "temperature": 0}, []),
        ("gpt-5", "responses", {"max_output_tokens": 16}, []),
        ("gpt-5", "responses", {"max_output_tokens": 15}, ["token_cap"]),
        ("gpt-5", "responses", {"max_completion_tokens": 50}, ["token_cap"]),
        ("gpt-5", "responses", {"verbosity": "low"}, ["param_endpoint"]),
        ("gpt-5", "chat/completions", {"temperature": 1, "top_p": 0.5}, ["reasoning_param"]),
        ("gpt-4o", "chat/completions", {"temperature": 0, "reasoning_effort": "low"}, ["reasoning_param"]),
        ("text-embedding-3-small", "embeddings", {"max_tokens": 5}, ["token_cap"]),
        ("text-embedding-3-small", "embeddings", {"dimensions": 256}, []),
        ("omni-moderation-latest", "moderations", {"max_tokens": 5}, ["token_cap"]),
        ("gpt-3.5-turbo-instruct", "completions", {"max_tokens": 5}, []),
        ("gpt-3.5-turbo-instruct", "completions", {"max_completion_tokens": 5}, ["token_cap"]),
        ("gpt-3.5-turbo-instruct", "chat/completions", {}, ["model_endpoint"]),
        ("gpt-5-pro", "chat/completions", {}, ["model_endpoint"]),
        ("gpt-5-pro", "responses", {}, []),
        ("gpt-5-chat-latest", "chat/completions", {"max_tokens": 5}, ["model_not_batchable"]),
        ("gpt-4o", "chat/completions", {"stream": False}, []),
        ("gpt-4o", "chat/completions", {"stream": True}, ["stream_param"]),
        ("something-new", "embeddings", {}, []),
    ],
)
def test_params_are_held_to_endpoint_and_model(
    load: Load, model: str, endpoint: str, params: dict[str, Any], codes: list[str]
) -> None:
    text = JOB.replace("gpt-4o-mini", model) + f"endpoint: /v1/{endpoint}\nparams: {json.dumps(params)}\n"
    found = load({"jobs/a.yaml": text}).diagnostics
    assert [diagnostic.code for diagnostic in found] == codes


@pytest.mark.parametrize(
    ("params", "rule", "places"),
    [
        ("{max_tokens: 5}", "{when: refused, do: retry, model: gpt-5}", ["token_cap jobs/a.yaml:8:44"]),
        ("{max_tokens: 5}", "{when: refused, do: retry, model: gpt-5, set: {max_completion_tokens: 9}}", []),
        ("{max_tokens: 5}", "{when: refused, do: retry, set: {temperature: 0}}", []),
        ("{}", "{when: refused, do: retry, set: {stream: true}}", ["stream_param jobs/a.yaml:8:50"]),
        ("{max_completion_tokens: 5}", "{when: refused, do: retry, model: gpt-5}", []),
        ("{temperature: 0}", "{when: refused, do: retry, model: gpt-5}", ["reasoning_param jobs/a.yaml:8:44"]),
    ],
)
def test_a_rule_is_held_to_the_model_that_it_asks(load: Load, params: str, rule: str, places: list[str]) -> None:
    text = JOB + f"params: {params}\nretry: {{rules: [{rule}]}}\n"
    assert placed(load({"jobs/a.yaml": text}).diagnostics) == places
