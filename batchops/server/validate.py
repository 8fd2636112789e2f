"""Whole-file validation: what the Batch API checks before it executes anything, in its words.

Codes and messages follow what the service was observed to answer (captures of 2025-01 to 2026-08); checks it is known
to make without a known text are worded in its manner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchops.profiles import PROFILES, Profile
from batchops.server.lines import READ_BYTES
from batchops.server.options import Limits
from batchops.server.parsing import parse
from batchops.server.tokens import prompt_tokens

MAX_ERRORS = 1000
_OPENAI = PROFILES["openai"]
_MEMBERS: tuple[tuple[str, type, str], ...] = (
    ("custom_id", str, "a string"),
    ("method", str, "a string"),
    ("url", str, "a string"),
    ("body", dict, "an object"),
)
_REQUIRED_IN_BODY = {
    "/v1/chat/completions": ("messages", list, "Messages"),
    "/v1/embeddings": ("input", object, "Input"),
    "/v1/completions": ("prompt", object, "Prompt"),
    "/v1/moderations": ("input", object, "Input"),
}
_DEFAULT_MODELS = {"/v1/moderations": "omni-moderation-latest"}
_JSON_NAMES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "an integer"}


@dataclass
class Checked:
    """What was found in an input file. The file is good if `errors` is empty."""

    total: int = 0
    model: str | None = None
    prompt_tokens: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)


def json_type(value: Any) -> str:
    """How the service names the type of a JSON value."""
    if value is None:
        return "null"
    return _JSON_NAMES.get(type(value), "a number")


def batch_error(code: str, message: str, *, param: str | None = None, line: int | None = None) -> dict[str, Any]:
    return {"code": code, "line": line, "message": message, "param": param}


def missing_file(file_id: str, organization: str) -> dict[str, Any]:
    message = f"Cannot find file {file_id}, or organization {organization} does not have access to it."
    return batch_error("invalid_request", message, param="file_id")


def wrong_purpose(purpose: str) -> dict[str, Any]:
    message = f"The input file of a batch must have the purpose 'batch', but this one has '{purpose}'."
    return batch_error("invalid_request", message, param="file_id")


def token_limit_exceeded(model: str, organization: str, limit: int) -> dict[str, Any]:
    return batch_error(
        "token_limit_exceeded",
        f"Enqueued token limit reached for {model} in organization {organization}. Limit: {limit:,} enqueued tokens. "
        "Please try again once some in_progress batches have been completed.",
    )


def check_input(
    path: Path,
    *,
    endpoint: str,
    limits: Limits,
    models: frozenset[str] = frozenset(),
    profile: Profile = _OPENAI,
    stop: Callable[[], bool] = lambda: False,
) -> Checked:
    """Read the whole file once, line by line. Ends early, with what it has, when `stop` says so."""
    checker = _Checker(endpoint, limits, models, profile)
    if (size := path.stat().st_size) > limits.batch_bytes:
        return checker.too_large(size)
    with path.open("rb", READ_BYTES) as source:
        for number, raw in _numbered(source):
            checker.check(number, raw)
            if len(checker.found.errors) >= MAX_ERRORS or (number % 1000 == 0 and stop()):
                break
    return checker.finish()


def _numbered(source: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers; blank lines at the end of the file are left out."""
    blank: list[tuple[int, bytes]] = []
    for number, raw in enumerate(source, 1):
        if raw.isspace():
            blank.append((number, raw))
            continue
        yield from blank
        blank.clear()
        yield number, raw


