"""`batchops watch`: re-validate and re-plan what a changed file touches, poll what is in flight, until Ctrl-C.

A broken spec is told and waited out: the next save is another chance. The only importer of watchfiles.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import click

from batchops.cli.converging import printer_of, scope_of, stoppable
from batchops.cli.options import Invocation, shared_options
from batchops.cli.plan import show_plan
from batchops.cli.touched import SETTINGS, is_watched, touched
from batchops.diagnostics import BatchopsError, Diagnostic, ExitCode, Severity, UsageProblem
from batchops.plan.events import BatchProgress, DiagnosticFound
from batchops.plan.model import Action, BatchAction

if TYPE_CHECKING:
    from batchops.engine.project import Project
    from batchops.engine.scope import Scope
    from batchops.plan.events import StopFlag
    from batchops.settings import PollSettings
    from batchops.spec.job import Job
    from batchops.views.progress import Printer

_QUIET_MS = 200
"""A burst of changes (an editor's atomic save, a checkout) ends when nothing moved for so long."""

_LONGEST_BURST_MS = 2000
_TICK_MS = 100


@click.command("watch")
@click.option("--apply", "applies", is_flag=True, help="Converge after every change, without asking: this is the yes.")
@shared_options(select=True)
def command(invocation: Invocation, *, applies: bool) -> int:
    """Plan again whenever a spec, schema, prompt, query or data file changes, and show what is in flight.

    \b
    batchops watch
    batchops watch --apply --env dev
    """
    printer = printer_of(invocation)
    try:
        with stoppable(invocation, saying="Stopped watching.") as (stop, _):
            Watch(invocation, printer, stop, applies=applies).run()
    finally:
        printer.close()
    return ExitCode.DONE


class Watch:
    """One watch: the project as it was last seen, and what goes on in it."""

    def __init__(self, invocation: Invocation, printer: Printer, stop: StopFlag, *, applies: bool) -> None:
        self._invocation = invocation
        self._printer = printer
        self._stop = stop
        self._applies = applies
        self._project: Project | None = None
        self._jobs: tuple[Job, ...] = ()
        self._is_busy = False
        self._told: tuple[Diagnostic, ...] = ()
        self._ended: frozenset[str | None] = frozenset()
        self._pause = Pause(invocation.loaded.settings.poll)

    def run(self) -> None:
        """Show the whole project, then whatever changes, until somebody asks to stop.

        Raises UsageProblem where the command line names what there is not when it begins.
        """
        try:
            self._check_selected()
            for number, changed in enumerate(self._changes()):
                if number == 0:
                    self._survive(lambda: self._look(None))
                    self._invocation.note("Watching. Ctrl-C ends it.")
                elif changed:
                    self._react(changed)
                elif self._is_busy and self._pause.is_over():
                    self._survive(self._poll)
        finally:
            self._close()

    def _check_selected(self) -> None:
        try:
            scope_of(self._invocation, None, ()).jobs(self._opened())
        except UsageProblem:
            raise
        except BatchopsError:
            return  # of the specs, as the first look will tell: a save may mend them

    def _changes(self) -> Iterator[frozenset[PurePosixPath]]:
        """The files of each burst of changes, relative to the root; now and then none, to look around.

        The first comes at once, when the watching has begun, so that nothing is missed that happens from then on.
        """
        from watchfiles import watch  # only this verb needs it

        root = self._invocation.root
        state_folder = PurePosixPath(self._invocation.loaded.settings.state.url).parent
        bursts = watch(
            root,
            watch_filter=lambda _, path: is_watched(_relative(path, root), state_folder),
            debounce=_LONGEST_BURST_MS,
            step=_QUIET_MS,
            stop_event=_Stop(self._stop),
            rust_timeout=_TICK_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
        )
        for burst in bursts:
            yield frozenset(_relative(path, root) for _, path in burst)

    def _react(self, changed: frozenset[PurePosixPath]) -> None:
        """Look again at what the changed files touch."""
        if any(str(path) in SETTINGS for path in changed):
            self._close()
        self._survive(lambda: self._look(changed))

    def _survive(self, work: Callable[[], None]) -> None:
        """Do it; what may be expected to fail is told, and the next change is another chance."""
        try:
            work()
        except BatchopsError as problem:
            self._is_busy = False
            self._tell(problem.diagnostics)

    def _look(self, changed: frozenset[PurePosixPath] | None) -> None:
        """Validate, and plan or apply what `changed` touches, or everything."""
        project = self._opened()
        jobs, addresses = self._validated(project), None
        if changed is not None:
            addresses = touched(changed, jobs, self._jobs)
        known = {path for job in (*self._jobs, *jobs) for path in job.paths}
        self._jobs = jobs
        scope = self._scope(project, jobs, addresses)
        if scope is None:
            return
        if changed:
            names = [str(path) for path in changed if str(path) in known or (project.root / path).exists()]
            self._invocation.note(f"{time.strftime('%H:%M:%S')} changed: {_first(names)}")
        if self._applies:
            self._converge(project, scope)
        else:
            self._plan(project, scope)
        self._pause.restart()

    def _opened(self) -> Project:
        """The project, opened anew after its settings changed; open as long as possible, for it may serve batches."""
        from batchops.engine.project import open_project
        from batchops.settings import load_settings

        if self._project is None:
            root = self._invocation.root
            loaded = load_settings(root, environ=os.environ, env=self._invocation.env)
            self._pause = Pause(loaded.settings.poll)
            self._project = open_project(root, loaded)
        return self._project

    def _close(self) -> None:
        if self._project is not None:
            self._project.close()
            self._project = None

    def _validated(self, project: Project) -> tuple[Job, ...]:
        """Every job of the project. Raises BatchopsError with all that is wrong with any."""
        from batchops.request.check import check_jobs

        loaded = project.reload()
        found = (*loaded.diagnostics, *check_jobs(project.root, loaded.jobs))
        if any(problem.severity is Severity.ERROR for problem in found):
            raise BatchopsError(*found)
        self._tell(found)
        return loaded.jobs

    def _scope(self, project: Project, jobs: Sequence[Job], addresses: frozenset[str] | None) -> Scope | None:
        """What to look at: the touched jobs among the selected ones; None when there are none."""
        whole = scope_of(self._invocation, None, ())
        if addresses is None:
            return whole
        selected = jobs if whole.is_whole else whole.jobs(project)
        names = tuple(job.address for job in selected if job.address in addresses)
        return replace(whole, select=names, exclude=()) if names else None

    def _plan(self, project: Project, scope: Scope) -> None:
        from batchops.engine.operations import make_plan

        plan = make_plan(project, scope)
        self._is_busy = plan.batches(BatchAction.IN_FLIGHT) > 0 or self._is_busy
        self._printer.close()
        show_plan(plan, self._invocation, None)
        sys.stdout.flush()

    def _converge(self, project: Project, scope: Scope) -> None:
        """Apply once; busy as long as a plan of the whole project would still find something to do."""
        from batchops.engine.operations import apply, make_plan
        from batchops.views.outcome import render_outcome

        result = apply(project, scope, approve=lambda _: True, emit=self._printer, stop=self._stop)
        if any(result.summary["rows"][action] for action in Action if action.is_change):
            self._invocation.out(render_outcome(result.summary, has_failed=result.exit_code == ExitCode.ERROR))
            sys.stdout.flush()
        if not self._stop.is_requested:
            left = make_plan(project, scope_of(self._invocation, None, ()), offline=True, samples=0)
            self._is_busy = left.has_changes or left.batches(BatchAction.IN_FLIGHT) > 0

    def _poll(self) -> None:
        """Look at what is in flight: show it move, and plan or apply again when some of it has ended."""
        from batchops.engine.look import look

        project = self._opened()
        self._pause.lengthen()
        if self._applies:
            self._converge(project, scope_of(self._invocation, None, ()))
            return
        sightings = look(project)
        for sighting in sightings:
            if (remote := sighting.remote) is not None:
                address = sighting.submission.address
                self._printer(
                    BatchProgress(address, remote.id, remote.status, remote.total, remote.completed, remote.failed)
                )
        ended = frozenset(s.submission.batch_id for s in sightings if s.action is BatchAction.FETCH)
        self._is_busy = any(sighting.action is BatchAction.IN_FLIGHT for sighting in sightings)
        if ended - self._ended:
            self._plan(project, scope_of(self._invocation, None, ()))
        self._ended = ended

    def _tell(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        """Say what is wrong, once: a save that changes nothing about it is no news."""
        if diagnostics != self._told:
            for found in diagnostics:
                self._printer(DiagnosticFound(found))
        self._told = diagnostics


class Pause:
    """The time between two polls: it grows while nothing moves."""

    def __init__(self, poll: PollSettings) -> None:
        self._first, self._longest = poll.initial.total_seconds(), poll.max.total_seconds()
        self.restart()

    def restart(self) -> None:
        """Begin again with a short pause."""
        self._seconds = self._first
        self._until = time.monotonic() + self._seconds

    def lengthen(self) -> None:
        """Begin the next pause, half as long again."""
        self._seconds = min(self._seconds * 1.5, self._longest)
        self._until = time.monotonic() + self._seconds

    def is_over(self) -> bool:
        """Whether it is time to poll."""
        return time.monotonic() >= self._until


class _Stop:
    """A stop flag as watchfiles wants it."""

    def __init__(self, stop: StopFlag) -> None:
        self._stop = stop

    def is_set(self) -> bool:
        return self._stop.is_requested


def _relative(path: str, root: Path) -> PurePosixPath:
    return PurePosixPath(Path(path).relative_to(root).as_posix())


def _first(paths: Sequence[str]) -> str:
    names = sorted(paths)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
