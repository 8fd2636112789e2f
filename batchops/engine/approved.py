"""A job as the state keeps it once it was approved, and whether the state keeps it already."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import orjson

from batchops.engine.gather import Gathered
from batchops.engine.planning import is_protected, recorded_spec
from batchops.engine.project import Project
from batchops.engine.sources import WantedJob
from batchops.store.job_changes import JobRecord, left_sql


def job_record(project: Project, wanted: WantedJob, *, is_limited: bool, left: str | None = None) -> JobRecord:
    """The job as `RecordPlan` writes it: enough to show, and to render again, what was applied.

    `left` names a relation of rows that have left the source, see `JobRecord`.
    """
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
        desired=wanted.diff.desired,
        is_limited=is_limited,
        left=left,
    )


def is_on_record(gathered: Gathered, records: Sequence[JobRecord]) -> bool:
    """Whether state already says all this: recording a plan that changes nothing would only raise its serial."""
    with gathered.project.reader.reading(gathered.con):
        return all(
            _is_on_record(gathered.con, wanted, record) for wanted, record in zip(gathered.jobs, records, strict=True)
        )


def _is_on_record(con: duckdb.DuckDBPyConnection, wanted: WantedJob, record: JobRecord) -> bool:
    row = con.execute(
        "SELECT address, provider, is_simulated, render_id, parts, spec, protected FROM state.jobs"
        " WHERE job_id = ? AND removed_at IS NULL",
        [wanted.diff.job_id],
    ).fetchone()
    said = (record.address, record.provider, record.is_simulated, record.render_id)
    if row is None or row[:4] != said or row[6] != record.protected:
        return False
    if orjson.loads(row[4]) != record.parts or orjson.loads(row[5]) != orjson.loads(orjson.dumps(record.spec)):
        return False
    is_wanted = f"key IN (SELECT key FROM {record.desired})"
    misplaced = f"removed_at IS NOT NULL AND {is_wanted}"
    if (has_left := left_sql(record, is_wanted)) is not None:
        misplaced += f" OR removed_at IS NULL AND {has_left}"
    moved = con.execute(
        f"""SELECT (SELECT count(*) FROM {wanted.changes} WHERE moves)
                 + (SELECT count(*) FROM state.rows WHERE job_id = ? AND ({misplaced}))""",
        [wanted.diff.job_id],
    ).fetchone()
    return moved == (0,)
