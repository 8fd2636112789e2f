"""Gather: run the sources, fingerprint and render what is needed, and classify every row against the state.

A large source is never held as a whole. Pass one streams the query into keys and fingerprints; only rows that state
does not know as answered under theirs are read again. A plan streams them into digests; an apply keeps them, so that it
works on one and the same snapshot of what it may send, from approval to the last retry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb

from batchops.diagnostics import BatchopsError, Diagnostic, error, warning
from batchops.engine.project import Project
from batchops.engine.recorded import read_recorded, removed_jobs
from batchops.engine.sources import WantedJob, are_same, count_rows, load_missing, read_source, take_snapshot
from batchops.engine.work import MEMORY_LIMIT, Work
from batchops.plan.diff import DiffJob, RecordedJob, classify, find_open
from batchops.plan.keys import key_text
from batchops.request.render import digest_rows
from batchops.request.source import KEY, OutOfMemory, bind_source, query_problems
from batchops.request.template import CompiledRequest, compile_request
from batchops.spec.job import Job

NO_LIMIT = -1
"""As `limit`: look at every row, whatever the environment says."""


@dataclass
class Gathered:
    """What is wanted, beside what is recorded. Close it: its folder is removed."""

    project: Project
    work: Work
    jobs: tuple[WantedJob, ...]
    keeps_rows: bool
    """Rows that may be sent are loaded: an apply renders them again."""
    replaced: Mapping[str, Collection[str] | None] = field(default_factory=dict)
    removed: tuple[RecordedJob, ...] = ()
    is_limited: bool = False
    """Only some of the rows were looked at, or may be touched."""
    is_covered: bool = False
    """Only the rows in `covered_N` (key_hash) may be paid for, reused or forgotten: a saved plan is applied.

    `left_N` (key) has those that had left the source when it was made, and are still away.
    """
    diagnostics: list[Diagnostic] = field(default_factory=list)

    @property
    def con(self) -> duckdb.DuckDBPyConnection:
        """The work database. Reading rows of a query again (`classify`) makes it another connection.

        Temporary tables do not outlast that: the changes of an apply, which may do so at any time, are none.
        """
        return self.work.con

    @property
    def folder(self) -> Path:
        return self.work.folder

    def classify(self, *, first: bool = False, only: WantedJob | None = None) -> None:
        """Bring `changes_N` of every job, or of one, up to date with the state.

        Rows asked to be replaced count the first time.
        """
        numbers = range(len(self.jobs)) if only is None else (only.number,)
        self._find_open(numbers, first=first)
        if moved := self._read_open(numbers):
            self._take_snapshots(moved)
            self._find_open(moved, first=first)
        for number in numbers:
            self._digest(self.jobs[number])
        with self.project.reader.reading(self.con):
            for number in numbers:
                classify(self.con, self.jobs[number].diff, is_temporary=not self.keeps_rows)
        if self.is_covered:
            for number in numbers:
                self._drop_uncovered(number)

    def _find_open(self, numbers: Iterable[int], *, first: bool) -> None:
        with self.project.reader.reading(self.con):
            for wanted in (self.jobs[number] for number in numbers):
                replaced = self.replaced.get(wanted.address, ()) if first else ()
                find_open(self.con, wanted.diff, replaced, settles_flight=not self.keeps_rows)

    def _read_open(self, numbers: Iterable[int]) -> list[int]:
        """Run the queries again for open rows that are not at hand. Jobs whose source moved since are returned."""
        missing = [number for number in numbers if self._find_missing(self.jobs[number])]
        if not missing:
            return []
        is_read: dict[int, bool] = {}

        def reading(con: duckdb.DuckDBPyConnection) -> None:
            for number in missing:
                if number not in is_read:
                    is_read[number] = self._read_missing(con, self.jobs[number])

        self.work.read(reading)
        return [number for number in missing if not is_read[number]]

    def _find_missing(self, wanted: WantedJob) -> bool:
        """Make `missing_N(key)`: open rows that the query must be asked for once more. False when there are none."""
        n = wanted.number
        if wanted.table.stream is None or (not self.keeps_rows and self._is_digested(n)):
            return False
        needed = (
            f"open_{n} o ANTI JOIN source_{n} k ON k.{KEY} = o.key"
            if self.keeps_rows
            else (f"unmatched_{n} o ANTI JOIN digests_{n} k ON k.key = o.key")
        )
        self.con.execute(f"CREATE OR REPLACE TABLE missing_{n} AS SELECT o.key FROM {needed}")
        return count_rows(self.con, f"missing_{n}") > 0

    def _read_missing(self, con: duckdb.DuckDBPyConnection, wanted: WantedJob) -> bool:
        """Load or digest the rows of `missing_N`. False where they are not what pass one saw."""
        n = wanted.number
        with query_problems(wanted.job):
            if self.keeps_rows:
                return load_missing(con, wanted)
            digest_rows(con, wanted.table, wanted.request, keys=f"missing_{n}", into=f"digests_{n}")
        return are_same(con, f"missing_{n}", f"digests_{n}", "true")

    def _take_snapshots(self, numbers: Collection[int]) -> None:
        """Load these sources as a whole: no two runs of their queries give the same."""
        moved = [self.jobs[number] for number in numbers]
        tables = self.work.read(lambda con: [take_snapshot(con, wanted) for wanted in moved])
        for wanted, table in zip(moved, tables, strict=True):
            self._replace(replace(wanted, table=table))
            self.diagnostics.append(_moved(wanted))

    def _replace(self, wanted: WantedJob) -> None:
        self.jobs = tuple(wanted if job.number == wanted.number else job for job in self.jobs)

    def _digest(self, wanted: WantedJob) -> None:
        """Render what pass one could not settle, unless it was rendered before."""
        n = wanted.number
        if self._is_digested(n) or not self.holds_rows(wanted):
            return
        self.con.execute(
            f"CREATE OR REPLACE TABLE more_{n} AS FROM unmatched_{n} u ANTI JOIN digests_{n} k USING (key)"
        )
        if count_rows(self.con, f"more_{n}") == 0:
            return
        digest_rows(self.con, wanted.table.loaded, wanted.request, keys=f"more_{n}", into=f"more_digests_{n}")
        self.con.execute(f"INSERT INTO digests_{n} FROM more_digests_{n}")

    def _is_digested(self, number: int) -> bool:
        """Whether every row is."""
        return count_rows(self.con, f"digests_{number}") == count_rows(self.con, f"desired_{number}")

    def holds_rows(self, wanted: WantedJob) -> bool:
        """Whether the rows of this job that may be sent are in `source_N`; else its query must be run for them."""
        return self.keeps_rows or wanted.table.stream is None

    def left_of(self, wanted: WantedJob) -> str | None:
        """The relation of rows that a saved plan takes off record; None without one."""
        return f"left_{wanted.number}" if self.is_covered else None

    def _drop_uncovered(self, number: int) -> None:
        self.con.execute(
            f"DELETE FROM changes_{number} WHERE action IN ('submit', 'resubmit', 'retry', 'reuse', 'forget')"
            f" AND md5(key) NOT IN (SELECT key_hash FROM covered_{number})"
        )

    def refresh_recorded(self) -> None:
        """Read the recorded jobs again: apply has just recorded them, or a fetch has held one."""
        recorded = {job.address: job for job in read_recorded(self.project)}
        self.jobs = tuple(
            replace(w, diff=_diff_job(self.project, w.number, w.job, w.request, recorded, is_limited=self.is_limited))
            for w in self.jobs
        )

    def close(self) -> None:
        self.work.close()


def gather(
    project: Project,
    jobs: Sequence[Job],
    *,
    is_whole_project: bool,
    keeps_rows: bool,
    limit: int | None = None,
    replaced: Mapping[str, Collection[str] | None] | None = None,
    memory: str = MEMORY_LIMIT,
) -> Gathered:
    """Run the sources of `jobs` and classify their rows. Raises BatchopsError with the problems of all jobs at once.

    `keeps_rows`: whoever renders rows after this needs them at hand, as an apply does. `memory` is for SQL of ours.
    """
    limit = None if limit is NO_LIMIT else limit or project.loaded.limit
    requests = _compiled(jobs)
    recorded = {found.address: found for found in read_recorded(project)}
    diffs = [
        _diff_job(project, number, job, request, recorded, is_limited=limit is not None)
        for number, (job, request) in enumerate(zip(jobs, requests, strict=True))
    ]
    gathered = Gathered(project, Work(project, memory=memory), (), keeps_rows, is_limited=limit is not None)
    try:
        if is_whole_project:
            gathered.removed = removed_jobs(project, recorded)
        gathered.jobs = gathered.work.read(
            lambda con: _read_each(con, jobs, requests, diffs, limit, keeps_rows=keeps_rows)
        )
        gathered.replaced = _replaced_keys(gathered.con, gathered.jobs, replaced or {})
        gathered.classify(first=True)
    except BaseException:
        gathered.close()
        raise
    return gathered


def _read_each(
    con: duckdb.DuckDBPyConnection,
    jobs: Sequence[Job],
    requests: Sequence[CompiledRequest],
    diffs: Sequence[DiffJob],
    limit: int | None,
    *,
    keeps_rows: bool,
) -> tuple[WantedJob, ...]:
    wanted: list[WantedJob] = []
    problems: list[Diagnostic] = []
    kind: type[BatchopsError] = BatchopsError
    for job, request, diff in zip(jobs, requests, diffs, strict=True):
        try:
            bound = WantedJob(diff.number, job, request, bind_source(con, diff.number, job, limit=limit), diff)
            wanted.append(replace(bound, table=read_source(con, bound, keeps_rows=keeps_rows)))
        except BatchopsError as problem:
            problems.extend(problem.diagnostics)
            kind = OutOfMemory if isinstance(problem, OutOfMemory) else kind
    if problems:
        raise kind(*problems)
    return tuple(wanted)


def _moved(wanted: WantedJob) -> Diagnostic:
    return warning(
        "source_moved",
        "The source moved while it was read.",
        "Rows differed from one run of the query to the next, so it was run once more and all its rows were kept.",
        address=wanted.address,
    )


def _replaced_keys(
    con: duckdb.DuckDBPyConnection, jobs: Sequence[WantedJob], replaced: Mapping[str, Collection[str] | None]
) -> dict[str, Collection[str] | None]:
    """Keys to pay for again in the text form of the sources. BatchopsError for one that no row has."""
    found: dict[str, Collection[str] | None] = {}
    for wanted in jobs:
        written = replaced.get(wanted.address, ())
        if written is None:
            found[wanted.address] = None
            continue
        keys = {key_text(wanted.address, wanted.table.key_columns, key) for key in written}  # two may write one
        missing = con.execute(
            f"SELECT key FROM (SELECT unnest(?::VARCHAR[]) AS key) ANTI JOIN desired_{wanted.number} USING (key)",
            [list(keys)],
        ).fetchall()
        if missing:
            shown = ", ".join(f"{wanted.address}@{key}" for (key,) in missing[:3])
            raise BatchopsError(error("unknown_row", "Unknown row.", f"The query has no row {shown}."))
        found[wanted.address] = keys
    return found


def _compiled(jobs: Sequence[Job]) -> list[CompiledRequest]:
    requests: list[CompiledRequest] = []
    problems: list[Diagnostic] = []
    for job in jobs:
        try:
            requests.append(compile_request(job))
        except BatchopsError as problem:
            problems.extend(problem.diagnostics)
    if problems:
        raise BatchopsError(*problems)
    return requests


def _diff_job(
    project: Project,
    number: int,
    job: Job,
    request: CompiledRequest,
    recorded: Mapping[str, RecordedJob],
    *,
    is_limited: bool,
) -> DiffJob:
    spec = job.spec
    found = recorded.get(job.address) or (recorded.get(spec.moved_from) if spec.moved_from else None)
    salt = str((found.spec if found else {}).get("salt") or job.address)
    earlier = (found.reuse if found else set()) - {spec.lifecycle.reuse}
    return DiffJob(
        number=number,
        parts=request.parts,
        is_simulated=project.is_simulated(job.provider),
        salt=None if spec.lifecycle.reuse else salt,
        keeps_answers=spec.lifecycle.on_change == "keep",
        forgets_removed=spec.lifecycle.on_remove == "forget" and not is_limited,
        recorded=found,
        earlier_salts=tuple(None if reuse else salt for reuse in earlier),
    )
