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
from contextlib import contextmanager, suppress
from itertools import cycle
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
def rendering(request: CompiledRequest, columns: Sequence[str], rows: int) -> Iterator[Rendering]:
    """Render batches of so many rows altogether, here or in workers, which end with the block."""
    count = min(_cores(), MOST_WORKERS)
    if rows < MANY_ROWS or count == 1:
        yield _Here(request, columns)
        return
    with _Workers(request.job, columns, count) as workers:
        yield workers


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Here:
    def __init__(self, request: CompiledRequest, columns: Sequence[str]) -> None:
        self._general = General(request, columns)

    def __call__(self, method: str, batches: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        made = getattr(self._general, method)
        return (made(*batch) for batch in batches)


class _Workers:
    def __init__(self, job: Job, columns: Sequence[str], count: int) -> None:
        self._job, self._columns, self._count = job, tuple(columns), count
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
        waiting: deque[Process] = deque()
        for process, batch in zip(cycle(self.processes), batches, strict=False):
            if len(waiting) == len(self.processes):
                yield _answer(waiting.popleft())
            _ask(process, (method, batch))
            waiting.append(process)
        while waiting:
            yield _answer(waiting.popleft())


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
