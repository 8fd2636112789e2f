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
from batchops.spec.checks import CONTENT, STRUCTURE, function_of, not_supported, reads_results
from batchops.spec.files import read_bytes, read_text, spec_files
from batchops.spec.job import FileText, Job, JobSpec, Message, Rule, Template
from batchops.spec.models import is_fine_tuned
from batchops.spec.params import Finding
from batchops.spec.problems import diagnostics_of, path_of
from batchops.spec.schemas import BadSchemaFile, WrittenSchema, check_schema, read_schema
from batchops.spec.select import select_jobs
from batchops.spec.yaml import Document, Path, parse

__all__ = ["LoadedProject", "load_project", "select_jobs"]


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


@dataclass(frozen=True)
class _Context:
    root: FilePath
    default_provider: str
    providers: frozenset[str]


@dataclass(frozen=True)
class _Draft:
    """A document on its way to a job. `spec` has set-aside values replaced; `doubtful` are their paths."""

    document: Document
    spec: JobSpec | None
    doubtful: frozenset[Path] = frozenset()

    @property
    def name(self) -> str | None:
        name = self.document.tree.get("name") if isinstance(self.document.tree, dict) else None
        return name if isinstance(name, str) else None

    def place(self, finding: Finding) -> Diagnostic | None:
        """The diagnostic at its place; None when it rests on a value that was set aside."""
        if any(_touch(path, doubt) for path in (finding.path, *finding.depends) for doubt in self.doubtful):
            return None
        document = self.document
        location = document.key_location(finding.path) if finding.at_key else document.location(finding.path)
        return replace(finding.diagnostic.at(location, document.snippet(location)), address=self.name)


def load_project(root: FilePath, *, default_provider: str, providers: Collection[str]) -> LoadedProject:
    """Read every spec under jobs/. Never raises for what users wrote."""
    context = _Context(root, default_provider, frozenset(providers))
    files, found = spec_files(root)
    problems = list(found)
    drafts: list[_Draft] = []
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


def _draft(document: Document) -> tuple[_Draft, list[Diagnostic]]:
    if not isinstance(document.tree, dict):
        place = document.location(())
        detail = 'A job is a mapping with "name", "source", "model" and more.'
        return _Draft(document, None), [error("wrong_type", "Wrong type.", detail).at(place, document.snippet(place))]
    try:
        return _Draft(document, JobSpec.model_validate(document.tree, by_alias=True, by_name=False)), []
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
        problems = [replace(p, address=_Draft(document, None).name) for p in diagnostics_of(errors, document)]
        doubtful = frozenset(path_of(entry["loc"], document.tree) for entry in errors)
        return _Draft(document, _salvage(document.tree, doubtful), doubtful), problems


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


def _touch(one: Path, other: Path) -> bool:
    shorter = min(len(one), len(other))
    return bool(shorter) and one[:shorter] == other[:shorter]


def _job(draft: _Draft, context: _Context) -> tuple[Job | None, list[Diagnostic]]:
    """The job, unless something about its structure is wrong, and the problems of its values and files."""
    if draft.spec is None:
        return None, []
    reading = _Reading(draft, draft.spec, context)
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


