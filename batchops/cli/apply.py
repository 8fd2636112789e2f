"""`batchops apply`: converge once, or until nothing is in flight or due."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchops.cli.converging import Delivery, allowances_of, choosing_options, conclude, printer_of, scope_of, stoppable
from batchops.cli.options import Invocation, duration, shared_options
from batchops.diagnostics import UsageProblem, error

if TYPE_CHECKING:
    from batchops.cli.signals import Stopping
    from batchops.plan.model import Plan


@click.command("apply")
@click.argument("planfile", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--auto-approve", is_flag=True, help="Do not ask.")
@click.option("--wait", is_flag=True, help="Go on until nothing is in flight or due.")
@click.option("--timeout", callback=duration, metavar="DURATION", help="With --wait: at most so long, as in 2h.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first job that fails.")
@click.option("--lock-timeout", callback=duration, metavar="DURATION", help="Wait so long for the state, as in 10m.")
@choosing_options
@shared_options(json=True, select=True)
def command(
    invocation: Invocation,
    *,
    planfile: Path | None,
    auto_approve: bool,
    wait: bool,
    timeout: timedelta | None,
    fail_fast: bool,
    lock_timeout: timedelta | None,
    limit: int | None,
    replace: Sequence[str],
    cost_over: dict[str, float],
    allow_unknown_cost: bool,
    allow_protected: Sequence[str],
) -> int:
    """Converge: settle what was interrupted, fetch what ended, retry what failed, submit what is new.

    The plan is shown, and applied when the answer is `yes`.

    \b
    batchops apply
    batchops apply --auto-approve --wait --timeout 2h
    batchops apply plan.json
    """
    chosen = [*invocation.select, *invocation.exclude, *replace, *([limit] if limit else [])]
    _check(planfile, timeout, is_choosing=bool(chosen), auto_approve=auto_approve, wait=wait)
    from batchops.engine.operations import apply  # DuckDB is paid for when it is used
    from batchops.engine.project import open_project
    from batchops.engine.saved import read_saved

    with stoppable(invocation) as (stop, stopping), open_project(invocation.root, invocation.loaded) as project:
        printer = Delivery(printer_of(invocation), stop)
        return conclude(
            invocation,
            printer,
            lambda: apply(
                project,
                scope_of(invocation, limit, replace, [*cost_over, *allow_protected]),
                approve=_approval(invocation, printer, stopping, auto_approve=auto_approve or planfile is not None),
                emit=printer,
                stop=stop,
                wait=wait,
                timeout=timeout,
                allow=allowances_of(cost_over, allow_protected, unknown_cost=allow_unknown_cost),
                lock_timeout=lock_timeout or timedelta(0),
                fail_fast=fail_fast,
                samples=0 if auto_approve else 1,
                saved=None if planfile is None else read_saved(planfile),
            ),
            stop,
        )


def _check(
    planfile: Path | None, timeout: timedelta | None, *, is_choosing: bool, auto_approve: bool, wait: bool
) -> None:
    """Refuse before any work what could not end well."""
    if planfile is not None and is_choosing:
        detail = "A saved plan is applied as it was reviewed: without --select, --exclude, --limit and --replace."
        raise UsageProblem(error("usage", "Usage error.", detail))
    if timeout is not None and not wait:
        raise UsageProblem(error("usage", "Usage error.", "--timeout is for --wait: without it apply does not wait."))
    if planfile is None and not auto_approve and not sys.stdin.isatty():
        detail = "There is no terminal to ask whether to apply. To apply without being asked:"
        raise UsageProblem(error("no_terminal", "No terminal.", detail, fixes=["batchops apply --auto-approve"]))


def _approval(
    invocation: Invocation, printer: Delivery, stopping: Stopping, *, auto_approve: bool
) -> Callable[[Plan], bool]:
    """Show the plan, and ask unless told not to. A plan without changes needs no answer."""

    def approve(plan: Plan) -> bool:
        printer.close()
        if not plan.has_changes:
            return True
        with printer.tried():
            if not invocation.json:
                _show(plan, invocation, to_stdout=auto_approve or sys.stdout.isatty())
            elif not auto_approve:
                _show(plan, invocation, to_stdout=False)
        printer.check()
        return auto_approve or _ask(stopping)

    return approve


def _show(plan: Plan, invocation: Invocation, *, to_stdout: bool) -> None:
    """The plan where the question is asked, for whoever answers must have seen it."""
    from batchops.views.plan_text import render_plan

    stream = sys.stdout if to_stdout else sys.stderr
    color = invocation.colors(stream)
    text = render_plan(plan, color=color, width=invocation.width(), verbose=invocation.verbose)
    invocation.out(text, file=stream)
    stream.flush()


def _ask(stopping: Stopping) -> bool:
    with stopping.asking():
        click.echo("\nApply this plan? Only `yes` applies it: ", err=True, nl=False)
        return sys.stdin.readline().strip() == "yes"
