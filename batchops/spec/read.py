"""A valid spec and the files it names → a job that is ready to be rendered, and what is wrong with those files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from batchops.diagnostics import BatchopsError, Diagnostic, error
from batchops.spec.checks import function_of, not_supported, reads_results
from batchops.spec.document import Document, Path
from batchops.spec.files import read_text
from batchops.spec.job import FileText, Job, JobSpec, Message, Rule, Template
from batchops.spec.models import is_fine_tuned
from batchops.spec.params import Finding
from batchops.spec.schemas import BadSchemaFile, WrittenSchema, check_schema, read_schema


@dataclass(frozen=True)
class Context:
    root: FilePath
    default_provider: str
    providers: frozenset[str]


@dataclass(frozen=True)
class Draft:
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


def _touch(one: Path, other: Path) -> bool:
    shorter = min(len(one), len(other))
    return bool(shorter) and one[:shorter] == other[:shorter]


class Reading:
    """One job's files being read. `fatal` and `unread` problems leave it without what rendering needs."""

    def __init__(self, draft: Draft, spec: JobSpec, context: Context) -> None:
        self.fatal: list[Finding] = []
        self.other: list[Finding] = []
        self.unread: list[Diagnostic] = []
        self.elsewhere: list[Diagnostic] = []
        self._draft = draft
        self._spec = spec
        self._context = context
        self._paths = [draft.document.filename]
        self._files: dict[Path, str] = {}

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
            document=self._draft.document,
            files=self._files,
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
            self._files[into] = file
        return text
