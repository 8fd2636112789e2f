"""What must not be applied: more money than the budget, money nobody can count, answers that are protected."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from batchops.diagnostics import Diagnostic, Refused, error
from batchops.plan.model import Action, JobPlan, Plan
from batchops.units import format_usd


def guard(
    plan: Plan,
    cost_over: Mapping[str, float] | None = None,
    *,
    allow_unknown_cost: bool = False,
    allow_protected: Collection[str] = (),
) -> None:
    """Raise Refused with every reason not to apply the plan."""
    found = refusals(plan, cost_over, allow_unknown_cost=allow_unknown_cost, allow_protected=allow_protected)
    if found:
        raise Refused(*found)


def refusals(
    plan: Plan,
    cost_over: Mapping[str, float] | None = None,
    *,
    allow_unknown_cost: bool = False,
    allow_protected: Collection[str] = (),
) -> tuple[Diagnostic, ...]:
    """Every reason not to apply the plan. `cost_over` lets an address cost up to so many USD beside the budget."""
    found = [
        _protected(job)
        for job in plan.jobs
        if job.is_protected and job.rows.get(Action.RESUBMIT) and job.address not in allow_protected
    ]
    if plan.limit_usd is not None:
        found += _over_budget(plan, plan.limit_usd, cost_over or {}, allow_unknown_cost=allow_unknown_cost)
    return tuple(found)


def _protected(job: JobPlan) -> Diagnostic:
    return error(
        "protected",
        "The job is protected.",
        f"The plan would pay again for {job.rows[Action.RESUBMIT]:,} of its answered rows, and lifecycle.protect"
        " forbids that. It stays on record when the key is removed. To do it this once:",
        address=job.address,
        fixes=[f"batchops apply --allow-protected {job.address}"],
    )


def _over_budget(
    plan: Plan, limit_usd: float, cost_over: Mapping[str, float], *, allow_unknown_cost: bool
) -> list[Diagnostic]:
    counted = [job for job in plan.jobs if not _is_allowed(job, cost_over)]
    unknown = [job for job in counted if job.cost.low_usd is None]
    found = []
    if unknown and not allow_unknown_cost:
        names = ", ".join(sorted({job.model for job in unknown}))
        found.append(
            error(
                "unknown_cost",
                "The cost is unknown, and there is a budget.",
                f"No batch price is known for {names}. Give one in batchops.toml"
                ' ([providers.NAME.models."MODEL"] price = {input = …, output = …}, USD per million tokens), or say'
                " that it does not matter:",
                fixes=["batchops apply --allow-unknown-cost"],
            )
        )
    # Without an output cap there is no upper bound: the lower one is all that can be held against the budget.
    cost = sum(job.cost.high_usd if job.cost.high_usd is not None else job.cost.low_usd or 0.0 for job in counted)
    if cost > limit_usd:
        dearest = max(counted, key=lambda job: job.cost.high_usd or job.cost.low_usd or 0.0)
        found.append(
            error(
                "over_budget",
                "The plan is over budget.",
                f"It may cost {format_usd(cost)}; budget.max_cost_usd is {format_usd(limit_usd)}. The largest part is"
                f" {dearest.address}. Raise the budget, ask fewer rows (--limit), or allow this job its cost:",
                fixes=[f"batchops apply --allow-cost-over {dearest.address}={-(-cost // 1):.0f}"],
            )
        )
    return found


def _is_allowed(job: JobPlan, cost_over: Mapping[str, float]) -> bool:
    allowed = cost_over.get(job.address)
    cost = job.cost.high_usd if job.cost.high_usd is not None else job.cost.low_usd
    return allowed is not None and cost is not None and cost <= allowed
