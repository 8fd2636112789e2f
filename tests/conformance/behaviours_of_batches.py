"""Batches: create, get, list; what a create refuses at once."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from behaviour import asked, behaviour, call, create, good, problems, refusal
from subjects import Subject

GROUP = "Batches"
ENDPOINTS = (
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
)
UNKNOWN_YET = (
    "model",
    "errors",
    "output_file_id",
    "error_file_id",
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)
"""What is null of a new batch."""
_SHOWN = ", ".join(f"'{endpoint}'" for endpoint in ENDPOINTS)
_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}

WITHOUT_INPUT = (
    200,
    "failed",
    [
        (
            None,
            "invalid_request",
            "file_id",
            "Cannot find file FILE, or organization ORG does not have access to it.",
        )
    ],
)
"""What becomes of a batch that has no input file: created, failed, with one problem."""


@behaviour(
    GROUP,
    "The object of a new batch",
    "`validating`, counts 0/0/0, usage of zeros, `expires_at` in 24 hours, all else null",
    {
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "status": "validating",
        "metadata": {"team": "insights"},
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "usage": _USAGE,
        "life": 86_400,
        **dict.fromkeys(UNKNOWN_YET),
    },
)
def new_batch(subject: Subject) -> Any:
    file_id = subject.desk.upload(good(subject))
    made = create(subject, input_file_id=file_id, metadata={"team": "insights"})["body"]
    assert made.pop("id").startswith("batch_")
    assert made.pop("input_file_id") == file_id
    created, expires = made.pop("created_at"), made.pop("expires_at")
    return {**made, "life": expires - created if expires else None}


@behaviour(GROUP, "One file makes many batches", "each create is a batch of its own", (2, ["completed"] * 2))
def one_file_many_batches(subject: Subject) -> Any:
    file_id = subject.desk.upload(good(subject))
    made = [subject.desk.create(file_id) for _ in range(2)]
    return len({batch.id for batch in made}), [subject.desk.wait(batch).status for batch in made]


@behaviour(GROUP, "The header `Idempotency-Key`", "is not known: two creates, two batches", 2)
def idempotency_header(subject: Subject) -> Any:
    file_id = subject.desk.upload(good(subject))
    headers = {"Idempotency-Key": "the-same"}
    return len({subject.desk.create(file_id, extra_headers=headers).id for _ in range(2)})


@behaviour(
    GROUP,
    "Listing batches page by page",
    "newest first, each once, by `after` and `limit`",
    {"each once": True, "newest first": True, "keys": ["data", "first_id", "has_more", "last_id", "object"]},
)
def listing(subject: Subject) -> Any:
    file_id = subject.desk.upload(good(subject))
    made = [subject.desk.create(file_id) for _ in range(5)]
    listed = list(subject.desk.sdk.batches.list(limit=2))
    times = [batch.created_at for batch in listed]
    ids = [batch.id for batch in listed]
    page = subject.desk.raw("GET", "/v1/batches?limit=2").json()
    return {
        "each once": len(ids) == len(set(ids)) and {batch.id for batch in made} <= set(ids),
        "newest first": times == sorted(times, reverse=True),
        "keys": sorted(page),
    }


@behaviour(GROUP, "Listing batches without a limit", "20", (20, True))
def listing_default(subject: Subject) -> Any:
    file_id = subject.desk.upload(good(subject))
    for _ in range(21):
        subject.desk.create(file_id)
    page = subject.desk.raw("GET", "/v1/batches").json()
    return len(page["data"]), page["has_more"]


@behaviour(
    GROUP,
    "Listing batches with a limit out of 1…100",
    "400 `integer_below_min_value`, `integer_above_max_value` *",
    [(400, "integer_below_min_value", "limit"), (400, "integer_above_max_value", "limit")],
)
def listing_limits(subject: Subject) -> Any:
    seen = [refusal(call(subject, "GET", f"/v1/batches?limit={limit}")) for limit in (0, 101)]
    return [one[:3] if isinstance(one, tuple) else one for one in seen]


@behaviour(
    GROUP,
    "A batch that does not exist",
    "404 No batch found with id '…'",
    [(404, None, None, "No batch found with id 'batch_nowhere'.")] * 2,
)
def unknown_batch(subject: Subject) -> Any:
    asked = (("GET", ""), ("POST", "/cancel"))
    return [refusal(call(subject, method, f"/v1/batches/batch_nowhere{path}")) for method, path in asked]


@behaviour(GROUP, "Metadata at its limits", "16 pairs, keys of 64 and values of 512 characters are kept", True)
def most_metadata(subject: Subject) -> Any:
    pairs = {f"{n:064}": "é" * 512 for n in range(16)}
    return create(subject, metadata=pairs)["body"].get("metadata") == pairs


def _refused(title: str, says: str, expected: Any, **change: Any) -> None:
    """A create that is refused at once because of one parameter."""

    def observe(subject: Subject) -> Any:
        return refusal(create(subject, **change))

    behaviour(GROUP, title, says, expected)(observe)


_refused(
    "17 pairs of metadata",
    "400 `object_above_max_properties` *",
    (
        400,
        "object_above_max_properties",
        "metadata",
        "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got an object "
        "with 17 properties instead.",
    ),
    metadata={str(n): "" for n in range(17)},
)
_refused(
    "A key of metadata of 65 characters",
    "400 `string_above_max_length` *",
    (
        400,
        "string_above_max_length",
        "metadata",
        "Invalid 'metadata': key string too long. Expected a string with maximum length 64, but got a string with "
        "length 65 instead.",
    ),
    metadata={"k" * 65: "x"},
)
_refused(
    "A value of metadata of 513 characters",
    "400 `string_above_max_length` *",
    (
        400,
        "string_above_max_length",
        "metadata.k",
        "Invalid 'metadata.k': string too long. Expected a string with maximum length 512, but got a string with "
        "length 513 instead.",
    ),
    metadata={"k": "x" * 513},
)
_refused(
    "A value of metadata that is no text",
    "400 `invalid_type`: expected a string, but got an array instead",
    (
        400,
        "invalid_type",
        "metadata.tags",
        "Invalid type for 'metadata.tags': expected a string, but got an array instead.",
    ),
    metadata={"tags": ["a"]},
)
_refused(
    "An unknown endpoint",
    "400 `invalid_value`, `endpoint`",
    (400, "invalid_value", "endpoint", f"Invalid value: '/v1/party'. Supported values are: {_SHOWN}."),
    endpoint="/v1/party",
)
_refused(
    "Another window than 24h",
    "400 `invalid_value`, `completion_window`",
    (400, "invalid_value", "completion_window", "Invalid value: '48h'. Supported values are: '24h'."),
    completion_window="48h",
)
for _missing in ("input_file_id", "endpoint", "completion_window"):
    _refused(
        f"A create without `{_missing}`",
        "400 `missing_required_parameter`",
        (400, "missing_required_parameter", _missing, f"Missing required parameter: '{_missing}'."),
        **{_missing: None},
    )
_refused(
    "`output_expires_after` below an hour",
    "400 `integer_below_min_value` *",
    (
        400,
        "integer_below_min_value",
        "output_expires_after.seconds",
        "Invalid 'output_expires_after.seconds': integer below minimum value. Expected a value >= 3600, but got 3599 "
        "instead.",
    ),
    output_expires_after={"anchor": "created_at", "seconds": 3599},
)


@behaviour(GROUP, "The endpoints a batch may name", "eight of them", list(ENDPOINTS))
def endpoints(subject: Subject) -> Any:
    file_id = subject.desk.upload(good(subject))
    seen = {one: create(subject, input_file_id=file_id, endpoint=one)["status"] for one in ENDPOINTS}
    return [endpoint for endpoint, status in seen.items() if status == 200]


@behaviour(
    GROUP,
    "A batch whose input file does not exist",
    "is created, then fails: `invalid_request`, `file_id`",
    WITHOUT_INPUT,
)
def missing_file(subject: Subject) -> Any:
    return _of_file(subject, "file-0123456789abcdef")


@behaviour(
    GROUP,
    "A batch whose input file was deleted",
    "is created, then fails, and nothing is asked of the model",
    WITHOUT_INPUT,
)
def deleted_file(subject: Subject) -> Any:
    subject.upstream.hold()
    file_id = subject.desk.upload(good(subject, text="unpaid"))
    subject.desk.sdk.files.delete(file_id)
    seen = _of_file(subject, file_id)
    assert asked(subject, "unpaid") == 0
    return seen


def _of_file(subject: Subject, file_id: str) -> Any:
    made = create(subject, input_file_id=file_id)
    if made["status"] != 200:
        return refusal(made, FILE=file_id)
    failed = subject.desk.wait(made["body"]["id"])
    said = [
        (line, code, param, (text or "").replace(file_id, "FILE").replace("org-batchops", "ORG"))
        for line, code, param, text in problems(failed)
    ]
    return made["status"], failed.status, said


@behaviour(GROUP, "The connection after a refused create", "serves the next call", (400, 200))
def refused_connection(subject: Subject) -> Any:
    address = urlsplit(subject.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
    wrong = {"input_file_id": "file-0", "endpoint": "/v1/party", "completion_window": "24h"}
    try:
        connection.request("POST", "/v1/batches", json.dumps(wrong), {"content-type": "application/json"})
        refused = connection.getresponse()
        refused.read()
        connection.request("GET", "/v1/batches?limit=1")
        return refused.status, connection.getresponse().status
    except ConnectionError:
        return refused.status, "cut"
    finally:
        connection.close()


@behaviour(GROUP, "A method that is not offered", "405 in the shape of an error", (405, "invalid_request_error"))
def wrong_method(subject: Subject) -> Any:
    seen = call(subject, "PUT", "/v1/batches")
    error = (seen.get("body") or {}).get("error") or {}
    return seen["status"], error.get("type")
