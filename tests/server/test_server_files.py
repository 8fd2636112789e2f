"""Files: upload, read back, list, expire, delete; what is refused and in which words."""

from __future__ import annotations

import itertools
import os
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from batch_desk import Desk, chat, jsonl, serving

LINES = jsonl([chat("a"), chat("b")])


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with serving(tmp_path) as desk:
        yield desk


def test_uploaded_file_reads_back_byte_for_byte_with_its_shape(desk: Desk) -> None:
    made = desk.sdk.files.create(file=("shard.jsonl", LINES), purpose="batch")
    assert made.to_dict() == {
        "id": made.id,
        "object": "file",
        "bytes": len(LINES),
        "created_at": made.created_at,
        "expires_at": made.created_at + 2_592_000,
        "filename": "shard.jsonl",
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
    }
    assert desk.sdk.files.retrieve(made.id) == made
    content = desk.sdk.files.content(made.id)
    assert content.read() == LINES
    assert content.response.headers["content-type"] == "application/octet-stream"
    assert content.response.headers["content-disposition"] == 'attachment; filename="shard.jsonl"'


def test_part_of_a_file_can_be_asked_for(desk: Desk) -> None:
    file_id = desk.upload(LINES)
    answered = desk.raw("GET", f"/v1/files/{file_id}/content", headers={"range": "bytes=5-9"})
    assert (answered.status_code, answered.content) == (206, LINES[5:10])


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        ("lines=1-2", 400, "Invalid 'Range' header. Ask for one such as 'bytes=0-1023'."),
        ("bytes", 400, "Invalid 'Range' header. Ask for one such as 'bytes=0-1023'."),
        ("bytes=9-5", 400, "Invalid 'Range' header. Ask for one such as 'bytes=0-1023'."),
        ("bytes=99999-", 416, "The 'Range' header asks for bytes that the file does not have."),
    ],
)
def test_a_range_that_cannot_be_had_is_refused_with_an_error_object(
    desk: Desk, asked: str, status: int, message: str
) -> None:
    answered = desk.raw("GET", f"/v1/files/{desk.upload(LINES)}/content", headers={"range": asked})
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    assert (answered.status_code, answered.json()) == (status, {"error": error})
    assert answered.headers.get("content-range") == (f"bytes */{len(LINES)}" if status == 416 else None)


def test_deleted_file_is_gone_for_every_call(desk: Desk) -> None:
    file_id = desk.upload(LINES)
    assert desk.sdk.files.delete(file_id).to_dict() == {"id": file_id, "object": "file", "deleted": True}
    for call in (desk.sdk.files.retrieve, desk.sdk.files.content, desk.sdk.files.delete):
        with pytest.raises(openai.NotFoundError, match=f"No such File object: {file_id}"):
            call(file_id)
    assert list(desk.sdk.files.list()) == []


def test_files_of_a_batch_expire_after_thirty_days_and_others_never(desk: Desk) -> None:
    short = desk.upload(LINES)
    kept = desk.sdk.files.create(file=("notes.txt", b"x"), purpose="user_data")
    assert kept.expires_at is None
    desk.control("clock/advance", {"seconds": 30 * 86400 + 1})
    with pytest.raises(openai.NotFoundError):
        desk.sdk.files.content(short)
    assert [file.id for file in desk.sdk.files.list()] == [kept.id]


