"""Lines forwarded to a real-time OpenAI-compatible endpoint: bounded, patient with rate limits, at its own pace."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import orjson

from batchops.server.answering import Abandoned, Stop, never, server_error
from batchops.server.lines import Reply
from batchops.server.options import LOOPBACK
from batchops.server.parsing import parse

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0
_GRACE_SECONDS = 2.0
_LOOK_SECONDS = 0.25
_WORTH_ANOTHER_TRY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_OUT_OF_MONEY = frozenset({"insufficient_quota", "billing_hard_limit_reached", "credit_balance_exhausted"})


class Gate:
    """How many calls may be out at once: half as many after a 429, slowly more again as calls succeed."""

    def __init__(self, most: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._allowed = float(most)
        self._out = 0
        self._closed_until = 0.0
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._is_abandoned = False

    @property
    def allowed(self) -> int:
        return max(int(self._allowed), 1)

    @contextmanager
    def passed(self, stop: Stop = never) -> Iterator[None]:
        """Wait for a turn. Raises Abandoned when the gate is closed for good, or as soon as `stop` says so."""
        with self._changed:
            while self._out >= self.allowed or self._left() > 0:
                self._wait(self._left() or _LOOK_SECONDS, stop)
            self._wait(0, stop)
            self._out += 1
        try:
            yield
        finally:
            with self._changed:
                self._out -= 1
                self._changed.notify_all()

    def succeeded(self) -> None:
        with self._changed:
            self._allowed = min(self._allowed + 1 / self._allowed, self._most)
            self._changed.notify()

    def throttled(self, pause_seconds: float) -> None:
        """The endpoint asked for patience: nobody passes for so long, and fewer afterwards."""
        with self._changed:
            self._allowed = max(self._allowed / 2, 1)
            self._closed_until = max(self._closed_until, self._monotonic() + pause_seconds)

    def pause(self, seconds: float, stop: Stop = never) -> None:
        """Wait before another try. Raises Abandoned when the gate is closed for good meanwhile, or `stop` says so."""
        until = time.monotonic() + seconds
        with self._changed:
            while (left := until - time.monotonic()) > 0:
                self._wait(left, stop)

    def _wait(self, seconds: float, stop: Stop) -> None:
        """Wait a little, and see whether it is still worth it: nobody tells the gate that a batch is cancelled."""
        if not self._is_abandoned and not stop() and seconds > 0:
            self._changed.wait(min(seconds, _LOOK_SECONDS))
        if self._is_abandoned or stop():
            raise Abandoned

    def abandon(self, grace_seconds: float) -> None:
        """Nobody passes any more; those who have passed get a while to come back."""
        with self._changed:
            self._is_abandoned = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._out == 0, timeout=grace_seconds)

    def _left(self) -> float:
        return max(self._closed_until - self._monotonic(), 0.0)


class _Calls:
    """HTTP calls made from any thread on a loop of their own, so that those under way can be cancelled."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="batchops-upstream", daemon=True)
        self._thread.start()

    def post(self, url: str, content: bytes) -> httpx.Response:
        """Raises httpx.HTTPError, CancelledError."""
        headers = {"content-type": "application/json"}
        call = self._client.post(url, content=content, headers=headers)
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for call in under_way:
            call.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._client.aclose()


class Upstream:
    """Answers from an endpoint; every answer is recorded at once, for it was paid for."""

    is_costly = True

    def __init__(
        self,
        url: str,
        *,
        key: str | None,
        concurrency: int,
        timeout_seconds: float,
        attempts: int,
        patience_seconds: float,
    ) -> None:
        self.concurrency = concurrency
        self._attempts, self._patience_seconds = attempts, patience_seconds
        self._base = url.rstrip("/")
        self._gate = Gate(concurrency)
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(timeout_seconds, connect=10.0)
        # HTTP_PROXY must not stand between this machine and itself.
        trust = urlsplit(url).hostname not in LOOPBACK
        self._calls = _Calls(httpx.AsyncClient(limits=limits, headers=headers, timeout=timeout, trust_env=trust))

    def answer(self, url: str, body: dict[str, Any], *, stop: Stop = never) -> Reply:
        """The endpoint's answer, tried again where that may help; being told to wait is no failure for an hour.

        Raises Abandoned.
        """
        failures = waits = 0
        patient_until = time.monotonic() + self._patience_seconds
        while True:
            reply, retry_after = self._once(url, body, stop)
            if not _is_worth_another_try(reply):
                return reply
            if reply.status == 429:
                waits += 1
                pause = _pause_seconds(waits, retry_after)
                if time.monotonic() + pause > patient_until:
                    return reply
                self._gate.throttled(pause)
            else:
                failures += 1
                if failures >= self._attempts:
                    return reply
                self._gate.pause(_pause_seconds(failures, retry_after), stop)

    def _once(self, url: str, body: dict[str, Any], stop: Stop) -> tuple[Reply, float | None]:
        with self._gate.passed(stop):
            try:
                answered = self._calls.post(self._base + url.removeprefix("/v1"), orjson.dumps(body))
            except httpx.TimeoutException:
                return Reply(0, error=("request_timeout", "The underlying call to the model timed out.")), None
            except CancelledError as problem:
                raise Abandoned from problem
            except httpx.HTTPError:
                return server_error("The upstream endpoint could not be reached.", status=503), None
        reply = _read(answered)
        if reply.status == 200:
            self._gate.succeeded()
        return reply, _retry_after(answered.headers.get("retry-after"))

    def close(self) -> None:
        self._gate.abandon(_GRACE_SECONDS)
        self._calls.close()


def _read(answered: httpx.Response) -> Reply:
    request_id = answered.headers.get("x-request-id")
    try:
        body = parse(answered.content)
    except ValueError:
        status = answered.status_code if answered.status_code >= 400 else 502
        return server_error("The upstream endpoint did not answer with JSON.", status=status)
    return Reply(answered.status_code, body, request_id=request_id)


def _is_worth_another_try(reply: Reply) -> bool:
    if reply.error is not None:
        return True
    problem = reply.body.get("error") if isinstance(reply.body, dict) else None
    code = problem.get("code") if isinstance(problem, dict) else None
    return reply.status in _WORTH_ANOTHER_TRY and code not in _OUT_OF_MONEY


def _retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date."""
    if header is None:
        return None
    try:
        return max(float(header), 0.0)
    except ValueError:
        pass
    try:
        moment: float = parsedate_to_datetime(header).timestamp()
    except ValueError:
        return None
    return max(moment - time.time(), 0.0)


def _pause_seconds(attempt: int, retry_after: float | None) -> float:
    longest = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(attempt - 1, 10), _LONGEST_PAUSE_SECONDS)
    pause = longest * random.uniform(0.5, 1.0)  # noqa: S311  spreads tries, hides nothing
    if retry_after is None:
        return pause
    # "At once" is believed twice; then it is only a little sooner.
    return max(min(retry_after, 10 * _LONGEST_PAUSE_SECONDS), 0 if attempt <= 2 else min(pause, 1.0))
