"""Gather: run the sources, fingerprint and render what is needed, and classify every row against the state.

`Gathered` owns a private work database. The source is read once; `classify` may be called again after the state has
moved, so that one apply works on one and the same snapshot of the rows from approval to the last retry.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import orjson

from batchops.diagnostics import BatchopsError, Diagnostic, error
from batchops.engine.project import Project
from batchops.plan.diff import DiffJob, RecordedJob, classify, find_unmatched
from batchops.plan.keys import key_text
from batchops.request.render import digest_rows, fingerprint
from batchops.request.source import SourceTable, load_source, open_work
from batchops.request.template import CompiledRequest, compile_request
from batchops.spec.job import Job
from batchops.store.connection import limit_resources
from batchops.store.job_changes import JobRecord

NO_LIMIT = -1
"""As `limit`: look at every row, whatever the environment says."""


@dataclass(frozen=True)
class WantedJob:
    """One job with its rows in the work database, under relations named by `number`."""

    number: int
    job: Job
    request: CompiledRequest
    table: SourceTable
    diff: DiffJob

    @property
    def address(self) -> str:
        return self.job.address

    @property
    def changes(self) -> str:
        return self.diff.changes


@dataclass
class Gathered:
    """What is wanted, beside what is recorded. Close it: its folder is removed."""

    project: Project
    con: duckdb.DuckDBPyConnection
    folder: Path
    jobs: tuple[WantedJob, ...]
    is_limited: bool
    replaced: Mapping[str, Collection[str] | None]
    removed: tuple[RecordedJob, ...] = ()
    is_covered: bool = False
    """Only the rows in `covered_N` (key_hash) may be paid for, reused or forgotten: a saved plan is applied."""
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def classify(self, *, first: bool = False, only: WantedJob | None = None) -> None:
        """Bring `changes_N` of every job, or of one, up to date with the state.

        Rows asked to be replaced count the first time.
        """
        jobs = self.jobs if only is None else (only,)
        with self.project.reader.reading(self.con):
            for wanted in jobs:
                replaced = self.replaced.get(wanted.address, ()) if first else ()
                find_unmatched(self.con, wanted.diff, replaced)
        for wanted in jobs:
            self._digest(wanted)
        with self.project.reader.reading(self.con):
            for wanted in jobs:
                classify(self.con, wanted.diff)
                if self.is_covered:
                    self.con.execute(
                        f"DELETE FROM {wanted.changes}"
                        " WHERE action IN ('submit', 'resubmit', 'retry', 'reuse', 'forget')"
                        f" AND md5(key) NOT IN (SELECT key_hash FROM covered_{wanted.number})"
                    )

    def _digest(self, wanted: WantedJob) -> None:
        """Render what pass one could not settle, unless it was rendered before."""
        n = wanted.number
        known = f"digests_{n}"
        if not _has_table(self.con, known):
            digest_rows(self.con, wanted.table, wanted.request, keys=f"unmatched_{n}", into=known)
            return
        self.con.execute(f"CREATE OR REPLACE TABLE more_{n} AS FROM unmatched_{n} u ANTI JOIN {known} k USING (key)")
        digest_rows(self.con, wanted.table, wanted.request, keys=f"more_{n}", into=f"more_digests_{n}")
        self.con.execute(f"INSERT INTO {known} FROM more_digests_{n}")

    def refresh_recorded(self) -> None:
        """Read the recorded jobs again: apply has just recorded them, or a fetch has held one."""
        recorded = {job.address: job for job in read_recorded(self.project)}
        self.jobs = tuple(
            WantedJob(w.number, w.job, w.request, w.table, _diff_job(self.project, w, recorded, self.is_limited))
            for w in self.jobs
        )

    def is_on_record(self, records: Sequence[JobRecord]) -> bool:
        """Whether state already says all this: recording a plan that changes nothing would only raise its serial."""
        with self.project.reader.reading(self.con):
            return all(self._is_on_record(wanted, record) for wanted, record in zip(self.jobs, records, strict=True))

    def _is_on_record(self, wanted: WantedJob, record: JobRecord) -> bool:
        row = self.con.execute(
            "SELECT address, provider, is_simulated, render_id, parts, spec, protected FROM state.jobs"
            " WHERE job_id = ? AND removed_at IS NULL",
            [wanted.diff.job_id],
        ).fetchone()
        said = (record.address, record.provider, record.is_simulated, record.render_id)
        if row is None or row[:4] != said or row[6] != record.protected:
            return False
        if orjson.loads(row[4]) != record.parts or orjson.loads(row[5]) != orjson.loads(orjson.dumps(record.spec)):
            return False
        is_wanted = f"key IN (SELECT key FROM {wanted.changes})"
        misplaced = f"removed_at IS NOT NULL AND {is_wanted}"
        if not record.is_limited:
            misplaced += f" OR removed_at IS NULL AND NOT {is_wanted}"
        moved = self.con.execute(
            f"""SELECT (SELECT count(*) FROM {wanted.changes} WHERE moves)
                     + (SELECT count(*) FROM state.rows WHERE job_id = ? AND ({misplaced}))""",
            [wanted.diff.job_id],
        ).fetchone()
        return moved == (0,)

    def close(self) -> None:
        self.con.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def gather(
    project: Project,
    jobs: Sequence[Job],
    *,
    is_whole_project: bool,
    limit: int | None = None,
    replaced: Mapping[str, Collection[str] | None] | None = None,
) -> Gathered:
    """Run the sources of `jobs` and classify their rows. Raises BatchopsError with the problems of all jobs at once."""
    limit = None if limit is NO_LIMIT else limit or project.loaded.limit
    requests = _compiled(jobs)
    folder = new_work_folder(project)
    try:
        tables = _load_sources(project, jobs, requests, folder, limit)
        con = duckdb.connect(str(folder / "desired.duckdb"))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    limit_resources(con, memory_limit="1GB", threads=2, temp_directory=folder / "spill")
    recorded = {found.address: found for found in read_recorded(project)}
    wanted = []
    for number, (job, request, table) in enumerate(zip(jobs, requests, tables, strict=True)):
        draft = WantedJob(number, job, request, table, _NO_DIFF)
        wanted.append(WantedJob(number, job, request, table, _diff_job(project, draft, recorded, limit is not None)))
    gathered = Gathered(project, con, folder, tuple(wanted), limit is not None, {})
    if is_whole_project:
        gathered.removed = removed_jobs(project, recorded)
    try:
        gathered.replaced = _replaced_keys(con, wanted, replaced or {})
        gathered.classify(first=True)
    except BaseException:
        gathered.close()
        raise
    return gathered


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
        keys = [key_text(wanted.address, wanted.table.key_columns, key) for key in written]
        missing = con.execute(
            f"SELECT key FROM (SELECT unnest(?::VARCHAR[]) AS key) ANTI JOIN desired_{wanted.number} USING (key)",
            [keys],
        ).fetchall()
        if missing:
            shown = ", ".join(f"{wanted.address}@{key}" for (key,) in missing[:3])
            raise BatchopsError(error("unknown_row", "Unknown row.", f"The query has no row {shown}."))
        found[wanted.address] = keys
    return found


_NO_DIFF = DiffJob(0, {}, False, None, False, False, None)


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


def _load_sources(
    project: Project, jobs: Sequence[Job], requests: Sequence[CompiledRequest], folder: Path, limit: int | None
) -> list[SourceTable]:
    con = open_work(folder / "desired.duckdb", project.root)
    tables: list[SourceTable] = []
    problems: list[Diagnostic] = []
    try:
        for number, (job, request) in enumerate(zip(jobs, requests, strict=True)):
            try:
                table = load_source(con, number, job, limit=limit)
                fingerprint(con, table, request, is_simulated=project.is_simulated(job.provider))
                tables.append(table)
            except BatchopsError as problem:
                problems.extend(problem.diagnostics)
    finally:
        con.close()
    if problems:
        raise BatchopsError(*problems)
    return tables


def _has_table(con: duckdb.DuckDBPyConnection, name: str) -> bool:
    return bool(con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [name]).fetchall())


def new_work_folder(project: Project) -> Path:
    """A private folder of this process under state/work, its process id in the name so that leavings can be swept."""
    folder = project.work_folder / f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
    folder.mkdir(parents=True)
    return folder


def sweep_work(project: Project) -> None:
    """Remove work folders of processes that are gone. Only under the lease."""
    if not project.work_folder.exists():
        return
    for folder in project.work_folder.iterdir():
        pid, _, _ = folder.name.partition("-")
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read_recorded(project: Project) -> list[RecordedJob]:
    """The jobs of this environment as recorded, removed ones too."""
    rows = project.reader.rows(
        "SELECT job_id, address, provider, is_simulated, parts, spec, protected, held,"
        " removed_at IS NOT NULL AS is_removed FROM state.jobs WHERE environment = ?",
        [project.environment],
    )
    return [
        RecordedJob(
            job_id=row["job_id"],
            address=row["address"],
            provider=row["provider"],
            is_simulated=row["is_simulated"],
            parts=orjson.loads(row["parts"]),
            spec=orjson.loads(row["spec"]),
            is_protected=row["protected"],
            held=row["held"],
            is_removed=row["is_removed"],
        )
        for row in rows
    ]


def modified_jobs(project: Project, jobs: Sequence[Job]) -> set[str]:
    """Addresses of jobs that are new, or whose query, prompt, model, params, schema or provider moved since applied.

    A job that cannot be compiled counts: planning it tells what is wrong with it.
    """
    recorded = {job.address: job for job in read_recorded(project) if not job.is_removed}
    return {job.address for job in jobs if _is_modified(job, recorded.get(job.address))}


def _is_modified(job: Job, recorded: RecordedJob | None) -> bool:
    if recorded is None or recorded.provider != job.provider or recorded.spec.get("query") != job.query:
        return True
    try:
        return dict(compile_request(job).parts) != recorded.parts
    except BatchopsError:
        return True


def _diff_job(project: Project, wanted: WantedJob, recorded: Mapping[str, RecordedJob], is_limited: bool) -> DiffJob:
    spec = wanted.job.spec
    found = recorded.get(wanted.address) or (recorded.get(spec.moved_from) if spec.moved_from else None)
    salt = str((found.spec if found else {}).get("salt") or wanted.address)
    return DiffJob(
        number=wanted.number,
        parts=wanted.request.parts,
        is_simulated=project.is_simulated(wanted.job.provider),
        salt=None if spec.lifecycle.reuse else salt,
        keeps_answers=spec.lifecycle.on_change == "keep",
        forgets_removed=spec.lifecycle.on_remove == "forget" and not is_limited,
        recorded=found,
    )


def removed_jobs(project: Project, recorded: Mapping[str, RecordedJob]) -> tuple[RecordedJob, ...]:
    """Recorded jobs that no spec declares any more, disabled ones and renamed ones not counted."""
    declared = {job.address for job in project.load().jobs}
    moved = {job.spec.moved_from for job in project.load().jobs if job.address not in recorded}
    return tuple(job for address, job in recorded.items() if not job.is_removed and address not in declared | moved)


def job_record(project: Project, wanted: WantedJob, *, is_limited: bool) -> JobRecord:
    """The job as `RecordPlan` writes it: enough to show, and to render again, what was applied."""
    spec = wanted.job.spec
    return JobRecord(
        environment=project.environment,
        address=wanted.address,
        provider=wanted.job.provider,
        is_simulated=wanted.diff.is_simulated,
        render_id=wanted.request.render_id,
        parts=wanted.request.parts,
        spec=recorded_spec(wanted),
        protected=is_protected(wanted.job, wanted.diff.recorded),
        moved_from=spec.moved_from,
        changes=wanted.changes,
        positions=f"digests_{wanted.number}",
        is_limited=is_limited,
    )


def is_protected(job: Job, recorded: RecordedJob | None) -> bool:
    """What the spec says, or what is on record where it says nothing: deleting the key lifts no protection."""
    lifecycle = job.spec.lifecycle
    return lifecycle.protect if "protect" in lifecycle.model_fields_set else bool(recorded and recorded.is_protected)


def recorded_spec(wanted: WantedJob) -> dict[str, Any]:
    """What `jobs.spec` keeps: the resolved template and everything else that shapes a request, and the row keys."""
    job, spec = wanted.job, wanted.job.spec
    template = job.template
    return {
        "query": job.query,
        "key": list(wanted.table.key_columns),
        "key_types": list(wanted.table.key_types),
        "sensitive": list(spec.source.sensitive),
        "nulls": spec.source.nulls,
        "endpoint": spec.endpoint,
        "model": spec.model,
        "template": template
        if isinstance(template, str) or template is None
        else [message.model_dump(mode="json", exclude_none=True) for message in template],
        "body": spec.body,
        "params": spec.params,
        "schema": job.schema,
        "tools": spec.tools,
        "tool_choice": spec.tool_choice,
        "on_remove": spec.lifecycle.on_remove,
        "salt": (wanted.diff.recorded.spec.get("salt") if wanted.diff.recorded else None) or wanted.address,
    }
