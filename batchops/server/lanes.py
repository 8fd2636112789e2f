"""Who moves batches along: threads that take ids from a queue, and one that wakes what had to wait."""

from __future__ import annotations

import heapq
import queue
import threading
from collections.abc import Callable

from batchops.server.clock import Clock


class Lane:
    """Threads that take batch ids from a queue."""

    def __init__(self, name: str, threads: int, work: Callable[[str], None]) -> None:
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._work = work
        self._threads = [
            threading.Thread(target=self._loop, name=f"batchops-{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, batch_id: str) -> None:
        self._queue.put(batch_id)

    def close(self, timeout_seconds: float) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout_seconds)

    def _loop(self) -> None:
        while (batch_id := self._queue.get()) is not None:
            self._work(batch_id)


class Warden:
    """Wakes parked batches when their time comes on the server's clock, which may be advanced."""

    def __init__(self, clock: Clock, wake: Callable[[str], None], chore: Callable[[], None]) -> None:
        self._clock, self._wake, self._chore = clock, wake, chore
        self._due: list[tuple[float, str]] = []
        self._changed = threading.Condition()
        self._is_closed = False
        clock.on_advance(self.nudge)
        self._thread = threading.Thread(target=self._loop, name="batchops-warden", daemon=True)
        self._thread.start()

    def park(self, batch_id: str, until: float) -> None:
        with self._changed:
            heapq.heappush(self._due, (until, batch_id))
            self._changed.notify()

    def nudge(self) -> None:
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _loop(self) -> None:
        while (ready := self._wait()) is not None:
            self._chore()
            for batch_id in ready:
                self._wake(batch_id)

    def _wait(self) -> list[str] | None:
        with self._changed:
            if not self._is_closed and not self._ripe():
                left = self._due[0][0] - self._clock.now() if self._due else 60.0
                self._changed.wait(min(max(left, 0.001), 60.0))
            if self._is_closed:
                return None
            return [heapq.heappop(self._due)[1] for _ in range(self._ripe())]

    def _ripe(self) -> int:
        now = self._clock.now()
        return sum(1 for until, _ in self._due if until <= now)
