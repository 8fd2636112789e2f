"""What happens while a plan is applied, as a closed set of values, and the flag by which somebody asks it to stop.

The engine emits events; views print them. Times are the printer's: an event says what, not when.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from batchops.diagnostics import Diagnostic


@dataclass(frozen=True, slots=True)
class Version:
    """The first event: who speaks."""

    type: ClassVar[str] = "version"
    batchops: str
    format_version: str = "1.0"


@dataclass(frozen=True, slots=True)
class ApplyStart:
    """The plan is approved. `summary` has the shape of a plan document's."""

    type: ClassVar[str] = "apply_start"
    plan_id: str
    project: str
    environment: str
    summary: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class BatchCreated:
    """A shard was handed over and the provider named its batch."""

    type: ClassVar[str] = "batch_created"
    address: str
    batch_id: str
    rows: int
    provider: str
    is_simulated: bool = False


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """A batch as it was just seen. Counts are the provider's own: good for a progress bar, not for accounts."""

    type: ClassVar[str] = "batch_progress"
    address: str
    batch_id: str
    status: str
    total: int | None = None
    completed: int | None = None
    failed: int | None = None


@dataclass(frozen=True, slots=True)
class BatchFetched:
    """The results of a batch are in state. `outcomes` counts lines by outcome class; `cost_usd` None = unknown."""

    type: ClassVar[str] = "batch_fetched"
    address: str
    batch_id: str
    rows: int
    outcomes: Mapping[str, int] = field(default_factory=dict)
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class RowFailures:
    """Rows of a batch that got no answer, by outcome class, and what becomes of them."""

    type: ClassVar[str] = "row_failures"
    address: str
    batch_id: str
    outcomes: Mapping[str, int]
    retry: int = 0
    given_up: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True)
class DiagnosticFound:
    """Something to be said about a problem, while work goes on or at its end."""

    type: ClassVar[str] = "diagnostic"
    diagnostic: Diagnostic


@dataclass(frozen=True, slots=True)
class ApplyComplete:
    """The last event. `summary` counts what was done, in the shape of a plan document's."""

    type: ClassVar[str] = "apply_complete"
    summary: Mapping[str, Mapping[str, int]]
    exit_code: int


Event: TypeAlias = (
    Version | ApplyStart | BatchCreated | BatchProgress | BatchFetched | RowFailures | DiagnosticFound | ApplyComplete
)


class StopFlag:
    """Raised once by whoever hears a signal, looked at and waited for by the engine.

    `request` may come from another thread, or from a signal handler that interrupted `wait` in the same thread, where
    a `threading.Event` could deadlock: it takes a lock that the interrupted code may hold. Here raising is a release.
    """

    def __init__(self) -> None:
        self._is_requested = False
        self._gate = threading.Lock()
        self._gate.acquire()

    @property
    def is_requested(self) -> bool:
        """Whether somebody asked to stop."""
        return self._is_requested

    def request(self) -> None:
        """Ask to stop; asking again changes nothing."""
        if not self._is_requested:
            self._is_requested = True
            self._gate.release()

    def wait(self, seconds: float) -> bool:
        """Sleep so long, or until somebody asks to stop; returns whether somebody did."""
        if self._gate.acquire(timeout=max(0.0, seconds)):
            self._gate.release()
        return self._is_requested
