"""Requests that the service answers with 400, line by line: parameters a model does not take, schemas it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from batchops.server.lines import Reply
from batchops.server.tokens import text_tokens
from batchops.server.validate import json_type
from batchops.server.wire import error_object

_TAKES_NO_MAX_TOKENS = re.compile(r"(o\d|gpt-[5-9])(?!.*-chat)")
_LEAST_OUTPUT_TOKENS = 16
_MOST_EMBEDDING_INPUTS = 2048
_MOST_TOKENS_OF_AN_INPUT = 8192
_MOST_TOKENS_OF_A_REQUEST = 300_000
_MOST_TOKEN = 300_000  # above the size of any vocabulary


def refusal(url: str, body: dict[str, Any]) -> Reply | None:
    """The 400 a request earns, or None if it is fit to be answered."""
    wrong = next((refused for kind in _KINDS.get(url, ()) if (refused := _kind(body, kind)) is not None), None)
    check = _CHECKS.get(url)
    return wrong or (check(body) if check else None)


class Kind(NamedTuple):
    """What a member of a body must be."""

    name: str
    described: str
    is_good: Callable[[Any], bool]
    is_required: bool = False


def _kind(body: dict[str, Any], kind: Kind) -> Reply | None:
    value = body.get(kind.name)
    if value is None:
        text = f"Missing required parameter: '{kind.name}'."
        return _bad(text, param=kind.name, code="missing_required_parameter") if kind.is_required else None
    if kind.is_good(value):
        return None
    text = f"Invalid type for '{kind.name}': expected {kind.described}, but got {json_type(value)} instead."
    return _bad(text, param=kind.name, code="invalid_type")


def _bad(message: str, *, param: str | None = None, code: str | None = None) -> Reply:
    return Reply(400, error_object(message, kind="invalid_request_error", param=param, code=code))


def _chat(body: dict[str, Any]) -> Reply | None:
    if body.get("max_tokens") is not None and _TAKES_NO_MAX_TOKENS.match(body["model"]):
        message = "Unsupported parameter: 'max_tokens' is not supported with this model. "
        message += "Use 'max_completion_tokens' instead."
        return _bad(message, param="max_tokens", code="unsupported_parameter")
    chosen = body.get("response_format")
    if not isinstance(chosen, dict):
        return None
    if chosen.get("type") == "json_object" and b"json" not in orjson.dumps(body["messages"]).lower():
        message = "'messages' must contain the word 'json' in some form, "
        return _bad(f"{message}to use 'response_format' of type 'json_object'.", param="messages")
    return _schema(chosen.get("json_schema"), "response_format") if chosen.get("type") == "json_schema" else None


def _responses(body: dict[str, Any]) -> Reply | None:
    cap = body.get("max_output_tokens")
    if isinstance(cap, int) and cap < _LEAST_OUTPUT_TOKENS:
        message = (
            f"Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got {cap} instead."
        )
        return _bad(message, param="max_output_tokens", code="integer_below_min_value")
    shape = (body.get("text") or {}).get("format")
    if isinstance(shape, dict) and shape.get("type") == "json_schema":
        return _schema(shape, "text.format")
    return None


def _schema(named: Any, param: str) -> Reply | None:
    if not isinstance(named, dict) or not isinstance(named.get("name"), str):
        text = f"Missing required parameter: '{param}.name'."
        return _bad(text, param=f"{param}.name", code="missing_required_parameter")
    problem = _strict_problem(orjson.dumps(named.get("schema"))) if named.get("strict") else None
    if problem is None:
        return None
    message = f"Invalid schema for {param.replace('.', '_')} '{named['name']}': {problem}"
    return _bad(message, param=param, code="invalid_json_schema")


@lru_cache(maxsize=256)
def _strict_problem(schema: bytes) -> str | None:
    return strict_problem(orjson.loads(schema))


def strict_problem(schema: Any) -> str | None:
    """Why strict structured output would refuse a schema, in the service's words; None if it would not."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        kind = schema.get("type") if isinstance(schema, dict) else None
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."
    return _strict(schema, ())


def _strict(schema: Any, path: tuple[str, ...]) -> str | None:
    if not isinstance(schema, dict):
        return None
    where = f"In context={path!r}"
    properties = schema.get("properties")
    if schema.get("type") == "object" or isinstance(properties, dict):
        if schema.get("additionalProperties") is not False:
            return f"{where}, 'additionalProperties' is required to be supplied and to be false."
        missing = [name for name in properties or {} if name not in schema.get("required", [])]
        if missing:
            text = (
                f"{where}, 'required' is required to be supplied and to be an array including every key in properties."
            )
            return f"{text} Missing '{missing[0]}'."
    for keyword in ("allOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas"):
        if keyword in schema:
            return f"{where}, '{keyword}' is not permitted."
    return _strict_inner(schema, path)


