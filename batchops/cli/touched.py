"""Which jobs a changed file touches. Pure: paths and jobs in, addresses out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchops.spec.job import Job

SETTINGS = frozenset({"batchops.toml", "pyproject.toml", ".env"})
_QUOTED = re.compile(r"'((?:[^']|'')*)'|\"([^\"]*)\"|\$\$(.*?)\$\$", re.DOTALL)
_TEMPORARY = re.compile(r"(~|\.sw[a-z]|\.tmp|\.new|\.part)$|^(4913|#.*#|\.#.*)$")


def is_watched(path: PurePosixPath, state_folder: PurePosixPath) -> bool:
    """Whether a change of `path`, relative to the root, can mean anything to the project.

    Not what batchops or an editor writes for itself, and nothing in dot folders: a query cannot read those either.
    """
    if path.name in SETTINGS and len(path.parts) == 1:
        return True
    if any(part.startswith(".") or part == "__pycache__" for part in path.parts) or _TEMPORARY.search(path.name):
        return False
    return not path.is_relative_to(state_folder)


def touched(changed: Collection[PurePosixPath], jobs: Iterable[Job], known: Iterable[Job]) -> frozenset[str] | None:
    """The addresses of the jobs that `changed` touches; None when it may be all of them.

    `jobs` are declared now, `known` were before: a spec file that declares nothing any more touches every job, since a
    removed job is noticed only by a plan of the whole project.
    """
    if any(str(path) in SETTINGS for path in changed):
        return None
    now = list(jobs)
    declaring = {name for job in now for name in job.paths[:1]}
    gone = {name for job in known for name in job.paths[:1]} - declaring
    if any(str(path) in gone for path in changed):
        return None
    return frozenset(job.address for job in now if any(_reads(job, path) for path in changed))


def _reads(job: Job, path: PurePosixPath) -> bool:
    return str(path) in job.paths or any(_names(text, path) for text in _literals(job.query))


def _literals(query: str) -> Iterable[str]:
    """The quoted texts of a query: the files it reads are among them."""
    for match in _QUOTED.finditer(query):
        yield next(group for group in match.groups() if group is not None).replace("''", "'")


def _names(text: str, path: PurePosixPath) -> bool:
    """Whether `text` is the path, a pattern that matches it, or a folder above it."""
    if not text or "\n" in text:
        return False
    plain = text.removeprefix("./").rstrip("/")
    return fnmatchcase(str(path), plain) or str(path).startswith(f"{plain}/")
