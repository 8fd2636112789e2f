"""Assemble a `Plan` from what was gathered and what was seen at the providers."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from batchops.diagnostics import Diagnostic
from batchops.engine.gather import Gathered
from batchops.engine.look import Sighting, problems_of
from batchops.engine.project import Project
from batchops.engine.samples import sample_rows
from batchops.engine.sources import WantedJob
from batchops.plan.build import JobFacts, build_job
from batchops.plan.diff import RecordedJob
from batchops.plan.estimate import ShardLimits
from batchops.plan.model import Action, BatchAction, Estimate, JobPlan, Plan, Reason, Sample
from batchops.plan.prices import Price, price
from batchops.request.endpoints import ENDPOINTS
from batchops.spec.job import Job

_OUTPUT_ENDPOINTS = {"/v1/chat/completions", "/v1/responses", "/v1/completions"}


def shard_limits(project: Project, job: Job) -> ShardLimits:
    """The provider's limits for this job's model, known without connecting."""
    settings = project.provider_settings(job.provider)
    profile = project.profile(job.provider)
    model = settings.models.get(job.spec.model)
    return ShardLimits(
        max_requests=min(profile.max_requests, job.spec.batch.max_requests),
        max_bytes=min(profile.max_bytes, job.spec.batch.max_bytes),
        max_inputs=profile.max_embedding_inputs,
        max_tokens=model.max_enqueued_tokens if model else None,
    )


def assemble(gathered: Gathered, sightings: Sequence[Sighting], *, samples: int) -> Plan:
    """The plan of everything gathered; `samples` rows of each job are rendered to be shown."""
    project = gathered.project
    identity = project.reader.identity()
    batches = _batches_by_job(sightings)
    shown, asked = sample_rows(gathered, samples), _asked_before(gathered)
    jobs: list[JobPlan | None] = [
        _job_plan(
            gathered,
            wanted,
            batches.pop(wanted.address, {}),
            samples=shown.get(wanted.address, ()),
            besides=asked.get(wanted.address),
        )
        for wanted in gathered.jobs
    ]
    removed = {job.address: job for job in gathered.removed}
    for address in sorted(set(batches) | set(removed)):
        jobs.append(_removed_plan(project, address, removed.get(address), batches.get(address, {}), sightings))
    return Plan(
        plan_id=str(uuid.uuid4()),
        created_at=project.clock(),
        project=project.name,
        environment=project.environment,
        lineage=identity.lineage,
        serial=identity.serial,
        jobs=tuple(job for job in jobs if job is not None),
        limit_usd=project.settings.budget.max_cost_usd,
        reused_usd=_reused_usd(gathered),
        unknown_models=tuple(sorted({job.model for job in jobs if job is not None and job.cost.low_usd is None})),
        drift=_drift(sightings),
        diagnostics=tuple(_diagnostics(gathered, sightings)),
    )


def _asked_before(gathered: Gathered) -> dict[str, str]:
    """By address, a relation (digest, round) of requests that a job before this one in the plan asks and pays.

    At one price alone: where the first is held up, the second pays. Of two providers each counts all of its requests.
    """
    kinds: dict[tuple[str, str, str], list[WantedJob]] = {}
    for wanted in gathered.jobs:  # of another endpoint or model, no two requests are the same
        job = wanted.job
        kinds.setdefault((job.provider, job.spec.endpoint, job.spec.model), []).append(wanted)
    found: dict[str, str] = {}
    for jobs in kinds.values():
        if len(jobs) == 1:
            continue
        shared = f"shared_{jobs[0].number}"
        paid = "action IN ('submit', 'resubmit', 'retry')"
        asked = " UNION ALL ".join(
            f"SELECT digest, round, {job.number} AS job FROM {job.changes} WHERE {paid}" for job in jobs
        )
        gathered.con.execute(
            f"CREATE OR REPLACE TABLE {shared} AS SELECT digest, round, min(job) AS first FROM ({asked})"
            " GROUP BY ALL HAVING min(job) < max(job)"
        )
        found |= {job.address: f"(SELECT digest, round FROM {shared} WHERE first < {job.number})" for job in jobs[1:]}
    return found


def _batches_by_job(sightings: Sequence[Sighting]) -> dict[str, Counter[BatchAction]]:
    found: dict[str, Counter[BatchAction]] = {}
    for sighting in sightings:
        found.setdefault(sighting.submission.address, Counter())[sighting.action] += 1
    return found


def _job_plan(
    gathered: Gathered,
    wanted: WantedJob,
    batches: Mapping[BatchAction, int],
    *,
    samples: tuple[Sample, ...],
    besides: str | None,
) -> JobPlan:
    project, job = gathered.project, wanted.job
    recorded = wanted.diff.recorded
    facts = JobFacts(
        address=wanted.address,
        provider=job.provider,
        model=job.spec.model,
        is_simulated=wanted.diff.is_simulated,
        changes=wanted.changes,
        settled=wanted.diff.settled,
        recorded=recorded,
        is_protected=is_protected(job, recorded),
        limits=shard_limits(project, job),
        rate=partial(_rate, project, job),
        has_output=job.spec.endpoint in _OUTPUT_ENDPOINTS,
        typical_output_tokens=_typical_output_tokens(project, recorded),
        max_failed=job.spec.retry.max_failed,
        batches=batches,
        spec=recorded_spec(wanted),
        samples=samples,
        besides=besides,
    )
    return build_job(gathered.con, facts, project.clock())


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


def _rate(project: Project, job: Job, amendment: str | None) -> tuple[Price | None, int | None]:
    """The price and the output cap of requests that go with an amendment; see engine/retry.py."""
    changes: dict[str, Any] = orjson.loads(amendment) if amendment else {}
    name = str(changes.get("model") or job.spec.model)
    model = project.provider_settings(job.provider).models.get(name)
    given: dict[str, Any] = {**(job.spec.body or {}), **job.spec.params, **changes.get("set", {})}
    caps = [given[key] for key in ENDPOINTS[job.spec.endpoint].caps if isinstance(given.get(key), int)]
    return price(name, model.price if model else None), min(caps, default=None)


def _typical_output_tokens(project: Project, recorded: RecordedJob | None) -> float | None:
    """The mean length of this job's answers so far, in tokens."""
    if recorded is None:
        return None
    rows = project.reader.rows(
        """SELECT avg(o.output_tokens) AS tokens FROM state.outcomes o JOIN state.submissions s USING (submission_id)
           WHERE s.job_id = ? AND o.outcome = 0""",
        [recorded.job_id],
    )
    return rows[0]["tokens"] if rows else None


