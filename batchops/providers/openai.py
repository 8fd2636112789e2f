"""OpenAI and everything that speaks its Files+Batches API, on the official SDK: the only module that imports it.

Writes go out exactly once: the SDK would send an upload or a create up to three times on 500, 409, a timeout or a
reset (measured, openai 3.54), so its own retries are off. Reads are repeated by `Patience`, where a garbage body counts
as a failure too.
"""

from __future__ import annotations

import json
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, TypeVar, cast

import httpx2
import openai

from batchops.profiles import Profile, profile_of
from batchops.providers.credentials import Credentials, credentials
from batchops.providers.normalise import Malformed, batch_from, file_from, page_from
from batchops.providers.patience import Patience
from batchops.providers.provider import (
    Denied,
    Missing,
    ProviderContext,
    ProviderError,
    RemoteBatch,
    RemoteFile,
    Uncertain,
    Unreachable,
)
from batchops.providers.refusals import BASE_URL_HINT, refusal
from batchops.settings import ProviderSettings

T = TypeVar("T")
Found = TypeVar("Found", RemoteFile, RemoteBatch)

_CONNECT_SECONDS: Final = 5.0
_PAGE: Final = 100  # the most that GET /batches allows
_HEAD_BYTES: Final = 256
_NOT_SENT: Final = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    httpx2.InvalidURL,
    ssl.SSLCertVerificationError,
)


class _Reply(Protocol):
    """What the SDK's `with_raw_response` gives: the bytes, before any of its types."""

    @property
    def content(self) -> bytes: ...


def connect(context: ProviderContext) -> OpenAIProvider:
    """A client of the service that settings and environment name. Raises BatchopsError without usable credentials."""
    profile = profile_of(context.settings, context.environ)
    return OpenAIProvider(context.name, context.settings, credentials(context), profile=profile)


def plain_client(access: Credentials, transport: httpx2.Client) -> openai.OpenAI:
    """The SDK's client, with its own retries off."""
    return openai.OpenAI(
        api_key=access.api_key,
        base_url=access.base_url,
        organization=access.organization,
        project=access.project,
        max_retries=0,
        timeout=transport.timeout,
        http_client=transport,
    )


