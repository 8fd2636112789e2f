"""The jobs that state knows, as the readers of this room see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import orjson

from batchops.diagnostics import UsageProblem, did_you_mean, error
from batchops.plan.keys import WHOLE_NUMBERS

if TYPE_CHECKING:
    from batchops.spec.job import Job

_NOBODY = 2**32 - 1
"""A job number that no recorded job has."""

_FREE = (False, None, False)


@dataclass(frozen=True)
class RecordedJob:
    """A job as it was applied last. `spec` and `parts` are the JSON that apply recorded."""

    job_id: int
    environment: str
    address: str
    provider: str
    is_simulated: bool
    render_id: str | None
    parts: Mapping[str, str]
    spec: Mapping[str, Any]
    is_protected: bool
    held: str | None
    is_removed: bool

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns that name a row; `key` where the spec does not say."""
        return tuple(self.spec.get("key") or ("key",))

    @property
    def key_types(self) -> tuple[str, ...]:
        """DuckDB types of the key columns; VARCHAR where they are not known."""
        types = self.spec.get("key_types") or ()
        return tuple(types[i] if i < len(types) else "VARCHAR" for i in range(len(self.key_columns)))

    @property
    def integer_keys(self) -> tuple[bool, ...]:
        """Which key columns are numbers; every other type is shown in its text form."""
        return tuple(name in WHOLE_NUMBERS for name in self.key_types)

    @property
    def endpoint(self) -> str:
        return str(self.spec.get("endpoint") or "/v1/chat/completions")

    @property
    def model(self) -> str | None:
        return self.spec.get("model")

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """The answer's JSON Schema, if there is one."""
        found = self.spec.get("schema")
        return found if isinstance(found, dict) else None


def recorded_jobs(con: duckdb.DuckDBPyConnection) -> tuple[RecordedJob, ...]:
    """All jobs of a snapshot, sorted by address; where an address was removed and came back, the present one."""
    found = con.execute(
        """
        SELECT job_id, environment, address, provider, coalesce(is_simulated, false), render_id::VARCHAR,
               parts::VARCHAR, spec::VARCHAR, coalesce(protected, false), held, removed_at IS NOT NULL
        FROM jobs ORDER BY address, removed_at IS NULL, job_id
        """
    ).fetchall()
    jobs = (_recorded(*row) for row in found)
    return tuple({job.address: job for job in jobs}.values())


def _recorded(
    job_id: int,
    environment: str,
    address: str,
    provider: str,
    *rest: Any,
) -> RecordedJob:
    is_simulated, render_id, parts, spec, is_protected, held, is_removed = rest
    return RecordedJob(
        job_id=job_id,
        environment=environment,
        address=address,
        provider=provider,
        is_simulated=is_simulated,
        render_id=render_id,
        parts=orjson.loads(parts or "{}") or {},
        spec=orjson.loads(spec or "{}") or {},
        is_protected=is_protected,
        held=held,
        is_removed=is_removed,
    )


def declared_job(job: Job, environment: str) -> RecordedJob:
    """A job that its spec declares and that was never applied, as if it were recorded without rows."""
    spec = {
        "key": list(job.spec.source.key),
        "endpoint": job.spec.endpoint,
        "model": job.spec.model,
        "schema": job.schema,
    }
    return _recorded(_NOBODY, environment, job.address, job.provider, False, None, None, orjson.dumps(spec), *_FREE)


def unknown_job(address: str, known: Iterable[str], *, has_unreadable: bool = False) -> UsageProblem:
    """What to say when neither state nor project knows a job, as far as its specs can be read."""
    names = sorted(set(known))
    hint = did_you_mean(address, names) or (f" Known jobs: {', '.join(names[:10])}." if names else "")
    hint += " Some specs cannot be read: batchops validate" if has_unreadable else ""
    return UsageProblem(error("unknown_job", "Unknown job.", f'No job is called "{address}".{hint}'))
