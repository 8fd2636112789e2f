"""What stands between a connection and the application: who may knock, what is counted, what a fault plan spoils."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import ClassVar, TypeAlias
from urllib.parse import urlsplit

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchops.server.faults import CallRule
from batchops.server.options import LOOPBACK
from batchops.server.surface import Service
from batchops.server.wire import error_object

_FOREVER = 1e18
_MAKING = ("POST /v1/files", "POST /v1/batches")
Effect: TypeAlias = "Callable[[Interference, CallRule, Scope, Receive, Send], Awaitable[None]]"


class Interference:
    """The outermost ASGI layer. `hang_up` cuts the connection a scope came in on."""

    def __init__(self, app: ASGIApp, service: Service, *, hang_up: Callable[[Scope], None], is_loopback: bool) -> None:
        self._app, self._service, self._hang_up = app, service, hang_up
        self._is_loopback = is_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_loopback and not _is_local_call(scope):
            body = error_object("This server answers local programs only.", kind="invalid_request_error")
            await _answer(_labelled(send), 403, orjson.dumps(body))
            return
        method, path = scope["method"], scope["path"]
        self._service.calls[f"{method} {_counted(path)}"] += 1
        rule = None if path.startswith("/_batchops/") else self._service.faults.for_call(method, path)
        if rule is None:
            await self._app(scope, receive, _labelled(send))
        else:
            await self._EFFECTS[rule.effect](self, rule, scope, receive, send)

    async def _drop_before(self, rule: CallRule, scope: Scope, receive: Receive, send: Send) -> None:
        await _read_all(receive)
        await self._cut(scope)

    async def _drop_after(self, rule: CallRule, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, _Swallowed())
        await self._cut(scope)

    async def _error_before(self, rule: CallRule, scope: Scope, receive: Receive, send: Send) -> None:
        await _read_all(receive)
        await _refuse(send, rule)

    async def _error_after(self, rule: CallRule, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, _Swallowed())
        await _refuse(send, rule)

    async def _throttle(self, rule: CallRule, scope: Scope, receive: Receive, send: Send) -> None:
        await _read_all(receive)
        body = error_object(
            "Rate limit reached. (fault plan)", kind="requests", code=rule.code or "rate_limit_exceeded"
        )
        after = f"{rule.retry_after:.12g}".encode()
        await _answer(_labelled(send), 429, orjson.dumps(body), headers=[(b"retry-after", after)])

    async def _garbage(self, rule: CallRule, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, _Swallowed())
        await _answer(_labelled(send), 200, rule.body.encode(), content_type=rule.content_type)

    async def _slow(self, rule: CallRule, scope: Scope, receive: Receive, send: Send) -> None:
        held = _Swallowed()
        await self._app(scope, receive, held)
        await asyncio.sleep(1.0 if rule.seconds is None else rule.seconds)
        for message in held.messages:
            await send(message)

    async def _truncate(self, rule: CallRule, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a share of the body. Returning before the end makes the server close the connection, unless `quiet`."""
        held = _Swallowed()
        await self._app(scope, receive, held)
        start, body = held.messages[0], held.body
        kept = body[: int(len(body) * rule.share)]
        if rule.quiet:
            headers = [pair for pair in start["headers"] if pair[0] != b"content-length"]
            start = {**start, "headers": [*headers, (b"content-length", str(len(kept)).encode())]}
        await send(start)
        await send({"type": "http.response.body", "body": kept, "more_body": not rule.quiet})

    async def _hide_from_list(self, rule: CallRule, scope: Scope, receive: Receive, send: Send) -> None:
        held = _Swallowed()
        await self._app(scope, receive, held)
        if held.status == 200 and f"{scope['method']} {scope['path']}" in _MAKING:
            until = 0.0 if rule.seconds is None else self._service.clock.now() + rule.seconds
            if rule.seconds is None and rule.looks is None:
                until = _FOREVER
            made = orjson.loads(held.body)["id"]
            self._service.hidden[made] = {"until": until, "looks": float(rule.looks or 0)}
        for message in held.messages:
            await send(message)

    async def _cut(self, scope: Scope) -> None:
        self._hang_up(scope)
        for _ in range(3):  # let the connection learn of its end, so that no answer is attempted
            await asyncio.sleep(0)

    _EFFECTS: ClassVar[dict[str, Effect]] = {
        "drop_before": _drop_before,
        "drop_after": _drop_after,
        "error_before": _error_before,
        "error_after": _error_after,
        "throttle": _throttle,
        "garbage": _garbage,
        "slow": _slow,
        "truncate": _truncate,
        "hide_from_list": _hide_from_list,
    }


class _Swallowed:
    """A `send` that keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])


def _counted(path: str) -> str:
    """The path with its ids left out, so that calls of one kind are counted together."""
    return "/".join("*" if part.startswith(("file-", "batch_")) else part for part in path.split("/"))


def _is_local_call(scope: Scope) -> bool:
    """Whether a call to a loopback address was meant for it: web pages in a browser are kept out."""
    headers = dict(scope["headers"])
    host = urlsplit(f"//{headers.get(b'host', b'').decode('latin-1')}").hostname
    origin = headers.get(b"origin")
    if origin is not None and urlsplit(origin.decode("latin-1")).hostname not in LOOPBACK:
        return False
    return host in LOOPBACK


def _labelled(send: Send) -> Send:
    """Every answer carries a request id, as the service's do."""

    async def labelled(message: Message) -> None:
        if message["type"] == "http.response.start":
            label = (b"x-request-id", f"req_{secrets.token_hex(16)}".encode())
            message = {**message, "headers": [*message["headers"], label]}
        await send(message)

    return labelled


async def _read_all(receive: Receive) -> None:
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass


async def _refuse(send: Send, rule: CallRule) -> None:
    kind = "server_error" if rule.status >= 500 else "invalid_request_error"
    body = error_object(rule.message, kind=kind, code=rule.code)
    await _answer(_labelled(send), rule.status, orjson.dumps(body))


async def _answer(
    send: Send,
    status: int,
    body: bytes,
    *,
    content_type: str = "application/json",
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    described = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*described, *(headers or [])]})
    await send({"type": "http.response.body", "body": body})
