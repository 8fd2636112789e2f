"""Raw result lines → outcomes. Pure but for `read_lines`: what a line says decides, never the file it was found in.

A batch puts every answer of status 200 into its output file, truncated and refused ones included, and its counts leave
out what expired or was cancelled; so a row without a line is found by its absence alone and judged as `None`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Protocol

import orjson

from batchops.providers.refusals import error_in, is_quota_code
from batchops.request.answers import Reading, ToolCall, Usage, parse_body, read
from batchops.spec.job import Outcome

MAX_LINE_BYTES: Final = 256 << 20
"""A list of 2,048 vectors of 3,072 numbers is some 75 MB of text; nothing honest is longer than this."""


class Validator(Protocol):
    """A compiled schema: jsonschema_rs."""

    def is_valid(self, instance: Any) -> bool: ...

    def iter_errors(self, instance: Any) -> Iterator[Any]: ...


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a job expects of an answer.

    `tools` maps each tool's name to the validator of its parameters, or None where they are free; a job without tools
    has None. `is_list`: the input was a list, so the answer of an embeddings or moderations row is one too.
    """

    endpoint: str
    schema: Validator | None = None
    tools: Mapping[str, Validator | None] | None = None
    is_list: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """One try of a request, judged. `answer` is JSON-able, None unless it succeeded; `message` quotes no answer."""

    outcome: Outcome
    answer: Any = None
    http: int | None = None
    code: str | None = None
    message: str | None = None
    finish: str | None = None
    model: str | None = None
    usage: Usage = field(default_factory=Usage)


_CODES: Final[Mapping[str, Outcome]] = {
    "batch_expired": Outcome.EXPIRED,
    "batch_cancelled": Outcome.CANCELLED,
    "batch_canceled": Outcome.CANCELLED,
    "cancelled": Outcome.CANCELLED,
    "request_timeout": Outcome.TIMED_OUT,
    "vector_store_timeout": Outcome.TIMED_OUT,
    "rate_limit_exceeded": Outcome.RATE_LIMITED,
    "slow_down": Outcome.RATE_LIMITED,
    "server_error": Outcome.SERVER_ERROR,
    "server_is_overloaded": Outcome.SERVER_ERROR,
    "content_filter": Outcome.CONTENT_FILTERED,
    "invalid_prompt": Outcome.BAD_REQUEST,
    "bio_policy": Outcome.BAD_REQUEST,
    "data_residency_mismatch": Outcome.BAD_REQUEST,
}
"""Error codes where no HTTP status decides (batch guide; ResponseErrorCode of the OpenAPI text, 2026-08)."""

_STATUSES: Final[Mapping[int, Outcome]] = {
    402: Outcome.QUOTA_EXHAUSTED,
    404: Outcome.NOT_FOUND,
    408: Outcome.TIMED_OUT,
    409: Outcome.SERVER_ERROR,
    429: Outcome.RATE_LIMITED,
    504: Outcome.TIMED_OUT,
}
_FILTER_CODES: Final = frozenset({"content_filter", "content_policy_violation"})
_LINE_CODES: Final = frozenset({"batch_expired", "batch_cancelled", "batch_canceled", "request_timeout"})


def judge(line: Mapping[str, Any] | None, expect: Expectation) -> Judged:
    """The outcome of one result line; None is a row that no file mentions."""
    if line is None:
        return Judged(Outcome.MISSING, code="missing", message="No line came back for this request.")
    response = line.get("response")
    code, message = error_in(line.get("error"))
    if not isinstance(response, Mapping) or code in _LINE_CODES:
        return _failed_without_reply(code, message)
    body = parse_body(response.get("body"))
    http = _status(response.get("status_code"), body)
    if http is None or not 200 <= http < 300:
        inner_code, inner_message = error_in(body)
        return _failed_with_status(http or 0, inner_code or code, inner_message or message)
    return _answered(http, body, expect)


def read_lines(path: Path, *, start: int = 0) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    r"""Each line of a JSONL file as its bytes and its object, or None where it is torn or no object.

    Splits on \n alone: U+2028 is text. A BOM and blank lines are passed over. One line is in memory at a time; one
    longer than MAX_LINE_BYTES comes in pieces, each None. With `start`, from the line after the one that is there.
    """
    with path.open("rb") as file:
        if start:
            file.seek(start)
            file.readline(MAX_LINE_BYTES)
        elif file.read(3) != b"\xef\xbb\xbf":
            file.seek(0)
        for raw in _raw_lines(file):
            if line := stripped(raw):
                yield line, line_object(line)


def stripped(raw: bytes) -> bytes:
    """A line without its end and the white space around it."""
    return raw.strip(b" \t\r\n")


def _raw_lines(file: IO[bytes]) -> Iterator[bytes]:
    while raw := file.readline(MAX_LINE_BYTES):
        yield raw


def line_object(line: bytes) -> dict[str, Any] | None:
    """The object that a line is, or None; see `read_lines`."""
    try:
        found = orjson.loads(line)
    except ValueError:
        found = _mended(line)
    return found if isinstance(found, dict) else None


