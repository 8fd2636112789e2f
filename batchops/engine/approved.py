"""A job as the state keeps it once it was approved."""

from __future__ import annotations

from typing import Any

from batchops.engine.project import Project
from batchops.engine.sources import WantedJob
from batchops.plan.diff import RecordedJob
from batchops.spec.job import Job
from batchops.store.job_changes import JobRecord


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
        "reuse": sorted({spec.lifecycle.reuse} | (wanted.diff.recorded.reuse if wanted.diff.recorded else set())),
        "salt": (wanted.diff.recorded.spec.get("salt") if wanted.diff.recorded else None) or wanted.address,
    }
