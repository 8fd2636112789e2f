"""The pipeline of fetches: while one batch is committed, the next is judged, and the one behind that is downloaded.

Each batch has a thread of its own, which downloads and judges it, and no more: it writes nothing to the state and tells
nobody. What it reads there is of this batch alone, and no other fetch changes it. So whoever takes the batches one by
one records them as if nothing had been done ahead. One is judged at a time, so the lines of one are in memory.
"""

from __future__ import annotations

import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
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
"""How many batches behind the taken one are on their way, at most: judged, or being judged, or being downloaded."""


@dataclass(frozen=True)
class EndedBatch:
    """A batch to fetch: our record of it, what its provider says, and its job, None where no spec declares it now."""

    found: Submission
    remote: RemoteBatch
    job: Job | None


IsWanted: TypeAlias = Callable[[], bool]
Judge: TypeAlias = Callable[[EndedBatch, ResultFiles, Path, IsWanted], T]
"""Judges the files of a batch, in a folder of its own, which stays until the batch is recorded; one at a time.

May raise once nobody wants it any more.
"""


class Ahead(Generic[T]):
    """Batches, downloaded and judged ahead. Close it.

    `upcoming` will be taken in this order. Others may be taken in between, and are begun only then.
    """

    def __init__(self, project: Project, judge: Judge[T], upcoming: Sequence[EndedBatch] = ()) -> None:
        self._project, self._judge = project, judge
        self._upcoming = deque(upcoming)
        self._begun: deque[_Coming[T]] = deque()
        self._is_through = _gate(is_open=True)  # the download of the last that was begun
        self._is_judged = _gate(is_open=True)  # the last that was begun

    @contextmanager
    def taken(self, ended: EndedBatch) -> Iterator[tuple[ResultFiles, T]]:
        """The files of a batch and what the judge made of them, for the length of the block.

        Raises what downloading or judging it raised; the others go on.
        """
        coming = self._take(ended)
        try:
            judged = coming.judged()
            self._begin()
            yield judged
        finally:
            coming.let_go()

    def _take(self, ended: EndedBatch) -> _Coming[T]:
        if not self._begun and self._upcoming and self._upcoming[0] == ended:
            self._begin()
        if self._begun and self._begun[0].ended == ended:
            return self._begun.popleft()
        return self._coming(ended)

    def _begin(self) -> None:
        """Have those on their way that should be."""
        while self._upcoming and len(self._begun) < _DEPTH:
            self._begun.append(self._coming(self._upcoming.popleft()))

    def _coming(self, ended: EndedBatch) -> _Coming[T]:
        """One that is downloaded, and judged, when the one before it is."""
        download, judgement = _Turn(self._is_through), _Turn(self._is_judged)
        self._is_through, self._is_judged = download.is_over, judgement.is_over
        return _Coming(self._project, ended, self._judge, download, judgement)

    def close(self) -> None:
        """Let go of the batches that nobody took. A download that is under way is not waited for."""
        for coming in self._begun:  # of all before any is waited for: where one ends, the next would be judged
            coming.want_no_more()
        while self._begun:
            self._begun.popleft().let_go()


def _gate(*, is_open: bool = False) -> threading.Event:
    gate = threading.Event()
    if is_open:
        gate.set()
    return gate


class _Turn:
    """Work that is done when others have done theirs."""

    def __init__(self, may_begin: threading.Event) -> None:
        self._may_begin, self.is_over = may_begin, _gate()

    def __enter__(self) -> None:
        self._may_begin.wait()

    def __exit__(self, *_: object) -> None:
        self.is_over.set()

    def hurry(self) -> None:
        """Wait for nobody: there is nothing left to do."""
        self._may_begin.set()


class _Coming(Generic[T]):
    """One batch on its way, in a thread that a process which ends does not wait for."""

    def __init__(self, project: Project, ended: EndedBatch, judge: Judge[T], download: _Turn, judgement: _Turn) -> None:
        self.ended = ended
        self._download, self._judgement = download, judgement
        self._provider = project.provider(ended.found.provider)
        self._judge = judge
        self._folder = new_work_folder(project)
        self._judged: tuple[ResultFiles, T] | None = None
        self._problem: BaseException | None = None
        self._lock = threading.Lock()
        self._is_wanted, self._is_judging = True, False
        self._thread = threading.Thread(target=self._run, name="batchops-fetch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._download, self._noting_problem():
            files = self._downloaded()
        with self._judgement, self._noting_problem():
            if self._problem is None:
                self._judge_files(files)

    @contextmanager
    def _noting_problem(self) -> Iterator[None]:
        try:
            yield
        except BaseException as problem:
            self._problem = problem

    def _downloaded(self) -> ResultFiles:
        try:
            return download(self._provider, self.ended.remote, self._folder) if self._is_wanted else ResultFiles()
        finally:
            if not self._is_wanted:
                shutil.rmtree(self._folder, ignore_errors=True)

    def _judge_files(self, files: ResultFiles) -> None:
        with self._lock:
            self._is_judging = self._is_wanted
        if self._is_judging:
            reached("before_judge")
            self._judged = files, self._judge(self.ended, files, self._folder, lambda: self._is_wanted)

    def judged(self) -> tuple[ResultFiles, T]:
        """Wait until it is judged. Raises what went wrong on its way."""
        self._thread.join()
        if self._judged is None:
            assert self._problem is not None
            raise self._problem
        return self._judged

    def want_no_more(self) -> None:
        """Have it end soon."""
        with self._lock:
            self._is_wanted = False
        self._download.hurry()
        self._judgement.hurry()

    def let_go(self) -> None:
        """Leave nothing behind: an engine at work is waited for, a download ends by itself."""
        self.want_no_more()
        if self._is_judging:
            self._thread.join()
        shutil.rmtree(self._folder, ignore_errors=True)
