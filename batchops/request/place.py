"""Where in the user's files a line of a template or a query is written."""

from __future__ import annotations

from dataclasses import dataclass

from batchops.diagnostics import Location, Position
from batchops.request.endpoints import Path
from batchops.spec.job import FileText, Job


@dataclass(frozen=True, slots=True)
class Place:
    """A location, and words for what it cannot say: ` (line 3 of the query)` where only the block's place is known."""

    location: Location | None
    words: str = ""


def query_place(job: Job, line: int, column: int) -> Place:
    """The place of a line and column (1-based) of the source query."""
    if job.spec.source.file is not None:
        return Place(Location(job.spec.source.file, Position(line, column)))
    return _within(job.location("source", "query"), job.query, line, column, "query")


def template_place(job: Job, path: Path, text: str, line: int) -> Place:
    """The place of a line (1-based) of the template at `path`."""
    if (file := template_file(job, path)) is not None:
        return Place(Location(file, Position(line, 1)))
    return _within(job.location(*path), text, line, 1, "template")


def template_file(job: Job, path: Path) -> str | None:
    """The file that the template at `path` was read from, or None."""
    written = job.spec.template
    if isinstance(written, tuple) and len(path) > 1 and isinstance(path[1], int):
        content = written[path[1]].content
        return content.file if isinstance(content, FileText) else None
    return written.file if isinstance(written, FileText) else None


def _within(location: Location | None, text: str, line: int, column: int, noun: str) -> Place:
    if location is None or text.rstrip("\n").count("\n") == 0:
        return Place(location)
    if location.end is not None and _is_literal_block(location, text):
        return Place(Location(location.filename, Position(location.start.line + line, 1)))
    return Place(location, f" (line {line} of the {noun})")


def _is_literal_block(location: Location, text: str) -> bool:
    # A literal block has one line more than its text: that of the `|`.
    assert location.end is not None
    return location.end.line - location.start.line == text.rstrip("\n").count("\n") + 2
