"""The entry point: verbs load on first use, and every command ends in one of three ways.

Expected failures print their diagnostics and no traceback; an interruption exits 130; anything else is a bug, and its
traceback goes to a log file whose path is printed. With --json every ending is JSON on stdout.
"""

from __future__ import annotations

import errno
import importlib
import itertools
import keyword
import os
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NoReturn, TextIO

import click
from click.shell_completion import CompletionItem, shell_complete

from batchops import __version__
from batchops.cli.options import Invocation, ReaderGone, shared_options
from batchops.descriptors import open_standard_streams
from batchops.diagnostics import BatchopsError, Diagnostic, ExitCode, UsageProblem, did_you_mean, error

VERBS = {
    "init": "Scaffold a project that plans and applies at once.",
    "validate": "Check every spec, template, schema and query binding; never uses the network.",
    "fmt": "Write specs in canonical YAML, comments kept.",
    "plan": "Show what apply would do, its price, and samples.",
    "show": "Show a saved plan again.",
    "apply": "Converge: settle, fetch, retry, submit.",
    "status": "Jobs on two axes: sync and health.",
    "wait": "Wait for what is in flight without submitting.",
    "watch": "Re-validate and re-plan as files change.",
    "cancel": "Cancel a job's batches at the provider and hold it.",
    "retry": "Give rows that were given up another round.",
    "results": "Answers joined with keys.",
    "query": "DuckDB SQL over results and state.",
    "explain": "The life of a job or of one row.",
    "render": "The exact request bodies.",
    "import": "Adopt batches made elsewhere as paid answers.",
    "state": "Look into the state and repair it.",
    "unlock": "Break a lease whose holder is gone.",
    "serve": "The embedded Files+Batches API.",
    "schema": "The JSON Schema of a job, for editors.",
    "doctor": "Versions, settings and where each came from, state integrity.",
}
"""Every verb and its one line; the code of verb `x` is `batchops.cli.x:command`, loaded when it is used.

A verb that is a word of Python has an underscore behind its module's name: `import` is `import_`.
"""

_COMPLETE = "_BATCHOPS_COMPLETE"


def module_of(verb: str) -> str:
    """The module of a verb, below `batchops.cli`."""
    return f"{verb}_" if keyword.iskeyword(verb) else verb


def unknown_verb(word: str, verbs: Iterable[str], program: str) -> UsageProblem:
    """What to say for a verb that is not there."""
    detail = f'"{word}" is not a verb.{did_you_mean(word, verbs)} `{program} --help` lists them.'
    return UsageProblem(error("unknown_verb", "Unknown verb.", detail))


