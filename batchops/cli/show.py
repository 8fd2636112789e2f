"""`batchops show PLANFILE`: a saved plan again, as text, markdown or JSON. Reads the file and nothing else."""

from __future__ import annotations

from pathlib import Path

import click

from batchops.cli.options import Invocation, shared_options
from batchops.cli.plan import FORMATS, show_plan
from batchops.diagnostics import UsageProblem, error


@click.command("show")
@click.argument("planfile", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--format", "form", type=click.Choice(FORMATS), help="Default: text.")
@shared_options(json=True)
def command(invocation: Invocation, planfile: Path, form: str | None) -> None:
    """Print the saved plan PLANFILE.

    \b
    batchops show plan.json
    batchops show plan.json --format markdown
    """
    if invocation.json and form not in {None, "json"}:
        raise UsageProblem(error("format_conflict", "Formats conflict.", f"--json is json, --format says {form}."))
    from batchops.plan.document import plan_from_document, read_plan_document

    show_plan(plan_from_document(read_plan_document(_found(invocation, planfile))), invocation, form)


def _found(invocation: Invocation, planfile: Path) -> Path:
    """Inside a project the path is relative to its root, as everywhere; a plan can be read outside of one too."""
    from batchops.diagnostics import BatchopsError

    try:
        return invocation.root / planfile
    except BatchopsError:
        return invocation.directory / planfile
