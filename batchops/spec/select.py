"""Which jobs `--select` and `--exclude` name."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable

from batchops.diagnostics import UsageProblem, did_you_mean, error
from batchops.spec.job import Job

_METHODS = ("tag", "path", "state")


def select_jobs(
    jobs: Iterable[Job], select: Collection[str], exclude: Collection[str], *, modified: Collection[str] = ()
) -> tuple[Job, ...]:
    """The jobs that any of `select` names (all, when there is none) and none of `exclude` does; order kept.

    A selector is a name or address, a glob of one, `tag:x`, `path:…` (a file the job depends on, a folder, or a glob)
    or `state:modified`, which are the addresses in `modified`. Raises UsageProblem for a name that no job has and for
    an unknown method; a glob, tag, path or state may match nothing.
    """
    known = tuple(jobs)
    for selector in (*select, *exclude):
        _check(selector, known)
    return tuple(
        job
        for job in known
        if (not select or any(_matches(job, selector, modified) for selector in select))
        and not any(_matches(job, selector, modified) for selector in exclude)
    )


def is_by_state(selectors: Iterable[str]) -> bool:
    """Whether a selector asks for what the state knows."""
    return any(selector.startswith("state:") for selector in selectors)


def refuse_empty(jobs: Iterable[Job], select: Collection[str]) -> None:
    """Raises UsageProblem when `select` matches none of `jobs`: a slip, unless it asks for the state of jobs."""
    known = tuple(jobs)
    if select and not is_by_state(select) and not select_jobs(known, select, ()):
        names = ", ".join(job.address for job in known) or "none"
        detail = f"--select {' '.join(select)} matches none of: {names}."
        raise UsageProblem(error("nothing_selected", "No job matches.", detail))


def _check(selector: str, jobs: tuple[Job, ...]) -> None:
    method, colon, value = selector.partition(":")
    if colon:
        if method not in _METHODS or not value or (method == "state" and value != "modified"):
            detail = f'"{selector}" is none of NAME, GLOB, tag:x, path:…, state:modified.'
            raise UsageProblem(error("unknown_selector", "Unknown selector.", detail))
    elif not _is_glob(selector) and not any(selector in {job.name, job.address} for job in jobs):
        names = [job.address for job in jobs]
        detail = f'No job is named "{selector}".{did_you_mean(selector, names)}'
        raise UsageProblem(error("unknown_job", "Unknown job.", detail))


def _matches(job: Job, selector: str, modified: Collection[str]) -> bool:
    method, colon, value = selector.partition(":")
    match method if colon else "":
        case "tag":
            return any(fnmatch.fnmatchcase(tag, value) for tag in job.spec.tags)
        case "path":
            return any(_is_under(path, value) for path in job.paths)
        case "state":
            return job.address in modified
        case _:
            return selector in {job.name, job.address} or fnmatch.fnmatchcase(job.name, selector)


def _is_glob(selector: str) -> bool:
    return any(sign in selector for sign in "*?")


def _is_under(path: str, wanted: str) -> bool:
    folder = wanted.removeprefix("./").rstrip("/")
    return path == folder or path.startswith(f"{folder}/") or fnmatch.fnmatchcase(path, folder)