def _strict_inner(schema: dict[str, Any], path: tuple[str, ...]) -> str | None:
    inner: list[tuple[tuple[str, ...], Any]] = []
    for keyword in ("properties", "$defs", "definitions"):
        held = schema.get(keyword)
        if isinstance(held, dict):
            inner += [((*path, keyword, name), part) for name, part in held.items()]
    options = schema.get("anyOf")
    if isinstance(options, list):
        inner += [((*path, "anyOf", str(index)), part) for index, part in enumerate(options)]
    inner.append(((*path, "items"), schema.get("items")))
    return next((problem for where, part in inner if (problem := _strict(part, where))), None)


def _embeddings(body: dict[str, Any]) -> Reply | None:
    given = body.get("input")
    if isinstance(given, list) and len(given) > _MOST_EMBEDDING_INPUTS and isinstance(given[0], (str, list)):
        message = f"Invalid 'input': array too long. Expected an array with maximum length {_MOST_EMBEDDING_INPUTS}, "
        return _bad(f"{message}but got an array with length {len(given)} instead.", param="input")
    if given in ("", []):
        return _bad("'input' cannot be empty.", param="input")
    return _too_many_tokens([_token_count(one) for one in _inputs(given)])


def _inputs(given: Any) -> list[Any]:
    return given if isinstance(given, list) and isinstance(given[0], (str, list)) else [given]


def _token_count(given: Any) -> int:
    return text_tokens(given) if isinstance(given, str) else len(given)


def _too_many_tokens(counts: list[int]) -> Reply | None:
    if (most := max(counts)) > _MOST_TOKENS_OF_AN_INPUT:
        message = f"This model's maximum context length is {_MOST_TOKENS_OF_AN_INPUT} tokens, however you requested "
        return _bad(f"{message}{most} tokens. Please reduce your prompt.")
    if (total := sum(counts)) > _MOST_TOKENS_OF_A_REQUEST:
        message = f"Requested {total} tokens, max {_MOST_TOKENS_OF_A_REQUEST} tokens per request"
        return _bad(message, code="max_tokens_per_request")
    return None


def _is_whole(value: Any) -> bool:
    """JSON Schema's integer: `3.0` is one."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 and value == int(value)


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_input(value: Any) -> bool:
    """A text, texts, tokens, or arrays of tokens."""
    if not isinstance(value, list) or not value:
        return isinstance(value, str)
    return _are_tokens(value) or all(isinstance(one, str) for one in value) or all(map(_are_tokens, value))


def _are_tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_token(one) for one in value)


def _is_token(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 <= value <= _MOST_TOKEN and value == int(value)


def _is_moderated(value: Any) -> bool:
    """A text, texts, or content parts."""
    if not isinstance(value, list):
        return isinstance(value, str)
    return all(isinstance(one, str) for one in value) or all(map(_is_part, value))


def _is_part(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") in ("text", "image_url")


def _is_shape(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type", ""), str)


_MODEL = Kind("model", "a string", _is_name, is_required=True)
_TOOLS = Kind("tools", "an array of objects", _are_objects)
_CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n")
_WHOLE = {name: Kind(name, "a positive integer", _is_whole) for name in _CAPS}
_METADATA = Kind("metadata", "an object", lambda value: isinstance(value, dict))
_KINDS: dict[str, tuple[Kind, ...]] = {
    "/v1/chat/completions": (
        _MODEL,
        Kind("messages", "an array of objects", _are_objects, is_required=True),
        _TOOLS,
        Kind("response_format", "an object", _is_shape),
        _WHOLE["max_tokens"],
        _WHOLE["max_completion_tokens"],
        _WHOLE["n"],
    ),
    "/v1/responses": (
        _MODEL,
        _TOOLS,
        _METADATA,
        _WHOLE["max_output_tokens"],
        Kind("input", "a string or an array of objects", lambda value: isinstance(value, str) or _are_objects(value)),
        Kind("text", "an object", lambda value: isinstance(value, dict) and _is_shape(value.get("format") or {})),
        Kind("reasoning", "an object", lambda value: isinstance(value, dict)),
    ),
    "/v1/completions": (
        _MODEL,
        Kind("prompt", "a string or an array", _is_input, is_required=True),
        _WHOLE["max_tokens"],
        _WHOLE["n"],
    ),
    "/v1/embeddings": (
        _MODEL,
        Kind("input", "a string or an array", _is_input, is_required=True),
        Kind("dimensions", "an integer from 1 to 4096", lambda value: _is_whole(value) and value <= 4096),
        Kind("encoding_format", "'float' or 'base64'", lambda value: value in ("float", "base64")),
    ),
    "/v1/moderations": (
        Kind("model", "a string", _is_name),
        Kind("input", "a string or an array of strings or content parts", _is_moderated, is_required=True),
    ),
}
_CHECKS = {"/v1/chat/completions": _chat, "/v1/responses": _responses, "/v1/embeddings": _embeddings}
