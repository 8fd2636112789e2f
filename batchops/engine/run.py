"""What one apply carries around: the project, the store it may write, where events go, and how it is told to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from batchops.diagnostics import Diagnostic
from batchops.engine.project import Project
from batchops.plan.events import Event, StopFlag
from batchops.store.store import StateStore


@dataclass
class Run:
    """One apply or wait in progress. `stop` is set by the first Ctrl-C: nothing new is begun after it."""

    project: Project
    store: StateStore
    emit: Callable[[Event], None]
    stop: StopFlag
    problems: list[Diagnostic] = field(default_factory=list)
    full_until: dict[tuple[str, str], datetime] = field(default_factory=dict)
    """Until when the queue of a (provider, model) counts as full: it said so."""
    canaries: set[str] = field(default_factory=set)
    """Jobs of which a few rows were asked first in this apply, because their last batch failed as one."""

    @property
    def now(self) -> datetime:
        return self.project.clock()

    @cached_property
    def lineage(self) -> str:
        return self.store.identity().lineage or ""

    @property
    def is_stopping(self) -> bool:
        return self.stop.is_requested

    def tell(self, *problems: Diagnostic) -> None:
        """Keep problems for the end of the apply, each once however often it is met."""
        self.problems.extend(problem for problem in problems if problem not in self.problems)

    def pause(self, seconds: float) -> bool:
        """Wait, or return True at once when told to stop."""
        return self.stop.wait(seconds)