def _mended(line: bytes) -> Any:
    """A line that only a lenient reader accepts: broken UTF-8, lone surrogates, NaN, 1e400. It was paid for: keep the
    rest."""
    try:
        lenient = json.loads(line.decode("utf-8", "replace"), parse_constant=lambda _: None, parse_float=_finite)
        return orjson.loads(json.dumps(lenient, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _status(raw: object, body: Mapping[str, Any] | None) -> int | None:
    """HTTP's status. A relative that leaves it out is believed where the body is an answer and no error."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw if 0 <= raw < 1 << 16 else None
    return 200 if raw is None and body and not body.get("error") else None


def _failed_without_reply(code: str | None, message: str) -> Judged:
    told = message or "The line holds neither a reply nor an error."
    return Judged(_outcome_of_code(code), code=code or "no_response", message=told)


def _failed_with_status(http: int, code: str | None, message: str) -> Judged:
    return Judged(_outcome_of(http, code), http=http, code=code, message=message or f"HTTP {http} without a message.")


def _outcome_of_code(code: str | None) -> Outcome:
    """Where a code is all there is. An unknown one may pass: it is tried again, a limited number of times."""
    if code is None or code in _CODES:
        return _CODES.get(code or "", Outcome.SERVER_ERROR)
    if is_quota_code(code):
        return Outcome.QUOTA_EXHAUSTED
    return Outcome.BAD_REQUEST if "image" in code else Outcome.SERVER_ERROR


def _outcome_of(http: int, code: str | None) -> Outcome:
    if is_quota_code(code):
        return Outcome.QUOTA_EXHAUSTED
    if code in _FILTER_CODES:
        return Outcome.CONTENT_FILTERED
    usual = Outcome.BAD_REQUEST if 400 <= http < 500 else Outcome.SERVER_ERROR
    return _STATUSES.get(http, usual)


def _answered(http: int, body: Mapping[str, Any] | None, expect: Expectation) -> Judged:
    reading = read(expect.endpoint, body)
    if reading is None or not _says_anything(reading):
        return _without_answer(http, body, reading)
    outcome, answer, code, message = _verdict(reading, expect)
    return Judged(
        outcome, answer, http, code, message, finish=reading.finish_reason, model=reading.model, usage=reading.usage
    )


def _says_anything(reading: Reading) -> bool:
    told = reading.finish_reason or reading.refusal or reading.failed_code
    return reading.has_answer or reading.text is not None or bool(told)


def _without_answer(http: int, body: Mapping[str, Any] | None, reading: Reading | None) -> Judged:
    """A reply of status 200 that is none: an error object, or not what this endpoint answers."""
    code, message = error_in(body) if body and body.get("error") else (None, "")
    return Judged(
        _outcome_of_code(code),
        http=http,
        code=code or "no_answer",
        message=message or "The reply holds no answer of this endpoint.",
        model=reading.model if reading else None,
        usage=reading.usage if reading else Usage(),
    )


_Finding = tuple[Outcome, Any, str | None, str | None]


def _verdict(reading: Reading, expect: Expectation) -> _Finding:
    """Outcome, answer, code, message of a reply, the worst first: failed, filtered, refused, truncated, unfit."""
    if reading.failed_code is not None:
        told = reading.failed_message or "The service reports that it failed."
        return _outcome_of_code(reading.failed_code), None, reading.failed_code, told
    if reading.is_filtered:
        return Outcome.CONTENT_FILTERED, None, "content_filter", "The service withheld the answer."
    if reading.refusal:
        return Outcome.REFUSED, None, "refusal", "The model refused to answer."
    if reading.is_truncated:
        return Outcome.TRUNCATED, None, "truncated", "The answer reached its token cap."
    if not reading.has_answer:
        return Outcome.TRUNCATED, None, "empty_answer", "The answer is empty: reasoning may have used up its token cap."
    return _fitted(reading, expect)


def _fitted(reading: Reading, expect: Expectation) -> _Finding:
    """The answer in the form the job expects, or why it does not fit."""
    if reading.values:
        is_one = len(reading.values) == 1 and not expect.is_list
        return Outcome.SUCCEEDED, reading.values[0] if is_one else list(reading.values), None, None
    if reading.tool_call is not None:
        return _fitted_call(reading.tool_call, expect)
    if expect.schema is not None:
        return _fitted_json(reading.text or "", expect.schema)
    if expect.tools is not None:
        return Outcome.SCHEMA_MISMATCH, None, "no_tool_call", "The model answered in words and called no tool."
    return Outcome.SUCCEEDED, reading.text, None, None


def _fitted_call(call: ToolCall, expect: Expectation) -> _Finding:
    if expect.tools is None or call.name not in expect.tools:
        return Outcome.SCHEMA_MISMATCH, None, "unknown_tool", "The model called a tool that the job does not offer."
    if call.is_custom:
        return Outcome.SUCCEEDED, {"name": call.name, "arguments": call.arguments}, None, None
    outcome, arguments, code, message = _fitted_json(call.arguments, expect.tools[call.name])
    answer = {"name": call.name, "arguments": arguments} if outcome is Outcome.SUCCEEDED else None
    return outcome, answer, code, message


def _fitted_json(text: str, schema: Validator | None) -> _Finding:
    try:
        value = orjson.loads(text)
    except ValueError:
        return Outcome.INVALID_JSON, None, "invalid_json", "The answer is not JSON."
    if schema is None or schema.is_valid(value):
        return Outcome.SUCCEEDED, value, None, None
    return Outcome.SCHEMA_MISMATCH, None, "schema_mismatch", _misfit(schema, value)


def _misfit(schema: Validator, value: Any) -> str:
    """Where an answer does not fit and which rule it breaks, without its words."""
    found = next(iter(schema.iter_errors(value)))
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in found.instance_path)
    rule = next((step for step in reversed(list(found.schema_path)) if isinstance(step, str)), "schema")
    return f'The answer does not fit the schema at ${place}: "{rule}".'
