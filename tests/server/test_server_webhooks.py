"""Webhooks: one event for each ended batch, signed, sent again until it is received."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_desk import Desk, at, chat, serving
from openai import InvalidWebhookSignatureError, OpenAI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from batchops.diagnostics import BatchopsError
from batchops.server.embedded import ServerOptions, serve
from batchops.server.listener import Listener

SECRET = f"whsec_{base64.b64encode(b'a secret of thirty-two bytes !!!').decode()}"


class Receiver:
    """Takes deliveries; answers each with the next status, then with 204."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.got: list[tuple[str, dict[str, str]]] = []
        self._changed = threading.Condition()
        self._listener = Listener("127.0.0.1", 0)
        app = Starlette(routes=[Route("/hook", self._take, methods=["POST"])])
        self._listener.start(lambda _: app, [])
        self.url = f"{self._listener.url}/hook"

    async def _take(self, request: Request) -> Response:
        body = (await request.body()).decode()
        with self._changed:
            self.got.append((body, dict(request.headers)))
            self._changed.notify()
        status = self.statuses.pop(0) if self.statuses else 204
        return Response(status_code=status, headers={"location": self.url} if status == 307 else None)

    def wait(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.got) >= count, timeout=10), self.got

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def desk(tmp_path: Path, receiver: Receiver) -> Iterator[Desk]:
    with serving(tmp_path, webhook_url=receiver.url, webhook_secret=SECRET) as desk:
        yield desk


def unwrapped(sdk: OpenAI, delivery: tuple[str, dict[str, str]]) -> Any:
    return sdk.webhooks.unwrap(delivery[0], delivery[1], secret=SECRET)


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled"])
def test_end_of_a_batch_is_sent_and_the_sdk_trusts_it(desk: Desk, receiver: Receiver, status: str) -> None:
    effects = {"failed": "fail", "expired": "expire", "cancelled": "cancel"}
    rules = [{"on": "batch", "effect": effects[status]}] if status in effects else []
    desk.control("faults", {"rules": rules})
    batch = desk.submit([chat("a"), chat("b")])
    assert desk.wait(batch).status == status
    receiver.wait(1)
    event = unwrapped(desk.sdk, receiver.got[0])
    assert (event.type, event.object, event.data.id) == (f"batch.{status}", "event", batch.id)
    assert receiver.got[0][1]["webhook-id"] == event.id


def test_proxy_of_the_environment_does_not_stand_before_a_receiver_on_this_machine(
    desk: Desk, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    desk.submit([chat("a")])
    receiver.wait(1)


def test_delivery_that_was_changed_on_the_way_is_not_trusted(desk: Desk, receiver: Receiver) -> None:
    desk.wait(desk.submit([chat("a")]))
    receiver.wait(1)
    body, headers = receiver.got[0]
    with pytest.raises(InvalidWebhookSignatureError):
        unwrapped(desk.sdk, (body.replace("completed", "failed"), headers))


@pytest.mark.parametrize("status", [500, 404, 307])
def test_event_is_sent_again_later_and_less_often_until_it_is_received(
    desk: Desk, receiver: Receiver, status: int
) -> None:
    receiver.statuses = [status, status]
    desk.wait(desk.submit([chat("a")]))
    receiver.wait(1)
    for pause, deliveries in ((6, 2), (21, 3)):
        desk.control("clock/advance", {"seconds": pause})
        receiver.wait(deliveries)
    desk.control("clock/advance", {"seconds": 86400})
    desk.wait(desk.submit([chat("a")]))
    receiver.wait(4)
    ids = [headers["webhook-id"] for _, headers in receiver.got]
    assert len(set(ids[:3])) == 1
    assert ids[3] not in ids[:3]
    first, last = (int(receiver.got[n][1]["webhook-timestamp"]) for n in (0, 2))
    assert last - first >= 27


def test_event_outlives_a_restart(tmp_path: Path, receiver: Receiver) -> None:
    receiver.statuses = [503]
    options = ServerOptions(webhook_url=receiver.url, webhook_secret=SECRET)
    with serve(tmp_path, options=options) as server, at(server.url) as desk:
        batch = desk.wait(desk.submit([chat("a")]))
        receiver.wait(1)
    with serve(tmp_path, options=options) as server, at(server.url) as desk:
        desk.control("clock/advance", {"seconds": 6})
        receiver.wait(2)
        assert unwrapped(desk.sdk, receiver.got[1]).data.id == batch.id


def test_receiver_that_is_not_there_disturbs_nobody(tmp_path: Path) -> None:
    with serving(tmp_path, webhook_url="http://127.0.0.1:9/", webhook_secret=SECRET) as desk:
        assert desk.wait(desk.submit([chat("a")])).status == "completed"


def test_secret_that_is_not_base64_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BatchopsError) as refused:
        serve(tmp_path, options=ServerOptions(webhook_url="http://127.0.0.1:9/", webhook_secret="whsec_!"))
    assert [problem.code for problem in refused.value.diagnostics] == ["invalid_webhook_secret"]
