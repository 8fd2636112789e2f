"""Params of a job, held to its endpoint and model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import completion_create_params, embedding_create_params, moderation_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params
from spec_bench import JOB, Load, placed

from batchops.spec.job import Endpoint
from batchops.spec.parameters import ELSEWHERE, PARAMETERS

OF_SDK: dict[Endpoint, type] = {
    "/v1/chat/completions": chat_create_params.CompletionCreateParamsBase,
    "/v1/responses": response_create_params.ResponseCreateParamsBase,
    "/v1/embeddings": embedding_create_params.EmbeddingCreateParams,
    "/v1/moderations": moderation_create_params.ModerationCreateParams,
    "/v1/completions": completion_create_params.CompletionCreateParamsBase,
}
OF_OTHER_SERVICES = (
    "add_generation_prompt allowed_token_ids bad_words cache_salt chat_template chat_template_kwargs "
    "deferred documents enable_thinking exclude_domains guided_choice guided_json guided_regex ignore_eos "
    "include_reasoning input_type length_penalty logits_processors max_new_tokens min_p min_tokens "
    "mirostat models num_predict n_predict plugins priority prompt_logprobs provider random_seed "
    "reasoning_format reasoning_split repetition_penalty request_id route safe_prompt search_options search_parameters "
    "skip_special_tokens stop_token_ids structured_outputs task thinking thinking_budget top_a top_k "
    "top_n_tokens transforms truncate truncate_prompt_tokens typical_p use_beam_search"
)


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
        ("gpt-4o", "chat/completions", {"max_tokenz": 5, "temprature": 0}, ["param_unknown", "param_unknown"]),
        ("gpt-5", "responses", {"max_output_token": 50}, ["param_unknown"]),
        ("text-embedding-3-small", "embeddings", {"dimension": 256}, ["param_unknown"]),
        ("omni-moderation-latest", "moderations", {"temprature": 0}, []),
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
        ("{}", "{when: refused, do: retry, set: {top_pp: 0}}", ["param_unknown jobs/a.yaml:8:50"]),
        ("{top_pp: 1}", "{when: refused, do: retry, set: {seed: 0}}", ["param_unknown jobs/a.yaml:7:10"]),
    ],
)
def test_a_rule_is_held_to_the_model_that_it_asks(load: Load, params: str, rule: str, places: list[str]) -> None:
    text = JOB + f"params: {params}\nretry: {{rules: [{rule}]}}\n"
    assert placed(load({"jobs/a.yaml": text}).diagnostics) == places


def test_a_slip_names_the_cap_that_the_model_takes(load: Load) -> None:
    text = JOB.replace("gpt-4o-mini", "gpt-5-mini") + "params: {max_tokenz: 5}\n"
    (found,) = load({"jobs/a.yaml": text}).diagnostics
    assert (found.code, found.fixes) == ("param_unknown", ("max_completion_tokens",))


@pytest.mark.parametrize("endpoint", PARAMETERS)
def test_what_other_services_take_is_no_slip(load: Load, endpoint: str) -> None:
    params = json.dumps(dict.fromkeys(OF_OTHER_SERVICES.split(), 1))
    assert not load(
        {"jobs/a.yaml": f"{JOB.replace('gpt-4o-mini', 'llama')}endpoint: {endpoint}\nparams: {params}\n"}
    ).diagnostics


@pytest.mark.parametrize("endpoint", PARAMETERS)
def test_every_parameter_of_the_sdk_is_known(endpoint: Endpoint) -> None:
    assert set(OF_SDK[endpoint].__annotations__) - PARAMETERS[endpoint] <= ELSEWHERE
