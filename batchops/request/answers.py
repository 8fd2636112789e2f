"""What a model's reply body says, by endpoint: text, tool call, vectors, refusal, usage. Pure; judges nothing.

The shapes are those of the OpenAPI text of 2026-08 and of services that speak it: bodies may be JSON in a string (OGX),
usage and choices may be missing, arguments may be an object already.
"""

from __future__ import annotations

import base64
import binascii
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import orjson

Vector: TypeAlias = list[float]
_NUMBERS: Final = frozenset({int, float, bool})
"""Types of a vector's numbers: asked of the set of them, which is ten times faster than of each."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as billed; reasoning is inside output, cached inside input. None: the service did not say."""

    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool the model called; `arguments` as it wrote them, JSON or not. Those of a custom tool are text by intent."""

    name: str
    arguments: str
    is_custom: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """One reply, read. `text` is None where the reply has no place for one; "" where the model said nothing.

    `values` are vectors or moderation results, in the order of the inputs. `failed_code` is set where the service says
    inside a reply of status 200 that it failed.
    """

    text: str | None = None
    values: tuple[Any, ...] = ()
    tool_call: ToolCall | None = None
    finish_reason: str | None = None
    refusal: str | None = None
    is_truncated: bool = False
    is_filtered: bool = False
    failed_code: str | None = None
    failed_message: str | None = None
    usage: Usage = field(default_factory=Usage)
    model: str | None = None

    @property
    def has_answer(self) -> bool:
        return bool(self.text or self.values or self.tool_call)


def read(url: str, body: object) -> Reading | None:
    """The reading of a reply body, an object or JSON in a string; None where it is neither or `url` is unknown."""
    found = parse_body(body)
    reader = READERS.get(url)
    return None if found is None or reader is None else reader(found)


def parse_body(body: object) -> Mapping[str, Any] | None:
    """The body as an object, or None."""
    if isinstance(body, str):
        try:
            body = orjson.loads(body)
        except ValueError:
            return None
    return body if isinstance(body, Mapping) else None


def read_chat(body: Mapping[str, Any]) -> Reading:
    """`/v1/chat/completions`: the first choice."""
    choice = _mapping(_first(body.get("choices")))
    message = _mapping(choice.get("message"))
    finish = _text(choice.get("finish_reason"))
    return Reading(
        text=_joined(message.get("content")) if message else None,
        tool_call=_chat_tool_call(message),
        finish_reason=finish,
        refusal=_text(message.get("refusal")) or _refusal_in(message.get("content")),
        is_truncated=finish == "length",
        is_filtered=finish == "content_filter",
        usage=_usage(body),
        model=_text(body.get("model")),
    )


def read_responses(body: Mapping[str, Any]) -> Reading:
    """`/v1/responses`: all texts of its messages joined; a failure and an incomplete end are inside the body."""
    items = [_mapping(item) for item in _list(body.get("output"))]
    parts = [part for item in items if item.get("type") == "message" for part in _list(item.get("content"))]
    status, reason = _text(body.get("status")), _text(_mapping(body.get("incomplete_details")).get("reason"))
    failed_code, failed_message = _response_failure(status, _mapping(body.get("error")))
    return Reading(
        text=_joined(parts) if isinstance(body.get("output"), list) else _text(body.get("output_text")),
        tool_call=next((call for item in items if (call := _responses_tool_call(item))), None),
        finish_reason=reason if status == "incomplete" and reason else status,
        refusal=_refusal_in(parts),
        is_truncated=status == "incomplete" and reason != "content_filter",
        is_filtered=reason == "content_filter",
        failed_code=failed_code,
        failed_message=failed_message,
        usage=_usage(body),
        model=_text(body.get("model")),
    )


def read_embeddings(body: Mapping[str, Any]) -> Reading:
    """`/v1/embeddings`: one vector for each input, by index; base64 is little-endian float32."""
    entries = [_mapping(entry) for entry in _list(body.get("data"))]
    if all(_number(entry.get("index")) is not None for entry in entries):
        entries.sort(key=lambda entry: int(entry["index"]))
    vectors = [_vector(entry.get("embedding")) for entry in entries]
    known = tuple(vector for vector in vectors if vector is not None)
    return Reading(
        values=known if len(known) == len(vectors) else (),
        usage=_usage(body, output_tokens=0),
        model=_text(body.get("model")),
    )


def read_moderations(body: Mapping[str, Any]) -> Reading:
    """`/v1/moderations`: one result object for each input."""
    results = tuple(result for result in _list(body.get("results")) if isinstance(result, Mapping))
    return Reading(values=results, usage=_usage(body, output_tokens=0), model=_text(body.get("model")))


def read_completions(body: Mapping[str, Any]) -> Reading:
    """`/v1/completions`: the first choice."""
    choice = _mapping(_first(body.get("choices")))
    finish = _text(choice.get("finish_reason"))
    text = choice.get("text")
    return Reading(
        text=text if isinstance(text, str) else None,
        finish_reason=finish,
        is_truncated=finish == "length",
        is_filtered=finish == "content_filter",
        usage=_usage(body),
        model=_text(body.get("model")),
    )


READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Reading]]] = {
    "/v1/chat/completions": read_chat,
    "/v1/responses": read_responses,
    "/v1/embeddings": read_embeddings,
    "/v1/moderations": read_moderations,
    "/v1/completions": read_completions,
}


def _usage(body: Mapping[str, Any], *, output_tokens: int | None = None) -> Usage:
    """Both spellings, of chat and of responses. `output_tokens` is for endpoints that have none to report."""
    usage = _mapping(body.get("usage"))
    if not usage:
        return Usage()
    into = _mapping(usage.get("prompt_tokens_details") or usage.get("input_tokens_details"))
    out = _mapping(usage.get("completion_tokens_details") or usage.get("output_tokens_details"))
    return Usage(
        input_tokens=_either(usage, "prompt_tokens", "input_tokens"),
        cached_tokens=_number(into.get("cached_tokens")),
        output_tokens=_either(usage, "completion_tokens", "output_tokens", default=output_tokens),
        reasoning_tokens=_number(out.get("reasoning_tokens")),
    )


def _either(usage: Mapping[str, Any], *names: str, default: int | None = None) -> int | None:
    return next((found for name in names if (found := _number(usage.get(name))) is not None), default)


def _chat_tool_call(message: Mapping[str, Any]) -> ToolCall | None:
    call = _mapping(_first(message.get("tool_calls")))
    if "custom" in call:
        custom = _mapping(call["custom"])
        return _tool_call(custom.get("name"), custom.get("input"), is_custom=True)
    function = _mapping(call.get("function") or message.get("function_call"))
    return _tool_call(function.get("name"), function.get("arguments"))


def _responses_tool_call(item: Mapping[str, Any]) -> ToolCall | None:
    if item.get("type") == "custom_tool_call":
        return _tool_call(item.get("name"), item.get("input"), is_custom=True)
    return _tool_call(item.get("name"), item.get("arguments")) if item.get("type") == "function_call" else None


def _tool_call(name: object, arguments: object, *, is_custom: bool = False) -> ToolCall | None:
    if not isinstance(name, str) or not name:
        return None
    if isinstance(arguments, Mapping):  # some relatives have parsed it already
        arguments = orjson.dumps(arguments).decode()
    return ToolCall(name, arguments if isinstance(arguments, str) else "", is_custom)


def _response_failure(status: str | None, error: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Code and message where a Responses body says that it did not end well, else a pair of None."""
    if status in {"completed", "incomplete"} or (status is None and not error):
        return None, None
    return _text(error.get("code")) or status or "failed", _text(error.get("message"))


