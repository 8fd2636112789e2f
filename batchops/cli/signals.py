"""Ctrl-C and SIGTERM while work is under way: the first asks to stop, the second leaves at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from batchops.diagnostics import ExitCode
from batchops.plan.events import StopFlag

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = "\x1b[?25h"


class Stopping:
    """Turns signals into a raised `stop`, except inside `asking`, where they interrupt like anywhere else."""

    def __init__(self, stop: StopFlag, say: Callable[[], None]) -> None:
        self._stop = stop
        self._say = say
        self._is_asking = False

    @contextmanager
    def installed(self) -> Iterator[Stopping]:
        """Handle signals for the length of the block."""
        before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """While somebody is asked a question, nothing is under way: the first signal interrupts."""
        self._is_asking = True
        try:
            yield
        finally:
            self._is_asking = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_asking:
            raise KeyboardInterrupt
        if self._stop.is_requested:
            self._leave()
        self._stop.request()
        self._say()

    def _leave(self) -> None:
        """Out, without unwinding: every step is recorded before it has an effect, so nothing is lost."""
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), _SHOW_CURSOR.encode())
        os.write(sys.stderr.fileno(), b"Left at once. Everything submitted is recorded.\n")
        os._exit(ExitCode.INTERRUPTED)
