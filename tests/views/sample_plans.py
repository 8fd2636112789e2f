"""Plans made by hand: each shows something else of what a plan can say."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from batchops.diagnostics import error, warning
from batchops.plan.model import Action, BatchAction, Estimate, JobPlan, Plan, Reason, Sample

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)


def body(system: str, user: str) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return {"model": "gpt-5-mini", "messages": messages, "max_completion_tokens": 400}


def job(address: str, rows: Mapping[Action, int], **changed: Any) -> JobPlan:
    values: dict[str, Any] = {
        "provider": "openai",
        "model": "gpt-5-mini",
        "is_simulated": False,
        "batches": {},
        "reasons": {},
        "cost": Estimate(),
        "sync": "OutOfSync",
        "health": "Healthy",
    }
    return JobPlan(address=address, rows=rows, **(values | changed))


def plan(*jobs: JobPlan, **changed: Any) -> Plan:
    values: dict[str, Any] = {
        "plan_id": "5f0c",
        "created_at": NOW,
        "project": "reviews",
        "environment": "default",
        "lineage": "11d0",
        "serial": 12,
    }
    return Plan(jobs=jobs, **(values | changed))


EMPTY = plan()

UNCHANGED = plan(
    job(
        "review-sentiment",
        {Action.UNCHANGED: 8800, Action.IN_FLIGHT: 100},
        batches={BatchAction.IN_FLIGHT: 1},
        reasons={Reason.ANSWERED: 8800, Reason.IN_FLIGHT: 100},
        sync="Synced",
        health="Progressing",
    ),
)

MIXED = plan(
    job(
        "review-sentiment",
        {Action.SUBMIT: 1200, Action.RETRY: 14, Action.REUSE: 40, Action.UNCHANGED: 8800, Action.FAILED: 3},
        batches={BatchAction.CREATE: 1, BatchAction.FETCH: 2},
        reasons={Reason.NEW_ROW: 1200, Reason.ROW_FAILED: 14, Reason.ANSWERED: 8840},
        cost=Estimate(1.1, 1.62, 310_000),
        due_at=NOW + timedelta(minutes=3, seconds=20),
        samples=(Sample({"review_id": 18}, None, body("You label product reviews.", "Nice\nFits well.")),),
    ),
    job(
        "product-tags",
        {Action.RESUBMIT: 9000, Action.IN_FLIGHT: 100},
        batches={BatchAction.CREATE: 1, BatchAction.IN_FLIGHT: 1},
        reasons={Reason.PROMPT_CHANGED: 8990, Reason.ROW_CHANGED: 10, Reason.IN_FLIGHT: 100},
        cost=Estimate(4.1, 9.8, 2_000_000),
        waves=3,
        diff="--- recorded\n+++ desired\n@@ -1,2 +1,2 @@\n-You tag things.\n+You tag products.\n {{ title }}\n",
        samples=(Sample({"sku": "A|1"}, body("You tag things.", "Kettle"), body("You tag products.", "Kettle")),),
    ),
    job(
        "old-labels",
        {Action.FORGET: 40},
        batches={BatchAction.CANCEL: 1},
        reasons={Reason.ROW_REMOVED: 40},
    ),
    limit_usd=50.0,
    reused_usd=0.02,
    drift=({"address": "old-labels", "batch_id": "batch_7", "status": "expired"},),
)

SIMULATED = plan(
    job(
        "labels",
        {Action.SUBMIT: 3},
        provider="local",
        is_simulated=True,
        batches={BatchAction.CREATE: 1},
        reasons={Reason.NEW_JOB: 3},
        cost=Estimate(0.000049, 0.00015, 11),
    ),
)

UNKNOWN = plan(
    job(
        "novel",
        {Action.SUBMIT: 1},
        model="gpt-9",
        batches={BatchAction.CREATE: 1, BatchAction.SETTLE: 1},
        reasons={Reason.NEW_JOB: 1},
        cost=Estimate(None, None, 5),
    ),
    job(
        "open-ended",
        {Action.SUBMIT: 10},
        batches={BatchAction.CREATE: 1},
        reasons={Reason.NEW_JOB: 10},
        cost=Estimate(0.5, None, 50),
    ),
    limit_usd=1.0,
    unknown_models=("gpt-9",),
    policies=({"name": "no-pii", "level": "warn"},),
    diagnostics=(
        error("over_budget", "The plan is over budget.", "It may cost more.", fixes=["batchops apply --allow"]),
        warning("provider_unreachable", "The provider could not be asked.", address="novel"),
    ),
)

NO_ROWS = plan(
    job("labels", {}, sync="Synced"),
    job("topics", {Action.UNCHANGED: 12}, sync="Synced"),
)

PLANS = {
    "empty": EMPTY,
    "no-rows": NO_ROWS,
    "unchanged": UNCHANGED,
    "mixed": MIXED,
    "simulated": SIMULATED,
    "unknown": UNKNOWN,
}
