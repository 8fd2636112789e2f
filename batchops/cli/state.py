"""`batchops state …`: look into the state, and surgery on it. Whatever writes makes a backup first and says where."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchops.cli.holding import finish, lock_timeout_option, opened
from batchops.cli.main import unknown_verb
from batchops.cli.options import Invocation, duration, shared_options
from batchops.cli.reading import reading_state, state_path
from batchops.descriptors import is_descriptor
from batchops.diagnostics import BatchopsError, Severity, UsageProblem, error

if TYPE_CHECKING:
    from batchops.engine.records import Repair


class StateGroup(click.Group):
    """Names the nearest verb for one that is not there, as the program itself does."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise unknown_verb(args[0], self.commands, "batchops state")
        return super().resolve_command(ctx, args)


@click.group("state", cls=StateGroup)
@shared_options(json=True)
def command(invocation: Invocation) -> None:
    """Look into the state, and repair it."""


@command.command("list")
@shared_options(json=True)
def list_(invocation: Invocation) -> int:
    """List the jobs on record in this environment: their rows by state, and when they were applied last."""
    from batchops.results.onrecord import list_document
    from batchops.results.output import terminal_width
    from batchops.views.onrecord import render_list

    with reading_state(invocation) as con:
        document = list_document(con, invocation.environment)
    if invocation.json:
        invocation.out(json.dumps(document, ensure_ascii=False))
    else:
        invocation.out(render_list(document, width=terminal_width()))
    return 0


@command.command("show")
@click.argument("address")
@shared_options(json=True)
def show(invocation: Invocation, address: str) -> int:
    """Print the record of a job, or of one row of it (job@key), as JSON."""
    from batchops.results.explain import parse_address, recorded_key
    from batchops.results.onrecord import job_document, row_document
    from batchops.results.recorded import recorded_jobs, unknown_job

    name, written = parse_address(address)
    with reading_state(invocation) as con:
        jobs = {job.address: job for job in recorded_jobs(con)}
        if name not in jobs:
            raise unknown_job(name, jobs)
        job = jobs[name]
        if written is None:
            document = job_document(con, invocation.environment, job.job_id)
        else:
            key = recorded_key(job, written)
            document = row_document(con, invocation.environment, job.job_id, job.address, key)
    invocation.out(json.dumps(document, ensure_ascii=False, indent=None if invocation.json else 2))
    return 0


@command.command("mv")
@click.argument("source", metavar="OLD")
@click.argument("target", metavar="NEW")
@lock_timeout_option
@shared_options(json=True)
def mv(invocation: Invocation, *, source: str, target: str, lock_timeout: timedelta | None) -> int:
    """Call a job on record otherwise. It keeps its rows and answers; the job's block has to be renamed as well."""
    from batchops.engine.records import move

    with opened(invocation) as project:
        done = move(project, _job_address(source), _job_address(target), lock_timeout=lock_timeout or timedelta(0))
    lines = [f"{old} is {new} from now on; its answers came along." for old, new in done.moves]
    document = {"moves": [{"from": old, "to": new} for old, new in done.moves], "backup": str(done.backup)}
    return finish(invocation, document, [*lines, f"Backup: {done.backup}"])


def _job_address(text: str) -> str:
    from batchops.results.explain import parse_address

    name, key = parse_address(text)
    if key is not None:
        detail = f'"{text}" names one row; only whole jobs have a name to change.'
        raise UsageProblem(error("invalid_address", "Invalid address.", detail))
    return name


@command.command("rm")
@click.argument("address", metavar="JOB")
@lock_timeout_option
@shared_options(json=True)
def rm(invocation: Invocation, *, address: str, lock_timeout: timedelta | None) -> int:
    """Forget the rows of JOB, or one row (job@key). Paid answers stay in the ledger: asking again uses them."""
    from batchops.engine.records import forget
    from batchops.results.explain import parse_address, recorded_key
    from batchops.results.recorded import recorded_jobs, unknown_job

    name, written = parse_address(address)
    key = None
    if written is not None:
        with reading_state(invocation) as con:
            jobs = {job.address: job for job in recorded_jobs(con)}
        if name not in jobs:
            raise unknown_job(name, jobs)
        key = recorded_key(jobs[name], written)
    with opened(invocation) as project:
        done = forget(project, name, key, lock_timeout=lock_timeout or timedelta(0))
    lines = [
        f"{address}: {_rows(done.rows)} forgotten. Paid answers stay, and what is in flight is still fetched.",
        f"Backup: {done.backup}",
    ]
    return finish(invocation, {"address": address, "rows": done.rows, "backup": str(done.backup)}, lines)


def _rows(number: int) -> str:
    from batchops.views.plan_table import counted

    return counted(number, "row")


@command.command("pull")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@shared_options(json=True)
def pull(invocation: Invocation, *, file: Path, force: bool) -> int:
    """Copy the state to FILE as it is at this moment; a running apply goes on. Answer files are not in it."""
    from batchops.store.copies import copy_file, nobody_holds
    from batchops.store.store import StateReader

    source = state_path(invocation)
    target = invocation.root / file
    if target.exists() and (not target.is_file() or is_descriptor(target)):
        detail = f"{file} is a pipe, a device or a number; the state is copied to a file by its name."
        raise BatchopsError(error("output_unwritable", "The output cannot be written.", detail))
    if target.exists() and (not force or target.samefile(source)):
        detail = f"{file} exists already. Choose another name, or overwrite it with --force."
        raise BatchopsError(error("files_in_the_way", "Files are in the way.", detail))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BatchopsError(error("output_unwritable", "The output cannot be written.", str(problem))) from problem
    copy_file(source, target, nobody_holds)
    identity = StateReader(target).identity()
    document = {"file": str(file), "lineage": identity.lineage, "serial": identity.serial}
    lines = [f"{file}: serial {identity.serial} of {identity.lineage}. Its answers are in {source.parent / 'answers'}."]
    return finish(invocation, document, lines)


