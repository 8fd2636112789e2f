"""The embedded Files+Batches API as a provider: served on loopback by the command itself, spoken to by the same SDK.

Its answers are simulated. Its files and batches live under `state/local`, so they survive between commands; the process
that serves them may not, so a call that found nobody is repeated once against a new one: nothing had been sent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol, TypeVar

from batchops.profiles import Profile
from batchops.providers.credentials import Credentials
from batchops.providers.openai import OpenAIProvider
from batchops.providers.patience import Patience
from batchops.providers.provider import (
    ProviderContext,
    RemoteBatch,
    RemoteFile,
    Throttled,
    Uncertain,
    Unreachable,
)

T = TypeVar("T")

_KEY: Final = "local"
_DATA: Final = Path("state/local")


class Served(Protocol):
    """A running embedded server, ours or another process's."""

    @property
    def url(self) -> str: ...

    def close(self) -> None: ...


def connect(context: ProviderContext) -> LocalProvider:
    """A provider whose server runs, or runs as soon as it is called."""
    from batchops.server.embedded import ensure_served  # noqa: PLC0415  the ASGI stack loads only when it is needed

    return LocalProvider(context, lambda: ensure_served(context.root / _DATA))


class LocalProvider:
    """The port on the embedded server. See provider.Provider for what each method promises."""

    is_simulated = True

    def __init__(self, context: ProviderContext, serve: Callable[[], Served]) -> None:
        self.name = context.name
        self._settings = context.settings
        self._serve = serve
        self._lock = threading.Lock()
        self._opened: list[Served | OpenAIProvider] = []
        self._inner = self._connected()

    @property
    def profile(self) -> Profile:
        return self._inner.profile

    def upload(self, path: Path, filename: str, *, model: str | None = None) -> RemoteFile:
        return self._call(lambda provider: provider.upload(path, filename, model=model))

    def find_file(self, filename: str, size_bytes: int) -> RemoteFile | None:
        return self._call(lambda provider: provider.find_file(filename, size_bytes))

    def retrieve_file(self, file_id: str) -> RemoteFile:
        return self._call(lambda provider: provider.retrieve_file(file_id))

    def create(
        self,
        *,
        input_file_id: str,
        endpoint: str,
        completion_window: str,
        metadata: Mapping[str, str],
        output_expires_after_seconds: int | None = None,
    ) -> RemoteBatch:
        return self._call(
            lambda provider: provider.create(
                input_file_id=input_file_id,
                endpoint=endpoint,
                completion_window=completion_window,
                metadata=metadata,
                output_expires_after_seconds=output_expires_after_seconds,
            )
        )

    def retrieve(self, batch_id: str) -> RemoteBatch:
        return self._call(lambda provider: provider.retrieve(batch_id))

    def list_batches(self, *, since: int | None = None) -> Iterator[RemoteBatch]:
        yield from self._call(lambda provider: list(provider.list_batches(since=since)))

    def download(self, file_id: str, path: Path) -> None:
        self._call(lambda provider: provider.download(file_id, path))

    def delete_file(self, file_id: str) -> None:
        self._call(lambda provider: provider.delete_file(file_id))

    def cancel(self, batch_id: str) -> RemoteBatch:
        return self._call(lambda provider: provider.cancel(batch_id))

    def close(self) -> None:
        with self._lock:
            while self._opened:
                self._opened.pop().close()

    def _call(self, act: Callable[[OpenAIProvider], T]) -> T:
        used = self._inner
        try:
            return act(used)
        except Unreachable:
            return act(self._instead_of(used))

    def _instead_of(self, gone: OpenAIProvider) -> OpenAIProvider:
        """A connection to a server that runs. The first thread that finds the old one gone makes it.

        The old one stays open to the end: other threads may be in the middle of a call.
        """
        with self._lock:
            if self._inner is gone:
                self._inner = self._connected()
            return self._inner

    def _connected(self) -> OpenAIProvider:
        served = self._serve()
        self._opened.append(served)
        base = served.url.rstrip("/")
        access = Credentials(base if base.endswith("/v1") else f"{base}/v1", _KEY)
        # Nobody there is not waited for: somebody is started.
        patience = Patience(passing=(Uncertain, Throttled))
        inner = OpenAIProvider(self.name, self._settings, access, is_simulated=True, patience=patience)
        self._opened.append(inner)
        return inner
