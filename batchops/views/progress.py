"""Events as they happen: plain lines for logs, bars on a terminal, JSON lines for programs.

A printer is called with each event and closed at the end. Clocks are given: events carry no time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from batchops.diagnostics import Diagnostic, diagnostic_document
from batchops.plan.events import (
    BatchCreated,
    BatchFetched,
    BatchProgress,
    DiagnosticFound,
    Event,
    RowFailures,
)
from batchops.terminal import visible
from batchops.units import format_usd
from batchops.views.diagnostics import render_text
from batchops.views.plan_table import counted

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_QUIET_SECONDS = 10.0


class Printer(Protocol):
    """Shows events."""

    def __call__(self, event: Event) -> None:
        """Show one event."""

    def close(self) -> None:
        """Leave the screen as it should stay. Events may follow."""


class JsonLines:
    """One JSON object a line: `type`, `at`, and the event's own fields."""

    def __init__(self, write: Callable[[str], None], now: Callable[[], datetime]) -> None:
        self._write = write
        self._now = now

    def __call__(self, event: Event) -> None:
        self._write(json.dumps(event_document(event, self._now()), ensure_ascii=False))

    def close(self) -> None:
        """Nothing to leave behind."""


class PlainLines:
    """A line for each thing that happened; a batch that only moves on is heard of every ten seconds at most."""

    def __init__(self, write: Callable[[str], None], monotonic: Callable[[], float], *, color: bool) -> None:
        self._write = write
        self._monotonic = monotonic
        self._color = color
        self._said: dict[str, tuple[str, float]] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, BatchProgress) and not self._is_news(event):
            return
        if line := event_line(event, color=self._color):
            self._write(line)

    def _is_news(self, event: BatchProgress) -> bool:
        status, at = self._said.get(event.batch_id, ("", 0.0))
        now = self._monotonic()
        if event.status == status and now - at < _QUIET_SECONDS:
            return False
        self._said[event.batch_id] = (event.status, now)
        return True

    def close(self) -> None:
        """Nothing to leave behind."""


class LiveBars:
    """A bar for each batch in flight, on a terminal; what happened scrolls away above them.

    The bars begin with the first batch that is seen and may be closed and begin again: a question is asked in between.
    """

    def __init__(self, *, color: bool) -> None:
        self._color = color
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, BatchProgress):
            self._move(event)
            return
        if isinstance(event, BatchFetched):
            self._remove(event.batch_id)
        if line := event_line(event, color=self._color):
            self._say(line)

    def _begin(self) -> Progress:
        from rich.console import Console  # noqa: PLC0415  only a person at a terminal pays for it
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True, no_color=not self._color, highlight=False),
            transient=True,
        )
        progress.start()
        return progress

    def _move(self, event: BatchProgress) -> None:
        self._progress = self._progress or self._begin()
        if event.batch_id not in self._bars:
            title = visible(event.address)
            self._bars[event.batch_id] = self._progress.add_task(title, total=event.total, status=event.status)
        done = (event.completed or 0) + (event.failed or 0)
        bar = self._bars[event.batch_id]  # shown at once: a batch that is done is taken away the next moment
        self._progress.update(bar, total=event.total, completed=done, status=event.status, refresh=True)

    def _remove(self, batch_id: str) -> None:
        if self._progress is not None and batch_id in self._bars:
            self._progress.remove_task(self._bars.pop(batch_id))

    def _say(self, line: str) -> None:
        if self._progress is not None:
            self._progress.console.out(line, highlight=False)
        else:
            sys.stderr.write(f"{line}\n")

    def close(self) -> None:
        """Take the bars away: the batches that are still in flight are told of in the outcome."""
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._bars = None, {}


def event_line(event: Event, *, color: bool) -> str:
    """What a person reads of an event; empty for those that say nothing new."""
    match event:
        case BatchCreated():
            simulated = ", simulated answers" if event.is_simulated else ""
            return f"{event.address}: {event.batch_id} created, {counted(event.rows, 'row')}{simulated}"
        case BatchProgress():
            done = (event.completed or 0) + (event.failed or 0)
            counts = f", {done:,} of {event.total:,}" if event.total else ""
            return f"{event.address}: {event.batch_id} {event.status}{counts}"
        case BatchFetched():
            cost = "" if event.cost_usd is None else f"; {format_usd(event.cost_usd)}"
            outcomes = f" ({_outcomes(event.outcomes)})" if event.outcomes else ""
            return f"{event.address}: {event.batch_id} fetched, {counted(event.rows, 'row')}{outcomes}{cost}"
        case RowFailures():
            return f"{event.address}: {event.batch_id} left rows unanswered ({_outcomes(event.outcomes)}){_fate(event)}"
        case DiagnosticFound():
            return render_text([event.diagnostic], color=color)
        case _:
            return ""


def _outcomes(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in outcomes.items() if count)


def _fate(event: RowFailures) -> str:
    fates = {"to retry": event.retry, "given up": event.given_up, "held": event.held}
    said = ", ".join(f"{count:,} {fate}" for fate, count in fates.items() if count)
    return f": {said}" if said else ""


def event_document(event: Event, at: datetime) -> dict[str, Any]:
    """An event as plain JSON values."""
    values = {field.name: _plain(getattr(event, field.name)) for field in fields(event)}
    if "is_simulated" in values:
        values["simulated"] = values.pop("is_simulated")
    return {"type": event.type, "at": at.astimezone(UTC).isoformat().replace("+00:00", "Z"), **values}


def _plain(value: Any) -> Any:
    if isinstance(value, Diagnostic):
        return diagnostic_document(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return value
