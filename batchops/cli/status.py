"""`batchops status`: jobs on two axes, sync and health."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from batchops.cli.options import Invocation, shared_options
from batchops.cli.reading import Declared, declared_jobs, reading_state
from batchops.diagnostics import BatchopsError, Severity, UsageProblem, diagnostic_document, error

if TYPE_CHECKING:
    from batchops.results.status import DesiredJob
    from batchops.spec.job import Job


@click.command("status")
@click.option("--refresh", is_flag=True, help="Ask the provider first (not supported yet).")
@shared_options(json=True)
def command(invocation: Invocation, refresh: bool) -> None:
    """Show each job's sync (spec against what was applied) and health (its rows), from state alone."""
    from batchops.results.status import status_document

    if refresh:
        detail = "status reads state alone. To look at the provider: batchops plan --refresh-only"
        raise UsageProblem(error("not_supported_yet", "Not supported yet.", detail))
    declared = declared_jobs(invocation)
    with reading_state(invocation) as con:
        document = status_document(
            con,
            [_desired(job, invocation) for job in declared.jobs.values()],
            project=invocation.loaded.settings.project or invocation.root.name,
            environment=invocation.loaded.environment,
            now=datetime.now(UTC),
            has_unreadable=declared.has_errors,
            diagnostics=[diagnostic_document(found) for found in declared.diagnostics],
        )
    if invocation.json:
        invocation.out(json.dumps(document, ensure_ascii=False))
        return
    _show(invocation, document, declared)


def _show(invocation: Invocation, document: dict[str, object], declared: Declared) -> None:
    from batchops.results.output import terminal_width
    from batchops.views.status import render_status

    invocation.out(render_status(document, width=terminal_width()))
    if declared.has_errors:
        count = sum(found.severity is Severity.ERROR for found in declared.diagnostics)
        invocation.note(f"{count} problem(s) in specs; jobs that cannot be read are Unknown. See: batchops validate")


def _desired(job: Job, invocation: Invocation) -> DesiredJob:
    from batchops.request.template import compile_request
    from batchops.results.status import DesiredJob

    provider = invocation.loaded.settings.providers.get(job.provider)
    try:
        parts = dict(compile_request(job).parts)
    except BatchopsError:
        parts = None
    return DesiredJob(
        address=job.address,
        provider=job.provider,
        model=job.spec.model,
        is_simulated=provider is not None and provider.kind == "local",
        parts=parts,
        max_failed=job.spec.retry.max_failed,
        moved_from=job.spec.moved_from,
        is_enabled=job.spec.enabled,
    )
