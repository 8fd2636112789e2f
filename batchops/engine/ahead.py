"""The pipeline of fetches: while one batch is committed, the next is judged, and the one behind that is downloaded.

Each batch has a thread of its own, which downloads and judges it, and no more: it writes nothing to the state and tells
nobody. What it reads there is of this batch alone, and no other fetch changes it. So whoever takes the batches one by
one records them as if nothing had been done ahead. In memory are two at most: the taken one and the one behind it.
"""

from __future__ import annotations

import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Generic, TypeAlias, TypeVar

from batchops.engine.download import ResultFiles, download
from batchops.engine.ledger import Submission
from batchops.engine.project import Project
from batchops.engine.steps import reached
from batchops.engine.work import new_work_folder
from batchops.providers.provider import RemoteBatch
from batchops.spec.job import Job

T = TypeVar("T")

_DEPTH: Final = 2
"""How many batches behind the taken one are on their way: one is judged, one is downloaded."""


@dataclass(frozen=True)
class EndedBatch:
    """A batch to fetch: our record of it, what its provider says, and its job, None where no spec declares it now."""

    found: Submission
    remote: RemoteBatch
    job: Job | None


IsWanted: TypeAlias = Callable[[], bool]
Judge: TypeAlias = Callable[[EndedBatch, ResultFiles, Path, IsWanted], AbstractContextManager[T]]
"""Judges the files of a batch, in a folder of its own, on entry; may raise once nobody wants it any more."""


class Ahead(Generic[T]):
    """Batches, downloaded and judged ahead. Close it.

    `upcoming` will be taken in this order. Others may be taken in between, and are begun only then.
    """

    def __init__(self, project: Project, judge: Judge[T], upcoming: Sequence[EndedBatch] = ()) -> None:
        self._project, self._judge = project, judge
        self._upcoming = deque(upcoming)
        self._begun: deque[_Coming[T]] = deque()
        self._is_through = _gate(is_open=True)  # the download of the last that was begun

    @contextmanager
    def taken(self, ended: EndedBatch) -> Iterator[tuple[ResultFiles, T]]:
        """The files of a batch and what the judge made of them, for the length of the block.

        Raises what downloading or judging it raised; the others go on.
        """
        coming = self._take(ended)
        with ExitStack() as stack:
            stack.push(coming.let_go)
            judged = coming.judged()
            self._begin()
            if self._begun:
                self._begun[0].may_judge.set()
            yield judged

    def _take(self, ended: EndedBatch) -> _Coming[T]:
        if not self._begun and self._upcoming and self._upcoming[0] == ended:
            self._begin()
        if self._begun and self._begun[0].ended == ended:
            return self._begun.popleft()
        return _Coming(self._project, ended, self._judge, _gate(is_open=True), _gate())

    def _begin(self) -> None:
        """Have those on their way that should be: each is downloaded when the one before it is."""
        while self._upcoming and len(self._begun) < _DEPTH:
            may_download, self._is_through = self._is_through, _gate()
            ended = self._upcoming.popleft()
            self._begun.append(_Coming(self._project, ended, self._judge, may_download, self._is_through))

    def close(self) -> None:
        """Let go of the batches that nobody took. A download that is under way is not waited for."""
        while self._begun:
            self._begun.popleft().let_go()


def _gate(*, is_open: bool = False) -> threading.Event:
    gate = threading.Event()
    if is_open:
        gate.set()
    return gate


class _Coming(Generic[T]):
    """One batch on its way, in a thread that a process which ends does not wait for."""

    def __init__(
        self,
        project: Project,
        ended: EndedBatch,
        judge: Judge[T],
        may_download: threading.Event,
        is_through: threading.Event,
    ) -> None:
        self.ended = ended
        self.may_judge = _gate()
        self._may_download, self._is_through = may_download, is_through
        self._provider = project.provider(ended.found.provider)
        self._judge = judge
        self._folder = new_work_folder(project)
        self._held = ExitStack()
        self._held.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._judged: tuple[ResultFiles, T] | None = None
        self._problem: BaseException | None = None
        self._lock = threading.Lock()
        self._is_wanted, self._is_judging = True, False
        self._thread = threading.Thread(target=self._run, name="batchops-fetch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._come()
        except BaseException as problem:
            self._problem = problem

    def _come(self) -> None:
        self._may_download.wait()
        try:
            files = download(self._provider, self.ended.remote, self._folder) if self._is_wanted else ResultFiles()
        finally:
            self._is_through.set()
            if not self._is_wanted:
                shutil.rmtree(self._folder, ignore_errors=True)
        self.may_judge.wait()
        with self._lock:
            self._is_judging = self._is_wanted
        if self._is_judging:
            reached("before_judge")
            judging = self._judge(self.ended, files, self._folder, lambda: self._is_wanted)
            self._judged = files, self._held.enter_context(judging)

    def judged(self) -> tuple[ResultFiles, T]:
        """Wait until it is judged. Raises what went wrong on its way."""
        self.may_judge.set()
        self._thread.join()
        if self._judged is None:
            assert self._problem is not None
            raise self._problem
        return self._judged

    def let_go(
        self,
        kind: type[BaseException] | None = None,
        problem: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Leave nothing behind: an engine at work is waited for, a download ends by itself."""
        with self._lock:
            self._is_wanted = False
        self._may_download.set()
        self.may_judge.set()
        if self._is_judging:
            self._thread.join()
        self._held.__exit__(kind, problem, traceback)
