"""Files: upload, read back, list, delete; what is refused and in which words."""

from __future__ import annotations

from typing import Any

from batch_desk import jsonl
from behaviour import behaviour, call, good, refusal
from subjects import Subject

GROUP = "Files"
FORMAT = "Invalid file format for Batch API. Must be .jsonl"


def upload(subject: Subject, content: bytes, name: str = "shard.jsonl", **fields: str) -> dict[str, Any]:
    parts: dict[str, Any] = {"file": (name, content), "purpose": (None, "batch")}
    parts |= {key: (None, value) for key, value in fields.items()}
    return call(subject, "POST", "/v1/files", files=parts)


def some(subject: Subject) -> bytes:
    return jsonl(good(subject))


@behaviour(
    GROUP,
    "The object of an upload",
    "`id`, `bytes`, `created_at`, `filename`, `purpose`, `status` `processed`, 30 days of life",
    {
        "object": "file",
        "filename": "shard.jsonl",
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
        "id is file-…": True,
        "bytes are counted": True,
        "life": 2_592_000,
    },
)
def upload_object(subject: Subject) -> Any:
    made = upload(subject, some(subject))["body"]
    return {
        **{key: made.get(key) for key in ("object", "filename", "purpose", "status", "status_details")},
        "id is file-…": made["id"].startswith("file-"),
        "bytes are counted": made["bytes"] == len(some(subject)),
        "life": made["expires_at"] - made["created_at"] if made.get("expires_at") else None,
    }


@behaviour(GROUP, "An uploaded file can be retrieved", "the object that the upload returned", True)
def retrieved_object(subject: Subject) -> Any:
    made = subject.desk.sdk.files.create(file=("a.jsonl", some(subject)), purpose="batch")
    return subject.desk.sdk.files.retrieve(made.id) == made


@behaviour(
    GROUP,
    "Content comes back byte for byte",
    "`application/octet-stream`, with the name in `content-disposition`",
    (200, True, "application/octet-stream", 'attachment; filename="shard.jsonl"'),
)
def content(subject: Subject) -> Any:
    sent = some(subject).replace(b"Hello", "Héllo \u2028 \N{GRINNING FACE}".encode())
    file_id = subject.desk.upload(sent)
    answered = subject.desk.raw("GET", f"/v1/files/{file_id}/content")
    headers = answered.headers
    same = answered.content == sent
    return answered.status_code, same, headers.get("content-type"), headers.get("content-disposition")


@behaviour(GROUP, "`Range` of a content", "206 and the part, as HTTP has it *", (206, 5))
def content_range(subject: Subject) -> Any:
    file_id = subject.desk.upload(some(subject))
    answered = subject.desk.raw("GET", f"/v1/files/{file_id}/content", headers={"range": "bytes=5-9"})
    return answered.status_code, len(answered.content) if answered.status_code == 206 else None


@behaviour(GROUP, "An upload without a name", "is called `upload`", "upload")
def nameless(subject: Subject) -> Any:
    return subject.desk.sdk.files.create(file=some(subject), purpose="batch").filename


@behaviour(GROUP, "A batch file that is not named `.jsonl`", f"400 {FORMAT}", (400, None, None, FORMAT))
def wrong_name(subject: Subject) -> Any:
    return refusal(upload(subject, some(subject), "shard.json"))


@behaviour(GROUP, "An empty batch file", "400 at upload", (400, None, "file", "File is empty."))
def empty_file(subject: Subject) -> Any:
    return refusal(upload(subject, b""))


@behaviour(GROUP, "A batch file whose first line is not JSON", f"400 {FORMAT}", (400, None, None, FORMAT))
def bad_first_line(subject: Subject) -> Any:
    return refusal(upload(subject, b"{oops\n" + some(subject)))


@behaviour(GROUP, "A batch file whose later lines are not JSON", "is stored", "accepted")
def bad_later_line(subject: Subject) -> Any:
    return refusal(upload(subject, some(subject) + b"{oops\n"))


PURPOSES = "'assistants', 'batch', 'fine-tune', 'vision', 'user_data', 'evals'"


@behaviour(
    GROUP,
    "An unknown purpose",
    "400 `invalid_value`, `purpose`",
    (400, "invalid_value", "purpose", f"Invalid value: 'party'. Supported values are: {PURPOSES}."),
)
def unknown_purpose(subject: Subject) -> Any:
    return refusal(upload(subject, some(subject), purpose="party"))


