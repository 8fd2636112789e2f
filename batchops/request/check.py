"""The checks of `validate`: templates compile, queries bind behind the fence, and the columns they name exist.

No query runs and no template is rendered, so it is safe on a repository that nobody has read yet.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Thread
from typing import Final, TypeAlias, TypeVar

import duckdb

from batchops.diagnostics import BatchopsError, Diagnostic, error, warning
from batchops.request.fence import Unsteady, connect_fenced, unsteady_parts
from batchops.request.place import QUERY, place_in
from batchops.request.source import bound_columns, checked_query, column_problems, no_column
from batchops.request.template import CompiledRequest, compile_request
from batchops.request.text import Text
from batchops.spec.job import Job

T = TypeVar("T")
Columns: TypeAlias = dict[str, str]


def check_jobs(root: Path, jobs: Iterable[Job]) -> tuple[Diagnostic, ...]:
    """Everything that is wrong with the jobs' queries and templates. The working directory must be the root."""
    jobs = tuple(jobs)
    with _Binder(root, jobs) as binder:
        compiled = [_tried(partial(compile_request, job)) for job in jobs]
        unsteady = [tuple(unsteady_problems(job)) for job in jobs]
        bound = binder.found()
    return tuple(chain.from_iterable(map(_problems, jobs, compiled, bound, unsteady)))


def _problems(
    job: Job,
    request: CompiledRequest | BatchopsError,
    columns: Columns | BatchopsError,
    unsteady: Iterable[Diagnostic],
) -> Iterator[Diagnostic]:
    if isinstance(request, BatchopsError):
        yield from request.diagnostics
    if isinstance(columns, BatchopsError):
        yield from columns.diagnostics
        return
    yield from column_problems(job, columns)
    yield from unsteady
    if isinstance(request, CompiledRequest):
        yield from unknown_columns(request, columns)


def _tried(do: Callable[[], T]) -> T | BatchopsError:
    try:
        return do()
    except BatchopsError as problem:
        return problem


_TURN_SECONDS: Final = 0.0002
"""After so long one thread lets the other have Python. At the usual 5 ms DuckDB would wait for most of the time."""


_STACK_BYTES: Final = 64 << 20
"""DuckDB binds nested queries by recursion, and threads have 2 MB where the stack of a process is not limited."""


class _Binder(Thread):
    """Binds the queries of jobs on a thread: DuckDB works on them while Python compiles the templates."""

    def __init__(self, root: Path, jobs: Iterable[Job]) -> None:
        super().__init__(name="batchops-binder")
        self._root, self._jobs = root, jobs
        self._turn_before = sys.getswitchinterval()
        self._bound: list[Columns | BatchopsError] = []
        self._broken: BaseException | None = None
        self._is_stopped = False

    def __enter__(self) -> _Binder:
        before = threading.stack_size(_STACK_BYTES)
        try:
            self.start()
        finally:
            threading.stack_size(before)
        sys.setswitchinterval(_TURN_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopped = True
        self.join()
        sys.setswitchinterval(self._turn_before)

    def run(self) -> None:
        try:
            with closing(connect_fenced(":memory:", self._root, memory_limit="1GB", threads=1)) as connection:
                for job in self._jobs:
                    if self._is_stopped:
                        return
                    self._bound.append(_tried(partial(_bound, connection, job)))
        except BaseException as problem:
            self._broken = problem

    def found(self) -> list[Columns | BatchopsError]:
        """The columns of each job's query, or why it does not bind."""
        self.join()
        if self._broken is not None:
            raise self._broken
        return self._bound


def _bound(connection: duckdb.DuckDBPyConnection, job: Job) -> Columns:
    return bound_columns(connection, job, checked_query(connection, job))


def unknown_columns(request: CompiledRequest, columns: Iterable[str]) -> Iterator[Diagnostic]:
    """An error for each name in a template that is no column of the source."""
    known = list(columns)
    for text in request.all_texts:
        for name in sorted(text.columns - text.optional - set(known)):
            yield _unknown_column(request.job, text, name, known)


def _unknown_column(job: Job, text: Text, name: str, known: list[str]) -> Diagnostic:
    place = place_in(job, text.slot.path, *text.find(name), len(name))
    detail = no_column(name, known, place.words)
    return place.put(error("unknown_column", "Unknown column.", detail), job.address)


def unsteady_problems(job: Job) -> Iterator[Diagnostic]:
    """A warning for each part of the query that may give other rows the next time."""
    for part in unsteady_parts(job.query):
        before = job.query[: part.offset]
        place = place_in(job, QUERY, before.count("\n") + 1, part.offset - before.rfind("\n"), len(part.word))
        yield place.put(_unsteady(part, place.words), job.address)


def _unsteady(part: Unsteady, words: str) -> Diagnostic:
    if part.is_limit:
        detail = f"LIMIT without ORDER BY{words} may take other rows each time, and every other row is paid again."
        return warning("limit_without_order", "LIMIT without ORDER BY.", detail)
    detail = f'"{part.word}"{words} gives another value each time: rows that print it are paid again at every apply.'
    return warning("volatile_query", "Volatile query.", detail)
