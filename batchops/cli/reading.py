"""How the reading verbs meet the project: its snapshot of state, and the jobs that its specs declare."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batchops.diagnostics import BatchopsError, Diagnostic, Severity, UsageProblem

if TYPE_CHECKING:
    import duckdb

    from batchops.cli.options import Invocation
    from batchops.results.recorded import RecordedJob
    from batchops.spec.job import Job


@dataclass(frozen=True)
class Declared:
    """The jobs of the project's specs by address, and what is wrong with specs that could not be read."""

    jobs: Mapping[str, Job]
    diagnostics: tuple[Diagnostic, ...]

    @property
    def has_errors(self) -> bool:
        return any(found.severity is Severity.ERROR for found in self.diagnostics)


def state_path(invocation: Invocation) -> Path:
    """Where the state file is, or will be."""
    return invocation.root / invocation.loaded.settings.state.url


@contextmanager
def reading_state(invocation: Invocation, *, for_answer: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """This environment's state, with the views of `results.answers`, for one question; writers wait until its end.

    An answer that is read, too, gets more memory.
    """
    from batchops.results.answers import prepare
    from batchops.store.snapshot import ANSWER_LIMIT, READING_LIMIT, reading

    limit = ANSWER_LIMIT if for_answer else READING_LIMIT
    with reading(state_path(invocation), environment=invocation.loaded.environment, memory_limit=limit) as con:
        prepare(con)
        yield con


@contextmanager
def copied_state(invocation: Invocation, *, for_queries: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """As `reading_state`, of a copy: for answers that are long, or read by somebody slow. Queries get more memory."""
    from batchops.results.answers import prepare
    from batchops.store.snapshot import COPY_LIMIT, QUERY_LIMIT, snapshot

    limit = QUERY_LIMIT if for_queries else COPY_LIMIT
    with snapshot(state_path(invocation), environment=invocation.loaded.environment, memory_limit=limit) as con:
        prepare(con)
        yield con


def declared_jobs(invocation: Invocation) -> Declared:
    """Read the specs of the project; what cannot be read is left out and told in `diagnostics`."""
    from batchops.spec.load import load_project

    settings = invocation.loaded.settings
    loaded = load_project(invocation.root, default_provider=settings.provider, providers=tuple(settings.providers))
    return Declared({job.address: job for job in loaded.jobs}, tuple(loaded.diagnostics))


def chosen_jobs(invocation: Invocation, jobs: Collection[Job], diagnostics: Sequence[Diagnostic]) -> tuple[Job, ...]:
    """Those of `jobs` that `--select` and `--exclude` leave. `diagnostics` say what is wrong with the specs.

    Raises UsageProblem for a selector that means nothing; where a spec is broken, which may be the one that was meant,
    its problems instead.
    """
    if not invocation.select and not invocation.exclude:
        return tuple(jobs)
    try:
        return _selected(invocation, jobs)
    except UsageProblem:
        if any(found.severity is Severity.ERROR for found in diagnostics):
            raise BatchopsError(*diagnostics) from None
        raise


def _selected(invocation: Invocation, jobs: Collection[Job]) -> tuple[Job, ...]:
    from batchops.spec.load import is_by_state, refuse_empty, select_jobs

    modified: Collection[str] = ()
    if is_by_state((*invocation.select, *invocation.exclude)):
        from batchops.engine.project import open_project
        from batchops.engine.recorded import modified_jobs  # it imports duckdb

        with open_project(invocation.root, invocation.loaded) as project:
            modified = modified_jobs(project, tuple(jobs))
    chosen = select_jobs(jobs, invocation.select, invocation.exclude, modified=modified)
    refuse_empty(jobs, invocation.select)
    return chosen


def recorded_or_declared(
    con: duckdb.DuckDBPyConnection, address: str, invocation: Invocation
) -> tuple[RecordedJob, bool]:
    """The job at `address`, and whether state knows it. Specs are read only when it does not.

    Raises UsageProblem with a did-you-mean when neither knows it.
    """
    from batchops.results.recorded import declared_job, recorded_jobs, unknown_job

    recorded = {job.address: job for job in recorded_jobs(con)}
    if address in recorded:
        return recorded[address], True
    declared = declared_jobs(invocation)
    if address in declared.jobs:
        return declared_job(declared.jobs[address], invocation.loaded.environment), False
    raise unknown_job(address, [*recorded, *declared.jobs], has_unreadable=declared.has_errors)