def test_expiry_policy_of_an_upload_is_honoured(desk: Desk) -> None:
    made = desk.sdk.files.create(
        file=("a.jsonl", LINES), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert made.expires_at == made.created_at + 3600


def test_listing_pages_in_both_orders_and_by_purpose(desk: Desk) -> None:
    made = [desk.upload(LINES, f"{n}.jsonl") for n in range(5)]
    other = desk.sdk.files.create(file=("x.bin", b"x"), purpose="vision").id
    assert [file.id for file in desk.sdk.files.list(limit=2, purpose="batch")] == made[::-1]
    assert [file.id for file in desk.sdk.files.list(limit=2, order="asc")] == [*made, other]
    page = desk.raw("GET", "/v1/files?limit=2&order=asc").json()
    assert (page["object"], page["first_id"], page["last_id"], page["has_more"]) == ("list", made[0], made[1], True)


def test_listing_goes_on_after_a_file_that_was_deleted_meanwhile(desk: Desk) -> None:
    made = [desk.upload(LINES) for _ in range(3)]
    first = desk.sdk.files.list(limit=1, order="asc")
    desk.sdk.files.delete(made[0])
    assert [file.id for file in first] == made


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "a.jsonl", "File is empty."),
        (LINES, "a.json", "Invalid file format for Batch API. Must be .jsonl"),
        (b"{oops\n" + LINES, "a.jsonl", "Invalid file format for Batch API. Must be .jsonl"),
        (b"[1]\n", "a.jsonl", "Invalid file format for Batch API. Must be .jsonl"),
        (b"\xef\xbb\xbf" + LINES, "a.jsonl", "Invalid file format for Batch API. Must be .jsonl"),
        (b"\xff\xfe\x00\x01" * 50, "a.jsonl", "Invalid file format for Batch API. Must be .jsonl"),
        (b"[" * 100_000, "a.jsonl", "Invalid file format for Batch API. Must be .jsonl"),
    ],
    ids=["empty", "name", "first line", "not an object", "byte order mark", "binary", "deep"],
)
def test_upload_for_a_batch_is_refused_when_it_cannot_be_one(
    desk: Desk, content: bytes, name: str, message: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        desk.sdk.files.create(file=(name, content), purpose="batch")
    assert refused.value.body == {
        "message": message,
        "type": "invalid_request_error",
        "param": "file" if not content else None,
        "code": None,
    }


def test_file_without_a_name_is_called_upload(desk: Desk) -> None:
    assert desk.sdk.files.create(file=LINES, purpose="batch").filename == "upload"


def test_first_line_too_long_to_be_held_is_left_to_its_batch(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchops.server.parameters._FIRST_LINE_BYTES", 1000)
    failed = desk.wait(desk.submit(b'{"custom_id":"' + b"x" * 2000))
    assert failed.errors is not None
    assert [problem.code for problem in failed.errors.data or []] == ["invalid_json_line"]
    assert desk.wait(desk.submit([chat("a", "x" * 2000)])).status == "completed"


def test_bad_later_lines_are_no_matter_for_an_upload(desk: Desk) -> None:
    assert desk.upload(LINES + b"{oops\n")


@pytest.mark.parametrize(
    ("form", "param", "code"),
    [
        ({"purpose": "batch"}, "file", "missing_required_parameter"),
        ({"file": ("a.jsonl", LINES)}, "purpose", "missing_required_parameter"),
        ({"file": ("a.jsonl", LINES), "purpose": "party"}, "purpose", "invalid_value"),
        (
            {"file": ("a.jsonl", LINES), "purpose": "batch", "expires_after[seconds]": "3600"},
            "expires_after.anchor",
            "missing_required_parameter",
        ),
        (
            {
                "file": ("a.jsonl", LINES),
                "purpose": "batch",
                "expires_after[anchor]": "created_at",
                "expires_after[seconds]": "59",
            },
            "expires_after.seconds",
            "integer_below_min_value",
        ),
    ],
    ids=["no file", "no purpose", "unknown purpose", "no anchor", "too short"],
)
def test_form_with_a_wrong_field_is_refused(desk: Desk, form: dict[str, Any], param: str, code: str) -> None:
    parts = {key: value if isinstance(value, tuple) else (None, value) for key, value in form.items()}
    answered = desk.raw("POST", "/v1/files", files=parts)
    problem = answered.json()["error"]
    assert (answered.status_code, problem["param"], problem["code"]) == (400, param, code)


def test_larger_file_than_allowed_is_refused_before_it_is_sent(desk: Desk) -> None:
    head = "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    with socket.create_connection(("127.0.0.1", urlsplit(desk.url).port), timeout=5) as connection:
        connection.sendall(f"{head}content-length: 1000000000\r\n\r\n--x\r\n".encode())
        answered = b""
        while not answered.endswith(b"}"):
            answered += connection.recv(65536)
    assert answered.startswith(b"HTTP/1.1 400")
    assert b"File is too large." in answered


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x\r\n",
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{"a":1}\n',
        b"no form at all",
        b"--x--\r\n",
        os.urandom(4096),
        b"--x\r\n" + b"a" * 100_000,
        b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n' + b"a" * 100_000 + b"\r\n--x--\r\n",
    ],
)
def test_malformed_form_is_answered_with_400(desk: Desk, body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answered = desk.raw("POST", "/v1/files", headers=headers, content=body)
    assert answered.status_code == 400
    assert answered.json()["error"]["type"] == "invalid_request_error"
    assert list(desk.sdk.files.list()) == []


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data", ""])
def test_upload_that_is_no_form_is_answered_with_400(desk: Desk, content_type: str) -> None:
    answered = desk.raw("POST", "/v1/files", headers={"content-type": content_type}, content=b"{}")
    assert answered.status_code == 400


@pytest.mark.parametrize("name", ["../../../etc/passwd.jsonl", "..\\..\\a.jsonl", "/etc/a.jsonl", "a\x00b.jsonl"])
def test_name_of_an_upload_never_becomes_a_path(desk: Desk, name: str) -> None:
    made = desk.sdk.files.create(file=(name, LINES), purpose="batch")
    assert "/" not in made.filename
    assert "\\" not in made.filename
    assert desk.sdk.files.content(made.id).read() == LINES


@pytest.mark.parametrize("file_id", ["../server.sqlite", "..%2fserver.sqlite", "%2e%2e%2fserver.sqlite", "file-"])
def test_id_that_is_a_path_finds_nothing(desk: Desk, file_id: str) -> None:
    assert desk.raw("GET", f"/v1/files/{file_id}/content").status_code == 404
    assert desk.raw("DELETE", f"/v1/files/{file_id}").status_code == 404


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("limit=0", "limit", "integer_below_min_value"),
        ("limit=10001", "limit", "integer_above_max_value"),
        ("limit=many", "limit", "invalid_type"),
        ("order=up", "order", "invalid_value"),
    ],
)
def test_listing_with_a_wrong_parameter_is_refused(desk: Desk, query: str, param: str, code: str | None) -> None:
    answered = desk.raw("GET", f"/v1/files?{query}")
    problem = answered.json()["error"]
    assert (answered.status_code, problem["param"], problem["code"]) == (400, param, code)


def test_listing_after_a_file_that_never_was_is_not_found(desk: Desk) -> None:
    assert desk.raw("GET", "/v1/files?after=file-nowhere").status_code == 404
    assert desk.raw("GET", "/v1/batches?after=batch_nowhere").status_code == 404


def test_upload_of_fifty_megabytes_is_never_held_in_memory(desk: Desk) -> None:
    """The server shares this process, so what the process allocates is the server's and the client's together."""
    line = jsonl([chat("big", "x" * 65_000)])
    chunks = 50_000_000 // len(line)
    head = b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x\r\n'
    head += b'content-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    body = itertools.chain([head], itertools.repeat(line, chunks), [b"\r\n--x--\r\n"])
    headers = {"content-type": "multipart/form-data; boundary=x"}
    tracemalloc.start()
    try:
        answered = desk.raw("POST", "/v1/files", headers=headers, content=body)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answered.json()["bytes"] == chunks * len(line)
    assert most < 10_000_000
