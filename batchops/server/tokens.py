"""How many tokens a request's prompt takes: four characters a token, a few more for each message."""

from __future__ import annotations

from typing import Any

import orjson

_PER_MESSAGE = 4
_PER_IMAGE = 85


def text_tokens(text: str) -> int:
    return (len(text) + 3) // 4


def prompt_tokens(body: dict[str, Any]) -> int:
    """Estimated prompt tokens of a body for any endpoint; never fails, whatever its shape."""
    total = _content(body.get("instructions"))
    for message in _each(body.get("messages")):
        total += _PER_MESSAGE + (_content(message.get("content")) if isinstance(message, dict) else 0)
    total += _content(body.get("input")) + _content(body.get("prompt"))
    for key in ("tools", "response_format", "text"):
        if key in body:
            total += len(orjson.dumps(body[key])) // 4
    return max(total, 1)


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _content(value: Any) -> int:
    if isinstance(value, str):
        return text_tokens(value)
    if isinstance(value, list):
        if value and isinstance(value[0], (int, float)):
            return len(value)
        return sum(_part(part) for part in value)
    return 0


def _part(part: Any) -> int:
    if not isinstance(part, dict):
        return _content(part)
    if "content" in part:
        return _PER_MESSAGE + _content(part["content"])
    if str(part.get("type", "")).endswith(("image_url", "input_image")):
        return _PER_IMAGE
    return _content(part.get("text"))
