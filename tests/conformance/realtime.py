"""A real-time endpoint that both servers of the suite forward to: simulated answers, held or refused on demand.

What a request says decides: a text that begins with `hold` waits until `release`, one that begins with `refuse` is
answered with a 400. Every request is counted by its text, so a test can tell what was asked, and how often.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from batchops.server.answers import Simulated
from batchops.server.clock import Clock
from batchops.server.lines import Reply
from batchops.server.listener import Listener
from batchops.server.wire import error_object

CHAT_MODEL: Final = "gpt-4o-mini"
OTHER_MODEL: Final = "gpt-4o"
EMBEDDING_MODEL: Final = "text-embedding-3-small"
MODELS: Final = (CHAT_MODEL, OTHER_MODEL, EMBEDDING_MODEL)
REFUSED: Final = error_object("The model does not like this.", kind="invalid_request_error", code="disliked")
_HOLD_SECONDS: Final = 60
"""A request that nobody releases is answered in the end, so that no server waits for ever."""


class Realtime:
    """The running endpoint; `url` ends in /v1."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: Counter[str] = Counter()
        self._answerer = Simulated(seed=0, clock=Clock())
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._released.set()

    def hold(self) -> None:
        """From now on requests whose text begins with `hold` wait; the count starts anew."""
        self._released.clear()
        with self._lock:
            self.asked.clear()

    def release(self) -> None:
        self._released.set()

    def answer(self, path: str, body: dict[str, Any]) -> Reply:
        text = _text(body)
        with self._lock:
            self.asked[text] += 1
        if text.startswith("refuse"):
            return Reply(400, REFUSED)
        if text.startswith("hold"):
            self._released.wait(_HOLD_SECONDS)
        return self._answerer.answer(path, body)


def _text(body: dict[str, Any]) -> str:
    if isinstance(messages := body.get("messages"), list):
        return str(messages[-1]["content"])
    asked = body.get("input", body.get("prompt", ""))
    return str(asked[0] if isinstance(asked, list) and asked else asked)


@contextmanager
def realtime() -> Iterator[Realtime]:
    """An endpoint on loopback for the length of the block."""
    listener = Listener("127.0.0.1", 0)
    endpoint = Realtime(f"{listener.url}/v1")

    async def answer(request: Request) -> Response:
        body = await request.json()
        reply = await run_in_threadpool(endpoint.answer, request.url.path, body)
        return JSONResponse(reply.body, status_code=reply.status)

    async def models(_: Request) -> Response:
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "suite"} for name in MODELS]
        return JSONResponse({"object": "list", "data": listed})

    routes = [Route("/v1/models", models), Route("/v1/{path:path}", answer, methods=["POST"])]
    listener.start(lambda _: Starlette(routes=routes), [])
    try:
        yield endpoint
    finally:
        endpoint.release()
        listener.close()
