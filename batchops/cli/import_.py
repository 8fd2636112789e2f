"""`batchops import JOB BATCH_ID…`: batches made elsewhere, taken over as paid answers."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from batchops.cli.holding import finish, lock_timeout_option, opened, telling
from batchops.cli.options import Invocation, shared_options

if TYPE_CHECKING:
    from batchops.engine.surgery import Import


@click.command("import")
@click.argument("job")
@click.argument("batches", nargs=-1, required=True, metavar="BATCH_ID…")
@lock_timeout_option
@shared_options(json=True)
def command(invocation: Invocation, *, job: str, batches: tuple[str, ...], lock_timeout: timedelta | None) -> int:
    """Adopt batches that this state did not make as paid answers of JOB, and fetch those that have ended.

    Each line of a batch's input file is a request; rows of any job that ask exactly the same use its answer, and the
    next apply pays nothing for them.

    \b
    batchops import review-sentiment batch_67a1b2c3
    """
    from batchops.cli.converging import stoppable
    from batchops.engine.surgery import import_batches

    with stoppable(invocation) as (stop, _), opened(invocation) as project, telling(invocation) as emit:
        done = import_batches(project, job, batches, emit=emit, stop=stop, lock_timeout=lock_timeout or timedelta(0))
    lines = [_line(found) for found in done]
    if any(found.is_fetched for found in done):
        lines.append("To see which rows use these answers: batchops plan")
    return finish(invocation, {"job": job, "batches": [asdict(found) for found in done]}, lines)


def _line(found: Import) -> str:
    from batchops.views.plan_table import counted

    requests = counted(found.requests, "request")
    if found.is_fetched:
        return f"{found.batch_id}: {requests} adopted and fetched."
    return f"{found.batch_id}: {requests} adopted; it is {found.status}. To wait for it: batchops wait"
