"""A plan as the document that `plan --json` prints and a plan file holds, and back.

`format_version` 1.x: keys are added, never changed. Nothing here is for people: `views` renders the same Plan.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from batchops.descriptors import is_descriptor
from batchops.diagnostics import BatchopsError, UsageProblem, diagnostic_document, diagnostic_from_document, error
from batchops.plan.model import Action, BatchAction, Estimate, JobPlan, Plan, Reason, Sample

FORMAT_VERSION = "1.0"
W = TypeVar("W", bound=StrEnum)


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan as plain JSON values; every key of `summary` is present, unknown costs are null."""
    total = plan.cost
    return {
        "format_version": FORMAT_VERSION,
        "plan_id": plan.plan_id,
        "created_at": _timestamp(plan.created_at),
        "project": plan.project,
        "environment": plan.environment,
        "state": {"lineage": plan.lineage, "serial": plan.serial},
        "summary": summary_document(plan),
        "cost": {
            "estimate_usd": {"low": total.low_usd, "high": total.high_usd},
            "reused_usd": plan.reused_usd,
            "limit_usd": plan.limit_usd,
            "unknown_models": list(plan.unknown_models),
        },
        "jobs": [_job_document(job) for job in plan.jobs],
        "drift": [dict(found) for found in plan.drift],
        "policies": [dict(policy) for policy in plan.policies],
        "diagnostics": [diagnostic_document(found) for found in plan.diagnostics],
    }


def summary_document(plan: Plan) -> dict[str, dict[str, int]]:
    """How many rows and batches of each kind, zeros included."""
    return {
        "rows": {str(action): plan.rows(action) for action in Action},
        "batches": {str(action): plan.batches(action) for action in BatchAction},
    }


def empty_summary() -> dict[str, dict[str, int]]:
    """The summary of nothing."""
    return {"rows": {str(action): 0 for action in Action}, "batches": {str(action): 0 for action in BatchAction}}


def _job_document(job: JobPlan) -> dict[str, Any]:
    return {
        "address": job.address,
        "rows": _counts(job.rows),
        "batches": _counts(job.batches),
        "reasons": _counts(job.reasons),
        "cost": {
            "estimate_usd": {"low": job.cost.low_usd, "high": job.cost.high_usd},
            "input_tokens": job.cost.input_tokens,
        },
        "sync": job.sync,
        "health": job.health,
        "diff": job.diff,
        "samples": [
            {
                "key": dict(sample.key),
                "before": None if sample.before is None else dict(sample.before),
                "after": dict(sample.after),
            }
            for sample in job.samples
        ],
        "provider": job.provider,
        "model": job.model,
        "simulated": job.is_simulated,
        "protected": job.is_protected,
        "waves": job.waves,
        "due_at": None if job.due_at is None else _timestamp(job.due_at),
    }


def plan_from_document(document: Mapping[str, Any]) -> Plan:
    """The plan that `plan_document` wrote. Raises BatchopsError (`not_a_plan`) for anything else."""
    _check_format(document)
    try:
        return _plan(document)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise BatchopsError(_not_a_plan(f"Something is missing or of the wrong kind: {problem}.")) from problem


def read_plan_document(path: Path) -> dict[str, Any]:
    """The JSON document of a plan file, of a format version that can be read here."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as problem:
        detail = f'"{path}" cannot be read: {problem.strerror}.'
        raise BatchopsError(error("plan_unreadable", "Plan unreadable.", detail)) from problem
    except ValueError as problem:
        raise BatchopsError(_not_a_plan(f'"{path}" is no JSON.')) from problem
    _check_format(document)
    return dict(document)


def check_plan_path(path: Path) -> None:
    """Raise UsageProblem for the name of an open file, which a saved plan would replace and other output end up in."""
    if path.is_file() and is_descriptor(path):
        detail = f'"{path}" is a file by the number it is open under, and a saved plan takes the place of one. Name it:'
        fix = "batchops plan --out plan.json"
        raise UsageProblem(error("plan_unwritable", "Plan not saved.", detail, fixes=[fix]))


def write_plan_document(document: Mapping[str, Any], path: Path) -> None:
    """Write a plan file; it is whole or not there at all. A link stays one, and so does a pipe or a device."""
    check_plan_path(path)
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, default=str) + "\n"
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, "utf-8")
            return
        place = path.resolve()
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f".{place.name}.new")
        fresh.write_text(text, "utf-8")
        fresh.replace(place)
    except OSError as problem:
        detail = f'"{path}" cannot be written: {problem.strerror}.'
        raise BatchopsError(error("plan_unwritable", "Plan not saved.", detail)) from problem


def _check_format(document: object) -> None:
    version = document.get("format_version") if isinstance(document, Mapping) else None
    if not isinstance(document, Mapping) or not isinstance(version, str) or "plan_id" not in document:
        raise BatchopsError(_not_a_plan("It has no plan_id and format_version."))
    if version.partition(".")[0] != FORMAT_VERSION.partition(".")[0]:
        detail = f"The plan is of format {version}, and this version of batchops reads {FORMAT_VERSION}. Plan again."
        raise BatchopsError(error("plan_format", "Unknown plan format.", detail))


def _not_a_plan(detail: str) -> Any:
    return error("not_a_plan", "Not a plan.", f"{detail} A plan file is made by plan --out FILE.")


def _plan(document: Mapping[str, Any]) -> Plan:
    cost = document["cost"]
    return Plan(
        plan_id=document["plan_id"],
        created_at=datetime.fromisoformat(document["created_at"]),
        project=document["project"],
        environment=document["environment"],
        lineage=document["state"]["lineage"],
        serial=document["state"]["serial"],
        jobs=tuple(_job(job) for job in document["jobs"]),
        limit_usd=cost["limit_usd"],
        reused_usd=cost["reused_usd"],
        unknown_models=tuple(cost["unknown_models"]),
        drift=tuple(document["drift"]),
        policies=tuple(document["policies"]),
        diagnostics=tuple(diagnostic_from_document(found) for found in document["diagnostics"]),
    )


def _job(document: Mapping[str, Any]) -> JobPlan:
    estimate = document["cost"]["estimate_usd"]
    return JobPlan(
        address=document["address"],
        provider=document["provider"],
        model=document["model"],
        is_simulated=document["simulated"],
        is_protected=document["protected"],
        rows=_from_counts(Action, document["rows"]),
        batches=_from_counts(BatchAction, document["batches"]),
        reasons=_from_counts(Reason, document["reasons"]),
        cost=Estimate(estimate["low"], estimate["high"], document["cost"]["input_tokens"]),
        sync=document["sync"],
        health=document["health"],
        diff=document["diff"],
        samples=tuple(_samples(document["samples"])),
        waves=document["waves"],
        due_at=None if document["due_at"] is None else datetime.fromisoformat(document["due_at"]),
    )


def _samples(documents: Iterable[Mapping[str, Any]]) -> Iterable[Sample]:
    for sample in documents:
        yield Sample(key=sample["key"], before=sample["before"], after=sample["after"])


def _counts(counted: Mapping[W, int]) -> dict[str, int]:
    return {str(word): number for word, number in counted.items() if number}


def _from_counts(words: type[W], counted: Mapping[str, int]) -> dict[W, int]:
    return {words(word): number for word, number in counted.items()}


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