class _Checker:
    def __init__(self, endpoint: str, limits: Limits, models: frozenset[str], profile: Profile) -> None:
        self.found = Checked()
        self._endpoint, self._limits, self._models = endpoint, limits, models
        self._profile = profile
        self._custom_ids: set[str] = set()
        self._inputs = 0

    def too_large(self, size: int) -> Checked:
        self._add(
            None,
            "invalid_request",
            f"The batch input file is larger than the {self._limits.batch_bytes} maximum ({size} bytes). "
            "Please try again with a smaller batch.",
        )
        return self.found

    def finish(self) -> Checked:
        found, limits = self.found, self._limits
        if found.total == 0 and not found.errors:
            text = "The input file is empty. Please ensure that the batch contains at least one request."
            self._add(None, "empty_file", text)
        if found.total > limits.batch_requests:
            text = f"The input file contains {found.total} requests; a batch may contain {limits.batch_requests}."
            self._add(None, "too_many_tasks", text)
        if self._inputs > limits.embedding_inputs:
            text = f"The input file contains {self._inputs} embedding inputs; a batch may contain "
            self._add(None, "too_many_tasks", f"{text}{limits.embedding_inputs}.", param="body.input")
        return found

    def check(self, number: int, raw: bytes) -> None:
        self.found.total += 1
        try:
            line = parse(raw)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            self._add(number, "invalid_json_line", "This line is not parseable as valid JSON.")
            return
        if self._members(number, line):
            self._envelope(number, line)
            self._body(number, line["body"])

    def _members(self, number: int, line: dict[str, Any]) -> bool:
        """Whether custom_id, method, url and body are there, each of its type."""
        before = len(self.found.errors)
        for name, wanted, described in _MEMBERS:
            if name not in line:
                text = f"Missing required parameter: '{name}'."
                self._add(number, "missing_required_parameter", text, param=name)
            elif not isinstance(line[name], wanted):
                text = f"Invalid type for '{name}': expected {described}, but got {json_type(line[name])} instead."
                self._add(number, "invalid_type", text, param=name)
        return len(self.found.errors) == before

    def _envelope(self, number: int, line: dict[str, Any]) -> None:
        if not (custom_id := line["custom_id"]):
            text = "Invalid 'custom_id': empty string. Expected a string with minimum length 1."
            self._add(number, "empty_string", text, param="custom_id")
        elif custom_id in self._custom_ids:
            text = f"The custom_id '{custom_id}' for this request is a duplicate of another request. "
            text += "The custom_id parameter must be unique for each request in a batch."
            self._add(number, "duplicate_custom_id", text, param="custom_id")
        self._custom_ids.add(custom_id)
        if line["method"] != "POST":
            text = f"Invalid value: '{line['method']}'. Supported values are: 'POST'."
            self._add(number, "invalid_value", text, param="method")
        if self._profile.endpoint(line["url"]) != self._endpoint:
            text = "The URL provided for this request does not match the batch endpoint."
            self._add(number, "invalid_url", text, param="url")

    def _body(self, number: int, body: dict[str, Any]) -> None:
        self._model(number, body)
        name, wanted, described = _REQUIRED_IN_BODY.get(self._endpoint, (None, object, ""))
        if name is not None and body.get(name) is None:
            self._add(number, "invalid_request", f"{described} parameter is required.", param=f"body.{name}")
        elif name is not None and not isinstance(body[name], wanted):
            text = f"Invalid type for '{name}': expected an array, but got {json_type(body[name])} instead."
            self._add(number, "invalid_type", text, param=f"body.{name}")
        if body.get("stream"):
            what = _STREAMING_NAMES.get(self._endpoint, "Streaming")
            text = f"{what}: Streaming is not supported in the Batch API."
            self._add(number, "streaming_unsupported", text, param="body.stream")
        if self._endpoint == "/v1/embeddings":
            inputs = body.get("input")
            self._inputs += len(inputs) if isinstance(inputs, list) and not _is_tokens(inputs) else 1
        self.found.prompt_tokens += prompt_tokens(body)

    def _model(self, number: int, body: dict[str, Any]) -> None:
        model = body.get("model")
        if model is None:
            model = _DEFAULT_MODELS.get(self._endpoint)
        if not isinstance(model, str) or not model:
            self._add(number, "invalid_request", "Model parameter is required.", param="body.model")
        elif self._models and model not in self._models:
            text = f"The provided model '{model}' is not supported by the Batch API."
            self._add(number, "model_not_found", text, param="body.model")
        elif self.found.model is None:
            self.found.model = model
        elif model != self.found.model and not self._profile.multi_model:
            text = f"The model '{model}' for this request does not match the rest of the batch. "
            text += "Each batch must contain requests for a single model."
            self._add(number, "mismatched_model", text, param="body.model")

    def _add(self, line: int | None, code: str, message: str, *, param: str | None = None) -> None:
        self.found.errors.append(batch_error(code, message, param=param, line=line))


_STREAMING_NAMES = {
    "/v1/chat/completions": "Chat Completions",
    "/v1/responses": "Responses",
    "/v1/completions": "Completions",
    "/v1/embeddings": "Embeddings",
    "/v1/moderations": "Moderations",
}


def _is_tokens(inputs: list[Any]) -> bool:
    return bool(inputs) and isinstance(inputs[0], int)
