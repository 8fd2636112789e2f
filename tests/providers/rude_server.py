"""A Files+Batches service that misbehaves at the level of bytes, and remembers everything it was sent."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any, Self


class Rudeness(Enum):
    """Ways to read a whole request and not answer it."""

    RESET = "reset"
    CLOSE = "close"
    HANG = "hang"


@dataclass(frozen=True, slots=True)
class Heard:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def line(self) -> str:
        return f"{self.method} {self.path.partition('?')[0]}"

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Reply = bytes | Rudeness | Callable[[Heard], bytes]


def reply(body: object, status: int = 200, *, headers: Mapping[str, str] = {}, kind: str = "application/json") -> bytes:
    """A whole and honest HTTP reply."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"content-type": kind, "content-length": str(len(content)), "connection": "close", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + content


def page(status: int = 200) -> bytes:
    """What a proxy or a login portal says."""
    return reply(b"<html><body>Welcome</body></html>", status, kind="text/html")


def failure(status: int, code: str | None = None, message: str = "No.", headers: Mapping[str, str] = {}) -> bytes:
    """An error as OpenAI words it."""
    error = {"message": message, "type": "some_error", "param": None, "code": code}
    return reply({"error": error}, status, headers=headers)


class RudeServer:
    """Answers each `METHOD /path` from its own script, the last reply for ever; without one with 404."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self._scripts: dict[str, deque[Reply]] = defaultdict(deque)
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._threads = [threading.Thread(target=self._accept)]

    def script(self, line: str, *replies: Reply) -> None:
        """What to answer to `POST /v1/batches` and the like, in turn."""
        self._scripts[line] = deque(replies)

    def count(self, line: str) -> int:
        return sum(1 for heard in self.heard if heard.line == line)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            heard = _read(connection)
            if heard is None:
                return
            self.heard.append(heard)
            script = self._scripts.get(heard.line)
            said = failure(404, message=f"nothing at {heard.line}") if not script else script[0]
            if script and len(script) > 1:
                script.popleft()
            self._say(connection, said(heard) if callable(said) else said)

    def _say(self, connection: socket.socket, said: bytes | Rudeness) -> None:
        if said is Rudeness.HANG:
            self._over.wait(30)
        elif said is Rudeness.RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif isinstance(said, bytes):
            connection.sendall(said)


def _read(connection: socket.socket) -> Heard | None:
    file = connection.makefile("rb")
    with file:
        first = file.readline().decode("latin-1")
        if not first.strip().endswith("HTTP/1.1"):
            return None
        headers = {}
        while line := file.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(file.readline(), 16):
                body += file.read(size)
                file.readline()
        else:
            body = file.read(int(headers.get("content-length", 0)))
    method, path, _ = re.split(" ", first.strip())
    return Heard(method, path, headers, body)
