"""The endpoints as a table: how a row's texts become a request body, and what each calls its output cap.

The key order of a body is part of its digest, and is always: model, then the prompt, then the params as the user wrote
them, then the answer's format, tools, tool_choice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batchops.spec.job import Job, Message

Body = dict[str, Any]
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """A template in a body, and the path in the spec where it is written."""

    text: str
    path: Path


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of the Batch API.

    `caps` are the names of its output cap, the preferred one first. `allows_messages`: a template may be a list of
    messages. `prompt` makes the part of the body that a template fills, from a slot or a list of messages;
    `answer_format` the part that asks for structured output, from a name, a schema and the params given.
    """

    url: str
    caps: tuple[str, ...]
    allows_messages: bool
    prompt: Callable[[Slot | list[Body]], Body]
    answer_format: Callable[[str, Mapping[str, Any], Mapping[str, Any]], Body] | None = None


def _chat_prompt(template: Slot | list[Body]) -> Body:
    return {"messages": [{"role": "user", "content": template}] if isinstance(template, Slot) else template}


def _input_prompt(template: Slot | list[Body]) -> Body:
    return {"input": template}


def _text_prompt(template: Slot | list[Body]) -> Body:
    return {"prompt": template}


def _chat_format(name: str, schema: Mapping[str, Any], params: Mapping[str, Any]) -> Body:
    return {"response_format": {"type": "json_schema", "json_schema": _strict(name, schema)}}


def _responses_format(name: str, schema: Mapping[str, Any], params: Mapping[str, Any]) -> Body:
    own = params.get("text")
    given = own if isinstance(own, Mapping) else {}
    return {"text": {**given, "format": {"type": "json_schema", **_strict(name, schema)}}}


def _strict(name: str, schema: Mapping[str, Any]) -> Body:
    return {"name": name, "strict": True, "schema": schema}


ENDPOINTS: dict[str, Endpoint] = {
    endpoint.url: endpoint
    for endpoint in (
        Endpoint(
            "/v1/chat/completions",
            caps=("max_completion_tokens", "max_tokens"),
            allows_messages=True,
            prompt=_chat_prompt,
            answer_format=_chat_format,
        ),
        Endpoint(
            "/v1/responses",
            caps=("max_output_tokens",),
            allows_messages=True,
            prompt=_input_prompt,
            answer_format=_responses_format,
        ),
        Endpoint("/v1/embeddings", caps=(), allows_messages=False, prompt=_input_prompt),
        Endpoint("/v1/moderations", caps=(), allows_messages=False, prompt=_input_prompt),
        Endpoint("/v1/completions", caps=("max_tokens",), allows_messages=False, prompt=_text_prompt),
    )
}


def schema_name(schema: Mapping[str, Any]) -> str:
    """The name of a response format: the schema's `title` in the letters that are allowed, else `answer`."""
    title = schema.get("title")
    name = re.sub(r"[^a-zA-Z0-9_-]+", "_", title).strip("_")[:64] if isinstance(title, str) else ""
    return name or "answer"


def body_of(job: Job) -> Body:
    """The job's body before rendering: model, prompt, params, answer format, tools; a Slot for each template.

    `body:` in place of a template gives everything but the model. A param wins over the same key of `body:`, and the
    job's schema over a format in the params.
    """
    spec, endpoint = job.spec, ENDPOINTS[job.spec.endpoint]
    prompt = endpoint.prompt(_prompt(job.template)) if job.template is not None else slots(spec.body or {}, ("body",))
    last = _answer_format(endpoint, job.schema, prompt | spec.params)
    if spec.tools is not None:
        last["tools"] = list(spec.tools)
    if spec.tool_choice is not None:
        last["tool_choice"] = spec.tool_choice
    first = {"model": spec.model}
    own = {key: value for key, value in (prompt | spec.params).items() if key not in first and key not in last}
    return first | own | last


def _answer_format(endpoint: Endpoint, schema: Mapping[str, Any] | None, params: Mapping[str, Any]) -> Body:
    if schema is None or endpoint.answer_format is None:
        return {}
    return endpoint.answer_format(schema_name(schema), schema, params)


def _prompt(template: str | tuple[Message, ...]) -> Slot | list[Body]:
    if isinstance(template, str):
        return Slot(template, ("template",))
    return [_message(message, ("template", number)) for number, message in enumerate(template)]


def _message(message: Message, path: Path) -> Body:
    named = {} if message.name is None else {"name": message.name}
    return {"role": message.role, "content": slots(message.content, (*path, "content")), **named}


def slots(value: Any, path: Path) -> Any:
    """A tree with each of its strings made a Slot."""
    if isinstance(value, str):
        return Slot(value, path)
    if isinstance(value, Mapping):
        return {key: slots(part, (*path, key)) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [slots(part, (*path, index)) for index, part in enumerate(value)]
    return value
