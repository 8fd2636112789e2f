"""`batchops wait`: poll and fetch what is in flight, submit nothing."""

from __future__ import annotations

from datetime import timedelta

import click

from batchops.cli.converging import Delivery, conclude, printer_of, scope_of, stoppable
from batchops.cli.options import Invocation, duration, shared_options

CONDITIONS = ("fetched",)


@click.command("wait")
@click.option(
    "--for",
    "condition",
    type=click.Choice(CONDITIONS),
    default="fetched",
    show_default=True,
    help="fetched: nothing is in flight any more, and every result is in state.",
)
@click.option("--timeout", callback=duration, metavar="DURATION", help="At most so long, as in 2h.")
@click.option("--lock-timeout", callback=duration, metavar="DURATION", help="Wait so long for the state, as in 10m.")
@shared_options(json=True, select=True)  # fmt: skip
def command(
    invocation: Invocation, *, condition: str, timeout: timedelta | None, lock_timeout: timedelta | None
) -> int:
    """Wait for what is in flight and fetch it. Nothing is submitted, so nothing new is paid.

    \b
    batchops wait --timeout 2h
    batchops wait --select review-sentiment
    """
    from batchops.engine.operations import wait_for  # DuckDB is paid for when it is used
    from batchops.engine.project import open_project

    with stoppable(invocation) as (stop, _), open_project(invocation.root, invocation.loaded) as project:
        printer = Delivery(printer_of(invocation), stop)
        return conclude(
            invocation,
            printer,
            lambda: wait_for(
                project,
                scope_of(invocation, None, ()),
                emit=printer,
                stop=stop,
                timeout=timeout,
                lock_timeout=lock_timeout or timedelta(0),
            ),
            stop,
        )
