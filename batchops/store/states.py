"""Where a request stands. Readers need these numbers, and not the changes that lead from one to the next."""

from __future__ import annotations

from enum import IntEnum


class RequestState(IntEnum):
    """`requests.state`."""

    PENDING = 0
    IN_FLIGHT = 1
    ANSWERED = 2
    WAITING = 3
    GIVEN_UP = 4
    HELD = 5
