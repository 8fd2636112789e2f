"""`batchops explain ADDRESS`: the life of a job or of one row."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import click

from batchops.cli.options import Invocation, shared_options
from batchops.cli.reading import reading_state, recorded_or_declared, state_path


@click.command("explain")
@click.argument("address")
@shared_options(json=True)
def command(invocation: Invocation, address: str) -> None:
    """Tell the life of ADDRESS: a job, or one row of it.

    \b
    batchops explain review-sentiment
    batchops explain review-sentiment@17
    batchops explain 'visits@["Berlin","2026-11-22"]'
    """
    from batchops.results.explain import explain_job, explain_row, parse_address, recorded_key
    from batchops.results.output import terminal_width
    from batchops.views.explain import render_job, render_row

    name, written = parse_address(address)
    now, width = datetime.now(UTC), terminal_width()
    with reading_state(invocation, for_answer=written is not None) as con:
        job, is_recorded = recorded_or_declared(con, name, invocation)
        if written is None:
            document = explain_job(con, job, now=now)
        else:
            folder = state_path(invocation).parent
            document = explain_row(con, job, recorded_key(job, written), folder=folder, now=now)
    if invocation.json:
        invocation.out(json.dumps(document, ensure_ascii=False))
    else:
        invocation.out((render_job if written is None else render_row)(document, width=width))
    if not is_recorded:
        invocation.note(f"{name} was never applied. To ask: batchops apply")
