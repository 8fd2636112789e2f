"""`schema`: the JSON Schema of a job, for editors."""

from __future__ import annotations

import json

import click

from batchops.cli.options import Invocation, shared_options
from batchops.spec.editor import job_schema


@click.command("schema", help="The JSON Schema of a job, for editors.")
@shared_options(json=True)
def command(invocation: Invocation) -> None:
    """Print the schema. A spec names it in its first line: `# yaml-language-server: $schema=…`."""
    invocation.out(json.dumps(job_schema(), indent=2, ensure_ascii=False))
