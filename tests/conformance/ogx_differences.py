"""What OGX 1.5.0 does where it differs from the service: in words for the table, and as the value that is seen.

A value that is seen no more fails the run, so that a newer OGX is noticed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from behaviour import Behaviour
from behaviours_of_batches import UNKNOWN_YET

VERSION: Final = "1.5.0"


@dataclass(frozen=True)
class Difference:
    says: str
    seen: Any


def _said(status: int, message: str) -> dict[str, Any]:
    """An error of its own shape: a message and nothing else."""
    return {"status": status, "body": {"error": {"message": message}}}


def _invalid(place: str, message: str, kind: str) -> dict[str, Any]:
    """What it says of a body that does not fit its models."""
    path = ", ".join(f"'{part}'" for part in place.split("."))
    quote = '"' if "'" in message else "'"
    return _said(400, f"{{'errors': [{{'loc': ['body', {path}], 'msg': {quote}{message}{quote}, 'type': '{kind}'}}]}}")


def _failed(code: str, param: str | None, message: str) -> Any:
    return "failed", [(2, code, param, message)]


_SHAPE = "an error that has a message alone"
_ACCEPTED = Difference("accepted", "accepted")
_COMPLETES = Difference("accepted, and executed", ("completed", []))
_WORDS = "other words"
_PURPOSES = "'assistants', 'batch', 'fine-tune', 'vision', 'user_data' or 'evals'"
_MISSING_FILE = Difference(
    "created and failed, with `input_file_id` and other words",
    (200, "failed", [(None, "invalid_request", "input_file_id", "Cannot find file FILE.")]),
)

FILES: Final = {
    "the-object-of-an-upload": Difference(
        '`status_details` is `""`',
        {
            "object": "file",
            "filename": "shard.jsonl",
            "purpose": "batch",
            "status": "processed",
            "status_details": "",
            "id is file-…": True,
            "bytes are counted": True,
            "life": 2_592_000,
        },
    ),
    "range-of-a-content": Difference("ignored: the whole file", (200, None)),
    "a-batch-file-that-is-not-named-jsonl": _ACCEPTED,
    "an-empty-batch-file": _ACCEPTED,
    "a-batch-file-whose-first-line-is-not-json": _ACCEPTED,
    "an-unknown-purpose": Difference(_SHAPE, _invalid("purpose", f"Input should be {_PURPOSES}", "enum")),
    "an-upload-without-a-purpose": Difference(_SHAPE, _invalid("purpose", "Field required", "missing")),
    "an-upload-without-a-file": Difference(_SHAPE, _invalid("file", "Field required", "missing")),
    "expires-after-below-an-hour": Difference(
        "400 with `detail` in the place of `error`",
        {
            "status": 400,
            "body": {
                "detail": "Failed to parse expires_after: 1 validation error for ExpiresAfter\nseconds\n  "
                "Input should be greater than or equal to 3600 [type=greater_than_equal, input_value='3599', "
                "input_type=str]\n    For further information visit https://errors.pydantic.dev/2.14/v/greater_than_equal"
            },
        },
    ),
    "listing-files-with-a-limit-out-of-1-10-000": Difference("accepted", ["accepted", "accepted"]),
    "a-file-that-does-not-exist": Difference(
        f"404 with {_SHAPE}",
        _said(404, "File 'file-0123456789abcdef' not found. Use 'client.files.list()' to list available Files."),
    ),
}

_UNKNOWN_BATCH = _said(404, "Batch 'batch_nowhere' not found. Use 'client.batches.list()' to list available batches.")
BATCHES: Final = {
    "the-object-of-a-new-batch": Difference(
        "counts, usage and `expires_at` are null",
        {
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "status": "validating",
            "metadata": {"team": "insights"},
            **dict.fromkeys((*UNKNOWN_YET, "request_counts", "usage", "life")),
        },
    ),
    "listing-batches-with-a-limit-out-of-1-100": Difference("accepted", ["accepted", "accepted"]),
    "a-batch-that-does-not-exist": Difference(f"404 with {_SHAPE}", [_UNKNOWN_BATCH, _UNKNOWN_BATCH]),
    "17-pairs-of-metadata": _ACCEPTED,
    "a-key-of-metadata-of-65-characters": _ACCEPTED,
    "a-value-of-metadata-of-513-characters": _ACCEPTED,
    "a-value-of-metadata-that-is-no-text": Difference(
        _SHAPE, _invalid("metadata.tags", "Input should be a valid string", "string_type")
    ),
    "an-unknown-endpoint": Difference(
        _SHAPE,
        _said(
            400,
            "Invalid endpoint: /v1/party. Supported values: /v1/chat/completions, /v1/completions, /v1/embeddings. "
            "Code: invalid_value. Param: endpoint",
        ),
    ),
    "another-window-than-24h": Difference(
        _SHAPE, _invalid("completion_window", "Input should be '24h'", "literal_error")
    ),
    **{
        f"a-create-without-{name.replace('_', '-')}": Difference(_SHAPE, _invalid(name, "Field required", "missing"))
        for name in ("input_file_id", "endpoint", "completion_window")
    },
    "output-expires-after-below-an-hour": _ACCEPTED,
    "the-endpoints-a-batch-may-name": Difference(
        "three: chat completions, completions, embeddings",
        ["/v1/chat/completions", "/v1/embeddings", "/v1/completions"],
    ),
    "a-batch-whose-input-file-does-not-exist": _MISSING_FILE,
    "a-batch-whose-input-file-was-deleted": _MISSING_FILE,
    "the-connection-after-a-refused-create": Difference("is cut without notice", (400, "cut")),
    "a-method-that-is-not-offered": Difference(f"405 with {_SHAPE}", (405, None)),
}

VALIDATION: Final = {
    "a-line-that-is-no-object": Difference(
        "`invalid_request`", _failed("invalid_request", None, "Each line must be a JSON dictionary object")
    ),
    "a-blank-line-between-two": Difference("skipped", ("completed", [])),
    **{
        f"a-line-without-{name.replace('_', '-')}": Difference(
            _WORDS, _failed("missing_required_parameter", name, f"Missing required parameter: {name}")
        )
        for name in ("custom_id", "method", "url", "body")
    },
    "a-custom-id-that-is-no-text": Difference(
        "`invalid_request`", _failed("invalid_request", "custom_id", "Custom_id must be a string")
    ),
    "an-empty-custom-id": _COMPLETES,
    "a-custom-id-for-the-second-time": _COMPLETES,
    "another-method-than-post": _COMPLETES,
    "another-url-than-the-batch-s-endpoint": Difference(
        _WORDS, _failed("invalid_url", "url", "URL provided for this request does not match the batch endpoint")
    ),
    "a-body-that-is-no-object": Difference(
        "`invalid_request`", _failed("invalid_request", "body", "Body must be a JSON dictionary object")
    ),
    "an-unknown-model": Difference(
        _WORDS, _failed("model_not_found", "body.model", "Model 'gpt-nowhere' does not exist or is not supported")
    ),
    "a-second-model-in-the-file": _COMPLETES,
    "no-model": Difference(_WORDS, _failed("invalid_request", "body.model", "Model parameter is required")),
    "no-messages": Difference(_WORDS, _failed("invalid_request", "body.messages", "Messages parameter is required")),
    "a-request-to-stream": Difference(
        _WORDS, _failed("streaming_unsupported", "body.stream", "Streaming is not supported in batch processing")
    ),
    "a-batch-that-failed-validation": Difference(
        "its counts are null", {"counts": None, "files": (None, None), "failed_at": True, "asked": 0}
    ),
    "more-enqueued-tokens-than-the-model-s-limit": Difference("knows no such limit", ("completed", [])),
}

RESULTS: Final = {
    "the-times-of-a-batch-that-completed": Difference(
        "`in_progress_at`, `finalizing_at` and `expires_at` are null",
        {
            "in order": False,
            "null": [
                "cancelled_at",
                "cancelling_at",
                "expired_at",
                "expires_at",
                "failed_at",
                "finalizing_at",
                "in_progress_at",
            ],
        },
    ),
    "usage-of-a-batch": Difference("null", None),
    "the-line-of-an-answer": Difference(
        "the body is JSON inside a text; no `error`",
        {
            "keys": ["custom_id", "id", "response"],
            "response": ["body", "request_id", "status_code"],
            "status": 200,
            "body": "str",
            "error": None,
        },
    ),
    "the-line-of-a-request-that-the-model-refused": Difference(
        "no `response`; `error` has a type and a message",
        {
            "keys": ["custom_id", "error", "id"],
            "response": None,
            "error": {"type": "request_failed", "message": "Error code: 400 - The model does not like this."},
        },
    ),
    "the-order-of-the-output-file": Difference("that of the input", "the input's"),
    "all-requests-answered": Difference("an empty error file", (True, True)),
    "all-requests-failed": Difference("an empty output file", ("completed", True, True)),
    "the-output-file": Difference(
        "`BATCH_success.jsonl`, purpose `batch`", ("BATCH_success.jsonl", "batch", 2_592_000, True)
    ),
    "output-expires-after": Difference("ignored: 30 days", 2_592_000),
    "ids-of-result-files-when-completed-is-first-seen": Difference("are there", (True, True)),
    "a-batch-of-v1-responses": Difference("refused", "refused at once"),
    "a-batch-of-v1-moderations": Difference("refused", "refused at once"),
}

ENDINGS: Final = {
    "cancelling-a-batch-in-progress": Difference(
        "`cancelled` without any file: what was answered is lost",
        {
            "at once": "cancelling",
            "status": "cancelled",
            "counts": (16, 0, 0),
            "answered": 0,
            "batch_cancelled": 0,
            "asked after the end": 0,
        },
    ),
    "cancelling-a-completed-batch": Difference(
        f"409 with {_SHAPE}", _said(409, "Cannot cancel batch 'BATCH' with status 'completed'")
    ),
    "cancelling-a-failed-batch": Difference(
        f"409 with {_SHAPE}", _said(409, "Cannot cancel batch 'BATCH' with status 'failed'")
    ),
    "a-batch-whose-window-has-passed": Difference("never expires: `expires_at` is null", {"expires_at": None}),
    "the-server-killed-and-started-again-while-a-batch-is-in-progress": Difference(
        "files stay, the batch is `in_progress` for ever",
        {"file": True, "status": "in_progress", "answered": 0, "asked": {"now": 4, "hold": 4, "later": 0}},
    ),
}

DIFFERENCES: Final = FILES | BATCHES | VALIDATION | RESULTS | ENDINGS
"""By the name of the behaviour."""


def says_of_ogx(behaviour: Behaviour) -> str:
    """What the table says of a behaviour over OGX."""
    known = DIFFERENCES.get(behaviour.name)
    return known.says if known else "yes"
