"""Checks of what a client asks for: each returns a good value or raises the service's 400."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from batchops.profiles import Profile
from batchops.server.options import MIB, Limits
from batchops.server.parsing import parse
from batchops.server.upload import Upload
from batchops.server.validate import check_input, json_type
from batchops.server.wire import ApiError
from batchops.units import parse_duration

BATCH_ENDPOINTS = (
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
)
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_LIFE_SECONDS = (3600, 2592000)
_FIRST_LINE_BYTES = 16 * MIB
_FORMAT_MESSAGE = "Invalid file format for Batch API. Must be .jsonl"


def invalid_value(param: str, value: Any, supported: tuple[str, ...]) -> ApiError:
    shown = ", ".join(f"'{one}'" for one in supported)
    return ApiError(400, f"Invalid value: '{value}'. Supported values are: {shown}.", param=param, code="invalid_value")


def invalid_type(param: str, wanted: str, value: Any) -> ApiError:
    message = f"Invalid type for '{param}': expected {wanted}, but got {json_type(value)} instead."
    return ApiError(400, message, param=param, code="invalid_type")


def missing(param: str) -> ApiError:
    message = f"Missing required parameter: '{param}'."
    return ApiError(400, message, param=param, code="missing_required_parameter")


def parse_json(body: bytes) -> dict[str, Any]:
    try:
        parsed = parse(body)
    except ValueError as problem:
        raise ApiError(400, "We could not parse the JSON body of your request.") from problem
    if not isinstance(parsed, dict):
        raise ApiError(400, f"Invalid type: expected an object, but got {json_type(parsed)} instead.")
    return parsed


def choice(asked: Mapping[str, Any], param: str, supported: tuple[str, ...]) -> str:
    """A required parameter with a closed set of values."""
    value = asked.get(param)
    if value is None:
        raise missing(param)
    if not isinstance(value, str):
        raise invalid_type(param, "a string", value)
    if value not in supported:
        raise invalid_value(param, value, supported)
    return value


def batch_endpoint(asked: Mapping[str, Any], profile: Profile) -> str:
    """The endpoint of a batch. OpenAI's own takes some that no line can be answered for here."""
    return choice(asked, "endpoint", BATCH_ENDPOINTS if profile.name == "openai" else profile.endpoints)


def window(asked: Mapping[str, Any], profile: Profile) -> str:
    """A completion window that the service offers."""
    value = text(asked, "completion_window")
    if not profile.offers_window(value):
        raise invalid_value("completion_window", value, profile.windows)
    return value


def window_seconds(window: str) -> int:
    return int(parse_duration(window).total_seconds())


def text(asked: Mapping[str, Any], param: str) -> str:
    value = asked.get(param)
    if value is None:
        raise missing(param)
    if not isinstance(value, str):
        raise invalid_type(param, "a string", value)
    return value


def metadata(value: Any) -> dict[str, str] | None:
    """At most 16 pairs of texts, keys up to 64 and values up to 512 characters."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise invalid_type("metadata", "an object", value)
    if len(value) > 16:
        message = "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, "
        message += f"but got an object with {len(value)} properties instead."
        raise ApiError(400, message, param="metadata", code="object_above_max_properties")
    for key, held in value.items():
        _short(key, 64, "metadata", "key ")
        if not isinstance(held, str):
            raise invalid_type(f"metadata.{key}", "a string", held)
        _short(held, 512, f"metadata.{key}", "")
    return value


def _short(value: str, most: int, param: str, what: str) -> None:
    if len(value) > most:
        message = f"Invalid '{param}': {what}string too long. Expected a string with maximum length {most}, "
        message += f"but got a string with length {len(value)} instead."
        raise ApiError(400, message, param=param, code="string_above_max_length")


def life(value: Any, param: str, profile: Profile) -> int | None:
    """Seconds of an expiry policy `{"anchor": "created_at", "seconds": 3600…2592000}`, in the bounds of the service."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise invalid_type(param, "an object", value)
    choice(
        {f"{param}.anchor": value.get("anchor")},
        f"{param}.anchor",
        ("created_at",),
    )
    seconds = value.get("seconds")
    if seconds is None:
        raise missing(f"{param}.seconds")
    if isinstance(seconds, float) and seconds.is_integer():
        seconds = int(seconds)
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise invalid_type(f"{param}.seconds", "an integer", seconds)
    return _between(seconds, *(profile.output_expiry_seconds or _LIFE_SECONDS), f"{param}.seconds")


def _between(value: int, least: int, most: int, param: str) -> int:
    if least <= value <= most:
        return value
    side, bound, sign = ("below", least, ">=") if value < least else ("above", most, "<=")
    limit = "minimum" if value < least else "maximum"
    message = (
        f"Invalid '{param}': integer {side} {limit} value. Expected a value {sign} {bound}, but got {value} instead."
    )
    raise ApiError(400, message, param=param, code=f"integer_{side}_{limit[:3]}_value")


def limit(query: Mapping[str, str], *, default: int, most: int) -> int:
    """The `limit` of a listing."""
    written = query.get("limit")
    if written is None:
        return default
    if not re.fullmatch("-?[0-9]{1,19}", written):  # int() takes more: blanks, underscores, digits of any script
        raise invalid_type("limit", "an integer", written)
    return _between(int(written), 1, most, "limit")


def upload_fields(upload: Upload, profile: Profile) -> tuple[str, int | None]:
    """The purpose and the life in seconds of an upload."""
    if upload.filename is None:
        raise missing("file")
    purpose = choice(upload.fields, "purpose", PURPOSES)
    policy: dict[str, Any] = {}
    for name in ("anchor", "seconds"):
        if (written := upload.fields.get(f"expires_after[{name}]")) is not None:
            policy[name] = int(written) if name == "seconds" and written.isascii() and written.isdigit() else written
    return purpose, life(policy or None, "expires_after", profile)


def check_batch_file(upload: Upload) -> None:
    """What is refused at upload: another name, an empty file, a first line that is not JSON."""
    if upload.bytes == 0:
        raise ApiError(400, "File is empty.", param="file")
    name = upload.filename or ""
    if name != "upload" and not name.endswith(".jsonl"):
        raise ApiError(400, _FORMAT_MESSAGE)
    with upload.path.open("rb") as content:
        first = content.readline(_FIRST_LINE_BYTES)
    if len(first) == _FIRST_LINE_BYTES:
        return  # its batch will tell: an upload is not held in memory
    try:
        parsed = parse(first)
    except ValueError as problem:
        raise ApiError(400, _FORMAT_MESSAGE) from problem
    if not isinstance(parsed, dict):
        raise ApiError(400, _FORMAT_MESSAGE)


def _first_url(upload: Upload) -> str:
    """The url of the first line; none if the line has no good one, which the check of all lines tells."""
    with upload.path.open("rb") as content:
        try:
            first = parse(content.readline())
        except ValueError:
            return ""
    url = first.get("url") if isinstance(first, dict) else None
    return url if isinstance(url, str) else ""


def check_lines(upload: Upload, limits: Limits, profile: Profile) -> None:
    """What a service that validates at upload refuses: any file that a batch could not be made of."""
    endpoint = profile.endpoint(_first_url(upload))
    if errors := check_input(upload.path, endpoint=endpoint, limits=limits, profile=profile).errors:
        found = errors[0]
        raise ApiError(400, f"Line {found['line']}: {found['message']}", param=found["param"], code=found["code"])
