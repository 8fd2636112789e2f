"""How calls that may repeat are repeated. Sleep and clock are values, so that tests need neither."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from batchops.providers.provider import ProviderError, Throttled, Uncertain, Unreachable

T = TypeVar("T")

_MAX_RETRY_AFTER_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long: `first_seconds`, doubled, at most `max_seconds` between two of `tries`."""

    tries: int = 5
    first_seconds: float = 0.25
    max_seconds: float = 8.0
    passing: tuple[type[ProviderError], ...] = (Uncertain, Throttled, Unreachable)
    """What may be gone the next time."""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time

    def delays(self) -> Iterator[float]:
        """The pauses between tries, in seconds: one fewer than tries."""
        for number in range(self.tries - 1):
            yield min(self.first_seconds * 2**number, self.max_seconds)

    def repeat(self, attempt: Callable[[], T]) -> T:
        """Until it succeeds, is refused for good, conflicts (409) or patience ends. Retry-After is heeded to 2 min."""
        for delay in self.delays():
            try:
                return attempt()
            except self.passing as error:
                asked = error.retry_after_seconds or 0.0
                if error.status == 409 or asked > _MAX_RETRY_AFTER_SECONDS:
                    raise
            self.sleep(max(delay, asked))
        return attempt()
