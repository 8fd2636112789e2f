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
from batch_desk import Desk, jsonl, serving
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
