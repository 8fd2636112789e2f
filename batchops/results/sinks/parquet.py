"""Parquet, written by DuckDB: integers, numbers, booleans, simple lists and embeddings keep their types.

Keys of 128 bits are text: Parquet knows no such number, and DuckDB would write the nearest float.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import duckdb

from batchops.diagnostics import BatchopsError, error
from batchops.results.answers import Answers
from batchops.results.columns import OTHER_SHAPE, Column, flat_columns, select_list
from batchops.results.damage import damage_told
from batchops.results.sinks import Target, output_needed
from batchops.results.vectors import EMBEDDINGS, OtherShape, shapes, vector_type
from batchops.store.connection import sql_text

_FEW_TOGETHER = ", ROW_GROUP_SIZE 2048"
"""A row group is held in memory while it is written; a vector of 1,536 numbers takes 12 kB."""


_TOO_LONG = frozenset({"HUGEINT", "UHUGEINT"})


def write(answers: Answers, target: Target) -> int:
    """Write the file at `target.path`. Raises UsageProblem without one: Parquet cannot be written to a pipe."""
    if target.path is None:
        raise output_needed()
    for shape in shapes(vector_type(answers)):
        with contextlib.suppress(OtherShape):
            return _write(answers, target.path, shape)
    raise AssertionError("every answer has a text")


def _write(answers: Answers, path: Path, vectors: str | None) -> int:
    """Raises OtherShape where an embedding is none of type `vectors`."""
    columns = _exact(flat_columns(answers.job, vectors=vectors))
    query = answers.select(select_list(columns, typed=True))
    is_long = answers.are_long or answers.job.endpoint == EMBEDDINGS
    if is_long:
        answers.con.execute("SET threads = 1")
    # `path` is no final name: 1.5 would leave its own temporary file behind on a full disk
    options = f"FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false{_FEW_TOGETHER if is_long else ''}"
    with damage_told(answers.con, answers.paths):
        try:
            written = answers.execute(f"COPY ({query}) TO {sql_text(str(path))} ({options})").fetchone()
        except duckdb.InvalidInputException as problem:
            if OTHER_SHAPE in str(problem):
                raise OtherShape from problem
            raise
        except duckdb.IOException as problem:
            if path.name in str(problem):
                raise _unwritable(path, problem) from problem
            raise
    return int(written[0]) if written else 0


def _unwritable(path: Path, problem: duckdb.IOException) -> BatchopsError:
    reason = str(problem).splitlines()[0].rpartition(": ")[2].split('"')[0]
    return BatchopsError(error("output_unwritable", "The output cannot be written.", f"{path.parent}: {reason}."))


def _exact(columns: Sequence[Column]) -> list[Column]:
    """The columns with types that Parquet has."""
    return [replace(c, type="VARCHAR", typed=c.text) if c.type in _TOO_LONG else c for c in columns]
