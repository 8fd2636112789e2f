"""The parameters that the API reference lists for each endpoint, beside those that a job has keys of its own for.

Services that speak the same API have more: a name that is not here is a slip only where it is all but one that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from batchops.spec.job import Endpoint

_OF_TEXT: Final = ("metadata", "moderation", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_options",
                   "prompt_cache_retention", "safety_identifier", "service_tier", "store", "stream_options",
                   "temperature", "top_logprobs", "top_p", "user")  # fmt: skip
_OF_SAMPLES: Final = ("frequency_penalty", "logit_bias", "logprobs", "max_tokens", "n", "presence_penalty", "seed",
                      "stop", "stream")  # fmt: skip
PARAMETERS: Final[Mapping[Endpoint, frozenset[str]]] = {
    "/v1/chat/completions": frozenset({
        *_OF_TEXT, *_OF_SAMPLES, "audio", "function_call", "functions", "max_completion_tokens", "modalities",
        "prediction", "reasoning_effort", "response_format", "verbosity", "web_search_options",
    }),
    "/v1/responses": frozenset({
        *_OF_TEXT, "access_programs", "background", "background_options", "context_management", "conversation", "image",
        "include", "instructions", "max_output_tokens", "max_tool_calls", "previous_response_id", "prompt", "reasoning",
        "stream", "text", "truncation",
    }),
    "/v1/embeddings": frozenset({"dimensions", "encoding_format", "user"}),
    "/v1/moderations": frozenset(),
    "/v1/completions": frozenset({
        *_OF_SAMPLES, "best_of", "echo", "stream_options", "suffix", "temperature", "top_p", "user",
    }),
}  # fmt: skip
"""OpenAI's API reference, 2026-11."""

ELSEWHERE: Final = frozenset({"model", "messages", "input", "prompt", "tools", "tool_choice"})
"""Names that a job writes elsewhere; other checks tell of them."""

OF_SERVICES: Final = frozenset({"models", "reasoning_format", "search_options"})
"""Names of some services that look like a slip in one of OpenAI's."""