class OpenAIProvider:
    """The port on the SDK. See provider.Provider for what each method promises."""

    def __init__(
        self,
        name: str,
        settings: ProviderSettings,
        access: Credentials,
        *,
        profile: Profile | None = None,
        is_simulated: bool = False,
        patience: Patience = Patience(),  # noqa: B008  frozen
        make_client: Callable[[Credentials, httpx2.Client], openai.OpenAI] = plain_client,
    ) -> None:
        self.name = name
        self.is_simulated = is_simulated
        self.profile = profile or profile_of(settings, {})
        self._patience = patience
        self._secret = access.api_key
        # A redirected POST would be sent a second time, elsewhere.
        trust = _trusted(access)
        self._reads = make_client(access, _transport_of(settings, access, trust, follow_redirects=True))
        self._writes = make_client(access, _transport_of(settings, access, trust, follow_redirects=False))

    def upload(self, path: Path, filename: str, *, model: str | None = None) -> RemoteFile:
        told = {"x-litellm-model": model} if model and self.profile.names_model_at_upload else None
        create = partial(self._writes.files.with_raw_response.create, extra_headers=told)
        with path.open("rb") as file:
            return self._once(partial(create, file=(filename, file), purpose="batch"), file_from)

    def find_file(self, filename: str, size_bytes: int) -> RemoteFile | None:
        """No limit is sent: the default is the most there is (10,000), and relatives refuse numbers over theirs."""
        fetch = partial(self._reads.files.with_raw_response.list, purpose="batch")
        for page in self._pages(fetch, file_from):
            matches = [f for f in page if f.filename == filename and f.bytes in {size_bytes, None}]
            if matches:
                return max(matches, key=lambda f: f.created_at or 0)
        return None

    def retrieve_file(self, file_id: str) -> RemoteFile:
        return self._again(partial(self._reads.files.with_raw_response.retrieve, file_id), file_from)

    def create(
        self,
        *,
        input_file_id: str,
        endpoint: str,
        completion_window: str,
        metadata: Mapping[str, str],
        output_expires_after_seconds: int | None = None,
    ) -> RemoteBatch:
        expiry = output_expires_after_seconds
        # The SDK's types know OpenAI's own endpoints and windows only.
        send = partial(
            cast(Any, self._writes.batches.with_raw_response.create),
            input_file_id=input_file_id,
            endpoint=endpoint,
            completion_window=completion_window,
            metadata=dict(metadata) if metadata and self.profile.supports_metadata else openai.omit,
            output_expires_after={"anchor": "created_at", "seconds": expiry} if expiry else openai.omit,
        )
        return self._once(send, batch_from)

    def retrieve(self, batch_id: str) -> RemoteBatch:
        return self._again(partial(self._reads.batches.with_raw_response.retrieve, batch_id), batch_from)

    def list_batches(self, *, since: int | None = None) -> Iterator[RemoteBatch]:
        fetch = partial(self._reads.batches.with_raw_response.list, limit=_PAGE)
        for page in self._pages(fetch, batch_from, limit=_PAGE):
            yield from page
            if since is not None and _reaches_back(page, since):
                return

    def download(self, file_id: str, path: Path) -> None:
        size_bytes = self.retrieve_file(file_id).bytes
        self._patience.repeat(partial(self._download_once, file_id, path, size_bytes))

    def delete_file(self, file_id: str) -> None:
        with suppress(Missing):
            self._again(partial(self._writes.files.with_raw_response.delete, file_id), _check_deleted)

    def cancel(self, batch_id: str) -> RemoteBatch:
        try:
            return self._again(partial(self._writes.batches.with_raw_response.cancel, batch_id), batch_from)
        except ProviderError as refused:
            if refused.status not in {400, 409}:
                raise
            found = self.retrieve(batch_id)
            if refused.status == 400 and not found.status.is_terminal:
                raise
            return found

    def close(self) -> None:
        self._reads.close()
        self._writes.close()

    def _once(self, send: Callable[[], _Reply], read: Callable[[object], T]) -> T:
        """One try. Whatever goes wrong after the first byte, a garbage body included, is Uncertain."""
        try:
            return read(_parsed(send().content))
        except Exception as error:
            raise self._translated(error) from error

    def _again(self, send: Callable[[], _Reply], read: Callable[[object], T]) -> T:
        return self._patience.repeat(partial(self._once, send, read))

    def _pages(
        self, fetch: Callable[..., _Reply], read: Callable[[object], Found], *, limit: int | None = None
    ) -> Iterator[list[Found]]:
        """Pages of a listing, each entry once. Raises Uncertain where it cannot be seen to its end."""
        seen: set[str] = set()
        after: str | openai.Omit = openai.omit
        while True:
            entries, has_more = self._again(partial(fetch, after=after), page_from)
            page = self._read_all(entries, read)
            fresh = [entry for entry in page if entry.id not in seen]
            yield fresh
            if has_more and not fresh:
                raise Uncertain("The listing says that more follows and does not show it.")
            if not fresh or not (has_more if has_more is not None else limit is not None and len(page) >= limit):
                return
            seen.update(entry.id for entry in fresh)
            after = page[-1].id

    def _read_all(self, entries: list[Mapping[str, Any]], read: Callable[[object], Found]) -> list[Found]:
        try:
            return [read(entry) for entry in entries]
        except Malformed as error:
            raise self._translated(error) from error

    def _download_once(self, file_id: str, path: Path, size_bytes: int | None) -> None:
        with _replacing(path) as file:
            try:
                received = self._stream(file_id, file)
            except Exception as error:
                if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
                    raise  # this machine's disk, not the service
                raise self._translated(error) from error
            if size_bytes and received != size_bytes:
                raise Uncertain(f"The download was cut: {received:,} of {size_bytes:,} bytes came.")

    def _stream(self, file_id: str, file: BinaryIO) -> int:
        received = 0
        with self._reads.files.with_streaming_response.content(file_id) as reply:
            if "text/html" in reply.headers.get("content-type", ""):
                raise Malformed("a page instead of a file")
            for chunk in reply.iter_bytes():  # as they come: sizes of our own cost a copy of each
                file.write(chunk)
                received += len(chunk)
            announced = reply.headers.get("content-length", "")
            if announced.isdecimal() and reply.http_response.num_bytes_downloaded != int(announced):
                raise Malformed("fewer bytes than announced")
        return received

    def _translated(self, error: Exception) -> ProviderError:
        return translate(error, secret=self._secret, now=self._patience.clock())


def translate(error: Exception, *, secret: str, now: float) -> ProviderError:
    """The port's exception for a foreign one. Its words quote neither `secret` nor a body; `now` is epoch seconds."""
    if isinstance(error, ProviderError):
        return error
    fate = next((FATES[kind] for kind in type(error).__mro__ if kind in FATES), _transport)
    return fate(error, secret, now)