@command.command("push")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Also another lineage, an older serial, or over a damaged state.")
@lock_timeout_option
@shared_options(json=True)
def push(invocation: Invocation, *, file: Path, force: bool, lock_timeout: timedelta | None) -> int:
    """Put a copy of FILE in the place of the state, when it is the same state further on."""
    from batchops.store.integrity import find_damage
    from batchops.store.push import push as push_file
    from batchops.store.store import StateReader

    target = state_path(invocation)
    done = push_file(invocation.root / file, target, force=force, patience=lock_timeout or timedelta(0))
    document = {"lineage": done.lineage, "serial": done.serial, "changed": done.is_changed,
                "backup": str(done.kept) if done.kept else None}  # fmt: skip
    if not done.is_changed:
        return finish(invocation, document, [f"The state is {file} already: serial {done.serial}."])
    lines = [f"The state is {file} from now on, with serial {done.serial} of {done.lineage}."]
    if done.kept:
        lines.append(f"What stood there before: {done.kept}")
    damage = [replace(found, severity=Severity.WARNING) for found in find_damage(StateReader(target))]
    return finish(invocation, document, lines, damage)


@command.command("repair")
@click.option(
    "--absent", "token", metavar="TOKEN", help="Say that the batch of an unsettled submission does not exist."
)
@lock_timeout_option
@shared_options(json=True)
def repair(invocation: Invocation, *, token: str | None, lock_timeout: timedelta | None) -> int:
    """Check the state, put right what leaves no doubt, and say what is left. Nothing paid is forgotten.

    \b
    batchops state repair
    batchops state repair --absent 2f1c0d9e-5b0a-4b55-9d7e-0f6b8e1f2a3c
    """
    from batchops.engine.records import declare_absent
    from batchops.engine.records import repair as repair_state

    patience = lock_timeout or timedelta(0)
    with opened(invocation) as project:
        if token is None:
            return _finish_repair(invocation, repair_state(project, lock_timeout=patience))
        done = declare_absent(project, token, lock_timeout=patience)
    lines = [
        f"{done.address}: submission {done.token} never became a batch; {_rows(done.requests)} may be asked again.",
        f"Backup: {done.backup}",
    ]
    document: dict[str, Any] = {"token": done.token, "address": done.address, "requests": done.requests}
    return finish(invocation, {**document, "backup": str(done.backup)}, lines)


def _finish_repair(invocation: Invocation, done: Repair) -> int:
    mended = {name: count for name, count in (done.mended or {}).items() if count}
    document = {
        "sound": not done.left,
        "mended": dict(done.mended or {}),
        "fetch_again": list(done.fetch_again),
        "backup": str(done.backup) if done.backup else None,
    }
    lines = ["The state is sound."] if done.backup is None else [f"Backup: {done.backup}"]
    lines += [f"Put right: {count:,} {name.replace('_', ' ')}." for name, count in mended.items()]
    if done.fetch_again:
        lines.append(f"To be fetched again: {', '.join(done.fetch_again)}. Now: batchops wait")
    return finish(invocation, document, lines, done.left)


@command.command("compact")
@click.option(
    "--keep-attempts", metavar="AGE", callback=duration, help="Drop older tries that a later one made up for."
)
@click.option("--keep-events", metavar="AGE", callback=duration, help="Drop older events.")
@lock_timeout_option
@shared_options(json=True)
def compact(
    invocation: Invocation,
    *,
    keep_attempts: timedelta | None,
    keep_events: timedelta | None,
    lock_timeout: timedelta | None,
) -> int:
    """Write the state anew without what nobody needs, merge small answer files, remove what killed commands left.

    Tries and events go by age only where --keep-attempts and --keep-events, or the settings of those names, say so.
    No answer that a row stands on or could go back to is ever dropped.

    \b
    batchops state compact
    batchops state compact --keep-attempts 30d --keep-events 90d
    """
    from batchops.engine.compaction import compact as compact_state
    from batchops.views.footprint import footprint_document, footprint_lines

    with opened(invocation) as project:
        done = compact_state(
            project, keep_attempts=keep_attempts, keep_events=keep_events, lock_timeout=lock_timeout or timedelta(0)
        )
    dropped = {"requests": done.requests, "attempts": done.attempts, "events": done.events}
    document = {
        "before_bytes": done.before.state_bytes,
        "after_bytes": done.after.state_bytes,
        **dropped,
        "merged_files": done.merged_files,
        "leavings": done.leavings,
        "footprint": footprint_document(done.after),
        "backup": str(done.backup),
    }
    lines = [
        f"{done.before.state_bytes:,} bytes are {done.after.state_bytes:,} now, those of the answers"
        f" {done.before.answer_bytes:,} are {done.after.answer_bytes:,}.",
        f"Dropped: {', '.join(f'{count:,} {name}' for name, count in dropped.items())}."
        f" Merged answer files: {done.merged_files:,}.",
        *footprint_lines(done.after),
        f"Backup: {done.backup}",
    ]
    return finish(invocation, document, lines)
