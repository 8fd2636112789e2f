"""The server inside this process: one process serves a data folder, others find its address there."""

from __future__ import annotations

import json
import os
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin

from filelock import FileLock, Timeout

from batchops.diagnostics import BatchopsError, Diagnostic, error
from batchops.server.options import ServerOptions

if TYPE_CHECKING:
    from batchops.server.service import RunningService

__all__ = ["EmbeddedServer", "Served", "ServerOptions", "ensure_served", "serve"]

_LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Served:
    """Where a data folder is served: `http://127.0.0.1:PORT/v1`, or the base URL of another mode."""

    url: str
    pid: int
    instance: str


class EmbeddedServer:
    """A served data folder. `close` ends the server if this object owns it; otherwise it changes nothing."""

    def __init__(self, url: str, on_close: Callable[[], None] | None = None) -> None:
        self.url = url
        self._on_close = on_close

    @property
    def is_owner(self) -> bool:
        return self._on_close is not None

    def close(self) -> None:
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_DEFAULTS = ServerOptions()


def ensure_served(
    data_dir: Path, *, options: ServerOptions = _DEFAULTS, patience_seconds: float = 10.0
) -> EmbeddedServer:
    """Serve a data folder on a free loopback port, or find the process that does.

    Whoever does not own the server calls this again when its owner has gone away. Raises BatchopsError when the folder
    stays locked for `patience_seconds` and no server answers for it.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return serve(data_dir, options=options)
        except Timeout:
            served = find_served(data_dir)
        if served is not None:
            return EmbeddedServer(served.url)
        if time.monotonic() > deadline:
            raise BatchopsError(_unanswered(data_dir))
        time.sleep(_LOOK_SECONDS)


def _unanswered(data_dir: Path) -> Diagnostic:
    return error(
        "data_dir_locked",
        "Data folder is locked.",
        f"Another process holds {data_dir / 'server.lock'} but answers at no address. End that process and try again.",
    )


def serve(
    data_dir: Path, *, options: ServerOptions = _DEFAULTS, host: str = "127.0.0.1", port: int = 0
) -> EmbeddedServer:
    """Serve a data folder. Raises filelock.Timeout if another process does, OSError if the address is taken."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # prompts are nobody else's business
    lock = FileLock(data_dir / "server.lock", blocking=False, thread_local=False)
    lock.acquire()
    address = data_dir / "server.json"
    try:
        address.unlink(missing_ok=True)
        service = _start(data_dir, options, host, port)
    except BaseException:
        lock.release()
        raise
    served = {"url": service.url, "pid": os.getpid(), "instance": service.instance}
    _write_json(address, served)

    def close() -> None:
        address.unlink(missing_ok=True)
        service.close()
        lock.release()

    return EmbeddedServer(service.url, close)


def _start(data_dir: Path, options: ServerOptions, host: str, port: int) -> RunningService:
    from batchops.server.service import RunningService  # noqa: PLC0415  the web stack, loaded by its one user

    return RunningService(data_dir, options, host=host, port=port)


def find_served(data_dir: Path) -> Served | None:
    """The live server of a data folder, if its address is written down and it answers there."""
    try:
        served = Served(**json.loads((data_dir / "server.json").read_text()))
        with _direct().open(urljoin(served.url, "/_batchops/health"), timeout=2) as answer:
            healthy = json.load(answer)
    except (OSError, ValueError, TypeError):
        return None
    return served if healthy.get("instance") == served.instance else None


def _direct() -> urllib.request.OpenerDirector:
    """An opener that minds no proxy settings: loopback is not reached through one."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.write_text(json.dumps(value))
    temporary.rename(path)
