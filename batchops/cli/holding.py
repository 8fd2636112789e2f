"""What the verbs share that hold the state for a moment: --lock-timeout, the opened project, and how they end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from batchops.cli.options import Invocation, duration
from batchops.diagnostics import Diagnostic, ExitCode, Severity, diagnostic_document

if TYPE_CHECKING:
    from batchops.engine.project import Project
    from batchops.plan.events import Event

F = TypeVar("F", bound=Callable[..., Any])
FORMAT_VERSION = "1.0"

lock_timeout_option = click.option(
    "--lock-timeout", callback=duration, metavar="DURATION", help="Wait so long for the state, as in 10m."
)


@contextmanager
def opened(invocation: Invocation) -> Iterator[Project]:
    """The project of the command line, closed at the end."""
    from batchops.engine.project import open_project  # DuckDB is paid for when it is used

    with open_project(invocation.root, invocation.loaded) as project:
        yield project


@contextmanager
def telling(invocation: Invocation) -> Iterator[Callable[[Event], None]]:
    """Where events go meanwhile: to people on stderr; with --json nowhere, since stdout is one document."""
    from batchops.cli.converging import printer_of

    if invocation.json:
        yield lambda event: None
        return
    printer = printer_of(invocation)
    try:
        yield printer
    finally:
        printer.close()


def finish(
    invocation: Invocation,
    document: Mapping[str, Any],
    lines: Iterable[str],
    problems: Iterable[Diagnostic] = (),
) -> int:
    """Print what was done and what could not be; returns the exit code: 1 where something could not."""
    found = tuple(problems)
    if invocation.json:
        shown = {"format_version": FORMAT_VERSION, **document}
        shown["diagnostics"] = [diagnostic_document(problem) for problem in found]
        invocation.out(json.dumps(shown, ensure_ascii=False))
    else:
        text = "\n".join(lines)
        if text:
            invocation.out(text)
        _tell(invocation, found)
    is_failed = any(problem.severity is Severity.ERROR for problem in found)
    return ExitCode.ERROR if is_failed else ExitCode.DONE


def _tell(invocation: Invocation, problems: tuple[Diagnostic, ...]) -> None:
    from batchops.views.diagnostics import render_text

    if problems:
        sys.stdout.flush()
        invocation.note(render_text(problems, color=invocation.colors(sys.stderr)))