def _vector(raw: object) -> Vector | None:
    if isinstance(raw, str):
        try:
            floats = array("f", base64.b64decode(raw, validate=True))
        except (binascii.Error, ValueError):
            return None
        if sys.byteorder == "big":
            floats.byteswap()
        return floats.tolist() or None
    return raw if isinstance(raw, list) and raw and _NUMBERS.issuperset(map(type, raw)) else None


def _joined(content: object) -> str:
    """The text of a message's content: a string, null, or parts of which the textual ones count."""
    if isinstance(content, str):
        return content
    return "".join(_texts(_list(content), "text"))


def _refusal_in(content: object) -> str | None:
    return "".join(_texts(_list(content), "refusal")) or None


def _texts(parts: Iterable[object], key: str) -> Iterable[str]:
    return (found for part in parts if isinstance(found := _mapping(part).get(key), str))


def _mapping(raw: object) -> Mapping[str, Any]:
    return raw if isinstance(raw, Mapping) else {}


def _list(raw: object) -> list[Any]:
    return raw if isinstance(raw, list) else []


def _first(raw: object) -> object:
    return next(iter(_list(raw)), None)


def _text(raw: object) -> str | None:
    return raw if isinstance(raw, str) and raw else None


def _number(raw: object) -> int | None:
    """A count; one that no honest service reports, and no state could hold, is none."""
    return raw if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw < 1 << 32 else None