def _status(error: Exception, secret: str, now: float) -> ProviderError:
    assert isinstance(error, openai.APIStatusError)
    return refusal(
        error.status_code, _parsed_or_none(error.response.content), error.response.headers, secret=secret, now=now
    )


def _transport(error: Exception, _secret: str, _now: float) -> ProviderError:
    """Unreachable where the transport says that no connection came about; otherwise bytes may have gone out."""
    cause = error.__cause__ if isinstance(error, openai.OpenAIError) else error
    fate = Unreachable if isinstance(cause, _NOT_SENT) else Uncertain
    return fate(f"{'The service cannot be reached' if fate is Unreachable else 'No usable reply'} ({_names(error)}).")


def _odd(error: Exception, _secret: str, _now: float) -> ProviderError:
    return Uncertain(f"No usable reply ({_names(error)}).")


def _denied(error: Exception, _secret: str, _now: float) -> ProviderError:
    return Denied(f"No access ({_names(error)}).")


FATES: Final[Mapping[type, Callable[[Exception, str, float], ProviderError]]] = {
    openai.OpenAIError: _odd,
    openai.APIError: _odd,
    openai.APIResponseValidationError: _odd,
    openai.APIConnectionError: _transport,
    openai.APITimeoutError: _transport,
    openai.APIStatusError: _status,
    openai.BadRequestError: _status,
    openai.AuthenticationError: _status,
    openai.OAuthError: _status,
    openai.PermissionDeniedError: _status,
    openai.NotFoundError: _status,
    openai.ConflictError: _status,
    openai.UnprocessableEntityError: _status,
    openai.RateLimitError: _status,
    openai.InternalServerError: _status,
    # Of parsed answers, sockets and webhooks, none of which this adapter uses.
    openai.LengthFinishReasonError: _odd,
    openai.ContentFilterFinishReasonError: _odd,
    openai.InvalidWebhookSignatureError: _odd,
    openai.WebSocketConnectionClosedError: _odd,
    openai.WebSocketQueueFullError: _odd,
}
"""Every public exception of the SDK; a test fails for one that is missing. Others stand on their nearest parent."""


def _names(error: Exception) -> str:
    """What failed, by class alone: the text of an exception may quote a body."""
    return " from ".join(type(e).__name__ for e in (error, error.__cause__) if e is not None)


def _parsed(content: bytes) -> object:
    """The JSON of a body. Raises Uncertain for a web page, which a wrong base_url or a proxy answers with."""
    if content[:_HEAD_BYTES].lstrip().startswith(b"<"):
        raise Uncertain(f"No usable reply: a web page instead of JSON. {BASE_URL_HINT}")
    return json.loads(content) if content else None


def _parsed_or_none(content: bytes) -> object:
    with suppress(ValueError, RecursionError, Uncertain):
        return _parsed(content)
    return None


def _check_deleted(raw: object) -> None:
    """The service's word that the file is gone: the proof that a lost create cannot land later. An empty 204 counts."""
    if raw is not None and not (isinstance(raw, Mapping) and raw.get("deleted") is True):
        raise Malformed("no word that the file was deleted")


def _reaches_back(page: list[RemoteBatch], since: int) -> bool:
    """Whether a page, newest first, ends before `since`. In any other order nothing follows from its end."""
    times = [batch.created_at for batch in page]
    known = [moment for moment in times if moment is not None]
    return len(known) == len(times) > 0 and known == sorted(known, reverse=True) and known[-1] < since


def _trusted(access: Credentials) -> ssl.SSLContext:
    """Whose certificates are believed. On plain HTTP to this machine nobody's: to read them takes 20 ms."""
    if access.is_loopback and access.base_url.lower().startswith("http:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx2.create_ssl_context(trust_env=not access.is_loopback)


def _transport_of(
    settings: ProviderSettings, access: Credentials, trust: ssl.SSLContext, *, follow_redirects: bool
) -> httpx2.Client:
    seconds = settings.timeout.total_seconds()
    return openai.DefaultHttpxClient(
        timeout=openai.Timeout(seconds, connect=min(_CONNECT_SECONDS, seconds)),
        follow_redirects=follow_redirects,
        trust_env=not access.is_loopback,  # HTTP_PROXY must not stand between this machine and itself
        verify=trust,
    )


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its place once the block ends well, and vanishes otherwise.

    Not synced: what is downloaded is read by this process alone, and what it keeps of it goes to disk then.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
