"""`batchops status`: jobs on two axes, sync and health."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from batchops.cli.options import Invocation, shared_options
from batchops.cli.reading import Declared, chosen_jobs, declared_jobs, reading_state
from batchops.diagnostics import BatchopsError, Diagnostic, Severity, diagnostic_document

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from batchops.results.status import DesiredJob
    from batchops.spec.job import Job


@click.command("status")
@click.option("--refresh", is_flag=True, help="Ask the providers about what is in flight; nothing is written.")
@shared_options(json=True, select=True)
def command(invocation: Invocation, refresh: bool) -> None:
    """Show each job's sync (spec against what was applied) and health (its rows), from state alone.

    \b
    batchops status --select tag:weekly
    batchops status --refresh
    """
    from batchops.results.status import status_document

    declared = declared_jobs(invocation)
    chosen = chosen_jobs(invocation, declared.jobs.values(), declared.diagnostics)
    only = {job.address for job in chosen} if invocation.select or invocation.exclude else None
    remotes, unseen = _look(invocation, only) if refresh else (None, [])
    with reading_state(invocation) as con:
        document = status_document(
            con,
            [_desired(job, invocation) for job in chosen],
            project=invocation.loaded.settings.project or invocation.root.name,
            environment=invocation.loaded.environment,
            now=datetime.now(UTC),
            has_unreadable=declared.has_errors,
            only=only,
            remotes=remotes,
            diagnostics=[diagnostic_document(found) for found in (*declared.diagnostics, *unseen)],
        )
    if invocation.json:
        invocation.out(json.dumps(document, ensure_ascii=False))
        return
    disabled = sum(not job.spec.enabled for job in chosen)
    _show(invocation, document, declared, unseen, disabled=disabled)


def _look(
    invocation: Invocation, addresses: Collection[str] | None
) -> tuple[Mapping[str, Mapping[str, object]], list[Diagnostic]]:
    """What the providers say now of the batches in flight, by batch id, and what they would not show."""
    from batchops.engine.look import look, problems_of
    from batchops.engine.project import open_project

    with open_project(invocation.root, invocation.loaded) as project:
        sightings = look(project, addresses)
    return {found.remote.id: found.remote.raw for found in sightings if found.remote}, problems_of(sightings)


def _show(
    invocation: Invocation,
    document: dict[str, object],
    declared: Declared,
    unseen: Collection[Diagnostic],
    *,
    disabled: int,
) -> None:
    from batchops.results.output import terminal_width
    from batchops.views.diagnostics import render_text
    from batchops.views.status import render_status

    is_narrowed = bool(invocation.select or invocation.exclude)
    text = render_status(document, width=terminal_width(), is_narrowed=is_narrowed, disabled=disabled)
    invocation.out(text)
    if unseen:
        invocation.note(render_text(unseen, color=invocation.colors(sys.stderr)))
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
