"""A service put together from its parts, running on an address; closing it leaves its data folder as it is."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Scope

from batchops import __version__
from batchops.server.answering import make_answerer
from batchops.server.app import make_app
from batchops.server.blobs import Blobs
from batchops.server.clock import Clock
from batchops.server.faults import Faults, load_rules
from batchops.server.interference import Interference
from batchops.server.listener import Listener
from batchops.server.modes import MODES
from batchops.server.options import LOOPBACK, ServerOptions
from batchops.server.runner import Runner
from batchops.server.store import Store
from batchops.server.surface import Service
from batchops.server.translation import Translation

if TYPE_CHECKING:
    from batchops.server.webhooks import Webhooks


class RunningService:
    """Starts on construction. Raises OSError when the address is taken, BatchopsError for a wrong option."""

    def __init__(self, data_dir: Path, options: ServerOptions, *, host: str, port: int) -> None:
        self.instance = secrets.token_hex(16)
        self._is_loopback = host in LOOPBACK
        self._mode = mode = MODES[options.profile]
        options = replace(options, limits=mode.limits(options.limits))
        rules = load_rules(Path(options.faults)) if options.faults else ()
        clock = Clock()
        with ExitStack() as opened:
            answerer = make_answerer(options, clock)
            opened.callback(answerer.close)
            listener = Listener(host, port)
            opened.callback(listener.close)
            store = Store(data_dir / "server.sqlite")
            opened.callback(store.close)
            clock.advance(float(store.fact("clock_offset") or 0))
            blobs, faults = Blobs(data_dir), Faults(rules, seed=options.seed)
            blobs.sweep(store.file_ids(), {batch.id for batch in store.unfinished()})
            self._webhooks = _webhooks(store, clock, options)
            runner = Runner(
                store=store,
                blobs=blobs,
                clock=clock,
                answerer=answerer,
                faults=faults,
                options=options,
                mode=mode,
                on_end=self._webhooks.nudge if self._webhooks else lambda: None,
            )
            opened.pop_all()
        self.url = f"{listener.url}{mode.base}"
        self._listener, self._runner, self._store = listener, runner, store
        self._service = Service(
            store=store,
            blobs=blobs,
            clock=clock,
            runner=runner,
            answerer=answerer,
            faults=faults,
            options=options,
            mode=mode,
            instance=self.instance,
        )
        listener.start(self._application, _headers(options))
        runner.resume()

    def _application(self, hang_up: Callable[[Scope], None]) -> ASGIApp:
        app: ASGIApp = make_app(self._service)
        app = Interference(app, self._service, hang_up=hang_up, is_loopback=self._is_loopback)
        return (
            app
            if self._mode.profile.name == "openai"
            else Translation(app, self._mode, most=self._service.options.limits.json_body_bytes)
        )

    def close(self) -> None:
        """Let answers under way finish, stop batches between two lines, close everything."""
        self._listener.close()
        self._runner.close()
        if self._webhooks is not None:
            self._webhooks.close()
        self._store.close()


def _webhooks(store: Store, clock: Clock, options: ServerOptions) -> Webhooks | None:
    if options.webhook_url is None:
        return None
    from batchops.server.webhooks import Webhooks  # noqa: PLC0415  few servers send any

    return Webhooks(store, clock, url=options.webhook_url, secret=options.webhook_secret or "")


def _headers(options: ServerOptions) -> list[tuple[str, str]]:
    headers = [("server", f"batchops/{__version__}")]
    if options.upstream is None and options.answers == "simulated":
        headers.append(("x-batchops-simulated", "true"))
    return headers
