"""Nothing a client sends is answered with a server error or off the server's own OpenAPI text."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import pytest
from batch_desk import Desk, chat, jsonl, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CONTRACT = Path(__file__).parents[2] / "batchops" / "server" / "openapi.json"
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_SERVED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with serving(tmp_path_factory.mktemp("data")) as desk:
        yield desk


@cache
def _contract() -> dict[str, Any]:
    text: dict[str, Any] = json.loads(CONTRACT.read_text(encoding="utf-8"))
    return text


def keeps_to_the_contract(path: str, method: str, answered: Any) -> None:
    assert answered.status_code < 500
    responses = _contract()["paths"][path][method]["responses"]
    assert str(answered.status_code) in responses, (answered.status_code, answered.text)
    described = responses[str(answered.status_code)]
    if "$ref" in described:
        described = _contract()["components"]["responses"][described["$ref"].rsplit("/", 1)[1]]
    for kind, content in described.get("content", {}).items():
        assert answered.headers["content-type"].startswith(kind)
        if kind == "application/json":
            schema = {**content["schema"], "components": _contract()["components"]}
            jsonschema_rs.validate(schema, answered.json())


def _like(**members: Any) -> st.SearchStrategy[Any]:
    """Objects that are nearly right: each member is good, missing, or anything."""
    good = {name: st.sampled_from(values) | _JSON for name, values in members.items()}
    return st.fixed_dictionaries({}, optional=good) | _JSON


_BODIES = {
    "/batches": _like(
        input_file_id=["file-x"],
        endpoint=["/v1/chat/completions", "/v1/embeddings"],
        completion_window=["24h"],
        metadata=[{}, {"a": "b"}, None],
        output_expires_after=[{"anchor": "created_at", "seconds": 3600}],
    ),
    "/chat/completions": _like(
        model=["gpt-4o", "o3"],
        messages=[[{"role": "user", "content": "x"}], [{"role": "user", "content": [{"type": "text", "text": "x"}]}]],
        tools=[[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]],
        tool_choice=["auto", "required", {"type": "function", "function": {"name": "f"}}],
        response_format=[{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}],
        max_completion_tokens=[5],
    ),
    "/responses": _like(
        model=["gpt-5"],
        input=["x", [{"role": "user", "content": "x"}]],
        text=[{"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}}],
        tools=[[{"type": "function", "name": "f"}]],
        reasoning=[{"effort": "low"}],
        metadata=[{"a": "b"}],
    ),
    "/embeddings": _like(
        model=["m"], input=["x", ["x"], [1, 2], [[1], [2]]], dimensions=[3], encoding_format=["base64"]
    ),
    "/moderations": _like(model=["m"], input=["x", ["x"], [{"type": "text", "text": "x"}]]),
    "/completions": _like(model=["m"], prompt=["x", ["x", "y"], [1]], max_tokens=[1], n=[2]),
}


@pytest.mark.parametrize("path", list(_BODIES))
def test_any_json_body_is_answered_as_the_contract_says(desk: Desk, path: str) -> None:
    @_SERVED
    @given(body=_BODIES[path])
    def any_body(body: Any) -> None:
        answered = desk.raw("POST", f"/v1{path}", content=json.dumps(body).encode())
        keeps_to_the_contract(path, "post", answered)

    any_body()


@pytest.mark.parametrize("path", list(_BODIES))
@_SERVED
@given(body=st.binary(max_size=200))
def test_any_bytes_are_answered_as_the_contract_says(desk: Desk, path: str, body: bytes) -> None:
    keeps_to_the_contract(path, "post", desk.raw("POST", f"/v1{path}", content=body))


@_SERVED
@given(query=st.dictionaries(st.sampled_from(["limit", "after", "order", "purpose"]), st.text(max_size=8)))
def test_any_query_is_answered_as_the_contract_says(desk: Desk, query: dict[str, str]) -> None:
    for path in ("/files", "/batches"):
        keeps_to_the_contract(path, "get", desk.raw("GET", f"/v1{path}", params=query))


@_SERVED
@given(content=st.binary(max_size=300), name=st.text(max_size=12), purpose=st.sampled_from(["batch", "vision", ""]))
def test_any_upload_is_stored_whole_or_refused(desk: Desk, content: bytes, name: str, purpose: str) -> None:
    parts = {"file": (name, content), "purpose": (None, purpose)}
    answered = desk.raw("POST", "/v1/files", files=parts)
    keeps_to_the_contract("/files", "post", answered)
    if answered.status_code == 200:
        assert desk.sdk.files.content(answered.json()["id"]).read() == content


_GOOD = jsonl([chat(f"r{number}", "Some words, \u00e9\u00e8.") for number in range(3)])
_LINE = jsonl([chat("x", "?")])


def _deep(levels: int) -> bytes:
    return _LINE.replace(b'"?"', b"[" * levels + b"]" * levels)


_SPOILED = {
    "empty": b"",
    "truncated in its only line": _GOOD[:40],
    "truncated in its last line": _GOOD[:-40],
    "binary": bytes(range(256)) * 40,
    "binary after a good line": _GOOD + bytes(range(256)) * 40,
    "zeroes": b"\0" * 4096,
    "compressed": b"\x1f\x8b\x08\x00" + bytes(range(256)),
    "a BOM": b"\xef\xbb\xbf" + _GOOD,
    "a BOM after a good line": _GOOD + b"\xef\xbb\xbf" + _LINE,
    "UTF-16": _GOOD.decode().encode("utf-16"),
    "bad UTF-8": _LINE.replace(b"?", b"\xff\xfe"),
    "bad UTF-8 after a good line": _GOOD + _LINE.replace(b"?", b"\xc3\x28"),
    "half a surrogate": _GOOD + _LINE.replace(b"?", b"\\ud800"),
    "a line of 10 MB that never ends": b'{"custom_id":"' + b"x" * 10_000_000,
    "a line of 10 MB that is no request": _GOOD + b'"' + b"x" * 10_000_000 + b'"\n',
    "deeper than can be read": _deep(100_000),
    "deeper than can be written": _GOOD + _deep(400),
    "no JSON but Python": _GOOD + str(chat("y")).encode() + b"\n",
    "carriage returns alone": _GOOD.replace(b"\n", b"\r"),
    "one array": b"[" + _GOOD.replace(b"\n", b",")[:-1] + b"]",
}


@pytest.mark.parametrize("name", list(_SPOILED))
def test_spoiled_upload_is_refused_or_fails_its_batch(desk: Desk, name: str) -> None:
    answered = desk.raw("POST", "/v1/files", files={"file": ("a.jsonl", _SPOILED[name]), "purpose": (None, "batch")})
    keeps_to_the_contract("/files", "post", answered)
    if answered.status_code == 200:
        failed = desk.wait(desk.create(answered.json()["id"]))
        assert failed.errors is not None
        assert (failed.status, failed.request_counts and failed.request_counts.total) == ("failed", 0)
        assert {problem.code for problem in failed.errors.data or []} == {"invalid_json_line"}


@_SERVED
@given(cut=st.integers(0, len(_GOOD)), put=st.binary(max_size=12), skip=st.integers(0, 12))
def test_file_that_was_changed_anywhere_is_refused_or_ends_its_batch(
    desk: Desk, cut: int, put: bytes, skip: int
) -> None:
    content = _GOOD[:cut] + put + _GOOD[cut + skip :]
    answered = desk.raw("POST", "/v1/files", files={"file": ("a.jsonl", content), "purpose": (None, "batch")})
    keeps_to_the_contract("/files", "post", answered)
    if answered.status_code == 200:
        ends_whole(desk, answered.json()["id"])


def ends_whole(desk: Desk, file_id: str) -> None:
    """The batch ends, and either nothing of it was executed or every line has an answer that blames the request."""
    done = desk.wait(desk.create(file_id))
    lines = desk.lines(done.output_file_id) + desk.lines(done.error_file_id)
    assert done.request_counts is not None
    assert (done.status, len(lines)) in {("failed", 0), ("completed", done.request_counts.total)}
    assert all(line["response"]["status_code"] < 500 for line in lines)


_PLACES = ("messages", "tools", "tool_choice", "response_format", "metadata", "stop", "max_completion_tokens")


@_SERVED
@given(place=st.sampled_from(_PLACES), levels=st.integers(1, 300), key=st.sampled_from(["a", "properties", "items"]))
def test_deep_line_is_refused_or_ends_its_batch(desk: Desk, place: str, levels: int, key: str) -> None:
    nested: Any = {"type": "string"}
    for _ in range(levels):
        nested = {key: nested} if key != "a" else [nested]
    line = chat("deep", **{place: nested})
    answered = desk.raw("POST", "/v1/files", files={"file": ("a.jsonl", jsonl([line])), "purpose": (None, "batch")})
    keeps_to_the_contract("/files", "post", answered)
    if answered.status_code == 200:
        ends_whole(desk, answered.json()["id"])


@pytest.mark.parametrize("sent", [b"", b"--x\r\n", _GOOD])
def test_upload_that_announces_a_gigabyte_is_refused_before_it_comes(desk: Desk, sent: bytes) -> None:
    request = "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    with socket.create_connection(("127.0.0.1", urlsplit(desk.url).port), timeout=5) as connection:
        connection.sendall(f"{request}content-length: {1 << 30}\r\n\r\n".encode() + sent)
        answered = b""
        while not answered.endswith(b"}"):
            answered += connection.recv(65536)
    assert answered.startswith(b"HTTP/1.1 400")
    assert b"File is too large." in answered


@_SERVED
@given(lines=st.lists(_JSON | st.just({"custom_id": "a", "method": "POST", "url": "/v1/embeddings"}), max_size=4))
def test_any_input_file_ends_its_batch(desk: Desk, lines: list[Any]) -> None:
    first = {"custom_id": "first", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": "x"}}
    done = desk.wait(desk.submit(jsonl([first, *lines]), "/v1/embeddings"))
    assert done.status == ("failed" if lines else "completed")


@_SERVED
@given(content=st.binary(min_size=1, max_size=300), cut=st.integers(0, 400))
def test_upload_that_breaks_off_leaves_nothing(desk: Desk, content: bytes, cut: int) -> None:
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    body = head + content + b"\r\n--x--\r\n"
    before = desk.raw("GET", "/v1/files").json()["data"]
    request = "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    with socket.create_connection(("127.0.0.1", urlsplit(desk.url).port), timeout=5) as connection:
        connection.sendall(f"{request}content-length: {len(body)}\r\n\r\n".encode() + body[: min(cut, len(body) - 1)])
    assert desk.raw("GET", "/v1/files").json()["data"] == before
