"""Whole-file validation: every code with its line, parameter and exact text; several at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from batch_desk import jsonl
from behaviour import asked, behaviour, counts, good, line, problems
from subjects import CROWDED, Subject

GROUP = "Validation of the whole file"
JSON_TEXT = "This line is not parseable as valid JSON."
Second = Callable[[Subject], Any]


def _fails(title: str, code: str, param: str | None, text: str, second: Second, *, is_shown: bool = True) -> None:
    """A file whose second line is wrong fails its batch with one problem.

    In `text` OTHER is the other model. `is_shown`: some source shows the service doing so.
    """

    def observe(subject: Subject) -> Any:
        wrong = second(subject)
        wrong = wrong if isinstance(wrong, bytes) else jsonl([wrong])
        ended = subject.desk.wait(subject.desk.submit(jsonl([line(subject, "first")]) + wrong))
        said = [
            (number, code, param, (text or "").replace(subject.other_model, "OTHER"))
            for number, code, param, text in problems(ended)
        ]
        return ended.status, said

    where = f", `{param}`" if param else ""
    mark = "" if is_shown else " *"
    behaviour(GROUP, title, f"`{code}`, line 2{where}{mark}", ("failed", [(2, code, param, text)]))(observe)


def _without(name: str) -> Second:
    return lambda subject: {key: held for key, held in line(subject, "x").items() if key != name}


def _with(**members: Any) -> Second:
    return lambda subject: {**line(subject, "x"), **members}


def _body_without(name: str) -> Second:
    def made(subject: Subject) -> Any:
        whole = line(subject, "x")
        return {**whole, "body": {key: held for key, held in whole["body"].items() if key != name}}

    return made


_fails("A line that is not JSON", "invalid_json_line", None, JSON_TEXT, lambda _: b"{oops\n")
_fails("A line that is no object", "invalid_json_line", None, JSON_TEXT, lambda _: b"[1]\n")
_fails(
    "A blank line between two",
    "invalid_json_line",
    None,
    JSON_TEXT,
    lambda subject: b"\n" + jsonl([line(subject, "last")]),
    is_shown=False,
)
for _name in ("custom_id", "method", "url", "body"):
    _fails(
        f"A line without `{_name}`",
        "missing_required_parameter",
        _name,
        f"Missing required parameter: '{_name}'.",
        _without(_name),
    )
_fails(
    "A `custom_id` that is no text",
    "invalid_type",
    "custom_id",
    "Invalid type for 'custom_id': expected a string, but got an integer instead.",
    _with(custom_id=7),
    is_shown=False,
)
_fails(
    "An empty `custom_id`",
    "empty_string",
    "custom_id",
    "Invalid 'custom_id': empty string. Expected a string with minimum length 1.",
    _with(custom_id=""),
    is_shown=False,
)
_fails(
    "A `custom_id` for the second time",
    "duplicate_custom_id",
    "custom_id",
    "The custom_id 'first' for this request is a duplicate of another request. The custom_id parameter must be unique "
    "for each request in a batch.",
    _with(custom_id="first"),
)
_fails(
    "Another method than POST",
    "invalid_value",
    "method",
    "Invalid value: 'GET'. Supported values are: 'POST'.",
    _with(method="GET"),
    is_shown=False,
)
_fails(
    "Another URL than the batch's endpoint",
    "invalid_url",
    "url",
    "The URL provided for this request does not match the batch endpoint.",
    _with(url="/v1/embeddings"),
)
_fails(
    "A `body` that is no object",
    "invalid_type",
    "body",
    "Invalid type for 'body': expected an object, but got a string instead.",
    _with(body="x"),
    is_shown=False,
)
_fails(
    "An unknown model",
    "model_not_found",
    "body.model",
    "The provided model 'gpt-nowhere' is not supported by the Batch API.",
    lambda subject: line(subject, "x", model="gpt-nowhere"),
)
_fails(
    "A second model in the file",
    "mismatched_model",
    "body.model",
    "The model 'OTHER' for this request does not match the rest of the batch. Each batch must contain requests for a "
    "single model.",
    lambda subject: line(subject, "x", model=subject.other_model),
)
_fails("No model", "invalid_request", "body.model", "Model parameter is required.", _body_without("model"))
_fails("No messages", "invalid_request", "body.messages", "Messages parameter is required.", _body_without("messages"))
_fails(
    "A request to stream",
    "streaming_unsupported",
    "body.stream",
    "Chat Completions: Streaming is not supported in the Batch API.",
    lambda subject: line(subject, "x", stream=True),
)


@behaviour(
    GROUP,
    "Several wrong lines",
    "all are reported at once, in the order of the file",
    (
        "failed",
        [
            (2, "missing_required_parameter", "custom_id"),
            (3, "invalid_json_line", None),
            (4, "streaming_unsupported", "body.stream"),
            (5, "invalid_url", "url"),
        ],
    ),
)
def several(subject: Subject) -> Any:
    lines = jsonl([line(subject, "a"), _without("custom_id")(subject)]) + b"{oops\n"
    lines += jsonl([line(subject, "b", stream=True), {**line(subject, "c"), "url": "/v1/embeddings"}])
    ended = subject.desk.wait(subject.desk.submit(lines))
    return ended.status, [problem[:3] for problem in problems(ended)]


@behaviour(
    GROUP,
    "A batch that failed validation",
    "has no files, counts 0/0/0, `failed_at`, and nothing was asked",
    {"counts": (0, 0, 0), "files": (None, None), "failed_at": True, "asked": 0},
)
def nothing_was_done(subject: Subject) -> Any:
    subject.upstream.hold()
    ended = subject.desk.wait(subject.desk.submit(jsonl(good(subject, text="unpaid")) + b"{oops\n"))
    return {
        "counts": counts(ended),
        "files": (ended.output_file_id, ended.error_file_id),
        "failed_at": ended.failed_at is not None,
        "asked": asked(subject, "unpaid"),
    }


@behaviour(
    GROUP, "Blank lines at the end, Windows line ends, no last newline", "are no matter", ("completed", (2, 2, 0))
)
def line_ends(subject: Subject) -> Any:
    content = jsonl(good(subject)).replace(b"\n", b"\r\n")
    ended = [subject.desk.wait(subject.desk.submit(one)) for one in (content + b"\n \r\n\n", content.rstrip())]
    seen = {(batch.status, counts(batch)) for batch in ended}
    return seen.pop() if len(seen) == 1 else sorted(map(str, seen))


@behaviour(
    GROUP,
    "More enqueued tokens than the model's limit",
    "`token_limit_exceeded`, no line",
    (
        "failed",
        [
            (
                None,
                "token_limit_exceeded",
                None,
                "Enqueued token limit reached for crowded in organization ORG. Limit: 10 enqueued tokens. Please try "
                "again once some in_progress batches have been completed.",
            )
        ],
    ),
)
def enqueued_tokens(subject: Subject) -> Any:
    model = CROWDED if subject.has_queues else subject.chat_model
    ended = subject.desk.wait(subject.desk.submit([line(subject, "a", "word " * 100, model=model)]))
    said = [(*problem[:3], (problem[3] or "").replace("org-batchops", "ORG")) for problem in problems(ended)]
    return ended.status, said
