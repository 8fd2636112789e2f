"""`batchops plan`: what apply would do, its price, and samples."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchops.cli.converging import choosing_options, scope_of
from batchops.cli.options import Invocation, shared_options
from batchops.diagnostics import ExitCode, UsageProblem, error

if TYPE_CHECKING:
    from batchops.plan.model import Plan

FORMATS = ("text", "markdown", "json")


@click.command("plan")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Save the plan.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 when there are changes.")
@click.option("--offline", is_flag=True, help="Poll nothing: what is in flight is shown as last seen.")
@click.option("--refresh-only", is_flag=True, help="Only what changed at the provider.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Default: text.")
@click.option("--samples", type=click.IntRange(min=0), default=3, metavar="N", help="Rows to show of each job.")
@choosing_options
@shared_options(json=True, select=True)
def command(
    invocation: Invocation,
    *,
    out: Path | None,
    detailed_exitcode: bool,
    offline: bool,
    refresh_only: bool,
    form: str | None,
    samples: int,
    limit: int | None,
    replace: Sequence[str],
    cost_over: dict[str, float],
    allow_unknown_cost: bool,
    allow_protected: Sequence[str],
) -> int:
    """Show what apply would do: which rows are asked and why, what it costs, and some of the requests.

    \b
    batchops plan
    batchops plan --out plan.json && batchops apply plan.json
    batchops plan --offline --detailed-exitcode --format markdown
    """
    if invocation.json and form not in {None, "json"}:
        raise UsageProblem(error("format_conflict", "Formats conflict.", f"--json is json, --format says {form}."))
    from batchops.engine.operations import make_plan  # DuckDB is paid for when it is used
    from batchops.engine.project import open_project
    from batchops.plan.guard import refusals

    scope = scope_of(invocation, limit, replace, [*cost_over, *allow_protected])
    with open_project(invocation.root, invocation.loaded) as project:
        plan = make_plan(
            project, scope, offline=offline, samples=samples, out=out and out.absolute(), refresh_only=refresh_only
        )
    refused = refusals(
        plan, cost_over, allow_unknown_cost=allow_unknown_cost, allow_protected=frozenset(allow_protected)
    )
    show_plan(changed(plan, diagnostics=(*plan.diagnostics, *refused)), invocation, form)
    if out is not None:
        invocation.note(f"Saved. To apply exactly this:\n  batchops apply {out}")
    if refused:
        return ExitCode.REFUSED
    return ExitCode.CHANGES if detailed_exitcode and plan.has_changes else ExitCode.DONE


def show_plan(plan: Plan, invocation: Invocation, form: str | None) -> None:
    """Print a plan as text, markdown or JSON."""
    if invocation.json or form == "json":
        from batchops.views.plan_json import render_plan_json

        invocation.out(render_plan_json(plan))
    elif form == "markdown":
        from batchops.views.plan_markdown import render_markdown

        invocation.out(render_markdown(plan))
    else:
        from batchops.views.plan_text import render_plan

        color = invocation.colors(sys.stdout)
        invocation.out(render_plan(plan, color=color, width=invocation.width(), verbose=invocation.verbose))
