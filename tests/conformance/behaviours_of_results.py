"""Results: which line is in which file and how it looks, counts, usage, files that are not there, every endpoint."""

from __future__ import annotations

import json
from typing import Any

from behaviour import behaviour, counts, create, good, line, problems
from openai.types import Batch
from realtime import REFUSED
from subjects import Subject

GROUP = "Results"


def mixed_fates(subject: Subject) -> Batch:
    """A batch that has ended: two answered, one refused by the model."""
    return subject.desk.wait(subject.desk.submit([*good(subject), line(subject, "bad", "refuse this")]))


@behaviour(
    GROUP,
    "The times of a batch that completed",
    "`created_at` ≤ `in_progress_at` ≤ `finalizing_at` ≤ `completed_at`; of other ends none",
    {"in order": True, "null": ["cancelled_at", "cancelling_at", "expired_at", "failed_at"]},
)
def times(subject: Subject) -> Any:
    ended = subject.desk.wait(subject.desk.submit(good(subject))).to_dict()
    order = [ended.get(name) for name in ("created_at", "in_progress_at", "finalizing_at", "completed_at")]
    known = [moment for moment in order if isinstance(moment, int)]
    in_order = len(known) == 4 and known == sorted(known)
    missing = sorted(name for name, held in ended.items() if name.endswith("_at") and held is None)
    return {"in order": in_order, "null": missing}


@behaviour(GROUP, "Counts of a batch that completed", "completed and failed make the total", ("completed", (3, 2, 1)))
def counted(subject: Subject) -> Any:
    ended = mixed_fates(subject)
    return ended.status, counts(ended)


@behaviour(GROUP, "Usage of a batch", "the sum over its answers", True)
def usage(subject: Subject) -> Any:
    ended = subject.desk.wait(subject.desk.submit(good(subject, 4)))
    if ended.usage is None:
        return None
    used = [_body(answered)["usage"] for answered in subject.desk.lines(ended.output_file_id)]
    return (ended.usage.input_tokens, ended.usage.output_tokens) == (
        sum(one["prompt_tokens"] for one in used),
        sum(one["completion_tokens"] for one in used),
    )


def _body(answered: dict[str, Any]) -> dict[str, Any]:
    body = answered["response"]["body"]
    found: dict[str, Any] = json.loads(body) if isinstance(body, str) else body
    return found


@behaviour(
    GROUP,
    "The line of an answer",
    "in the output file: `response` with `status_code`, `request_id` and the body as an object, `error` null",
    {
        "keys": ["custom_id", "error", "id", "response"],
        "response": ["body", "request_id", "status_code"],
        "status": 200,
        "body": "dict",
        "error": None,
    },
)
def answer_line(subject: Subject) -> Any:
    ended = mixed_fates(subject)
    answered = next(one for one in subject.desk.lines(ended.output_file_id) if one["custom_id"] == "r0")
    return {
        "keys": sorted(answered),
        "response": sorted(answered["response"]),
        "status": answered["response"]["status_code"],
        "body": type(answered["response"]["body"]).__name__,
        "error": answered.get("error"),
    }


@behaviour(
    GROUP,
    "The line of a request that the model refused",
    "in the error file: `response` with the model's status and error, `error` null",
    {"keys": ["custom_id", "error", "id", "response"], "response": [400, REFUSED], "error": None},
)
def refused_line(subject: Subject) -> Any:
    ended = mixed_fates(subject)
    [refused] = subject.desk.lines(ended.error_file_id)
    response = refused.get("response")
    seen = [response["status_code"], response["body"]] if response else response
    return {"keys": sorted(refused), "response": seen, "error": refused.get("error")}


@behaviour(GROUP, "Every request", "is in one of the two files, once", {"answered": True, "refused": True, "ids": True})
def each_once(subject: Subject) -> Any:
    lines = good(subject, 20) + [line(subject, f"bad{n}", f"refuse {n}") for n in range(3)]
    ended = subject.desk.wait(subject.desk.submit(lines))
    answered, refused = subject.desk.lines(ended.output_file_id), subject.desk.lines(ended.error_file_id)
    return {
        "answered": sorted(one["custom_id"] for one in answered) == sorted(f"r{n}" for n in range(20)),
        "refused": sorted(one["custom_id"] for one in refused) == [f"bad{n}" for n in range(3)],
        "ids": len({one["id"] for one in answered + refused}) == 23,
    }


