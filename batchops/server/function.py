"""A user's Python function as the answerer: `module:function`, called as `function(body, url)`."""

from __future__ import annotations

import importlib
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import orjson

from batchops.diagnostics import BatchopsError, Diagnostic, error
from batchops.server.answering import Stop, never, server_error
from batchops.server.clock import Clock
from batchops.server.lines import Reply
from batchops.server.tokens import prompt_tokens, text_tokens
from batchops.server.vectors import embedding_list, inputs_of
from batchops.server.wire import error_object, usage_object

_LOG = logging.getLogger("batchops.server")
Answer = Callable[[dict[str, Any], str], Any]


def load_function(reference: str, clock: Clock) -> Function:
    """The function `module:function` names; the current folder is searched too. Raises BatchopsError."""
    module_name, _, name = reference.partition(":")
    if not module_name or not name:
        raise BatchopsError(_unusable(f'"{reference}" is neither "simulated" nor of the form module:function.'))
    if os.getcwd() not in sys.path:  # noqa: PTH109  sys.path holds text
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as problem:
        raise BatchopsError(_unusable(f"{reference} cannot be loaded: {problem}.")) from problem
    if not callable(function):
        raise BatchopsError(_unusable(f"{reference} is not a function."))
    return Function(function, clock)


def _unusable(detail: str) -> Diagnostic:
    return error("unusable_answers", "Answers cannot be made.", detail)


class Function:
    """Calls the function once for each line; one call at a time unless it has an attribute `concurrency`.

    What it returns is the response's body, or a text or vectors that are put into the endpoint's shape. What it raises
    becomes a 500 of that line.
    """

    is_costly = True

    def __init__(self, function: Answer, clock: Clock) -> None:
        self._function, self._clock = function, clock
        self.concurrency = max(int(getattr(function, "concurrency", 1)), 1)
        self._turn = threading.Lock() if self.concurrency == 1 else nullcontext()

    def answer(self, url: str, body: dict[str, Any], *, stop: Stop = never) -> Reply:
        try:
            with self._turn:
                answered = self._function(body, url)
        except Exception as problem:
            _LOG.warning("the answering function raised %s", type(problem).__name__)
            return server_error(f"The answering function raised {type(problem).__name__}.")
        if isinstance(answered, str):
            return _shaped(url, body, answered, self._clock.seconds())
        if url == "/v1/embeddings" and not isinstance(answered, dict):
            return _embedded(body, answered)
        if not isinstance(answered, dict):
            return server_error("The answering function returned neither a mapping nor a text.")
        try:
            return Reply(200, orjson.loads(orjson.dumps(answered)))
        except orjson.JSONEncodeError:
            return server_error("The answering function returned a mapping that JSON has no form for.")

    def close(self) -> None:
        """A call under way cannot be interrupted; it is waited for."""


def _embedded(body: dict[str, Any], answered: Any) -> Reply:
    """A vector, or one for each input, in the shape of the endpoint; arrays of numpy and its kin are vectors too."""
    given = answered.tolist() if hasattr(answered, "tolist") else answered
    vectors = [list(given)] if _is_vector(given) else given
    inputs = inputs_of(body.get("input"))
    if not isinstance(vectors, (list, tuple)) or len(vectors) != len(inputs) or not all(map(_is_vector, vectors)):
        return server_error(f"The answering function did not return a vector for each of the {len(inputs)} inputs.")
    return Reply(200, embedding_list(body, [list(vector) for vector in vectors]))


def _is_vector(value: Any) -> bool:
    is_list = isinstance(value, (list, tuple)) and bool(value)
    return is_list and all(isinstance(one, (int, float)) and math.isfinite(one) for one in value)


def _shaped(url: str, body: dict[str, Any], text: str, now: int) -> Reply:
    """A text in the shape of the endpoint."""
    prompt, output = prompt_tokens(body), text_tokens(text)
    mark, model = f"{time.time_ns():x}", body.get("model")
    usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    match url:
        case "/v1/chat/completions":
            message = {"role": "assistant", "content": text, "refusal": None}
            choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
            shape = {"id": f"chatcmpl-{mark}", "object": "chat.completion", "created": now, "choices": choices}
        case "/v1/completions":
            choices = [{"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}]
            shape = {"id": f"cmpl-{mark}", "object": "text_completion", "created": now, "choices": choices}
        case "/v1/responses":
            content = [{"type": "output_text", "text": text, "annotations": []}]
            message = {"id": f"msg_{mark}", "type": "message", "role": "assistant", "status": "completed"}
            shape = {"id": f"resp_{mark}", "object": "response", "created_at": now, "status": "completed"}
            shape |= {"error": None, "incomplete_details": None, "output": [{**message, "content": content}]}
            usage = usage_object(prompt, 0, output, 0)
        case _:
            problem = error_object(f"A text is no answer of {url}.", kind="server_error", code="server_error")
            return Reply(500, problem)
    return Reply(200, {**shape, "model": model, "usage": usage})
