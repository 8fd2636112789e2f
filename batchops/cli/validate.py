"""`validate`: every spec, template, schema and query binding, all problems in one run, without network."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchops.cli.options import Invocation, shared_options
from batchops.cli.reading import chosen_jobs
from batchops.diagnostics import Diagnostic, ExitCode, Severity
from batchops.request.offer import check_offers
from batchops.spec.files import with_snippets
from batchops.spec.load import load_project

if TYPE_CHECKING:
    from batchops.spec.job import Job


@click.command("validate", help="Check every spec, template, schema and query binding; never uses the network.")
@shared_options(json=True, select=True)
def command(invocation: Invocation) -> int:
    """Print every problem, sorted by place, and exit 1 when one of them is an error.

    Every spec is read, whatever is selected: a broken one may be what was meant.
    """
    from batchops.views.diagnostics import render_json, render_text  # its turn comes when all is read

    root, settings = invocation.root, invocation.loaded.settings
    loaded = load_project(root, default_provider=settings.provider, providers=tuple(settings.providers))
    jobs = chosen_jobs(invocation, loaded.jobs, loaded.diagnostics)
    offers = check_offers(jobs, settings, invocation.loaded.environ)
    bindings = _check_bindings(root, jobs)
    found = (*invocation.loaded.warnings, *loaded.diagnostics, *offers, *bindings)
    diagnostics = tuple(sorted(with_snippets(root, found), key=lambda diagnostic: diagnostic.place))
    errors = sum(diagnostic.severity is Severity.ERROR for diagnostic in diagnostics)
    if invocation.json:
        invocation.out(render_json(diagnostics))
    else:
        if diagnostics:
            invocation.note(render_text(diagnostics, color=invocation.colors(sys.stderr)))
        if not errors:
            invocation.out(_success(jobs, len(diagnostics)))
    return ExitCode.ERROR if errors else ExitCode.DONE


def _check_bindings(root: Path, jobs: tuple[Job, ...]) -> tuple[Diagnostic, ...]:
    """What only the query engine can tell. Without a job to bind it is not even imported."""
    if not jobs:
        return ()
    from batchops.request.check import check_jobs  # it imports duckdb

    with contextlib.chdir(root):  # queries name files from the root
        return check_jobs(root.resolve(), jobs)


def _success(jobs: tuple[Job, ...], warnings: int) -> str:
    files = len({job.paths[0] for job in jobs})
    text = f"Success! {_count(len(jobs), 'job')} in {_count(files, 'file')} {'is' if len(jobs) == 1 else 'are'} valid."
    return text if not warnings else f"{text} {_count(warnings, 'warning')}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
