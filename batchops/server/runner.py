"""The state machine of batches: validating → in_progress → finalizing → completed, and the ways out of it.

Whatever a batch is doing is in the store and in its journal; a server that is killed goes on from there. A batch is
advanced by one thread at a time; waiting costs no thread: a batch that must wait is parked until its time.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from batchops.server.admission import Admission
from batchops.server.answering import Answerer
from batchops.server.blobs import Blobs
from batchops.server.clock import Clock
from batchops.server.endings import ResultFiles
from batchops.server.execution import Execution
from batchops.server.faults import Faults
from batchops.server.journal import Journal
from batchops.server.lanes import Lane, Warden
from batchops.server.lines import read_custom_ids, read_lines, unanswered_line
from batchops.server.modes import Mode
from batchops.server.options import ServerOptions
from batchops.server.store import Batch, Event, File, Store
from batchops.server.wire import TERMINAL

_LOG = logging.getLogger("batchops.server")
_RETRY_SECONDS = 5.0


class Runner:
    """Advances every unfinished batch of a store until it has ended."""

    def __init__(
        self,
        *,
        store: Store,
        blobs: Blobs,
        clock: Clock,
        answerer: Answerer,
        faults: Faults,
        options: ServerOptions,
        mode: Mode,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._blobs, self._clock = store, blobs, clock
        self._answerer, self._faults, self._options, self._on_end = answerer, faults, options, on_end
        self._mode = mode
        self._execution = Execution(answerer=answerer, faults=faults, clock=clock, seed=options.seed)
        self._lock = threading.Lock()
        self._is_closing = threading.Event()
        self._admission = Admission(
            store=store,
            blobs=blobs,
            clock=clock,
            options=options,
            profile=mode.profile,
            is_closing=self._is_closing.is_set,
        )
        self._files = ResultFiles(blobs, clock, seed=options.seed, show=mode.show_line)
        self._claimed: dict[str, bool] = {}
        self._live: dict[str, tuple[Journal, threading.Event]] = {}
        self._late_looks: Counter[str] = Counter()
        self._checking = Lane("check", 2, self._advance)
        self._working = Lane("work", 8 if answerer.concurrency > 1 else 2, self._advance)
        self._warden = Warden(clock, self._wake, self._expire_files)

    # What the API calls

    def resume(self) -> None:
        """Go on with every batch that had not ended when the server stopped."""
        for batch in self._store.unfinished():
            self.submit(batch)

    def submit(self, batch: Batch) -> None:
        self._warden.park(batch.id, batch.expires_at)
        (self._checking if batch.status == "validating" else self._working).put(batch.id)

    def stop(self, batch: Batch) -> None:
        """The batch is `cancelling` in the store: let whoever works on it see that."""
        with self._lock:
            live = self._live.get(batch.id)
        if live is not None:
            live[1].set()
        self._working.put(batch.id)

    def view(self, batch: Batch) -> Batch:
        """The batch as a client sees it now: counts of work under way, file ids that come late."""
        with self._lock:
            live = self._live.get(batch.id)
        if live is not None and batch.status not in TERMINAL:
            return replace(batch, completed=live[0].tally.completed, failed=live[0].tally.failed)
        late = (batch.fate or {}).get("late_file_ids")
        if late is not None and batch.status == "completed":
            with self._lock:
                self._late_looks[batch.id] += 1
                if self._late_looks[batch.id] <= late["looks"]:
                    return replace(batch, output_file_id=None, error_file_id=None)
        return batch

    def live_executions(self) -> Iterator[tuple[str, dict[str, int]]]:
        """(batch id, times by custom_id) of the batches that have begun and not ended."""
        with self._lock:
            live = list(self._live.items())
        for batch_id, (journal, _) in live:
            yield batch_id, dict(journal.times)

    def close(self, *, grace_seconds: float = 5.0) -> None:
        """Stop between two lines; what was answered is in the journals."""
        self._is_closing.set()
        self._warden.close()
        self._answerer.close()
        self._checking.close(grace_seconds)
        self._working.close(grace_seconds)

    # One thread at a time

    def _wake(self, batch_id: str) -> None:
        with self._lock:
            live = self._live.get(batch_id)
        if live is not None and self._store.any_batch(batch_id).expires_at <= self._clock.now():
            live[1].set()
        self._working.put(batch_id)

    def _advance(self, batch_id: str) -> None:
        if not self._claim(batch_id):
            return
        try:
            while not self._is_closing.is_set() and self._step(self._store.any_batch(batch_id)):
                pass
        except Exception as problem:
            # A full disk must not lose the batch: it is in the store, and is tried again.
            _LOG.exception("batch %s cannot go on: %s", batch_id, type(problem).__name__)
            self._warden.park(batch_id, self._clock.now() + _RETRY_SECONDS)
        finally:
            if self._release(batch_id):
                self._working.put(batch_id)

    def _claim(self, batch_id: str) -> bool:
        with self._lock:
            if batch_id in self._claimed:
                self._claimed[batch_id] = True
                return False
            self._claimed[batch_id] = False
            return True

    def _release(self, batch_id: str) -> bool:
        """Whether somebody asked for the batch meanwhile, so that it must be looked at again."""
        with self._lock:
            return self._claimed.pop(batch_id) and not self._is_closing.is_set()

    def _step(self, batch: Batch) -> bool:
        """Do the next thing. False when the batch has ended, is parked, or now belongs to the other lane."""
        if batch.status in TERMINAL:
            return False
        if batch.status != "cancelling" and self._clock.now() >= batch.expires_at:
            return self._end(batch, "expired")
        match batch.status:
            case "validating":
                return self._validate(batch)
            case "in_progress":
                return self._execute(batch)
            case "finalizing":
                return not self._is_stalled(batch, batch.finalizing_at) and self._end(batch, "completed")
            case _:
                return self._end(batch, "cancelled")

    # Validating

    def _validate(self, batch: Batch) -> bool:
        if self._is_stalled(batch, batch.created_at):
            return False
        errors = self._admission.admit(batch)
        if self._is_closing.is_set():
            return False
        if errors:
            return self._fail(batch, errors)
        self._working.put(batch.id)
        return False

    def _fail(self, batch: Batch, errors: list[dict[str, Any]]) -> bool:
        def failed(before: Batch) -> Batch:
            if before.status != "validating":
                return before
            return replace(before, status="failed", errors=errors, failed_at=self._clock.seconds())

        after = self._store.change_batch(batch.id, failed, event=self._event(batch, "failed"))
        if after.status == "failed":
            self._blobs.clear(batch.id)
            self._on_end()
            return False
        return True

    def _is_stalled(self, batch: Batch, since: int | None) -> bool:
        """Whether a fault plan holds the batch in this state; if so it is parked until it is let go."""
        fate = (batch.fate or {}).get("stall")
        if fate is None or fate["status"] != batch.status:
            return False
        until = batch.expires_at if fate["seconds"] is None else (since or batch.created_at) + fate["seconds"]
        if until <= self._clock.now():
            return False
        self._warden.park(batch.id, until)
        return True

    # Executing

    def _execute(self, batch: Batch) -> bool:
        workspace = self._blobs.workspace(batch.id)
        stop = threading.Event()
        with Journal(workspace / "journal") as journal:
            with self._lock:
                self._live[batch.id] = (journal, stop)
            self._answer_lines(batch, journal, stop)
            whole = len(journal.times) == batch.total
        if stop.is_set() or self._is_closing.is_set():
            return not self._is_closing.is_set()
        return self._finalize(batch) if whole and not self._is_doomed(batch) else self._meet_fate(batch)

    def _answer_lines(self, batch: Batch, journal: Journal, stop: threading.Event) -> None:
        """Answer what the journal does not have yet, as far as the batch's fate and its window let it come."""
        lines = (
            line
            for line in read_lines(self._blobs.workspace(batch.id) / "input.jsonl", batch.endpoint)
            if line.custom_id not in journal.times
        )
        self._execution.run(
            islice(lines, max(self._line_limit(batch) - len(journal.times), 0)),
            journal,
            dice=str(self._store.ordinal(batch.id)),
            stop=lambda: stop.is_set() or self._is_closing.is_set() or self._clock.now() >= batch.expires_at,
        )

    def _line_limit(self, batch: Batch) -> int:
        """How many lines may be executed before a fate of this batch comes true."""
        limits = [batch.total]
        for effect in ("expire", "cancel"):
            if fate := (batch.fate or {}).get(effect):
                limits.append(math.floor(batch.total * fate["at"]))
        stall = (batch.fate or {}).get("stall")
        if stall is not None and stall["status"] == "in_progress" and self._stall_end(batch, stall) > self._clock.now():
            limits.append(math.floor(batch.total * stall["at"]))
        return min(limits)

    def _stall_end(self, batch: Batch, stall: dict[str, Any]) -> float:
        if stall["seconds"] is None:
            return batch.expires_at
        return float((batch.in_progress_at or batch.created_at) + stall["seconds"])

    @staticmethod
    def _is_doomed(batch: Batch) -> bool:
        return bool({"expire", "cancel"} & (batch.fate or {}).keys())

    def _meet_fate(self, batch: Batch) -> bool:
        """Not all lines were to be executed: the batch is parked, or ends as its fate says."""
        fate = batch.fate or {}
        if self._is_stalled(batch, batch.in_progress_at):
            return False
        if "expire" in fate:
            return self._end(batch, "expired")
        if "cancel" in fate:
            now = self._clock.seconds()
            self._store.change_batch(
                batch.id, lambda before: replace(before, status="cancelling", cancelling_at=before.cancelling_at or now)
            )
        return True

    def _finalize(self, batch: Batch) -> bool:
        if self._is_stalled(batch, batch.in_progress_at):
            return False

        def finalizing(before: Batch) -> Batch:
            if before.status != "in_progress":
                return before
            return replace(before, status="finalizing", finalizing_at=self._clock.seconds())

        self._store.change_batch(batch.id, finalizing)
        return True

    # Ending

    def _end(self, batch: Batch, status: str) -> bool:
        """Make the files of what was answered, and of what was not; then the batch has ended, in one commit."""
        workspace = self._blobs.workspace(batch.id)
        workspace.mkdir(exist_ok=True)
        with self._lock:
            live = self._live.get(batch.id)
        journal = live[0] if live else Journal(workspace / "journal")
        journal.close()
        unanswered: Iterator[str] = iter(())
        if status != "completed" and batch.in_progress_at is not None and (workspace / "input.jsonl").exists():
            asked = read_custom_ids(workspace / "input.jsonl")
            unanswered = (custom_id for custom_id in asked if custom_id not in journal.times)
        kept = self._mode.keeps_empty if status == "completed" else frozenset()
        lines = (unanswered_line(secrets.token_hex(12), custom_id, f"batch_{status}") for custom_id in unanswered)
        output = self._files.write(batch, "output", iter(()), keeps_empty="output" in kept)
        try:
            errors = self._files.write(batch, "error", lines, keeps_empty="error" in kept)
        except OSError:
            self._files.drop([output])
            raise
        expected = {"completed": ("finalizing",), "cancelled": ("cancelling",)}.get(status, _OPEN)

        def ended(before: Batch) -> Batch:
            if before.status not in expected:
                return before
            return _ended(before, status, journal, output, errors, self._clock.seconds())

        files = [file for file in (output, errors) if file is not None]
        after = self._store.change_batch(
            batch.id, ended, files=files, executions=journal.times, event=self._event(batch, status)
        )
        if after.status != status:  # a cancel came first: look again; these files have no row and are swept
            self._files.drop(files)
            return True
        with self._lock:
            self._live.pop(batch.id, None)
        self._blobs.clear(batch.id)
        self._on_end()
        return False

    def _event(self, batch: Batch, status: str) -> Event | None:
        if self._options.webhook_url is None:
            return None
        now = self._clock.now()
        return Event(f"evt_{secrets.token_hex(16)}", batch.id, f"batch.{status}", int(now), 0, now)

    def _expire_files(self) -> None:
        for file_id in self._store.expire_files(now=self._clock.seconds()):
            self._blobs.drop(file_id)


_OPEN = ("validating", "in_progress", "finalizing")


def _ended(batch: Batch, status: str, journal: Journal, output: File | None, errors: File | None, now: int) -> Batch:
    tally = journal.tally
    return replace(
        batch,
        **{"status": status, f"{status}_at": now},  # type: ignore[arg-type]  # completed_at, expired_at, cancelled_at
        output_file_id=output.id if output else None,
        error_file_id=errors.id if errors else None,
        completed=tally.completed,
        failed=tally.failed,
        input_tokens=tally.input_tokens,
        cached_tokens=tally.cached_tokens,
        output_tokens=tally.output_tokens,
        reasoning_tokens=tally.reasoning_tokens,
    )
