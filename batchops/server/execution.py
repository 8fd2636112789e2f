"""Lines become entries of a journal: asked of the answerer, or spoiled by a fault plan."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterable, Iterator
from itertools import count

from batchops.server.answering import Abandoned, Answerer, Stop, answer_many, server_error
from batchops.server.clock import Clock
from batchops.server.faults import Faults, LineRule
from batchops.server.journal import Entry, Journal
from batchops.server.lines import Line, Reply, result_line
from batchops.server.wire import error_object

_LOG = logging.getLogger("batchops.server")
_FLUSH_SECONDS = 0.05
_FLUSH_ENTRIES = 128
_SYNC_SECONDS = 1.0
_ASTRAY = {"missing": b"X", "duplicate": b"D", "wrong_file": b"W"}
_ASTRAY_ERROR = {b"W": b"V", b"D": b"E"}


class Execution:
    """Answers lines for every batch of a server. Thread-safe."""

    def __init__(self, *, answerer: Answerer, faults: Faults, clock: Clock, seed: int) -> None:
        self._answerer, self._faults, self._clock, self._seed = answerer, faults, clock, seed

    def run(self, lines: Iterable[Line], journal: Journal, *, dice: str, stop: Stop) -> None:
        """Answer lines into a journal until they end or `stop` says so. `dice` tells batches apart."""
        named = zip(_line_ids(), lines, strict=False)
        answered = answer_many(
            named, lambda line: self._answer(*line, dice, stop), concurrency=self._answerer.concurrency, stop=stop
        )
        self._record((entry for _, entry in answered if entry is not None), journal)

    def _record(self, entries: Iterator[Entry], journal: Journal) -> None:
        """Write entries as they come: costly ones one by one, others many at a time."""
        held: list[Entry] = []
        flushed = synced = time.monotonic()
        for entry in entries:
            held.append(entry)
            now = time.monotonic()
            if self._answerer.is_costly or len(held) >= _FLUSH_ENTRIES or now - flushed > _FLUSH_SECONDS:
                journal.append(held)
                held.clear()
                flushed = now
            if now - synced > _SYNC_SECONDS:
                journal.sync()
                synced = now
        journal.append(held)

    def _answer(self, line_id: str, line: Line, dice: str, stop: Stop) -> Entry | None:
        """The entry of a line, whatever goes wrong. None if there is none because the server stops."""
        rule = self._faults.for_line(dice, line.custom_id, line.body) if self._faults.has_line_rules else None
        try:
            flag, reply = (None, self._asked(line, stop)) if rule is None else self._spoiled(rule, line, stop)
            return _entry(line_id, line, flag, reply)
        except Abandoned:
            return None
        except Exception as problem:
            _LOG.warning("a line could not be answered: %s", type(problem).__name__)
            failed = server_error("The server had an error while processing your request.")
            return _entry(line_id, line, None, failed)

    def _asked(self, line: Line, stop: Stop) -> Reply:
        return self._answerer.answer(line.url, line.body, stop=stop)

    def _spoiled(self, rule: LineRule, line: Line, stop: Stop) -> tuple[bytes | None, Reply]:
        if (flag := _ASTRAY.get(rule.effect)) is not None:
            reply = self._asked(line, stop)
            return flag if reply.status == 200 else _ASTRAY_ERROR.get(flag, flag), reply
        match rule.effect:
            case "error":
                kind = rule.type or ("server_error" if rule.status >= 500 else "invalid_request_error")
                return None, Reply(rule.status, error_object(rule.message, kind=kind, code=rule.code))
            case "status_0":
                return b"O", Reply(0, None)
            case "timeout":
                return None, Reply(0, error=("request_timeout", "The underlying call to the model timed out."))
        return None, self._simulated(rule.effect, line)

    def _simulated(self, effect: str, line: Line) -> Reply:
        from batchops.server.answers import Simulated  # noqa: PLC0415  an upstream needs no simulation until it is spoiled

        return Simulated(seed=self._seed, clock=self._clock).answer(line.url, line.body, effect)


def _line_ids() -> Iterator[str]:
    """24 hexadecimal digits, never the same twice. Drawn once and counted on: each draw would be a system call."""
    drawn = secrets.token_hex(8)
    return (f"{drawn}{number:08x}" for number in count())


def _entry(line_id: str, line: Line, flag: bytes | None, reply: Reply) -> Entry:
    placed = flag or (b"O" if reply.status == 200 and reply.error is None else b"E")
    written = result_line(line_id, line.custom_id, reply)
    return Entry(placed, line.custom_id, reply.body, written)
