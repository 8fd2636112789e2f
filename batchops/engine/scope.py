"""Which jobs a command is about, how many of their rows, and which of them to pay for again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from batchops.diagnostics import BatchopsError, Diagnostic, UsageProblem, did_you_mean, error
from batchops.engine.project import Project
from batchops.engine.recorded import modified_jobs, read_recorded
from batchops.spec.job import Job


@dataclass(frozen=True)
class Scope:
    """What the flags chose. `replace` holds addresses, `job` or `job@key`; `allowed` the jobs that may do more."""

    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit: int | None = None
    replace: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        return not self.select and not self.exclude

    def jobs(self, project: Project) -> tuple[Job, ...]:
        """The enabled jobs in scope. A project that never had a job is a mistake, not an empty plan."""
        jobs = project.jobs(select=self.select, exclude=self.exclude, modified=partial(modified_jobs, project))
        if not jobs and not project.load().jobs and not project.reader.exists:
            raise BatchopsError(
                error("no_jobs", "No jobs.", "No YAML file in jobs/ declares one. Start with:",
                      fixes=["batchops init"])
            )  # fmt: skip
        return jobs

    def check_allowed(self, project: Project) -> None:
        """A leave that is given to no job is a slip. Raises UsageProblem; jobs that were removed count too."""
        if not self.allowed:
            return
        known = [*(job.address for job in project.load().jobs), *(job.address for job in read_recorded(project))]
        unknown = [address for address in self.allowed if address not in known]
        if unknown:
            raise UsageProblem(*(_unknown_job(address, known) for address in unknown))

    def addresses(self, jobs: Sequence[Job]) -> Collection[str] | None:
        """The addresses whose batches count; None means all, those of removed jobs too."""
        return None if self.is_whole else {job.address for job in jobs}

    def replaced(self, jobs: Sequence[Job]) -> dict[str, set[str] | None]:
        """Keys to pay for again by job; None means every row of the job."""
        known = [job.address for job in jobs]
        replaced: dict[str, set[str] | None] = {}
        for address in self.replace:
            name, has_key, key = address.partition("@")
            if name not in known:
                raise UsageProblem(_unknown_job(name, known))
            keys = replaced.setdefault(name, set() if has_key else None)
            if not has_key:
                replaced[name] = None
            elif keys is not None:
                keys.add(key)
        return replaced


def _unknown_job(name: str, known: Collection[str]) -> Diagnostic:
    return error("unknown_job", "Unknown job.", f'There is no job "{name}" here.{did_you_mean(name, known)}')