class LazyGroup(click.Group):
    """A group that knows its verbs by name and imports one when it is run: help and completion import none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"batchops.cli.{module_of(cmd_name)}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise unknown_verb(args[0], VERBS, "batchops")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        verbs = [CompletionItem(verb, help=line) for verb, line in VERBS.items() if verb.startswith(incomplete)]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="batchops", message="%(prog)s %(version)s")
@shared_options(json=True)
def batchops(invocation: Invocation) -> None:
    """Infrastructure as code for LLM batch jobs."""


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code. A verb returns its exit code, or None for 0."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    open_standard_streams()
    if instruction := os.environ.get(_COMPLETE):
        return shell_complete(batchops, {}, "batchops", _COMPLETE, instruction)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except OSError as problem:
        return unwritten(problem)
    return code


def end(code: int) -> NoReturn:
    """End the process, and leave it to the system to take it apart.

    Everything is on record, flushed and closed by then, and Python and DuckDB take 60 ms to let go of what they loaded:
    a tenth of `validate` and of a `plan` of little (measured, 2026-11). Where somebody looks for what was left open,
    Python ends as it always does, and where a thread is still at work, unless the command was interrupted: the thread
    may be inside of DuckDB, which cannot be taken apart then.
    """
    is_awaited = code != ExitCode.INTERRUPTED and threading.active_count() > 1
    if sys.warnoptions or sys.flags.dev_mode or is_awaited:
        raise SystemExit(code)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def unwritten(problem: OSError) -> int:
    """The exit code of a command whose output takes no more, told unless its reader has gone; raises any other."""
    if problem.errno == errno.EPIPE:
        return _leave_quietly()
    if not _is_full(problem):
        raise problem
    return _output_full(problem)


def _run(arguments: list[str]) -> int:
    from batchops.cli.signals import impatient

    as_json = _wants_json(arguments)
    try:
        with impatient(lambda: _last_words(as_json=as_json)):
            return _invoke(arguments)
    except BatchopsError as problem:
        return _end(problem, as_json=as_json)
    except click.exceptions.NoArgsIsHelpError as problem:
        click.echo(problem.ctx.get_help(), err=True)
        return ExitCode.USAGE
    except click.ClickException as problem:
        return _end(UsageProblem(_usage(problem)), as_json=as_json)
    except (KeyboardInterrupt, click.Abort):
        return _interrupted(as_json=as_json)
    except ReaderGone:
        return _unread()
    except Exception as problem:
        if isinstance(problem, OSError) and (problem.errno == errno.EPIPE or _is_full(problem)):
            raise
        return _bug(arguments, as_json=as_json)


def _invoke(arguments: list[str]) -> int:
    try:
        with batchops.make_context("batchops", list(arguments)) as context:
            code: Any = batchops.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    return int(code or 0)


def _wants_json(arguments: list[str]) -> bool:
    """Whether stdout is JSON alone, known before the arguments are understood: a usage error is JSON too."""
    pairs = itertools.pairwise(arguments)
    return "--json" in arguments or "--format=json" in arguments or ("--format", "json") in pairs


def _usage(problem: click.ClickException) -> Diagnostic:
    """What click found wrong with the command line, in our words where it has a name."""
    if isinstance(problem, click.NoSuchOption):
        verb = problem.ctx.command_path if problem.ctx else "batchops"
        known = [name for parameter in problem.ctx.command.params for name in parameter.opts] if problem.ctx else []
        hint = did_you_mean(problem.option_name, known)
        detail = f'"{problem.option_name}" is not an option of `{verb}`.{hint} `{verb} --help` lists them.'
        return error("unknown_option", "Unknown option.", detail)
    return error("usage", "Usage error.", problem.format_message())


def _end(problem: BatchopsError, *, as_json: bool) -> int:
    from batchops.views.diagnostics import render_json, render_text  # `--help` does not need it

    if as_json:
        click.echo(render_json(problem.diagnostics, valid=False))
    else:
        sys.stdout.flush()
        color = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and "--no-color" not in sys.argv
        click.echo(render_text(problem.diagnostics, color=color), err=True, color=True)
    return problem.exit_code


_SAFE = "Everything submitted is recorded; the same command goes on from here."


def _interrupted(*, as_json: bool) -> int:
    if as_json:
        _end(BatchopsError(error("interrupted", "Interrupted.", _SAFE)), as_json=True)
    else:
        click.echo(f"Interrupted. {_SAFE}", err=True)
    return ExitCode.INTERRUPTED


def _unread() -> int:
    """Stopped because the reader has gone: not done, so that nobody takes what was submitted for all there was."""
    _abandon(sys.stdout)
    try:
        click.echo(f"Interrupted: nobody reads the output any more. {_SAFE}", err=True)
    except OSError:  # both went to the same reader
        _abandon(sys.stderr)
    return ExitCode.INTERRUPTED


def _last_words(*, as_json: bool) -> None:
    """The same ending for a command that is too busy to end by itself."""
    from batchops.cli.signals import leave
    from batchops.views.diagnostics import render_json

    if as_json:
        leave(render_json([error("interrupted", "Interrupted.", _SAFE)], valid=False), stream=1)
    leave(f"Interrupted. {_SAFE}")


def _bug(arguments: list[str], *, as_json: bool) -> int:
    import tempfile  # no command but this one needs it
    import traceback

    told = f"batchops {__version__}, Python {sys.version}\n{arguments!r}\n\n{traceback.format_exc()}"
    try:
        with tempfile.NamedTemporaryFile("w", prefix="batchops-bug-", suffix=".log", delete=False) as log:
            log.write(told)
        where = f"in {log.name}"
    except OSError:  # nowhere to write to
        click.echo(told, err=True)
        where = "above"
    summary = f"This is a bug in batchops {__version__}, not in your project."
    detail = "Nothing that was submitted is lost."
    if as_json:
        _end(BatchopsError(error("bug", summary, f"{detail} The traceback is {where}.")), as_json=True)
    else:
        click.echo(f"{summary} {detail}\n  The traceback is {where}", err=True)
    return ExitCode.ERROR


def _is_full(problem: OSError) -> bool:
    from batchops.exhaustion import is_full  # it imports duckdb

    return is_full(problem)


def _output_full(problem: OSError) -> int:
    """What stdout goes to, or another file of the command, takes no more: said on stderr, also with --json."""
    _abandon(sys.stdout)
    where = f"{problem.filename}: " if problem.filename else ""
    detail = f"{where}{problem.strerror}. Make room where it goes to; what was submitted is recorded."
    return _end(BatchopsError(error("output_unwritable", "The output cannot be written.", detail)), as_json=False)


def _leave_quietly() -> int:
    """The reader of stdout has gone: nothing is left to say."""
    _abandon(sys.stdout)
    return ExitCode.DONE


def _abandon(stream: TextIO) -> None:
    """Nobody reads what is still in its buffers, and Python's last flush must not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
