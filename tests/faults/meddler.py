"""A proxy between the client and a service, for what no service does to itself: calls that get stuck on the way."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_HOP = {"connection", "content-length", "transfer-encoding", "keep-alive", "date", "server", "host"}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def with_json(self, body: object) -> Reply:
        return replace(self, body=json.dumps(body).encode())


@dataclass(frozen=True)
class Call:
    """One call on its way; `forward` may be called now, later, or never."""

    method: str
    path: str
    forward: Callable[[], Reply]

    def is_(self, method: str, path: str) -> bool:
        return (self.method, urlsplit(self.path).path) == (method, path)


Meddle = Callable[[Call], Reply | None]
"""The reply that the client gets; None cuts the connection."""


@contextmanager
def meddling(upstream: str, meddle: Meddle) -> Iterator[str]:
    """Stand before the service at `upstream` (…/v1) for the length of the block; yields the URL to use instead."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(urlsplit(upstream).netloc, meddle))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(upstream: str, meddle: Meddle) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            call = Call(self.command, self.path, lambda: _send(upstream, self.command, self.path, headers, body))
            reply = meddle(call)
            if reply is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = do_DELETE = _pass

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler


def _send(upstream: str, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
    connection = http.client.HTTPConnection(upstream, timeout=60)
    try:
        connection.request(method, path, body, headers)
        answered = connection.getresponse()
        kept = {name: value for name, value in answered.getheaders() if name.lower() not in _HOP}
        return Reply(answered.status, kept, answered.read())
    finally:
        connection.close()
