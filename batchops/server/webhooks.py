"""Webhooks: `batch.completed`, `failed`, `expired` and `cancelled`, signed as Standard Webhooks, sent until received.

An event is made in the commit that ends its batch, so none is lost; it is sent at least once, and again, ever less
often and for three days, until the receiver answers with 2xx.
"""

from __future__ import annotations

import base64
import hmac
import threading
import urllib.request
from binascii import Error as NotBase64
from hashlib import sha256
from urllib.parse import urlsplit

import orjson

from batchops.diagnostics import BatchopsError, error
from batchops.server.clock import Clock
from batchops.server.options import LOOPBACK
from batchops.server.store import Event, Store

_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 6 * 3600.0
_LIFE_SECONDS = 72 * 3600.0
_TIMEOUT_SECONDS = 10.0
_PREFIX = "whsec_"


def signature(secret: str, event_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` of a delivery. Raises ValueError for a secret that is not base64."""
    key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    signed = hmac.new(key, f"{event_id}.{timestamp}.".encode() + body, sha256)
    return f"v1,{base64.b64encode(signed.digest()).decode()}"


def payload(event: Event) -> bytes:
    """What is sent: which batch has ended and how. The batch itself is fetched by the receiver."""
    shown = {"id": event.id, "object": "event", "created_at": event.created_at, "type": event.type}
    return orjson.dumps({**shown, "data": {"id": event.batch_id}})


class Webhooks:
    """Delivers the events of a store to one address, in a thread of its own."""

    def __init__(self, store: Store, clock: Clock, *, url: str, secret: str) -> None:
        try:
            signature(secret, "", 0, b"")
        except (NotBase64, ValueError) as problem:
            detail = 'A webhook secret is base64, with or without "whsec_" before it.'
            raise BatchopsError(error("invalid_webhook_secret", "Invalid webhook secret.", detail)) from problem
        self._store, self._clock, self._url, self._secret = store, clock, url, secret
        self._changed = threading.Condition()
        self._is_closed = False
        clock.on_advance(self.nudge)
        self._thread = threading.Thread(target=self._loop, name="batchops-webhooks", daemon=True)
        self._thread.start()

    def nudge(self) -> None:
        """There may be something to send."""
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _loop(self) -> None:
        while not self._is_closed:
            event = self._store.next_event()
            if event is not None and event.due_at <= self._clock.now():
                self._deliver(event)
                continue
            with self._changed:
                if not self._is_closed and self._store.next_event() == event:
                    left = 60.0 if event is None else event.due_at - self._clock.now()
                    self._changed.wait(min(max(left, 0.001), 60.0))

    def _deliver(self, event: Event) -> None:
        now = self._clock.now()
        is_over = self._send(event) or now - event.created_at > _LIFE_SECONDS
        pause = min(_FIRST_PAUSE_SECONDS * 4.0**event.attempts, _LONGEST_PAUSE_SECONDS)
        self._store.settle_event(event.id, attempts=event.attempts + 1, due_at=None if is_over else now + pause)

    def _send(self, event: Event) -> bool:
        """Whether the receiver took it."""
        body, timestamp = payload(event), self._clock.seconds()
        headers = {
            "content-type": "application/json",
            "user-agent": "batchops",
            "webhook-id": event.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._secret, event.id, timestamp, body),
        }
        request = urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310  the user's own address
        try:
            with _opener(self._url).open(request, timeout=_TIMEOUT_SECONDS) as answer:
                return 200 <= int(answer.status) < 300
        except (OSError, ValueError):  # urllib's errors are OSErrors
            return False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A receiver that moved has not received: a redirect is a refusal."""

    def redirect_request(self, *_: object) -> None:
        return None


def _opener(url: str) -> urllib.request.OpenerDirector:
    """With the proxies of the environment, but none between this machine and itself."""
    proxies: dict[str, str] | None = {} if urlsplit(url).hostname in LOOPBACK else None
    return urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler(proxies))
