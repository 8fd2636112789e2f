"""What the verbs call: plan, apply, wait. Each closes what it opens.

What acts is imported by those that act: a plan is asked for most, and is to cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import duckdb

from batchops import __version__
from batchops.diagnostics import BatchopsError, Stale, error
from batchops.engine.gather import NO_LIMIT, Gathered, gather
from batchops.engine.look import look
from batchops.engine.planning import assemble
from batchops.engine.project import Project
from batchops.engine.saved import SavedPlan, check_identity, restrict, save_plan, was_applied
from batchops.engine.scope import Scope
from batchops.engine.steps import reached
from batchops.engine.work import FRUGAL_LIMIT, GENEROUS_LIMIT, MEMORY_LIMIT, sweep_work
from batchops.exhaustion import is_out_of_memory, work_told
from batchops.plan.document import check_plan_path
from batchops.plan.guard import guard
from batchops.plan.model import Action, BatchAction, Plan
from batchops.spec.job import Job

if TYPE_CHECKING:
    from batchops.engine.converge import ApplyResult, Convergence
    from batchops.plan.events import Event, StopFlag
    from batchops.store.store import StateStore

Emit: TypeAlias = "Callable[[Event], None]"
T = TypeVar("T")


@dataclass(frozen=True)
class Allowances:
    """What the user let through by flag: more cost for an address (USD), unknown cost, protected jobs."""

    cost_over: Mapping[str, float] = field(default_factory=dict)
    unknown_cost: bool = False
    protected: frozenset[str] = frozenset()


_WHOLE_PROJECT = Scope()
_NOTHING_SPECIAL = Allowances()


def make_plan(
    project: Project,
    scope: Scope = _WHOLE_PROJECT,
    *,
    offline: bool = False,
    samples: int = 3,
    out: Path | None = None,
    refresh_only: bool = False,
) -> Plan:
    """What apply would do. Polls what is in flight unless `offline`; writes nothing but the plan file `out`.

    `refresh_only` looks at the providers alone: no source is run, and no row is planned.
    """
    if out is not None:
        check_plan_path(out)
    scope.check_allowed(project)
    jobs = scope.jobs(project)
    sightings = look(project, scope.addresses(jobs), offline=offline)

    def planned(memory: str) -> Plan:
        gathered = gather(
            project,
            () if refresh_only else jobs,
            is_whole_project=scope.is_whole and not refresh_only,
            keeps_rows=False,
            limit=scope.limit,
            replaced=scope.replaced(jobs),
            memory=memory,
        )
        with closing(gathered):
            plan = assemble(gathered, sightings, samples=samples)
            if out is not None:
                save_plan(gathered, plan, out)
            return plan

    with work_told(project.work_folder.parent):
        return _with_enough_memory(planned, FRUGAL_LIMIT)


def _with_enough_memory(made: Callable[[str], T], limit: str) -> T:
    """What `made` makes in `limit` of memory, writing nothing; made anew with more where that is too little."""
    try:
        return made(limit)
    except duckdb.OutOfMemoryException as problem:
        if not is_out_of_memory(problem):
            raise
    return made(GENEROUS_LIMIT)


def apply(
    project: Project,
    scope: Scope = _WHOLE_PROJECT,
    *,
    approve: Callable[[Plan], bool],
    emit: Emit,
    stop: StopFlag,
    wait: bool = False,
    timeout: timedelta | None = None,
    allow: Allowances = _NOTHING_SPECIAL,
    lock_timeout: timedelta = timedelta(0),
    fail_fast: bool = False,
    saved: SavedPlan | None = None,
    samples: int = 1,
) -> ApplyResult:
    """Converge once, or with `wait` until nothing is in flight or due: settle, fetch, retry, submit.

    `approve` sees the plan before anything is paid. Settling and fetching come first and ask nobody: they cost nothing
    and lose nothing. `saved` applies a reviewed plan: exactly the rows it covers. Raises Stale, Leased, Refused and
    BatchopsError; what a provider failed to do is in the result.
    """
    from batchops.plan.events import ApplyStart, Version  # noqa: PLC0415  see the head of this module
    from batchops.store.merging import sweep_answers  # noqa: PLC0415  see the head of this module

    emit(Version(batchops=__version__))
    scope.check_allowed(project)
    jobs = scope.jobs(project) if saved is None else _jobs_of(project, saved)
    with ExitStack() as stack:
        stack.enter_context(work_told(project.work_folder.parent))
        reached("before_lease")
        store = stack.enter_context(project.leased(lock_timeout))
        reached("after_lease")
        sweep_work(project)
        sweep_answers(store)
        convergence = _convergence(project, store, jobs, scope, emit=emit, stop=stop, fail_fast=fail_fast)
        convergence.refresh()
        gathered, plan = _with_enough_memory(
            partial(_plan_to_apply, project, jobs, scope, saved, samples), MEMORY_LIMIT
        )
        stack.callback(gathered.close)
        if saved is not None:
            plan = replace(plan, plan_id=saved.plan.plan_id)
        guard(plan, allow.cost_over, allow_unknown_cost=allow.unknown_cost, allow_protected=allow.protected)
        if not approve(plan):
            raise BatchopsError(error("not_approved", "Not applied.", "Only `yes` applies the plan. Nothing was paid."))
        emit(ApplyStart(plan.plan_id, project.name, project.environment, summary_of(plan)))
        return convergence.converge(gathered, plan, wait=wait, timeout=timeout)


def _plan_to_apply(
    project: Project, jobs: Sequence[Job], scope: Scope, saved: SavedPlan | None, samples: int, memory: str
) -> tuple[Gathered, Plan]:
    """What an apply would do, and the rows to do it with, which are to be closed. Raises Stale."""
    gathered = gather(
        project,
        jobs,
        is_whole_project=scope.is_whole and saved is None,
        keeps_rows=True,
        limit=scope.limit if saved is None else NO_LIMIT,
        replaced=scope.replaced(jobs),
        memory=memory,
    )
    try:
        if saved is not None:
            restrict(gathered, saved, is_resumed=was_applied(project, saved))
        return gathered, assemble(gathered, look(project, scope.addresses(jobs), offline=True), samples=samples)
    except BaseException:
        gathered.close()
        raise


def _convergence(
    project: Project,
    store: StateStore,
    jobs: Sequence[Job],
    scope: Scope,
    *,
    emit: Emit,
    stop: StopFlag,
    fail_fast: bool = False,
) -> Convergence:
    from batchops.engine.converge import Convergence  # noqa: PLC0415  see the head of this module
    from batchops.engine.run import Run  # noqa: PLC0415

    return Convergence(Run(project, store, emit, stop), jobs, scope, fail_fast=fail_fast)


def _jobs_of(project: Project, saved: SavedPlan) -> tuple[Job, ...]:
    """The jobs that a saved plan covers. Raises Stale when one of them is gone."""
    check_identity(project, saved)
    declared = {job.address: job for job in project.jobs()}
    gone = [address for address in saved.jobs if address not in declared]
    if gone:
        raise Stale(
            *(
                error("stale_plan", "The saved plan is stale.", "This job is not declared any more.", address=address)
                for address in gone
            )
        )
    return tuple(declared[address] for address in saved.jobs)


def wait_for(
    project: Project,
    scope: Scope = _WHOLE_PROJECT,
    *,
    emit: Emit,
    stop: StopFlag,
    timeout: timedelta | None = None,
    lock_timeout: timedelta = timedelta(0),
) -> ApplyResult:
    """Poll and fetch until nothing is in flight. Submits nothing."""
    from batchops.plan.events import Version  # noqa: PLC0415  see the head of this module

    emit(Version(batchops=__version__))
    jobs = scope.jobs(project)
    with work_told(project.work_folder.parent), project.leased(lock_timeout) as store:
        convergence = _convergence(project, store, jobs, scope, emit=emit, stop=stop)
        convergence.poll_until_idle(timeout)
        return convergence.finish(None)


def summary_of(plan: Plan) -> dict[str, dict[str, int]]:
    """The `summary` of a plan document: every key, zero or not."""
    return {
        "rows": {action.value: plan.rows(action) for action in Action},
        "batches": {action.value: plan.batches(action) for action in BatchAction},
    }