@behaviour(GROUP, "The order of the output file", "not that of the input", "another")
def order(subject: Subject) -> Any:
    lines = good(subject, 50)
    ended = subject.desk.wait(subject.desk.submit(lines))
    seen = [one["custom_id"] for one in subject.desk.lines(ended.output_file_id)]
    return "the input's" if seen == [one["custom_id"] for one in lines] else "another"


@behaviour(GROUP, "All requests answered", "`error_file_id` is null", (True, False))
def none_failed(subject: Subject) -> Any:
    ended = subject.desk.wait(subject.desk.submit(good(subject)))
    return bool(ended.output_file_id), bool(ended.error_file_id)


@behaviour(GROUP, "All requests failed", "`completed`, and `output_file_id` is null", ("completed", False, True))
def all_failed(subject: Subject) -> Any:
    ended = subject.desk.wait(subject.desk.submit([line(subject, f"r{n}", f"refuse {n}") for n in range(3)]))
    return ended.status, bool(ended.output_file_id), bool(ended.error_file_id)


@behaviour(
    GROUP,
    "The output file",
    "`BATCH_output.jsonl`, purpose `batch_output`, 30 days of life, among the listed files",
    ("BATCH_output.jsonl", "batch_output", 2_592_000, True),
)
def output_file(subject: Subject) -> Any:
    ended = subject.desk.wait(subject.desk.submit(good(subject)))
    return _described(subject, ended)


def _described(subject: Subject, ended: Batch) -> Any:
    assert ended.output_file_id is not None
    file = subject.desk.sdk.files.retrieve(ended.output_file_id)
    life = file.expires_at - file.created_at if file.expires_at else None
    listed = file.id in {one.id for one in subject.desk.sdk.files.list()}
    return file.filename.replace(ended.id, "BATCH"), file.purpose, life, listed


@behaviour(GROUP, "`output_expires_after`", "the life of the result files", 7200)
def output_expires_after(subject: Subject) -> Any:
    policy = {"anchor": "created_at", "seconds": 7200}
    made = create(subject, output_expires_after=policy)
    ended = subject.desk.wait(made["body"]["id"])
    return _described(subject, ended)[2]


@behaviour(GROUP, "Ids of result files when `completed` is first seen", "may be null for a while", (False, True))
def late_ids(subject: Subject) -> Any:
    subject.faults({"on": "batch", "effect": "late_file_ids", "looks": 3})
    first = subject.desk.wait(subject.desk.submit(good(subject)))
    last = subject.desk.wait(first, lambda seen: seen.output_file_id is not None)
    return bool(first.output_file_id), bool(last.output_file_id)


_ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/responses": {"input": "Hi"},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/embeddings": {"input": ["one", "two"]},
    "/v1/moderations": {"input": "Hi"},
}
_KINDS = {
    "/v1/chat/completions": "chat.completion",
    "/v1/responses": "response",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "list",
    "/v1/moderations": None,
}


def _answers(endpoint: str) -> None:
    def observe(subject: Subject) -> Any:
        model = subject.embedding_model if endpoint == "/v1/embeddings" else subject.chat_model
        request = {"custom_id": "a", "method": "POST", "url": endpoint, "body": {"model": model, **_ASKED[endpoint]}}
        made = create(subject, input_file_id=subject.desk.upload([request]), endpoint=endpoint)
        if made["status"] != 200:
            return "refused at once"
        ended = subject.desk.wait(made["body"]["id"])
        answered = subject.desk.lines(ended.output_file_id)
        return _body(answered[0]).get("object") if answered else (ended.status, problems(ended))

    behaviour(GROUP, f"A batch of `{endpoint}`", "is answered", _KINDS[endpoint])(observe)


for _endpoint in _ASKED:
    _answers(_endpoint)
