"""Whether a batch may begin: its input file is read whole, and its model's queue must have room.

Knows nothing of threads but that several batches may be looked at at once.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from batchops.profiles import Profile
from batchops.server.blobs import Blobs
from batchops.server.clock import Clock
from batchops.server.options import ServerOptions
from batchops.server.store import Batch, Store
from batchops.server.validate import (
    Checked,
    batch_error,
    check_input,
    missing_file,
    token_limit_exceeded,
    wrong_purpose,
)

_LOG = logging.getLogger("batchops.server")


class Admission:
    """Looks at batches that are `validating`, and lets those begin whose input is right. `is_closing` ends a look."""

    def __init__(
        self,
        *,
        store: Store,
        blobs: Blobs,
        clock: Clock,
        options: ServerOptions,
        profile: Profile,
        is_closing: Callable[[], bool],
    ) -> None:
        self._store, self._blobs, self._clock = store, blobs, clock
        self._options, self._profile, self._is_closing = options, profile, is_closing
        self._lock = threading.Lock()

    def admit(self, batch: Batch) -> list[dict[str, Any]]:
        """Let the batch begin, or say what is wrong with its input. While the server closes, neither.

        A file that the check itself fails on is wrong too, or it would for ever.
        """
        try:
            return self._check(batch)
        except (OSError, sqlite3.Error, MemoryError):
            raise
        except Exception as problem:
            _LOG.exception("the input of batch %s cannot be checked: %s", batch.id, type(problem).__name__)
            return [batch_error("server_error", "The server had an error while it checked the input file.")]

    def _check(self, batch: Batch) -> list[dict[str, Any]]:
        """Read the whole input file and let the batch begin, or say why it cannot."""
        gone = [missing_file(batch.input_file_id, self._options.organization)]
        file = self._store.file(batch.owner, batch.input_file_id, now=self._clock.seconds())
        if file is None:
            return gone
        if file.purpose != "batch":
            return [wrong_purpose(file.purpose)]
        try:
            path = self._blobs.lend(batch.input_file_id, batch.id)
        except FileNotFoundError:
            return gone
        options, stop = self._options, self._is_closing
        found = check_input(
            path,
            endpoint=batch.endpoint,
            limits=options.limits,
            models=options.models,
            profile=self._profile,
            stop=stop,
        )
        if fate := (batch.fate or {}).get("fail"):
            return [self._fated_error(fate, found.model)]
        if found.errors or stop():
            return found.errors
        return self._begin(batch, found, gone)

    def _begin(self, batch: Batch, found: Checked, gone: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Begin, if the model's queue has room and the file is still there: from here on lines are executed."""
        model, limits = found.model or "", self._options.enqueued_tokens
        with self._lock:
            limit = limits.get(model, limits.get("*"))
            queued = self._store.enqueued_tokens(batch.owner, model)
            if limit is not None and queued + found.prompt_tokens > limit:
                return [token_limit_exceeded(model, self._options.organization, limit)]
            now = self._clock.seconds()
            begun = self._store.begin_batch(batch.id, lambda before: _begun(before, model, found, now), now=now)
        return gone if begun is None else []

    def _fated_error(self, fate: dict[str, Any], model: str | None) -> dict[str, Any]:
        if fate["message"] is None and fate["code"] == "token_limit_exceeded":
            return token_limit_exceeded(model or "unknown", self._options.organization, 2_000_000)
        message = fate["message"] or "The batch was failed by the fault plan."
        return batch_error(fate["code"], message, param=fate["param"], line=fate["line"])


def _begun(batch: Batch, model: str, found: Checked, now: int) -> Batch:
    if batch.status != "validating":
        return batch
    begun = replace(batch, status="in_progress", in_progress_at=now, model=model)
    return replace(begun, total=found.total, enqueued_tokens=found.prompt_tokens)