class _Reading:
    """One job's files being read. `fatal` and `unread` problems leave it without what rendering needs."""

    def __init__(self, draft: _Draft, spec: JobSpec, context: _Context) -> None:
        self.fatal: list[Finding] = []
        self.other: list[Finding] = []
        self.unread: list[Diagnostic] = []
        self.elsewhere: list[Diagnostic] = []
        self._draft = draft
        self._spec = spec
        self._context = context
        self._paths = [draft.document.filename]
        self._texts = dict(draft.document.texts)

    def job(self) -> Job:
        """The job with every file read; empty where one could not be."""
        query = self._query()
        template = self._template(self._spec.template, ("template",))
        rules = tuple(self._rule(rule, index) for index, rule in enumerate(self._spec.retry.rules))
        schema = self._schema()
        spec = self._spec
        if rules != spec.retry.rules:
            spec = spec.model_copy(update={"retry": spec.retry.model_copy(update={"rules": rules})})
        return Job(
            spec=spec,
            address=spec.name,
            provider=spec.provider or self._context.default_provider,
            query=query,
            template=template,
            schema=schema,
            paths=tuple(dict.fromkeys(self._paths)),
            locations=self._draft.document.values,
            texts=self._texts,
        )

    def provider_problems(self) -> Iterator[Finding]:
        name = self._spec.provider or self._context.default_provider
        if name not in self._context.providers:
            known = ", ".join(sorted(self._context.providers))
            source = "" if self._spec.provider else " It is the project's default."
            detail = f'"{name}" is none of the providers: {known}.{source}'
            path: Path = ("provider",) if self._spec.provider else ()
            yield Finding(error("unknown_provider", "Unknown provider.", detail), path)

    def _query(self) -> str:
        source = self._spec.source
        path: Path = ("source", "query")
        text = source.query or ""
        if source.file is not None:
            path = ("source", "file")
            text = self._read(source.file, path, into=("source", "query"))
            if not text.strip() and not self.unread:
                found = error("query_choice", "One query is needed.", f'"{source.file}" is empty.')
                self.fatal.append(Finding(found, path))
        if reads_results(text):
            self.fatal.append(not_supported("Reading the answers of another job (results.…)", path))
        return text

    def _template(self, template: Template | None, path: Path) -> str | tuple[Message, ...] | None:
        if isinstance(template, FileText):
            return self._read(template.file, (*path, "file"), into=path)
        if isinstance(template, tuple):
            return tuple(self._message(message, (*path, index)) for index, message in enumerate(template))
        return template

    def _message(self, message: Message, path: Path) -> Message:
        if not isinstance(message.content, FileText):
            return message
        text = self._read(message.content.file, (*path, "content", "file"), into=(*path, "content"))
        return message.model_copy(update={"content": text})

    def _rule(self, rule: Rule, index: int) -> Rule:
        template = self._template(rule.template, ("retry", "rules", index, "template"))
        return rule if template == rule.template else rule.model_copy(update={"template": template})

    def _schema(self) -> Mapping[str, Any] | None:
        written = self._spec.schema_
        if isinstance(written, str):
            text = self._read(written, ("schema",))
            return self._schema_file(text, written) if text else None
        if written is not None:
            self._check_schema(self._written(written, ("schema",)), strict=True)
        return written

    def _schema_file(self, text: str, filename: str) -> Mapping[str, Any] | None:
        try:
            schema = read_schema(text, filename)
        except BadSchemaFile as problem:
            self.unread += problem.diagnostics
            return None
        self._check_schema(schema, strict=True)
        return schema.tree

    def check_tools(self) -> None:
        """Check the parameters of every tool; a tool that says strict: true promises the strict subset."""
        for index, tool in enumerate(self._spec.tools or ()):
            function, at = function_of(tool)
            parameters = function.get("parameters")
            if isinstance(parameters, dict):
                path: Path = ("tools", index, *at, "parameters")
                self._check_schema(self._written(parameters, path), strict=function.get("strict") is True)

    def _written(self, tree: Mapping[str, Any], path: Path) -> WrittenSchema:
        document = self._draft.document
        return WrittenSchema(tree, document.filename, path, document)

    def _check_schema(self, schema: WrittenSchema, *, strict: bool) -> None:
        problems = check_schema(schema, strict=strict, fine_tuned=is_fine_tuned(self._spec.model))
        self.elsewhere += [replace(found, address=self._draft.name) for found in problems]

    def _read(self, file: str, path: Path, *, into: Path | None = None) -> str:
        try:
            text = read_text(self._context.root, file)
        except BatchopsError as problem:
            for diagnostic in problem.diagnostics:
                placed = self._draft.place(Finding(diagnostic, path))
                self.unread += [] if placed is None else [placed]
            return ""
        self._paths.append(file)
        if into is not None:
            self._texts[into] = Location(file, Position(1, 1))
        return text


def _check_names(drafts: Iterable[_Draft]) -> Iterator[Diagnostic]:
    """Names are unique in the project, and a former name is neither in use nor claimed twice."""
    names: dict[str, Location] = {}
    named = [(draft, draft.name) for draft in drafts if draft.name is not None]
    for draft, name in named:
        place = draft.document.location(("name",))
        first = names.setdefault(name, place)
        if first is not place:
            detail = f'"{name}" is the name of the job at {_spot(first)} already.'
            yield _at(draft, error("duplicate_name", "Duplicate job name.", detail), ("name",))
    claims: dict[str, Location] = {}
    for draft, _ in named:
        former = draft.document.tree.get("moved_from")
        if isinstance(former, str):
            place = draft.document.location(("moved_from",))
            first = claims.setdefault(former, place)
            if former in names:
                yield _at(
                    draft, _clash(f'"{former}" is the name of the job at {_spot(names[former])}'), ("moved_from",)
                )
            elif first is not place:
                yield _at(draft, _clash(f'"{former}" is claimed at {_spot(first)} already'), ("moved_from",))


def _clash(why: str) -> Diagnostic:
    detail = f"{why}; its answers can go to one job only."
    return error("moved_from_clash", "The former name is taken.", detail)


def _at(draft: _Draft, diagnostic: Diagnostic, path: Path) -> Diagnostic:
    location = draft.document.location(path)
    return replace(diagnostic.at(location, draft.document.snippet(location)), address=draft.name)


def _spot(location: Location) -> str:
    return f"{location.filename}:{location.start.line}"


def _sorted(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """By place; what several jobs share, such as a schema file or an anchor, is said once."""
    once: dict[Any, Diagnostic] = {}
    for found in diagnostics:
        once.setdefault((found.place, found.severity, found.detail), found)
    return tuple(sorted(once.values(), key=lambda found: (found.place, found.detail)))
