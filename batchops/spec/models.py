"""What the name of a model says: its family, whether it reasons, whether it can be asked in a batch.

Facts of OpenAI's models as documented in 2026-08. A name that is not known says nothing, so other services' models
pass every check that depends on the family.
"""

from __future__ import annotations

import re
from typing import Final

from batchops.spec.job import Endpoint

_REASONING = re.compile(r"(gpt-[5-9]|o[1-9])(?![0-9])")
_CHAT_TUNED = re.compile(r"-chat(-|$)")
_NOT_BATCHABLE: Final = (
    ("-codex", "coding agents"),
    ("-chat-latest", "moving aliases"),
    ("-realtime", "realtime models"),
    ("-audio", "audio models"),
    ("-transcribe", "audio models"),
    ("-tts", "audio models"),
    ("-search-preview", "models with a hosted search"),
    ("-search-api", "models with a hosted search"),
    ("computer-use-preview", "models that drive a computer"),
)
_RESPONSES_ONLY = re.compile(r"(gpt-5(\.\d+)?-pro|o1-pro|o3-pro)(-\d{4}-\d{2}-\d{2})?\Z")
_ONLY: Final[tuple[tuple[re.Pattern[str], tuple[Endpoint, ...]], ...]] = (
    (_RESPONSES_ONLY, ("/v1/responses",)),
    (re.compile(r"text-embedding-"), ("/v1/embeddings",)),
    (re.compile(r"(omni|text)-moderation-"), ("/v1/moderations",)),
    (re.compile(r"gpt-3\.5-turbo-instruct|davinci-002|babbage-002"), ("/v1/completions",)),
    (re.compile(r"gpt-[3-9]|o[1-9](?![0-9])"), ("/v1/chat/completions", "/v1/responses")),
)


def base_name(model: str) -> str:
    """`gpt-4o` from `ft:gpt-4o:acme::id` and `openai/gpt-4o`."""
    name = model.rsplit("/", 1)[-1]
    return name.split(":")[1] if name.startswith("ft:") and name.count(":") >= 1 else name


def is_fine_tuned(model: str) -> bool:
    return model.rsplit("/", 1)[-1].startswith("ft:")


def is_reasoning(model: str) -> bool:
    """Whether the model thinks before it answers, and so refuses max_tokens and sampling parameters."""
    name = base_name(model)
    return _REASONING.match(name) is not None and not _CHAT_TUNED.search(name)


def is_known_chat(model: str) -> bool:
    """Whether it is a family that answers chat without reasoning."""
    return base_name(model).startswith(("gpt-3.5-turbo", "gpt-4")) and not is_reasoning(model)


def why_not_batchable(model: str) -> str | None:
    """What kind of model it is that the Batch API does not take; None where nothing speaks against it."""
    name = base_name(model)
    return next((kind for mark, kind in _NOT_BATCHABLE if mark in name), None)


def endpoints_of(model: str) -> tuple[Endpoint, ...] | None:
    """The endpoints of a known family; None for a name that is not known."""
    name = base_name(model)
    return next((endpoints for pattern, endpoints in _ONLY if pattern.match(name)), None)
