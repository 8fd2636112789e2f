"""The outermost ASGI layer of a server in a mode of its own: paths and JSON of another service ↔ this one's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchops.server.modes import Json, Mode
from batchops.server.parsing import parse
from batchops.server.wire import error_object

_BATCH_IDS = ("id", "input_file_id", "output_file_id", "error_file_id")


class Translation:
    """Speaks as a mode does to the outside, and as OpenAI's API to `app`."""

    def __init__(self, app: ASGIApp, mode: Mode, *, most: int) -> None:
        """`most`: bytes of a JSON body; of what is longer only so much is read that `app` sees it and refuses it."""
        self._app, self._mode, self._most = app, mode, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        prefix = next((known for known in self._mode.prefixes if path.startswith(f"{known}/")), None)
        if prefix is not None:
            path = "/v1" + path[len(prefix) :]
        if prefix is not None and not prefix.endswith("/v1") and not self._has_version(scope):
            await _refuse(send)
            return
        if not path.startswith(("/v1/files", "/v1/batches")):
            await self._app({**scope, "path": path}, receive, send)
            return
        inner: Scope = {
            **scope,
            "path": self._inner_path(path),
            "query_string": self._inner_query(scope["query_string"]),
        }
        inner["raw_path"] = quote(inner["path"]).encode()
        is_creation = (scope["method"], path) == ("POST", "/v1/batches")
        if is_creation:
            inner, receive = await self._translated(inner, receive)
        await self._app(inner, receive, _Outward(send, self._show, self._mode.created_status if is_creation else 200))

    def _has_version(self, scope: Scope) -> bool:
        return not self._mode.needs_api_version or b"api-version=" in scope["query_string"]

    def _inner_path(self, path: str) -> str:
        parts = path.split("/")
        return "/".join([*parts[:3], *(self._mode.inner_id(unquote(part)) for part in parts[3:4]), *parts[4:]])

    def _inner_query(self, query: bytes) -> bytes:
        pairs = parse_qsl(query.decode("ascii", "replace"), keep_blank_values=True)
        return urlencode(
            [(name, self._mode.inner_id(value) if name == "after" else value) for name, value in pairs]
        ).encode()

    async def _translated(self, scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
        """The creation of a batch in this server's own words."""
        body = await _read(receive, self._most)
        try:
            asked = parse(body)
        except ValueError:
            asked = None
        if isinstance(asked, dict):
            body = orjson.dumps(self._asked(asked))
        headers = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        return {**scope, "headers": headers}, _Once(body)

    def _asked(self, asked: Json) -> Json:
        found = dict(asked)
        if isinstance(file_id := found.get("input_file_id"), str):
            found["input_file_id"] = self._mode.inner_id(file_id)
        if isinstance(endpoint := found.get("endpoint"), str):
            found["endpoint"] = self._mode.profile.endpoint(endpoint)
        metadata = found.get("metadata")
        if isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values()):
            found["metadata"] = self._mode.keep_metadata(metadata)
        return found

    def _show(self, shown: Any) -> Any:
        """A reply as the mode's service gives it."""
        if not isinstance(shown, dict):
            return shown
        match shown.get("object"):
            case "list":
                return self._show_page(shown)
            case "batch":
                return self._mode.show_batch(self._with_ids(shown, _BATCH_IDS))
            case "file":
                return self._mode.show_file(self._with_ids(shown, ("id",))) if "bytes" in shown else self._gone(shown)
            case _:
                return shown

    def _show_page(self, shown: Json) -> Json:
        entries = [entry for entry in shown["data"] if self._is_listed(entry)]
        page = self._with_ids(shown, ("first_id", "last_id"))
        return {**page, "data": [self._show(entry) for entry in entries]}

    def _is_listed(self, entry: Json) -> bool:
        return self._mode.lists_results or entry.get("purpose") != "batch_output"

    def _gone(self, shown: Json) -> Json:
        return self._with_ids(shown, ("id",))

    def _with_ids(self, shown: Json, names: tuple[str, ...]) -> Json:
        return {**shown, **{name: self._mode.outer_id(shown[name]) for name in names if shown.get(name)}}


class _Once:
    """A request body that is at hand already."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    async def __call__(self) -> Message:
        body, self._body = self._body, None
        return {"type": "http.disconnect"} if body is None else {"type": "http.request", "body": body}


class _Outward:
    """Holds a reply of JSON back until it is whole, then sends it translated; everything else goes straight on."""

    def __init__(self, send: Send, show: Callable[[Any], Any], status: int) -> None:
        self._send, self._show, self._status = send, show, status
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_json(message):
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._finish(self._start)

    async def _finish(self, start: Message) -> None:
        try:
            body = orjson.dumps(self._show(orjson.loads(self._body)))
        except orjson.JSONDecodeError:  # a fault plan's garbage
            body = self._body
        headers = [pair for pair in start["headers"] if pair[0] != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        status = self._status if start["status"] == 200 else start["status"]
        await self._send({**start, "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _is_json(message: Message) -> bool:
    return any(name == b"content-type" and b"json" in value for name, value in message["headers"])


async def _read(receive: Receive, most: int) -> bytes:
    """A body; cut a little after `most` bytes."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body") or len(body) > most:
            return bytes(body)


async def _refuse(send: Send) -> None:
    """What Azure answers to a call that names no version."""
    body = orjson.dumps(error_object("Resource not found", kind="invalid_request_error", code="404"))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})
