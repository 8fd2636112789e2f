"""The plan as data: actions, reasons, counts and costs. Two interpreters: views print it, the engine applies it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from batchops.diagnostics import Diagnostic


class Action(StrEnum):
    """The class of a row; each desired row is in exactly one. The order is the order of `summary.rows`."""

    SUBMIT = "submit"
    RESUBMIT = "resubmit"
    RETRY = "retry"
    REUSE = "reuse"
    FORGET = "forget"
    IN_FLIGHT = "in_flight"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    HELD = "held"

    @property
    def is_paid(self) -> bool:
        return self in {self.SUBMIT, self.RESUBMIT, self.RETRY}

    @property
    def is_change(self) -> bool:
        return self.is_paid or self in {self.REUSE, self.FORGET}


class BatchAction(StrEnum):
    """What happens to batches. The order is the order of `summary.batches`."""

    CREATE = "create"
    FETCH = "fetch"
    SETTLE = "settle"
    CANCEL = "cancel"
    IN_FLIGHT = "in_flight"

    @property
    def is_change(self) -> bool:
        return self is not self.IN_FLIGHT


class Reason(StrEnum):
    """Why. For reading only: a reason never steers apply."""

    NEW_JOB = "new_job"
    NEW_ROW = "new_row"
    PROMPT_CHANGED = "prompt_changed"
    MODEL_CHANGED = "model_changed"
    PARAMS_CHANGED = "params_changed"
    SCHEMA_CHANGED = "schema_changed"
    ROW_CHANGED = "row_changed"
    ROW_FAILED = "row_failed"
    BATCH_EXPIRED = "batch_expired"
    REQUESTED = "requested"
    ROW_REMOVED = "row_removed"
    PROVIDER_CHANGED = "provider_changed"
    ADOPTED = "adopted"
    IN_FLIGHT = "in_flight"
    ANSWERED = "answered"


@dataclass(frozen=True, slots=True)
class Estimate:
    """USD, at batch prices. `low` counts input tokens and a short answer, `high` the output cap; None = unknown."""

    low_usd: float | None = 0.0
    high_usd: float | None = 0.0
    input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """One row as it would be asked: `before` is the recorded body if it can be shown, `after` the desired one."""

    key: Mapping[str, Any]
    before: Mapping[str, Any] | None
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What happens to one job. `rows`, `batches` and `reasons` hold only what is not zero."""

    address: str
    provider: str
    model: str
    is_simulated: bool
    rows: Mapping[Action, int]
    batches: Mapping[BatchAction, int]
    reasons: Mapping[Reason, int]
    cost: Estimate
    sync: str
    """Synced or OutOfSync: spec against recorded."""
    health: str
    """Healthy, Progressing, Degraded or Held: how its rows are."""
    diff: str = ""
    samples: tuple[Sample, ...] = ()
    waves: int = 1
    is_protected: bool = False
    """Paying again for its answered rows is refused."""
    due_at: datetime | None = None
    """When the earliest waiting retry, or row that the provider had no room for, falls due; None when none waits."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything `plan` shows and `apply` performs; the rows themselves are in the work database."""

    plan_id: str
    created_at: datetime
    project: str
    environment: str
    lineage: str | None
    serial: int
    jobs: tuple[JobPlan, ...]
    limit_usd: float | None = None
    reused_usd: float | None = 0.0
    unknown_models: tuple[str, ...] = ()
    drift: tuple[Mapping[str, Any], ...] = ()
    policies: tuple[Mapping[str, Any], ...] = ()
    diagnostics: tuple[Diagnostic, ...] = field(default=())

    def rows(self, action: Action) -> int:
        return sum(job.rows.get(action, 0) for job in self.jobs)

    def batches(self, action: BatchAction) -> int:
        return sum(job.batches.get(action, 0) for job in self.jobs)

    @property
    def cost(self) -> Estimate:
        """The sum over the jobs; a bound that one job does not know, nobody knows."""
        lows = [job.cost.low_usd for job in self.jobs]
        highs = [job.cost.high_usd for job in self.jobs]
        tokens = sum(job.cost.input_tokens for job in self.jobs)
        return Estimate(_sum_known(lows), _sum_known(highs), tokens)

    @property
    def has_changes(self) -> bool:
        """Whether apply would do anything: work in flight alone is no change."""
        return any(self.rows(a) for a in Action if a.is_change) or any(
            self.batches(a) for a in BatchAction if a.is_change
        )


def _sum_known(amounts: Iterable[float | None]) -> float | None:
    """The sum, rounded to a billionth of a dollar; None when one is unknown."""
    known: list[float] = []
    for amount in amounts:
        if amount is None:
            return None
        known.append(amount)
    return round(math.fsum(known), 9)
