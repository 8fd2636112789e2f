"""The server's clock: the wall clock plus what a test has advanced it by."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Clock:
    """Epoch seconds that only go forward. Thread-safe; listeners are called after each advance."""

    def __init__(self, *, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self._offset = 0.0
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    @property
    def offset_seconds(self) -> float:
        return self._offset

    def now(self) -> float:
        return self._source() + self._offset

    def seconds(self) -> int:
        """Now, as the API writes it: whole epoch seconds."""
        return int(self.now())

    def advance(self, seconds: float) -> float:
        """Move forward by so many seconds; returns the new now."""
        if seconds < 0:
            raise ValueError("a clock does not go back")
        with self._lock:
            self._offset += seconds
        for listener in self._listeners:
            listener()
        return self.now()

    def on_advance(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)
