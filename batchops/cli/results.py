"""`batchops results JOB`: answers joined with keys."""

from __future__ import annotations

from pathlib import Path

import click

from batchops.cli.options import Invocation, shared_options
from batchops.cli.reading import copied_state, recorded_or_declared, state_path
from batchops.diagnostics import UsageProblem, did_you_mean, error

FORMATS = ("table", "jsonl", "csv", "parquet")


@click.command("results")
@click.argument("job")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Default: by the suffix of -o, else a table.")
@click.option(
    "--status", "statuses", metavar="LIST", help="Only these, as in succeeded,failed,held; see docs/results.md."
)
@click.option("--limit", type=click.IntRange(min=0), help="At most so many rows.")
@click.option("--all", "everything", is_flag=True, help="Also rows that left the source or were not asked yet.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
@shared_options(json=True)
def command(
    invocation: Invocation,
    job: str,
    form: str | None,
    statuses: str | None,
    limit: int | None,
    everything: bool,
    output: Path | None,
) -> None:
    """Print the answers of JOB with their keys, sorted by key.

    \b
    batchops results review-sentiment
    batchops results review-sentiment -o out/answers.parquet
    batchops results review-sentiment --status failed --format jsonl
    """
    from batchops.results.answers import Answers, Selection
    from batchops.results.output import open_output
    from batchops.results.sinks import NEEDS_FILE, sink

    form = _format(form, output, as_json=invocation.json)
    write = sink(form)
    selection = Selection(statuses=_statuses(statuses), limit=limit, everything=everything)
    with copied_state(invocation) as con:
        found, is_recorded = recorded_or_declared(con, job, invocation)
        answers = Answers(con, found, state_path(invocation).parent, selection).materialized()
        with open_output(output, needs_file=form in NEEDS_FILE) as target:
            count = write(answers, target)
    if count == 0 and limit != 0:
        chosen = f"No row of {job} is {statuses}." if selection.statuses and is_recorded else None
        invocation.note(chosen or f"No row of {job} was asked yet. To ask: batchops apply")


def _format(form: str | None, output: Path | None, *, as_json: bool) -> str:
    from batchops.results.sinks import SUFFIXES

    if as_json:
        if form not in {None, "jsonl"}:
            raise UsageProblem(error("format_conflict", "Formats conflict.", f"--json is jsonl, --format says {form}."))
        return "jsonl"
    if form is not None:
        return form
    if output is None:
        return "table"
    if (found := SUFFIXES.get(output.suffix.lower())) is None:
        known = ", ".join(SUFFIXES)
        detail = f'The suffix "{output.suffix}" names no format. Use one of {known}, or say --format.'
        raise UsageProblem(error("unknown_format", "Unknown format.", detail))
    return found


def _statuses(text: str | None) -> frozenset[str]:
    from batchops.results.answers import STATUSES

    chosen = frozenset(word.strip() for word in (text or "").split(",") if word.strip())
    if text is not None and not chosen:
        detail = f"--status is empty; write one of {', '.join(STATUSES)}."
        raise UsageProblem(error("unknown_status", "Unknown status.", detail))
    for word in sorted(chosen - set(STATUSES)):
        hint = did_you_mean(word, STATUSES) or f" Known: {', '.join(STATUSES)}."
        raise UsageProblem(error("unknown_status", "Unknown status.", f'No row can be "{word}".{hint}'))
    return chosen
