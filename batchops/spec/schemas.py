"""The answer schemas of a job → diagnostics at line and column, in the JSON file or in the YAML that holds them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from batchops.diagnostics import Diagnostic, Location, Position, error, warning
from batchops.spec.document import Document, Path
from batchops.spec.jsonschema import Problem, check, lint, strictify
from batchops.spec.yaml import parse, split_lines

_MOST: Final = 25
"""So many problems of one schema are listed; the rest follows from the fix."""


@dataclass(frozen=True)
class WrittenSchema:
    """A schema and the document that it is part of, at `path`. `text` is the JSON of a schema in its own file."""

    tree: Mapping[str, Any]
    filename: str
    path: Path = ()
    document: Document | None = None
    text: str = ""

    def place(self, diagnostic: Diagnostic, problem: Problem) -> Diagnostic:
        """The diagnostic where the problem is written."""
        document = self.document or _positions(self.text, self.filename)
        if document is None:
            return diagnostic.at(Location(self.filename, Position(1, 1)))
        path = (*self.path, *problem.path)
        location = document.key_location(path) if problem.at_key else document.location(path)
        return diagnostic.at(location, document.snippet(location))


class BadSchemaFile(Exception):
    """A schema file holds no schema; carries located diagnostics."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__("; ".join(found.detail for found in diagnostics))
        self.diagnostics = diagnostics


def read_schema(text: str, filename: str) -> WrittenSchema:
    """The schema of a .json file (or of a .yaml one). Raises BadSchemaFile."""
    if PurePosixPath(filename).suffix in {".yaml", ".yml"}:
        return _from_yaml(text, filename)
    try:
        tree = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as problem:
        place = Location(filename, Position(problem.lineno, problem.colno))
        found = error("schema_syntax", "Not valid JSON.", f"{problem.msg}.", location=place)
        lines = split_lines(text)
        raise BadSchemaFile(found.at(place, lines[min(problem.lineno, len(lines)) - 1])) from problem
    except (ValueError, RecursionError) as problem:
        raise BadSchemaFile(*_unreadable(text, filename, problem)) from problem
    return _mapping(tree, WrittenSchema({}, filename, text=text))


def check_schema(schema: WrittenSchema, *, strict: bool, fine_tuned: bool) -> Iterator[Diagnostic]:
    """Whether it is a JSON Schema, and with `strict` whether structured outputs take it; the first carries the fix."""
    if (wrong := check(schema.tree)) is not None:
        detail = f"{wrong.pointer}: {wrong.why}."
        yield schema.place(error("schema_invalid", "Not a JSON Schema.", detail), wrong)
        return
    problems = lint(schema.tree, fine_tuned=fine_tuned) if strict else ()
    errors = [problem for problem in problems if problem.is_error]
    for index, problem in enumerate(errors[:_MOST]):
        yield _not_strict(schema, problem, len(errors) if index == 0 else 0)
    for problem in problems:
        if not problem.is_error:
            found = warning("schema_keyword", "The schema may be refused.", f"{problem.pointer}: {problem.why}.")
            yield schema.place(found, problem)


def _not_strict(schema: WrittenSchema, problem: Problem, count: int) -> Diagnostic:
    detail = f"{problem.pointer}: {problem.why}."
    if count > _MOST:
        detail += f" It is the first of {count} such places."
    fixes = [json.dumps(strictify(schema.tree), indent=2, ensure_ascii=False)] if count else []
    found = error("schema_not_strict", "The schema is not in the strict subset.", detail, fixes=fixes)
    return schema.place(found, problem)


def _from_yaml(text: str, filename: str) -> WrittenSchema:
    parsed = parse(text, filename)
    if parsed.diagnostics:
        raise BadSchemaFile(*parsed.diagnostics)
    if len(parsed.documents) != 1:
        raise BadSchemaFile(_no_mapping(Location(filename, Position(1, 1))))
    document = parsed.documents[0]
    return _mapping(document.tree, WrittenSchema({}, filename, document=document))


def _mapping(tree: Any, schema: WrittenSchema) -> WrittenSchema:
    if not isinstance(tree, dict):
        raise BadSchemaFile(_no_mapping(Location(schema.filename, Position(1, 1))))
    return WrittenSchema(tree, schema.filename, schema.path, schema.document, schema.text)


def _no_mapping(place: Location) -> Diagnostic:
    return error("schema_invalid", "Not a JSON Schema.", "$: a schema is one JSON object.", location=place)


def _positions(text: str, filename: str) -> Document | None:
    """JSON is YAML, but for tabs where ruamel wants spaces; JSON has none inside its texts."""
    parsed = parse(text.replace("\t", " "), filename)
    return parsed.documents[0] if parsed.documents and not parsed.diagnostics else None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("duplicate key")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unreadable(text: str, filename: str, problem: Exception) -> tuple[Diagnostic, ...]:
    """Duplicate keys stand where YAML finds them; anything else at the top."""
    parsed = parse(text.replace("\t", " "), filename)
    if parsed.diagnostics:
        return parsed.diagnostics
    why = "It is nested too deeply" if isinstance(problem, RecursionError) else str(problem).capitalize()
    return (error("schema_syntax", "Not valid JSON.", f"{why}.", location=Location(filename, Position(1, 1))),)
