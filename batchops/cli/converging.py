"""What apply, wait and watch share: the flags that choose and allow, the printer of events, the two ways to stop."""

from __future__ import annotations

import errno
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from batchops.cli.options import Invocation, ReaderGone
from batchops.diagnostics import BatchopsError, ExitCode, prevailing

if TYPE_CHECKING:
    from batchops.cli.signals import Stopping
    from batchops.engine.converge import ApplyResult
    from batchops.engine.operations import Allowances
    from batchops.engine.scope import Scope
    from batchops.plan.events import Event, StopFlag
    from batchops.views.progress import Printer

F = TypeVar("F", bound=Callable[..., Any])


def _ceilings(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, float]:
    """`ADDR=USD`, several times."""
    found = {}
    for value in values:
        address, _, amount = value.rpartition("=")
        try:
            found[address] = float(amount.removeprefix("$"))
        except ValueError:
            found[address] = math.nan
        if not address or not found[address] >= 0:
            raise click.BadParameter(f"{value!r} is not ADDR=USD, such as review-sentiment=12.50.", ctx, parameter)
    return found


_CHOOSING = (
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many rows of each job."),
    click.option("--replace", multiple=True, metavar="ADDR", help="Pay again for this job, or row (job@key)."),
    click.option("--allow-cost-over", "cost_over", multiple=True, callback=_ceilings, metavar="ADDR=USD",
                 help="Let this job cost so much beside the budget."),
    click.option("--allow-unknown-cost", is_flag=True, help="Let models without a known price through the budget."),
    click.option("--allow-protected", multiple=True, metavar="ADDR", help="Let this protected job be paid again."),
)  # fmt: skip


def choosing_options(function: F) -> F:
    """The plan flags that plan and apply share."""
    for option in reversed(_CHOOSING):
        function = option(function)
    return function


def scope_of(invocation: Invocation, limit: int | None, replace: Sequence[str], allowed: Iterable[str] = ()) -> Scope:
    """What the flags chose; without --limit, the environment's. `allowed` are the jobs of the --allow flags."""
    from batchops.engine.scope import Scope

    chosen = invocation.loaded.limit if limit is None else limit
    return Scope(invocation.select, invocation.exclude, chosen, tuple(replace), tuple(allowed))


def allowances_of(cost_over: dict[str, float], protected: Sequence[str], *, unknown_cost: bool) -> Allowances:
    """What the flags let through."""
    from batchops.engine.operations import Allowances

    return Allowances(cost_over, unknown_cost, frozenset(protected))


def printer_of(invocation: Invocation) -> Printer:
    """Events as JSON lines on stdout, bars on a terminal, or lines on stderr."""
    from batchops.views.progress import JsonLines, LiveBars, PlainLines

    color = invocation.colors(sys.stderr)
    if invocation.json:
        return JsonLines(invocation.out, lambda: datetime.now(UTC))
    if sys.stderr.isatty():
        return LiveBars(color=color)
    return PlainLines(invocation.note, time.monotonic, color=color)


_STOPPING = (
    "Stopping after the write in hand; nothing new is submitted. Batches that were created go on at the provider.\n"
    "  To wait for them:  batchops wait\n"
    "  To leave at once:  Ctrl-C again"
)


class Delivery:
    """A printer whose reader may go: work is then asked to stop, as by Ctrl-C, and not torn apart where it says so."""

    def __init__(self, printer: Printer, stop: StopFlag) -> None:
        self._printer = printer
        self._stop = stop
        self._problem: OSError | None = None

    def __call__(self, event: Event) -> None:
        if self._problem is None:
            with self.tried():
                self._printer(event)

    @contextmanager
    def tried(self) -> Iterator[None]:
        """Print in this block: what cannot be written asks to stop."""
        try:
            yield
        except OSError as problem:
            self._problem = problem
            self._stop.request()

    def check(self) -> None:
        """Raise ReaderGone, or what else kept the output from being written."""
        if self._problem is None:
            return
        if self._problem.errno == errno.EPIPE:
            raise ReaderGone from self._problem
        raise self._problem

    def close(self) -> None:
        """Leave the screen as it should stay."""
        self._printer.close()


@contextmanager
def stoppable(invocation: Invocation, *, saying: str = _STOPPING) -> Iterator[tuple[StopFlag, Stopping]]:
    """Signals ask to stop for the length of the block; the first one says what goes on without us."""
    from batchops.cli.signals import Stopping
    from batchops.plan.events import StopFlag

    stop = StopFlag()
    with Stopping(stop, lambda: invocation.note(saying)).installed() as stopping:
        yield stop, stopping


def conclude(invocation: Invocation, printer: Delivery, work: Callable[[], ApplyResult], stop: StopFlag) -> int:
    """Run `work`, print what it did, and return the exit code it earned. Raises ReaderGone where nobody reads that.

    With --json an expected failure ends the lines like any other run: a diagnostic, then `apply_complete`.
    """
    try:
        result = work()
    except BatchopsError as problem:
        printer.check()
        if not invocation.json:
            raise
        code: int = _failed(printer, problem)
    else:
        code = prevailing([result.exit_code, ExitCode.INTERRUPTED if stop.is_requested else ExitCode.DONE])
        if not invocation.json:
            with printer.tried():
                _show(invocation, result)
    finally:
        printer.close()
    printer.check()
    return code


def _show(invocation: Invocation, result: ApplyResult) -> None:
    from batchops.views.outcome import render_outcome

    is_put_off = any(found.code == "provider_full" for found in result.diagnostics)
    has_failed = is_put_off or result.exit_code == ExitCode.ERROR
    invocation.out(render_outcome(result.summary, has_failed=has_failed))


def _failed(printer: Printer, problem: BatchopsError) -> int:
    from batchops.plan.document import empty_summary
    from batchops.plan.events import ApplyComplete, DiagnosticFound

    for found in problem.diagnostics:
        printer(DiagnosticFound(found))
    printer(ApplyComplete(empty_summary(), int(problem.exit_code)))
    return problem.exit_code
