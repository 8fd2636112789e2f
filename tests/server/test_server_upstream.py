"""Lines forwarded to a real-time endpoint: a second server of ours, or one that behaves badly."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from batch_desk import Desk, at, chat, serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from batchops.server.answering import Abandoned
from batchops.server.embedded import ServerOptions, serve
from batchops.server.listener import Listener
from batchops.server.upstream import Gate

Endpoint = Callable[[Request], Any]


@contextmanager
def endpoint(answer: Endpoint) -> Iterator[str]:
    """A real-time endpoint; its base URL."""
    listener = Listener("127.0.0.1", 0)
    app = Starlette(routes=[Route("/v1/{path:path}", answer, methods=["POST"])])
    listener.start(lambda _: app, [])
    try:
        yield f"{listener.url}/v1"
    finally:
        listener.close()


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Desk]:
    with serving(tmp_path / "origin", keys=("sk-origin",), key="sk-origin", seed=7) as desk:
        yield desk


@contextmanager
def forwarding(tmp_path: Path, url: str, **options: Any) -> Iterator[Desk]:
    with serving(tmp_path / "front", upstream=url, **options) as desk:
        yield desk


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/responses", {"model": "m", "input": "Hi"}),
        ("/v1/embeddings", {"model": "m", "input": "Hi", "dimensions": 4}),
        ("/v1/moderations", {"model": "m", "input": "Hi"}),
        ("/v1/completions", {"model": "m", "prompt": "Hi"}),
    ],
)
def test_lines_of_every_endpoint_are_answered_by_the_endpoint_behind(
    tmp_path: Path, origin: Desk, url: str, body: dict[str, Any]
) -> None:
    with forwarding(tmp_path, origin.url, upstream_key="sk-origin") as front:
        done = front.wait(front.submit([{"custom_id": "a", "method": "POST", "url": url, "body": body}], url))
        [line] = front.lines(done.output_file_id)
        direct = origin.raw("POST", url, json=body, headers={"authorization": "Bearer sk-origin"}).json()
        times = {"created", "created_at", "completed_at"}
        assert {key: value for key, value in line["response"]["body"].items() if key not in times} == {
            key: value for key, value in direct.items() if key not in times
        }
        assert line["response"]["request_id"].startswith("req_")
        assert "x-batchops-simulated" not in front.raw("GET", "/v1/models").headers


def test_wrong_key_of_the_endpoint_is_an_error_of_each_line(tmp_path: Path, origin: Desk) -> None:
    with forwarding(tmp_path, origin.url, upstream_key="sk-wrong") as front:
        done = front.wait(front.submit([chat("a")]))
        [line] = front.lines(done.error_file_id)
        assert line["response"]["status_code"] == 401


def test_throttled_lines_are_tried_again_until_they_are_answered(tmp_path: Path, origin: Desk) -> None:
    auth = {"authorization": "Bearer sk-origin"}
    rule = {"on": "POST /v1/chat/completions", "nth": [1, 3, 5, 6], "effect": "throttle", "retry_after": 0.02}
    assert origin.raw("POST", "/_batchops/faults", json={"rules": [rule]}, headers=auth).status_code == 200
    with forwarding(tmp_path, origin.url, upstream_key="sk-origin") as front:
        done = front.wait(front.submit([chat(f"r{n}") for n in range(20)]))
        assert (done.error_file_id, len(front.lines(done.output_file_id))) == (None, 20)
    calls = origin.raw("GET", "/_batchops/ledger", headers=auth).json()["calls"]
    assert calls["POST /v1/chat/completions"] == 24


def test_line_that_is_told_to_wait_is_not_given_up_while_others_would_be(tmp_path: Path) -> None:
    seen = 0

    async def answer(request: Request) -> Response:
        nonlocal seen
        seen += 1
        return Response("{}", 429, {"retry-after": "0"}) if seen <= 4 else JSONResponse({"choices": []})

    with endpoint(answer) as url, forwarding(tmp_path, url, upstream_attempts=1) as front:
        assert front.wait(front.submit([chat("a")])).error_file_id is None
    assert seen == 5


def test_patience_with_an_endpoint_that_only_says_wait_has_an_end(tmp_path: Path) -> None:
    answer = _fails(429, {"error": {"code": "rate_limit_exceeded"}})
    with endpoint(answer) as url, forwarding(tmp_path, url, upstream_patience_seconds=0.1) as front:
        [line] = front.lines(front.wait(front.submit([chat("a")])).error_file_id)
        assert line["response"]["status_code"] == 429


@pytest.mark.parametrize("status", [429, 500])
def test_cancelled_batch_asks_a_failing_endpoint_no_more(tmp_path: Path, status: int) -> None:
    asked = threading.Event()

    async def answer(request: Request) -> Response:
        asked.set()
        return Response("{}", status, {"retry-after": "600"})

    with endpoint(answer) as url, forwarding(tmp_path, url) as front:
        batch = front.submit([chat("a"), chat("b")])
        assert asked.wait(10)
        front.sdk.batches.cancel(batch.id)
        done = front.wait(batch)  # within seconds, though the endpoint asked for ten minutes
        codes = [line["error"]["code"] for line in front.lines(done.error_file_id)]
        assert (done.status, codes) == ("cancelled", ["batch_cancelled"] * 2)


def test_endpoint_that_nests_too_deep_fails_its_line_and_no_other(tmp_path: Path) -> None:
    async def answer(request: Request) -> Response:
        text = (await request.json())["messages"][0]["content"]
        return Response('{"a":' + "[" * 400 + "]" * 400 + "}" if text == "deep" else "{}")

    with endpoint(answer) as url, forwarding(tmp_path, url, upstream_attempts=1) as front:
        done = front.wait(front.submit([chat("a", "deep"), chat("b")]))
        assert [line["custom_id"] for line in front.lines(done.error_file_id)] == ["a"]
        assert [line["custom_id"] for line in front.lines(done.output_file_id)] == ["b"]


def test_real_time_call_to_an_endpoint_that_only_says_wait_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchops.server.app._PATIENCE_SECONDS", 0.0)
    with endpoint(_fails(429, {})) as url, forwarding(tmp_path, url) as front:
        answered = front.raw("POST", "/v1/chat/completions", json=chat("a")["body"])
        assert (answered.status_code, answered.json()["error"]["code"]) == (503, "server_is_overloaded")


def test_proxy_of_the_environment_does_not_stand_between_this_machine_and_itself(
    tmp_path: Path, origin: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ServerOptions(upstream=origin.url, upstream_key="sk-origin", upstream_attempts=1)
    with monkeypatch.context() as proxied:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            proxied.setenv(name, "http://127.0.0.1:9")
        server = serve(tmp_path / "front", options=options)
    with server, at(server.url) as front:
        assert front.wait(front.submit([chat("a")])).error_file_id is None


def test_calls_at_once_are_bounded(tmp_path: Path) -> None:
    out, most = 0, 0

    async def answer(request: Request) -> Response:
        nonlocal out, most
        out += 1
        most = max(most, out)
        await asyncio.sleep(0.01)
        out -= 1
        return JSONResponse({"choices": []})

    with endpoint(answer) as url, forwarding(tmp_path, url, upstream_concurrency=3) as front:
        batches = [front.submit([chat(f"r{n}") for n in range(15)]) for _ in range(3)]
        assert {front.wait(batch).status for batch in batches} == {"completed"}
    assert 2 <= most <= 3


def _fails(status: int, body: Any = None, text: str = "") -> Endpoint:
    async def answer(request: Request) -> Response:
        return JSONResponse(body, status) if body is not None else Response(text, status)

    return answer


async def _hangs(request: Request) -> Response:
    await asyncio.sleep(0.5)
    return JSONResponse({})


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (_fails(400, {"error": {"code": "context_length_exceeded"}}), 400, "context_length_exceeded"),
        (_fails(429, {"error": {"code": "insufficient_quota"}}), 429, "insufficient_quota"),
        (_fails(500, {"error": {"code": "server_error"}}), 500, "server_error"),
        (_fails(200, text="<html>"), 502, "server_error"),
        (_fails(503, text="no healthy upstream"), 503, "server_error"),
    ],
)
def test_failure_of_the_endpoint_is_the_failure_of_the_line(
    tmp_path: Path, answer: Endpoint, status: int, code: str
) -> None:
    with endpoint(answer) as url, forwarding(tmp_path, url, upstream_attempts=1) as front:
        done = front.wait(front.submit([chat("a")]))
        [line] = front.lines(done.error_file_id)
        assert (line["response"]["status_code"], line["response"]["body"]["error"]["code"]) == (status, code)


def test_endpoint_that_does_not_answer_in_time_is_a_timeout_without_a_response(tmp_path: Path) -> None:
    with (
        endpoint(_hangs) as url,
        forwarding(tmp_path, url, upstream_attempts=1, upstream_timeout_seconds=0.05) as front,
    ):
        done = front.wait(front.submit([chat("a")]))
        [line] = front.lines(done.error_file_id)
        assert (line["response"], line["error"]["code"]) == (None, "request_timeout")


def test_endpoint_that_is_not_there_is_a_server_error(tmp_path: Path) -> None:
    with forwarding(tmp_path, "http://127.0.0.1:9/v1", upstream_attempts=1) as front:
        done = front.wait(front.submit([chat("a")]))
        [line] = front.lines(done.error_file_id)
        assert line["response"]["status_code"] == 503


def test_failure_that_passes_is_tried_again(tmp_path: Path) -> None:
    seen = 0

    async def answer(request: Request) -> Response:
        nonlocal seen
        seen += 1
        headers = {"retry-after": "0"}
        return JSONResponse({"choices": []}) if seen == 3 else Response("busy", 503, headers)

    with endpoint(answer) as url, forwarding(tmp_path, url) as front:
        assert front.wait(front.submit([chat("a")])).error_file_id is None
    assert seen == 3


def test_closed_server_leaves_lines_under_way_to_the_next(tmp_path: Path) -> None:
    released = threading.Event()
    asked: list[str] = []

    async def answer(request: Request) -> Response:
        text = (await request.json())["messages"][0]["content"]
        asked.append(text)
        while text == "slow" and not released.is_set():
            await asyncio.sleep(0.01)
        return JSONResponse({"choices": []})

    with endpoint(answer) as url:
        with forwarding(tmp_path, url, upstream_concurrency=2) as front:
            batch = front.submit([chat("a", "slow"), *(chat(f"r{n}", f"r{n}") for n in range(5))])
            front.wait(batch, lambda seen: seen.request_counts is not None and seen.request_counts.completed == 5)
        released.set()  # only now: a server that waited for the call would never have closed
        with forwarding(tmp_path, url) as front:
            done = front.wait(batch)
            assert (done.error_file_id, len(front.lines(done.output_file_id))) == (None, 6)
    assert sorted(asked) == ["r0", "r1", "r2", "r3", "r4", "slow", "slow"]


# The gate


def test_gate_lets_fewer_through_after_a_429_and_more_again_after_successes() -> None:
    gate = Gate(8)
    gate.throttled(0)
    assert gate.allowed == 4
    gate.throttled(0)
    assert gate.allowed == 2
    for _ in range(4):
        gate.succeeded()
    assert gate.allowed == 3
    for _ in range(100):
        gate.succeeded()
    assert gate.allowed == 8


def test_gate_is_shut_for_as_long_as_it_was_asked() -> None:
    now = 0.0
    gate = Gate(1, monotonic=lambda: now)
    gate.throttled(0.05)
    passed = threading.Event()

    def walk() -> None:
        with gate.passed():
            passed.set()

    walker = threading.Thread(target=walk)
    walker.start()
    assert not passed.wait(0.08)
    now = 0.06
    walker.join(1)
    assert passed.is_set()


def test_abandoned_gate_lets_nobody_through() -> None:
    gate = Gate(1)
    gate.abandon(0)
    with pytest.raises(Abandoned), gate.passed():
        pass
    with pytest.raises(Abandoned):
        gate.pause(60)
