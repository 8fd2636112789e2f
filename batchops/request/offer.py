"""What a job asks of its provider, against the provider's profile: endpoint, window, expiry. Pure; never connects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from batchops.diagnostics import Diagnostic, error
from batchops.profiles import Profile, profile_of
from batchops.settings import Settings
from batchops.spec.job import Job
from batchops.units import format_duration


def check_offers(jobs: Iterable[Job], settings: Settings, environ: Mapping[str, str]) -> tuple[Diagnostic, ...]:
    """A diagnostic for everything a job asks that its provider is known not to offer."""
    return tuple(
        found
        for job in jobs
        if job.provider in settings.providers
        for found in _check(job, profile_of(settings.providers[job.provider], environ))
    )


def _check(job: Job, profile: Profile) -> Iterator[Diagnostic]:
    batch = job.spec.batch
    if job.spec.endpoint not in profile.endpoints:
        offered = ", ".join(profile.endpoints)
        yield _refused(job, profile, "endpoint", said=f"batches of {job.spec.endpoint}", offered=offered)
    if not profile.offers_window(batch.completion_window):
        said = f"a window of {batch.completion_window}"
        yield _refused(job, profile, "batch", "completion_window", said=said, offered=profile.shown_windows)
    if batch.output_expires_after is None:
        return
    if profile.output_expiry_seconds is None:
        said = '"output_expires_after"'
        yield _refused(job, profile, "batch", "output_expires_after", said=said, offered="no expiry of answers")
        return
    least, most = (_days(seconds) for seconds in profile.output_expiry_seconds)
    if batch.output_expires_after.total_seconds() < profile.output_expiry_seconds[0]:  # none takes more than 30d
        said = f"an expiry of {format_duration(batch.output_expires_after)}"
        yield _refused(job, profile, "batch", "output_expires_after", said=said, offered=f"{least} to {most}")


def _days(seconds: int) -> str:
    return f"{seconds // 86_400}d" if seconds % 86_400 == 0 else f"{seconds // 3_600}h"


def _refused(job: Job, profile: Profile, *path: str, said: str, offered: str) -> Diagnostic:
    return error(
        "not_offered",
        "Not offered by the provider.",
        f'Provider "{job.provider}" (profile {profile.name}) does not offer {said}. It offers {offered}.',
        location=job.location(*path),
        address=job.address,
    )
