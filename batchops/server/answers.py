"""Simulated answers: the same seed and request give the same answer, in the exact shape of the endpoint.

They are labelled: chat and text completions carry `system_fingerprint: batchops-simulated`, responses carry
`metadata.batchops: simulated`, and every free text says that no model was asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from random import Random
from typing import Any, NamedTuple

import orjson

from batchops.server import vectors
from batchops.server.answering import Stop, never
from batchops.server.clock import Clock
from batchops.server.lines import Reply
from batchops.server.refusals import refusal
from batchops.server.said import BENDS, Said, Wanted, say, tools_of
from batchops.server.tokens import prompt_tokens
from batchops.server.wire import error_object, usage_object

FINGERPRINT = "batchops-simulated"
_REASONING_MODEL = re.compile(r"(o\d|gpt-[5-9])(?!.*-chat)")


class Context(NamedTuple):
    """What an answer is made from besides the body."""

    rng: Random
    digest: str
    now: int
    bend: Callable[[Said], Said] | None


class Simulated:
    """Answers any of the batch endpoints. Thread-safe."""

    concurrency = 1
    is_costly = False

    def __init__(self, *, seed: int, clock: Clock) -> None:
        self._seed = str(seed).encode()
        self._clock = clock

    def close(self) -> None:
        """Nothing to let go of."""

    def answer(self, url: str, body: dict[str, Any], bend: str | None = None, *, stop: Stop = never) -> Reply:
        """The HTTP answer to a request. `bend` spoils it; see `said.BENDS`."""
        if (refused := refusal(url, body)) is not None:
            return refused
        if (make := _ANSWERS.get(url)) is None:
            message = f"The endpoint {url} is not simulated."
            return Reply(404, error_object(message, kind="invalid_request_error", code="not_simulated"))
        digest = blake2b(b"\0".join((self._seed, url.encode(), orjson.dumps(body))), digest_size=16).digest()
        rng = Random(int.from_bytes(digest[:8]))  # noqa: S311  nothing secret is drawn
        context = Context(rng, digest.hex(), self._clock.seconds(), BENDS[bend] if bend else None)
        return Reply(200, make(body, context), request_id=f"req_{context.digest}")


@lru_cache(maxsize=256)
def is_reasoning_model(model: str) -> bool:
    return _REASONING_MODEL.match(model) is not None


def _spoken(wanted: Wanted, body: dict[str, Any], context: Context, *, is_brief: bool = False) -> Said:
    said = say(wanted, context.rng, is_reasoning=is_reasoning_model(str(body.get("model"))), is_brief=is_brief)
    return context.bend(said) if context.bend else said


def _chat(body: dict[str, Any], context: Context) -> dict[str, Any]:
    wanted = _wanted_of_chat(body)
    choices = [_spoken(wanted, body, context) for _ in range(_copies(body))]
    prompt, output = prompt_tokens(body), sum(said.output_tokens for said in choices)
    reasoning = sum(said.reasoning_tokens for said in choices)
    return {
        "id": f"chatcmpl-{context.digest}",
        "object": "chat.completion",
        "created": context.now,
        "model": body["model"],
        "choices": [_chat_choice(index, said, context) for index, said in enumerate(choices)],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }


def _chat_choice(index: int, said: Said, context: Context) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if said.call or said.is_refusal else said.text,
        "refusal": said.text if said.is_refusal else None,
        "annotations": [],
    }
    if said.call is not None:
        function = {"name": said.call, "arguments": said.text}
        message["tool_calls"] = [{"id": f"call_{index}{context.digest[:23]}", "type": "function", "function": function}]
    return {"index": index, "message": message, "logprobs": None, "finish_reason": said.finish}


def _wanted_of_chat(body: dict[str, Any]) -> Wanted:
    chosen = body.get("response_format") or {}
    inner = chosen.get("json_schema") if isinstance(chosen, dict) else None
    shape = {**inner, "type": "json_schema"} if isinstance(inner, dict) else chosen
    cap = body.get("max_completion_tokens") or body.get("max_tokens")
    return Wanted(tools_of(body.get("tools")), body.get("tool_choice"), shape, cap, body.get("reasoning_effort"))


def _copies(body: dict[str, Any]) -> int:
    return min(int(body.get("n") or 1), 128)


def _responses(body: dict[str, Any], context: Context) -> dict[str, Any]:
    text = body.get("text") or {"format": {"type": "text"}}
    reasoning = body.get("reasoning") or {}
    wanted = Wanted(
        tools_of(body.get("tools")),
        body.get("tool_choice"),
        text.get("format") or {},
        body.get("max_output_tokens"),
        reasoning.get("effort"),
    )
    said = _spoken(wanted, body, context)
    incomplete = _INCOMPLETE.get(said.finish)
    return {
        "id": f"resp_{context.digest}",
        "object": "response",
        "created_at": context.now,
        "status": "incomplete" if incomplete else "completed",
        "background": False,
        "completed_at": None if incomplete else context.now,
        "error": None,
        "incomplete_details": {"reason": incomplete} if incomplete else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.get("max_tool_calls"),
        "model": body["model"],
        "output": _output_items(said, body, context),
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"),
        "prompt_cache_key": body.get("prompt_cache_key"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "safety_identifier": body.get("safety_identifier"),
        "service_tier": "default",
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": {"format": text.get("format") or {"type": "text"}, "verbosity": text.get("verbosity", "medium")},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "top_logprobs": body.get("top_logprobs", 0),
        "top_p": body.get("top_p", 1.0),
        "truncation": body.get("truncation", "disabled"),
        "usage": _with_cache_writes(usage_object(prompt_tokens(body), 0, said.output_tokens, said.reasoning_tokens)),
        "metadata": {**(body.get("metadata") or {}), "batchops": "simulated"},
    }


def _with_cache_writes(usage: dict[str, Any]) -> dict[str, Any]:
    usage["input_tokens_details"]["cache_write_tokens"] = 0
    return usage


_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def _output_items(said: Said, body: dict[str, Any], context: Context) -> list[dict[str, Any]]:
    status = "incomplete" if said.finish in _INCOMPLETE else "completed"
    items: list[dict[str, Any]] = []
    if is_reasoning_model(str(body.get("model"))):
        items.append({"id": f"rs_{context.digest}", "type": "reasoning", "summary": []})
    if said.call is not None:
        called = {"id": f"fc_{context.digest}", "type": "function_call", "status": status}
        items.append({**called, "call_id": f"call_{context.digest[:24]}", "name": said.call, "arguments": said.text})
        return items
    content = {"type": "output_text", "annotations": [], "logprobs": [], "text": said.text}
    if said.is_refusal:
        content = {"type": "refusal", "refusal": said.text}
    shown = [content] if said.text or said.finish != "content_filter" else []
    items.append(
        {"id": f"msg_{context.digest}", "type": "message", "status": status, "role": "assistant", "content": shown}
    )
    return items


def _completion(body: dict[str, Any], context: Context) -> dict[str, Any]:
    prompt = body.get("prompt")
    prompts = prompt if isinstance(prompt, list) and prompt and isinstance(prompt[0], (str, list)) else [prompt]
    wanted = Wanted([], None, {}, body.get("max_tokens") or 16, None)
    said = [_spoken(wanted, body, context, is_brief=True) for _ in prompts for _ in range(_copies(body))]
    input_tokens, output = prompt_tokens(body), sum(one.output_tokens for one in said)
    return {
        "id": f"cmpl-{context.digest}",
        "object": "text_completion",
        "created": context.now,
        "model": body["model"],
        "choices": [
            {"index": index, "text": one.text, "logprobs": None, "finish_reason": one.finish}
            for index, one in enumerate(said)
        ],
        "usage": {
            "prompt_tokens": input_tokens,
            "completion_tokens": output,
            "total_tokens": input_tokens + output,
        },
        "system_fingerprint": FINGERPRINT,
    }


def _embeddings(body: dict[str, Any], context: Context) -> dict[str, Any]:
    return vectors.embeddings(body)


def _moderations(body: dict[str, Any], context: Context) -> dict[str, Any]:
    return vectors.moderations(body, context.digest)


_ANSWERS: dict[str, Callable[[dict[str, Any], Context], dict[str, Any]]] = {
    "/v1/chat/completions": _chat,
    "/v1/responses": _responses,
    "/v1/completions": _completion,
    "/v1/embeddings": _embeddings,
    "/v1/moderations": _moderations,
}
