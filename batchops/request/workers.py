"""The general path in several processes, where there are rows enough to pay for starting them.

Python renders on one core at a time. Each worker compiles the request for itself, takes one batch and gives it back
before it gets the next, so that little is under way and no two wait for each other. A worker ends when its pipe does,
however this process ends.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import chain, cycle
from typing import IO, Any, Final, TypeAlias

from batchops.diagnostics import BatchopsError, error
from batchops.request.general import General
from batchops.request.template import CompiledRequest, compile_request
from batchops.spec.job import Job

MANY_ROWS: Final = 50_000
"""Rows from which on it pays: a worker takes half a second to start, in which this process renders 30,000 of them
(measured, 2026-11)."""

MOST_WORKERS: Final = 4

Process: TypeAlias = "subprocess.Popen[bytes]"

Rendering: TypeAlias = Callable[[str, Iterable[tuple[Any, ...]]], Iterator[Any]]
"""Calls a method of `General` with the arguments of each batch; yields what it returns, in order."""


@contextmanager
def rendering(
    request: CompiledRequest, columns: Sequence[str], *, most_workers: int = MOST_WORKERS
) -> Iterator[Rendering]:
    """Render batches, each a list of rows and what else the method takes: here, and in workers once they are many."""
    with ExitStack() as stack:
        yield _Spreading(request, columns, min(_cores(), most_workers), stack)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Spreading:
    """Renders the first MANY_ROWS rows here: nobody knows beforehand how many a query gives."""

    def __init__(self, request: CompiledRequest, columns: Sequence[str], count: int, stack: ExitStack) -> None:
        self._general = General(request, columns)
        self._make = partial(_Workers, request.job, columns, self._general, count) if count > 1 else None
        self._stack = stack
        self._workers: _Workers | None = None
        self._rows = 0

    def __call__(self, method: str, batches: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        made, coming = getattr(self._general, method), iter(batches)
        for batch in coming:
            if self._make is not None and self._rows >= MANY_ROWS:
                if self._workers is None:
                    self._workers = self._stack.enter_context(self._make())
                yield from self._workers(method, chain([batch], coming))
                return
            self._rows += len(batch[0])
            yield made(*batch)


class _Workers:
    """So many places to render at once: workers, and this process where there are but two.

    Where there are more, this process has enough to do with what they take and give.
    """

    def __init__(self, job: Job, columns: Sequence[str], general: General, count: int) -> None:
        self._job, self._columns, self._general = job, tuple(columns), general
        self._count = max(count - 1, 1)
        self._is_here_too = count == 2
        self.processes: list[Process] = []

    def __enter__(self) -> _Workers:
        try:
            for _ in range(self._count):
                self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        """A program of its own, never a fork, which would copy the engine's locks; in a group of its own, so that
        Ctrl-C reaches this process alone."""
        own_group = 0 if os.name == "posix" else None
        program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import work; work()"
        command = [sys.executable, "-P", "-c", program]  # what lies in the project's folder is no module of ours
        process = subprocess.Popen(  # noqa: S603  our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=own_group
        )
        self.processes.append(process)
        _ask(process, (self._job, self._columns))

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()  # it holds nothing that could be lost
            process.wait()
            with suppress(OSError):  # of what it did not read
                _pipe(process.stdin).close()
            _pipe(process.stdout).close()

    def __call__(self, method: str, batches: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        places: list[Process | None] = [*self.processes, *([None] if self._is_here_too else [])]
        waiting: deque[Callable[[], Any]] = deque()
        for place, batch in zip(cycle(places), batches, strict=False):
            if len(waiting) == len(places):
                yield waiting.popleft()()
            waiting.append(self._begun(place, method, batch))
        while waiting:
            yield waiting.popleft()()

    def _begun(self, place: Process | None, method: str, batch: tuple[Any, ...]) -> Callable[[], Any]:
        """What gives the answer, once it is its turn; here a batch is rendered at once."""
        if place is None:
            made = getattr(self._general, method)(*batch)
            return lambda: made
        _ask(place, (method, batch))
        return partial(_answer, place)


def _ask(process: Process, question: object) -> None:
    try:
        pickle.dump(question, _pipe(process.stdin), pickle.HIGHEST_PROTOCOL)
        _pipe(process.stdin).flush()
    except OSError as problem:
        raise _died() from problem


def _answer(process: Process) -> Any:
    try:
        is_made, made = pickle.load(_pipe(process.stdout))  # noqa: S301  our own process wrote it
    except (EOFError, OSError, pickle.UnpicklingError) as problem:
        raise _died() from problem
    if not is_made:
        raise made
    return made


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _died() -> BatchopsError:
    return BatchopsError(
        error(
            "worker_died",
            "A worker died.",
            "One of the processes that render rows was ended by something else: most often the machine was out of"
            " memory. Nothing of what it had in hand was sent; the same command goes on from here.",
        )
    )


def work() -> None:
    """What a worker does, until its pipe ends."""
    with suppress(BrokenPipeError):
        _serve(sys.stdin.buffer, sys.stdout.buffer)
    os._exit(0)


def _serve(asked: IO[bytes], answered: IO[bytes]) -> None:
    job, columns = pickle.load(asked)  # noqa: S301  our own process wrote it
    general = General(compile_request(job), columns)
    while True:
        try:
            method, batch = pickle.load(asked)  # noqa: S301
        except EOFError:
            return
        try:
            answer = True, getattr(general, method)(*batch)
        except Exception as problem:
            answer = False, problem
        pickle.dump(answer, answered, pickle.HIGHEST_PROTOCOL)
        answered.flush()
