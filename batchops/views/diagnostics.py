"""Diagnostics → text for people, and the JSON document that `validate --json` and every failed `--json` verb print."""

from __future__ import annotations

import json
from collections.abc import Iterable

from batchops.diagnostics import Diagnostic, Location, Severity, diagnostic_document
from batchops.terminal import Style, cells, paint, visible

FORMAT_VERSION = "1.0"
_SNIPPET_WIDTH = 160
_SEVERITY_STYLE = {Severity.ERROR: Style.BOLD_RED, Severity.WARNING: Style.BOLD_YELLOW}


def render_text(diagnostics: Iterable[Diagnostic], *, color: bool) -> str:
    """`path:line:col: error: Summary. Detail. [code]`, the source line with what is wrong underlined, and fixes.

    Sorted by place; what has no place keeps its order at the end.
    """
    return "\n".join(_block(found, color=color) for found in sorted(diagnostics, key=lambda found: found.place[:3]))


def render_json(diagnostics: Iterable[Diagnostic], *, valid: bool | None = None) -> str:
    """One line of JSON: counts and every diagnostic, sorted by place. Valid means no errors, unless said otherwise."""
    found = sorted(diagnostics, key=lambda diagnostic: diagnostic.place[:3])
    errors = sum(diagnostic.severity is Severity.ERROR for diagnostic in found)
    document = {
        "format_version": FORMAT_VERSION,
        "valid": errors == 0 if valid is None else valid,
        "error_count": errors,
        "warning_count": len(found) - errors,
        "diagnostics": [diagnostic_document(diagnostic) for diagnostic in found],
    }
    return json.dumps(document, ensure_ascii=False)


def _block(found: Diagnostic, *, color: bool) -> str:
    lines = [_headline(found, color=color)]
    if found.location is not None and found.snippet is not None:
        lines += _excerpt(found.location, found.snippet, found.severity, color=color)
    for fix in found.fixes:
        lines += [f"    {visible(line)}" for line in fix.splitlines()]
    return "\n".join(lines)


def _headline(found: Diagnostic, *, color: bool) -> str:
    where = _where(found)
    severity = paint(f"{found.severity}:", _SEVERITY_STYLE[found.severity], color=color)
    said = " ".join(part for part in (found.summary, found.detail) if part)
    code = paint(f"[{found.code}]", Style.DIM, color=color)
    return f"{paint(where, Style.BOLD, color=color)}{' ' if where else ''}{severity} {visible(said)} {code}"


def _where(found: Diagnostic) -> str:
    if found.location is not None:
        start = found.location.start
        return f"{visible(found.location.filename)}:{start.line}:{start.column}:"
    return f"{visible(found.address)}:" if found.address else ""


def _excerpt(location: Location, snippet: str, severity: Severity, *, color: bool) -> list[str]:
    """The source line behind a gutter with its number, and a line of carets under the range."""
    text, first, last = _window(snippet, *_columns(location, snippet))
    before, marked = visible(text[:first]), visible(text[first:last])
    blank = "".join("\t" if character == "\t" else " " * cells(character) for character in before)
    carets = paint("^" * max(1, cells(marked)), _SEVERITY_STYLE[severity], color=color)
    number = str(location.start.line)
    bar = paint("|", Style.DIM, color=color)
    return [
        f"  {paint(number, Style.DIM, color=color)} {bar} {visible(text)}",
        f"  {' ' * len(number)} {bar} {blank}{carets}",
    ]


def _columns(location: Location, snippet: str) -> tuple[int, int]:
    """The range in the line as 0-based offsets; a range that goes on in later lines ends with this one."""
    first = min(location.start.column - 1, len(snippet))
    if location.end is None:
        return first, first + 1
    last = location.end.column - 1 if location.end.line == location.start.line else len(snippet.rstrip())
    return first, max(first + 1, min(last, len(snippet)))


def _window(snippet: str, first: int, last: int) -> tuple[str, int, int]:
    """A long line cut around the range, so that a minified file does not fill the screen."""
    if len(snippet) <= _SNIPPET_WIDTH:
        return snippet, first, last
    start = max(0, min(first - _SNIPPET_WIDTH // 3, len(snippet) - _SNIPPET_WIDTH))
    end = start + _SNIPPET_WIDTH
    head, tail = "…" if start else "", "…" if end < len(snippet) else ""
    shift = len(head) - start
    return f"{head}{snippet[start:end]}{tail}", first + shift, min(last, end) + shift
