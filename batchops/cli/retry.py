"""`batchops retry JOB…`: another round for rows that were given up, and an end to the hold."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from batchops.cli.holding import finish, lock_timeout_option, opened
from batchops.cli.options import Invocation, shared_options

if TYPE_CHECKING:
    from batchops.engine.surgery import Reopened


@click.command("retry")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB…")
@lock_timeout_option
@shared_options(json=True)
def command(invocation: Invocation, *, jobs: tuple[str, ...], lock_timeout: timedelta | None) -> int:
    """Give the rows of JOB that were given up or held another round, and let a held job submit again.

    Nothing is sent: the next apply asks them.

    \b
    batchops retry review-sentiment
    batchops apply --wait
    """
    from batchops.engine.surgery import retry

    with opened(invocation) as project:
        done = retry(project, jobs, lock_timeout=lock_timeout or timedelta(0))
    lines = [_line(job) for job in done]
    if any(job.rows or job.waiting or job.was_held for job in done):
        lines.append("To ask them: batchops apply")
    return finish(invocation, {"jobs": [asdict(job) for job in done]}, lines)


def _line(job: Reopened) -> str:
    from batchops.views.plan_table import counted

    parts = [f"{counted(job.rows, 'row')} {'gets' if job.rows == 1 else 'get'} another round"]
    if job.waiting:
        parts.append(f"{counted(job.waiting, 'row')} waited for a retry anyway")
    if job.was_held:
        parts.append(f"no longer held ({job.was_held})")
    return f"{job.address}: {'; '.join(parts)}."
