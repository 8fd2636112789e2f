"""The entry point: verbs load on first use, and every command ends in one of three ways.

Expected failures print their diagnostics and no traceback; an interruption exits 130; anything else is a bug, and its
traceback goes to a log file whose path is printed.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import click

from batchops import __version__
from batchops.cli.options import Invocation, shared_options
from batchops.diagnostics import BatchopsError, ExitCode, UsageProblem, error

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
    "state": "Look into the state and repair it.",
    "unlock": "Break a lease whose holder is gone.",
    "serve": "The embedded Files+Batches API.",
    "schema": "The JSON Schema of a job, for editors.",
    "doctor": "Versions, settings and where each came from, state integrity.",
}
"""Every verb and its one line; the code of verb `x` is `batchops.cli.x:command`, loaded when it is used."""


class LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"batchops.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="batchops", message="%(prog)s %(version)s")
@shared_options(json=True)
def batchops(invocation: Invocation) -> None:
    """Infrastructure as code for LLM batch jobs."""


def run(argv: list[str] | None = None) -> int:
    """Run one command; returns the process's exit code. A verb returns its exit code, or None for 0."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        code: Any = batchops.main(args=arguments, prog_name="batchops", standalone_mode=False)
    except BatchopsError as problem:
        _show(problem, as_json="--json" in arguments)
        return problem.exit_code
    except click.ClickException as problem:
        _show(UsageProblem(error("usage", "Usage error.", problem.format_message())), as_json="--json" in arguments)
        return ExitCode.USAGE
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted. Everything submitted is recorded; the same command goes on from here.", err=True)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return ExitCode.DONE
    except Exception:
        return _bug(arguments)
    return int(code or 0)


def _show(problem: BatchopsError, *, as_json: bool) -> None:
    from batchops.views.diagnostics import render_json, render_text  # noqa: PLC0415

    if as_json:
        click.echo(render_json(problem.diagnostics))
    else:
        click.echo(render_text(problem.diagnostics, color=sys.stderr.isatty()), err=True)


def _bug(arguments: list[str]) -> int:
    with tempfile.NamedTemporaryFile("w", prefix="batchops-bug-", suffix=".log", delete=False) as log:
        log.write(f"batchops {__version__}, Python {sys.version}\n{arguments!r}\n\n{traceback.format_exc()}")
    click.echo(
        f"This is a bug in batchops {__version__}, not in your project. Nothing that was submitted is lost.\n"
        f"  The traceback is in {Path(log.name)}",
        err=True,
    )
    return ExitCode.ERROR
