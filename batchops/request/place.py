"""Where in the user's files a line of a template or a query is written, and the line itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path as FilePath

from batchops.diagnostics import Diagnostic, Location, Position
from batchops.request.endpoints import Path
from batchops.spec.job import Job

QUERY: Path = ("source", "query")


@dataclass(frozen=True, slots=True)
class Place:
    """A location with its source line, and words for what it cannot say: ` (line 3)` where only the block is known."""

    location: Location | None
    snippet: str | None = None
    words: str = ""

    def put(self, found: Diagnostic, address: str) -> Diagnostic:
        """The diagnostic at this place."""
        return replace(found, address=address, location=self.location, snippet=self.snippet)


def place_in(job: Job, path: Path, line: int = 1, column: int = 1, length: int = 0) -> Place:
    """The place of `length` characters at line and column (1-based) of the text at `path` of the job's spec."""
    location = job.text_location(path, line, column)
    if location is not None and job.text_start(path) is not None:
        end = Position(location.start.line, location.start.column + length) if length else None
        location = replace(location, end=end)
        return Place(location, _source_line(location))
    words = f" (line {line})" if line > 1 else ""
    return Place(location, _source_line(location) if location else None, words)


def place_of(job: Job, path: Path) -> Place:
    """The place of a value of the spec."""
    location = job.location(*path)
    return Place(location, _source_line(location) if location else None)


def _source_line(location: Location) -> str | None:
    """The line of the file. Files are named relative to the root, which is the working directory."""
    try:
        with FilePath(location.filename).open(encoding="utf-8") as file:
            lines = list(islice(file, location.start.line - 1, location.start.line))
    except (OSError, UnicodeDecodeError):
        return None
    return lines[0].rstrip("\n") if lines else None
