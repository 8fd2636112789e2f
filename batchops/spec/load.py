"""Project files → jobs and diagnostics: discover, validate, read what specs name, check across jobs.

Every problem of every file is found in one run. A key that is wrong is set aside so that the rest of its job is still
checked; the job itself is then not among the loaded ones.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from batchops.diagnostics import BatchopsError, Diagnostic, Location, Position, Severity, error, warning
from batchops.spec.checks import CONTENT, STRUCTURE
from batchops.spec.document import Document, Path
from batchops.spec.files import read_bytes, spec_files
from batchops.spec.job import Job, JobSpec
from batchops.spec.problems import diagnostics_of, path_of
from batchops.spec.read import Context, Draft, Reading
from batchops.spec.select import is_by_state, refuse_empty, select_jobs
from batchops.spec.yaml import parse

__all__ = ["LoadedProject", "is_by_state", "load_project", "refuse_empty", "select_jobs"]


@dataclass(frozen=True)
class LoadedProject:
    """The jobs that can be rendered, and everything that is wrong, sorted by place.

    A job may be among `jobs` and have errors that do not stop it from being rendered, so that more about it can be
    checked; nothing may be planned while `has_errors`.
    """

    jobs: tuple[Job, ...]
    diagnostics: tuple[Diagnostic, ...]

    @property
    def has_errors(self) -> bool:
        return any(found.severity is Severity.ERROR for found in self.diagnostics)

    def valid_jobs(self) -> tuple[Job, ...]:
        """The jobs. Raises BatchopsError with every diagnostic when there is an error."""
        if self.has_errors:
            raise BatchopsError(*self.diagnostics)
        return self.jobs


def load_project(root: FilePath, *, default_provider: str, providers: Collection[str]) -> LoadedProject:
    """Read every spec under jobs/. Never raises for what users wrote."""
    context = Context(root, default_provider, frozenset(providers))
    files, found = spec_files(root)
    problems = list(found)
    drafts: list[Draft] = []
    jobs: list[Job] = []
    for filename in files:
        documents, text_problems = _documents(root, filename)
        problems += text_problems
        for document in documents:
            draft, draft_problems = _draft(document)
            job, job_problems = _job(draft, context)
            drafts.append(draft)
            problems += [*draft_problems, *job_problems]
            jobs += [] if job is None else [job]
    problems += _check_names(drafts)
    if not files and not problems:
        problems.append(warning("no_jobs", "No jobs.", "jobs/ has no *.yaml file. `batchops init` makes a first one."))
    return LoadedProject(tuple(jobs), _sorted(problems))


def _documents(root: FilePath, filename: str) -> tuple[list[Document], list[Diagnostic]]:
    try:
        parsed = parse(read_bytes(root, filename), filename)
    except BatchopsError as problem:
        return [], [found.at(Location(filename, Position(1, 1))) for found in problem.diagnostics]
    documents = [document for document in parsed.documents if document.tree not in (None, {})]
    problems = list(parsed.diagnostics)
    if not documents and not problems:
        place = Location(filename, Position(1, 1))
        problems.append(warning("empty_file", "The file declares no job.", "It has no keys.", location=place))
    return documents, problems


def _draft(document: Document) -> tuple[Draft, list[Diagnostic]]:
    if not isinstance(document.tree, dict):
        place = document.location(())
        detail = 'A job is a mapping with "name", "source", "model" and more.'
        return Draft(document, None), [error("wrong_type", "Wrong type.", detail).at(place, document.snippet(place))]
    try:
        return Draft(document, JobSpec.model_validate(document.tree, by_alias=True, by_name=False)), []
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
        problems = [replace(p, address=Draft(document, None).name) for p in diagnostics_of(errors, document)]
        doubtful = frozenset(path_of(entry["loc"], document.tree) for entry in errors)
        return Draft(document, _salvage(document.tree, doubtful), doubtful), problems


_PLACEHOLDERS: Mapping[str, Any] = {
    "name": "unnamed",
    "model": "unnamed",
    "source": {"query": "SELECT 1 AS key", "key": "key"},
}


def _salvage(tree: Mapping[str, Any], doubtful: Iterable[Path]) -> JobSpec | None:
    """The job without the values that are wrong; None when nothing sensible is left."""
    rest = copy.deepcopy(dict(tree))
    for path in sorted(doubtful, key=len, reverse=True):
        whole = path[: next((n for n, step in enumerate(path) if isinstance(step, int)), len(path))]
        parent: Any = rest
        for step in whole[:-1]:
            parent = parent.get(step) if isinstance(parent, dict) else None
        if isinstance(parent, dict) and whole:
            parent.pop(whole[-1], None)
    rest = {**_PLACEHOLDERS, **rest}
    if isinstance(rest["source"], dict):
        rest["source"].setdefault("key", "key")
    try:
        return JobSpec.model_validate(rest, by_alias=True, by_name=False)
    except ValidationError:
        return None


def _job(draft: Draft, context: Context) -> tuple[Job | None, list[Diagnostic]]:
    """The job, unless something about its structure is wrong, and the problems of its values and files."""
    if draft.spec is None:
        return None, []
    reading = Reading(draft, draft.spec, context)
    for check in STRUCTURE:
        reading.fatal += check(draft.spec)
    job = reading.job()
    for check in CONTENT:
        reading.other += check(draft.spec)
    reading.check_tools()
    reading.other += reading.provider_problems()
    placed = [placed for f in (*reading.fatal, *reading.other) if (placed := draft.place(f)) is not None]
    is_whole = not reading.fatal and not reading.unread and not draft.doubtful
    return (job if is_whole else None), [*placed, *reading.unread, *reading.elsewhere]


def _check_names(drafts: Iterable[Draft]) -> Iterator[Diagnostic]:
    """Names are unique in the project, and a former name is neither in use nor claimed twice."""
    names: dict[str, Draft] = {}
    named = [(draft, draft.name) for draft in drafts if draft.name is not None]
    for draft, name in named:
        first = names.setdefault(name, draft)
        if first is not draft:
            detail = f'"{name}" is the name of the job at {_spot(first, "name")} already.'
            yield _at(draft, error("duplicate_name", "Duplicate job name.", detail), ("name",))
    claims: dict[str, Draft] = {}
    for draft, _ in named:
        former = draft.document.tree.get("moved_from")
        if isinstance(former, str):
            first = claims.setdefault(former, draft)
            if former in names:
                why = f'"{former}" is the name of the job at {_spot(names[former], "name")}'
                yield _at(draft, _clash(why), ("moved_from",))
            elif first is not draft:
                why = f'"{former}" is claimed at {_spot(first, "moved_from")} already'
                yield _at(draft, _clash(why), ("moved_from",))


def _clash(why: str) -> Diagnostic:
    detail = f"{why}; its answers can go to one job only."
    return error("moved_from_clash", "The former name is taken.", detail)


def _at(draft: Draft, diagnostic: Diagnostic, path: Path) -> Diagnostic:
    location = draft.document.location(path)
    return replace(diagnostic.at(location, draft.document.snippet(location)), address=draft.name)


def _spot(draft: Draft, key: str) -> str:
    location = draft.document.location((key,))
    return f"{location.filename}:{location.start.line}"


def _sorted(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """By place; what several jobs share, such as a schema file or an anchor, is said once."""
    once: dict[Any, Diagnostic] = {}
    for found in diagnostics:
        once.setdefault((found.place, found.severity, found.detail), found)
    return tuple(sorted(once.values(), key=lambda found: (found.place, found.detail)))
