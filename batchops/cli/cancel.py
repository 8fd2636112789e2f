"""`batchops cancel JOB…`: cancel what a job has in flight, and hold it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from batchops.cli.holding import finish, lock_timeout_option, opened, telling
from batchops.cli.options import Invocation, shared_options
from batchops.diagnostics import ExitCode, prevailing

if TYPE_CHECKING:
    from batchops.engine.surgery import CancelledBatch


@click.command("cancel")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB…")
@lock_timeout_option
@shared_options(json=True)
def command(invocation: Invocation, *, jobs: tuple[str, ...], lock_timeout: timedelta | None) -> int:
    """Cancel at the provider what JOB has in flight. The job submits nothing more until `batchops retry JOB`.

    Requests that the provider has finished by then were paid: `batchops wait` fetches their answers.

    \b
    batchops cancel review-sentiment
    """
    from batchops.cli.converging import stoppable
    from batchops.engine.surgery import cancel

    with stoppable(invocation) as (stop, _), opened(invocation) as project, telling(invocation) as emit:
        done = cancel(project, jobs, emit=emit, stop=stop, lock_timeout=lock_timeout or timedelta(0))
    document = {"held": list(done.held), "batches": [asdict(batch) for batch in done.batches]}
    code = finish(invocation, document, _lines(jobs, done.held, done.batches), done.problems)
    return prevailing([code, ExitCode.INTERRUPTED if stop.is_requested else ExitCode.DONE])


def _lines(jobs: tuple[str, ...], held: tuple[str, ...], batches: tuple[CancelledBatch, ...]) -> Iterator[str]:
    for batch in batches:
        finished = "" if batch.total is None else f", {batch.completed or 0:,} of {batch.total:,} finished"
        yield f"{batch.address}: {batch.batch_id} {batch.status}{finished}"
    if not held:
        yield f"{', '.join(jobs)}: never applied, so nothing is in flight and nothing to hold."
        return
    if not batches:
        yield f"{', '.join(held)}: nothing was in flight."
    else:
        yield "What was finished before the end is paid and is fetched by: batchops wait"
    for address in held:
        yield f"{address} is held. To go on: batchops retry {address}"
