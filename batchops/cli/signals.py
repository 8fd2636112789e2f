"""Ctrl-C and SIGTERM, heard at once: also while the main thread is inside a long query, which lets no handler run.

A signal's number is written to a pipe by Python's C handler, and a thread of ours reads it there (DuckDB 2.0 does not
look for signals while it runs, measured 2026-11). Leaving without unwinding is safe at any time: every step is on
record before it has an effect.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from batchops.diagnostics import ExitCode

if TYPE_CHECKING:
    from batchops.plan.events import StopFlag

GRACE_SECONDS = 2.0
"""How long a command may take to unwind after Ctrl-C before it is ended as it is."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = "\x1b[?25h"


@contextmanager
def heard(on_signal: Callable[[int], None]) -> Iterator[None]:
    """Call `on_signal` from a thread of its own with each signal that Python handles, for the length of the block."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=_listen, args=(reader, on_signal), name="batchops-signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        thread.join()
        os.close(reader)


def _listen(reader: int, on_signal: Callable[[int], None]) -> None:
    while numbers := os.read(reader, 64):
        for number in numbers:
            on_signal(number)


def leave(text: str, *, stream: int = 2) -> None:
    """Say `text` and end the process as it is."""
    if sys.stderr.isatty():
        os.write(2, _SHOW_CURSOR.encode())
    os.write(stream, f"{text}\n".encode())
    os._exit(ExitCode.INTERRUPTED)


@contextmanager
def impatient(last_words: Callable[[], None]) -> Iterator[None]:
    """End the process soon after Ctrl-C, at once after the second, whatever the main thread is doing.

    Normally KeyboardInterrupt ends the command well before; `last_words` is for when it cannot.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    timers: list[threading.Timer] = []

    def on_signal(number: int) -> None:
        if number == signal.SIGINT:
            timers.append(threading.Timer(0 if timers else GRACE_SECONDS, last_words))
            timers[-1].daemon = True
            timers[-1].start()

    with heard(on_signal):
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()


class Stopping:
    """Turns the first Ctrl-C or SIGTERM into a raised `stop`, and leaves at the second.

    Inside `asking` nothing is under way, and a signal interrupts like anywhere else.
    """

    def __init__(self, stop: StopFlag, say: Callable[[], None]) -> None:
        self._stop = stop
        self._say = say
        self._is_asking = False

    @contextmanager
    def installed(self) -> Iterator[Stopping]:
        """Listen to signals for the length of the block."""
        before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            with heard(self._on_signal):
                yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """While somebody is asked a question, a signal is an answer."""
        self._is_asking = True
        try:
            yield
        finally:
            self._is_asking = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Runs in the main thread, when it gets to it; all but a question is left to the listening thread."""
        if self._is_asking:
            raise KeyboardInterrupt

    def _on_signal(self, number: int) -> None:
        if self._is_asking or number not in _SIGNALS:
            return
        if self._stop.is_requested:
            leave("Left at once. Everything submitted is recorded.")
        self._stop.request()
        self._say()
