"""An HTTP server in a thread of its own: it starts at once, and when it is closed nothing of it is left."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp, Scope

_KEEP_ALIVE_SECONDS = 75
_CLOSE_SECONDS = 5.0


class _Server(uvicorn.Server):
    """uvicorn's server, without its ticks of 100 ms: it closes as soon as it is told."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_listening = threading.Event()
        self._closing = asyncio.Event()

    async def main_loop(self) -> None:
        self.is_listening.set()
        while not self._closing.is_set():
            await self.on_tick(0)
            try:
                await asyncio.wait_for(self._closing.wait(), timeout=1.0)
            except TimeoutError:
                continue

    def close_soon(self) -> None:
        self._closing.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        loop = asyncio.get_running_loop()
        end = loop.time() + _CLOSE_SECONDS
        while self.server_state.connections and loop.time() < end:
            await asyncio.sleep(0.005)
        for connection in list(self.server_state.connections):
            _transport(connection).abort()
        for late in list(self.server_state.tasks):
            late.cancel()
        if self.server_state.tasks:
            await asyncio.wait(list(self.server_state.tasks))
        for listening in sockets or []:
            listening.close()


def _transport(connection: object) -> asyncio.Transport:
    transport: asyncio.Transport = connection.transport  # type: ignore[attr-defined]  # every uvicorn protocol has one
    return transport


class Listener:
    """Serves an application on a socket that is already bound. Close it once; `url` is where it listens."""

    def __init__(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Named as TCP, so that asyncio turns Nagle's algorithm off: answers would wait 40 ms for an acknowledgement.
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, port))
            self._socket.listen(1024)
        except OSError:
            self._socket.close()
            raise
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        self._thread: threading.Thread | None = None
        self._server: _Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, make_app: Callable[[Callable[[Scope], None]], ASGIApp], headers: list[tuple[str, str]]) -> None:
        """Begin to answer. `make_app` gets the function that cuts the connection of a scope."""
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(make_app(self._hang_up), headers, ready), name="batchops-http", daemon=True
        )
        self._thread.start()
        ready.wait()
        assert self._server is not None
        self._server.is_listening.wait()

    def close(self) -> None:
        if self._thread is None or self._loop is None or self._server is None:
            self._socket.close()
            return
        self._loop.call_soon_threadsafe(self._server.close_soon)
        self._thread.join()

    def _run(self, app: ASGIApp, headers: list[tuple[str, str]], ready: threading.Event) -> None:
        asyncio.run(self._serve(app, headers, ready))

    async def _serve(self, app: ASGIApp, headers: list[tuple[str, str]], ready: threading.Event) -> None:
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            headers=headers,
        )
        self._loop, self._server = asyncio.get_running_loop(), _Server(config)
        ready.set()
        await self._server.serve(sockets=[self._socket])

    def _hang_up(self, scope: Scope) -> None:
        assert self._server is not None
        for connection in list(self._server.server_state.connections):
            if getattr(connection, "client", None) == tuple(scope["client"]):
                _transport(connection).abort()
