"""What went wrong, where, and what to do: diagnostics, the exception tree, and exit codes.

The lowest floor: it imports nothing of ours. A diagnostic is data; `views` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from typing import Any


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a text file; both numbers are 1-based."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Location:
    """A range in a file; `filename` is relative to the project root, `end` is exclusive."""

    filename: str
    start: Position
    end: Position | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One problem. `summary` is fixed words for its `code`; `detail` says what, why and what to do.

    `snippet` is the source line at `location`; `fixes` are texts that may replace what is there, or commands to run.
    """

    severity: Severity
    code: str
    summary: str
    detail: str = ""
    address: str | None = None
    location: Location | None = None
    snippet: str | None = None
    fixes: tuple[str, ...] = ()

    @property
    def place(self) -> tuple[str, int, int, str]:
        """Sort key: file, line, column, code; problems without a place come last."""
        if self.location is None:
            return ("\U0010ffff", 0, 0, self.code)
        start = self.location.start
        return (self.location.filename, start.line, start.column, self.code)

    def at(self, location: Location | None, snippet: str | None = None) -> Diagnostic:
        """The same diagnostic at a place."""
        return replace(self, location=location, snippet=snippet)


def error(
    code: str,
    summary: str,
    detail: str = "",
    *,
    address: str | None = None,
    location: Location | None = None,
    snippet: str | None = None,
    fixes: Iterable[str] = (),
) -> Diagnostic:
    """An error diagnostic. Pass `code` as a string literal: the test of the code table looks for it."""
    return Diagnostic(
        severity=Severity.ERROR,
        code=code,
        summary=summary,
        detail=detail,
        address=address,
        location=location,
        snippet=snippet,
        fixes=tuple(fixes),
    )


def warning(code: str, summary: str, detail: str = "", *, address: str | None = None, location: Location | None = None,
            snippet: str | None = None, fixes: Iterable[str] = ()) -> Diagnostic:  # fmt: skip
    """A warning diagnostic; see `error`."""
    found = error(code, summary, detail, address=address, location=location, snippet=snippet, fixes=fixes)
    return replace(found, severity=Severity.WARNING)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`' Did you mean "backoff"?'` for the nearest choice, or an empty text."""
    near = nearest(word, choices, likeness=0.6)
    return "" if near is None else f' Did you mean "{near}"?'


def nearest(word: str, choices: Iterable[str], *, likeness: float) -> str | None:
    """The choice that is most like `word`, if it is as like as that (0 to 1)."""
    import difflib  # noqa: PLC0415  10 ms that only a mistake costs

    return next(iter(difflib.get_close_matches(word, sorted(choices), n=1, cutoff=likeness)), None)


def diagnostic_document(found: Diagnostic) -> dict[str, Any]:
    """A diagnostic as plain JSON values: the shape of the `diagnostics` of every document."""
    place = found.location
    return {
        "severity": str(found.severity),
        "code": found.code,
        "summary": found.summary,
        "detail": found.detail,
        "address": found.address,
        "range": None
        if place is None
        else {
            "filename": place.filename,
            "start": _position_document(place.start),
            "end": _position_document(place.end or Position(place.start.line, place.start.column + 1)),
        },
        "snippet": found.snippet,
        "fixes": list(found.fixes),
    }


def _position_document(position: Position) -> dict[str, int]:
    return {"line": position.line, "column": position.column}


def diagnostic_from_document(document: Mapping[str, Any]) -> Diagnostic:
    """The diagnostic that `diagnostic_document` wrote."""
    place = document["range"]
    return Diagnostic(
        severity=Severity(document["severity"]),
        code=document["code"],
        summary=document["summary"],
        detail=document["detail"],
        address=document["address"],
        location=None
        if place is None
        else Location(place["filename"], Position(**place["start"]), Position(**place["end"])),
        snippet=document["snippet"],
        fixes=tuple(document["fixes"]),
    )


class ExitCode(IntEnum):
    """Process exit codes: a public contract (see docs/cli.md)."""

    DONE = 0
    ERROR = 1
    CHANGES = 2
    NOT_FORMATTED = 3
    REFUSED = 5
    ROWS_FAILED = 6
    TIMED_OUT = 9
    STALE = 10
    LEASED = 11
    USAGE = 64
    INTERRUPTED = 130


_PRECEDENCE = (130, 11, 10, 5, 1, 9, 6)


def prevailing(codes: Iterable[int]) -> int:
    """The exit code that wins where several hold: 130, 11, 10, 5, 1, 9, 6, then any other, then 0."""
    held = set(codes) - {0}
    for code in _PRECEDENCE:
        if code in held:
            return code
    return min(held, default=0)


class BatchopsError(Exception):
    """An expected failure: it carries diagnostics and an exit code, and is shown without a traceback."""

    exit_code = ExitCode.ERROR

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__("; ".join(f"{d.summary} {d.detail}".strip() for d in diagnostics))
        self.diagnostics = diagnostics


class UsageProblem(BatchopsError):
    """The command line cannot be carried out as written."""

    exit_code = ExitCode.USAGE


class Refused(BatchopsError):
    """A budget, policy, protection or gate forbids it."""

    exit_code = ExitCode.REFUSED


class Stale(BatchopsError):
    """A saved plan no longer describes what it was reviewed for."""

    exit_code = ExitCode.STALE


class Leased(BatchopsError):
    """Somebody else holds the state."""

    exit_code = ExitCode.LEASED


class WaitTimedOut(BatchopsError):
    """`--timeout` ran out while work was in flight."""

    exit_code = ExitCode.TIMED_OUT
