"""The checks of `validate`: templates compile, queries bind behind the fence, and the columns they name exist.

No query runs and no template is rendered, so it is safe on a repository that nobody has read yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb

from batchops.diagnostics import BatchopsError, Diagnostic, error, warning
from batchops.request.fence import Unsteady, connect_fenced, unsteady_parts
from batchops.request.place import QUERY, place_in
from batchops.request.source import bound_columns, checked_query, column_problems, no_column
from batchops.request.template import CompiledRequest, compile_request
from batchops.request.text import Text
from batchops.spec.job import Job


def check_jobs(root: Path, jobs: Iterable[Job]) -> tuple[Diagnostic, ...]:
    """Everything that is wrong with the jobs' queries and templates. The working directory must be the root."""
    connection = connect_fenced(":memory:", root, memory_limit="1GB", threads=1)
    try:
        return tuple(problem for job in jobs for problem in _check_job(connection, job))
    finally:
        connection.close()


def _check_job(connection: duckdb.DuckDBPyConnection, job: Job) -> Iterator[Diagnostic]:
    request, columns = None, None
    try:
        request = compile_request(job)
    except BatchopsError as problem:
        yield from problem.diagnostics
    try:
        columns = bound_columns(connection, job, checked_query(connection, job))
    except BatchopsError as problem:
        yield from problem.diagnostics
    if columns is not None:
        yield from column_problems(job, columns)
        yield from unsteady_problems(job)
    if request is not None and columns is not None:
        yield from unknown_columns(request, columns)


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