@behaviour(
    GROUP,
    "An upload without a purpose",
    "400 `missing_required_parameter`, `purpose`",
    (400, "missing_required_parameter", "purpose", "Missing required parameter: 'purpose'."),
)
def no_purpose(subject: Subject) -> Any:
    return refusal(call(subject, "POST", "/v1/files", files={"file": ("a.jsonl", some(subject))}))


@behaviour(
    GROUP,
    "An upload without a file",
    "400 `missing_required_parameter`, `file`",
    (400, "missing_required_parameter", "file", "Missing required parameter: 'file'."),
)
def no_file(subject: Subject) -> Any:
    return refusal(call(subject, "POST", "/v1/files", files={"purpose": (None, "batch")}))


@behaviour(GROUP, "`expires_after` of an upload", "its seconds, from `created_at`", 3600)
def expires_after(subject: Subject) -> Any:
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    made = upload(subject, some(subject), **fields)["body"]
    return made["expires_at"] - made["created_at"]


@behaviour(
    GROUP,
    "`expires_after` below an hour",
    "400 `integer_below_min_value` *",
    (
        400,
        "integer_below_min_value",
        "expires_after.seconds",
        "Invalid 'expires_after.seconds': integer below minimum value. Expected a value >= 3600, but got 3599 instead.",
    ),
)
def expires_too_soon(subject: Subject) -> Any:
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"}
    return refusal(upload(subject, some(subject), **fields))


@behaviour(
    GROUP,
    "Listing files page by page",
    "newest first or as `order` says, each once, by `after` and `limit`",
    {"each once": True, "in order": True, "keys": ["data", "first_id", "has_more", "last_id", "object"]},
)
def listing(subject: Subject) -> Any:
    made = {subject.desk.upload(some(subject), f"{n}.jsonl") for n in range(5)}
    newest = list(subject.desk.sdk.files.list(limit=2))
    oldest = list(subject.desk.sdk.files.list(limit=2, order="asc"))
    ids = [[file.id for file in listed] for listed in (newest, oldest)]
    times = [[file.created_at for file in listed] for listed in (newest[::-1], oldest)]
    return {
        "each once": all(len(listed) == len(set(listed)) and made <= set(listed) for listed in ids),
        "in order": all(listed == sorted(listed) for listed in times),
        "keys": sorted(subject.desk.raw("GET", "/v1/files?limit=2").json()),
    }


@behaviour(GROUP, "Listing files by purpose", "others are left out", (True, False))
def listing_by_purpose(subject: Subject) -> Any:
    other = subject.desk.sdk.files.create(file=("x.txt", b"x"), purpose="assistants").id
    listed = [{file.id for file in subject.desk.sdk.files.list(purpose=purpose)} for purpose in ("assistants", "batch")]
    return other in listed[0], other in listed[1]


@behaviour(
    GROUP,
    "Listing files with a limit out of 1…10,000",
    "400 `integer_below_min_value`, `integer_above_max_value` *",
    [(400, "integer_below_min_value", "limit"), (400, "integer_above_max_value", "limit")],
)
def listing_limits(subject: Subject) -> Any:
    seen = [refusal(call(subject, "GET", f"/v1/files?limit={limit}")) for limit in (0, 10_001)]
    return [one[:3] if isinstance(one, tuple) else one for one in seen]


@behaviour(
    GROUP,
    "Deleting a file",
    "`{id, object, deleted}`, and it is gone for every call",
    ({"id": "FILE", "object": "file", "deleted": True}, [404, 404, 404], False),
)
def delete(subject: Subject) -> Any:
    file_id = subject.desk.upload(some(subject))
    deleted = call(subject, "DELETE", f"/v1/files/{file_id}")["body"]
    after = [
        call(subject, method, f"/v1/files/{file_id}{path}")["status"]
        for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", ""))
    ]
    listed = file_id in {file.id for file in subject.desk.sdk.files.list()}
    return {**deleted, "id": "FILE" if deleted["id"] == file_id else deleted["id"]}, after, listed


@behaviour(
    GROUP,
    "A file that does not exist",
    "404 No such File object",
    (404, None, "id", "No such File object: file-0123456789abcdef"),
)
def unknown_file(subject: Subject) -> Any:
    return refusal(call(subject, "GET", "/v1/files/file-0123456789abcdef"))
