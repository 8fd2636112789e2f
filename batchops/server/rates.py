"""How often a key may call in a while, on the server's clock: uploads a minute, batches an hour."""

from __future__ import annotations

import math
import threading
from collections import defaultdict, deque

from batchops.server.wire import ApiError


class Rate:
    """At most so many calls of a kind in any stretch of so many seconds, for each owner. Thread-safe."""

    def __init__(self, what: str, *, most: int, seconds: int) -> None:
        self._what, self._most, self._seconds = what, most, seconds
        self._taken: dict[str, deque[float]] = defaultdict(deque)
        self._lock = threading.Lock()

    def take(self, owner: str, now: float) -> None:
        """Count one call. Raises ApiError, a 429 with Retry-After, when it is one too many; it is not counted then."""
        with self._lock:
            taken = self._taken[owner]
            while taken and taken[0] <= now - self._seconds:
                taken.popleft()
            if len(taken) < self._most:
                taken.append(now)
                return
            left = math.ceil(taken[0] + self._seconds - now)
        message = f"Rate limit reached for {self._what}. Limit: {self._most} / {self._seconds}s. "
        message += f"Please try again in {left}s."
        headers = {"retry-after": str(left)}
        raise ApiError(429, message, kind="requests", code="rate_limit_exceeded", headers=headers)