def _removed_plan(
    project: Project,
    address: str,
    recorded: RecordedJob | None,
    batches: Mapping[BatchAction, int],
    sightings: Sequence[Sighting],
) -> JobPlan | None:
    """A job that no spec declares: its batches are still fetched, its rows forgotten if it said so."""
    forgets = recorded is not None and recorded.spec.get("on_remove") == "forget"
    rows = {Action.FORGET: _row_count(project, recorded)} if recorded is not None and forgets else {}
    if not rows and not batches:
        return None
    found = [s.submission for s in sightings if s.submission.address == address]
    return JobPlan(
        address=address,
        provider=recorded.provider if recorded else found[0].provider,
        model=str(recorded.spec.get("model")) if recorded else found[0].model,
        is_simulated=recorded.is_simulated if recorded else project.is_simulated(found[0].provider),
        rows=rows,
        batches={action: batches[action] for action in BatchAction if batches.get(action)},
        reasons={Reason.ROW_REMOVED: rows[Action.FORGET]} if rows else {},
        cost=Estimate(),
        sync="OutOfSync" if rows else "Synced",
        health="Progressing" if batches else "Healthy",
    )


def _row_count(project: Project, recorded: RecordedJob) -> int:
    found = project.reader.rows("SELECT count(*) AS n FROM state.rows WHERE job_id = ?", [recorded.job_id])
    return int(found[0]["n"])


def _reused_usd(gathered: Gathered) -> float | None:
    """What the answers that are reused cost when they were paid; None where one of them has no known price."""
    if not gathered.jobs:
        return 0.0
    reused = " UNION ".join(
        f"SELECT DISTINCT digest, round FROM {wanted.changes} WHERE action = 'reuse'" for wanted in gathered.jobs
    )
    with gathered.project.reader.reading(gathered.con):
        row = gathered.con.execute(
            f"""SELECT count(*), count(o.cost_nano_usd), coalesce(sum(o.cost_nano_usd), 0)
                FROM ({reused}) r JOIN state.requests q USING (digest, round)
                JOIN state.outcomes o ON o.submission_id = q.submission_id AND o.line = q.line"""
        ).fetchone()
    assert row is not None
    return float(row[2]) / 1e9 if row[0] == row[1] else None


def _drift(sightings: Sequence[Sighting]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "kind": "batch_not_visible",
            "address": sighting.submission.address,
            "batch_id": sighting.submission.batch_id,
            "status": sighting.problem.status if sighting.problem else None,
        }
        for sighting in sightings
        if sighting.is_gone
    )


def _diagnostics(gathered: Gathered, sightings: Sequence[Sighting]) -> list[Diagnostic]:
    return [*gathered.project.loaded.warnings, *gathered.diagnostics, *problems_of(sightings)]
