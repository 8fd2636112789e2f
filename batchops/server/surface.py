"""What every route works with: the service behind it, the key it was called with, JSON in and out."""

from __future__ import annotations

import hmac
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from batchops.server.answering import Answerer
from batchops.server.blobs import Blobs
from batchops.server.clock import Clock
from batchops.server.faults import Faults
from batchops.server.modes import Mode
from batchops.server.options import ServerOptions
from batchops.server.rates import Rate
from batchops.server.runner import Runner
from batchops.server.store import Store
from batchops.server.wire import ApiError

Endpoint = Callable[[Request], Awaitable[Response]]


class Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


class Service:
    """What the routes work on; they hold no state of their own."""

    def __init__(
        self,
        *,
        store: Store,
        blobs: Blobs,
        clock: Clock,
        runner: Runner,
        answerer: Answerer,
        faults: Faults,
        options: ServerOptions,
        mode: Mode,
        instance: str,
    ) -> None:
        self.store, self.blobs, self.clock, self.runner = store, blobs, clock, runner
        self.answerer, self.faults, self.options, self.instance = answerer, faults, options, instance
        self.mode = mode
        limits = options.limits
        self._uploads = Rate("file uploads", most=limits.uploads_per_minute, seconds=60)
        self._batches = Rate("the creation of batches", most=limits.batches_per_hour, seconds=3600)
        self.adding = threading.Lock()
        """Held from the check whether there is room for a file or batch until it is added."""
        self.calls: Counter[str] = Counter()
        self.hidden: dict[str, dict[str, float]] = {}
        """Ids that listings leave out: until a time, or for so many looks."""

    def owner(self, request: Request) -> str:
        """Whose files and batches a call may see. Raises ApiError when it brings no good key."""
        if not self.options.keys:
            return ""
        header = request.headers.get("authorization", "")
        given = header[7:] if header[:7].lower() == "bearer " else request.headers.get("api-key", "")
        if not given:
            message = "You didn't provide an API key. Provide it in an Authorization header using Bearer auth."
            raise ApiError(401, message, headers={"www-authenticate": "Bearer"})
        known = [key for key in self.options.keys if hmac.compare_digest(key.encode(), given.encode())]
        if not known:
            raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")
        return sha256(given.encode()).hexdigest()[:32]

    def count_upload(self, owner: str) -> None:
        """Raises ApiError when it is one more than the service takes in a minute."""
        if self.options.rate_limits:
            self._uploads.take(owner, self.clock.now())

    def count_batch(self, owner: str) -> None:
        """Raises ApiError when it is one more than the service takes in an hour."""
        if self.options.rate_limits:
            self._batches.take(owner, self.clock.now())

    def is_hidden(self, object_id: str) -> bool:
        """Whether a listing leaves this object out; each asking is a look."""
        rule = self.hidden.get(object_id)
        if rule is None:
            return False
        rule["looks"] -= 1
        if self.clock.now() < rule["until"] or rule["looks"] >= 0:
            return True
        del self.hidden[object_id]
        return False


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def json_body(request: Request) -> bytes:
    most = service_of(request).options.limits.json_body_bytes
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise ApiError(413, f"Maximum content size limit ({most}) exceeded.", code="request_too_large")
    return body
