"""Parquet, written by DuckDB: integers, numbers, booleans, simple lists and embeddings keep their types.

Keys of 128 bits are text: Parquet knows no such number, and DuckDB would write the nearest float.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import duckdb

from batchops.diagnostics import BatchopsError, error
from batchops.results.answers import Answers, damaged, tells_of_damage
from batchops.results.columns import Column, flat_columns, select_list
from batchops.results.sinks import Target, output_needed
from batchops.results.vectors import vector_type
from batchops.store.connection import sql_text

_FEW_TOGETHER = ", ROW_GROUP_SIZE 2048"
"""A row group is held in memory while it is written; a vector of 1,536 numbers takes 12 kB."""


_TOO_LONG = frozenset({"HUGEINT", "UHUGEINT"})


def write(answers: Answers, target: Target) -> int:
    """Write the file at `target.path`. Raises UsageProblem without one: Parquet cannot be written to a pipe."""
    if target.path is None:
        raise output_needed()
    vectors = vector_type(answers)
    columns = _exact(flat_columns(answers.job, vectors=vectors))
    query = answers.select(select_list(columns, typed=True))
    if vectors or answers.are_long:
        answers.con.execute("SET threads = 1")
    try:
        options = f"FORMAT parquet, COMPRESSION zstd{_FEW_TOGETHER if vectors or answers.are_long else ''}"
        copy = f"COPY ({query}) TO {sql_text(str(target.path))} ({options})"
        written = answers.execute(copy).fetchone()
    except duckdb.Error as problem:
        if not tells_of_damage(problem):
            raise
        if str(target.path) in str(problem):
            detail = str(problem).splitlines()[0][:300]
            raise BatchopsError(error("output_unwritable", "The output cannot be written.", detail)) from problem
        raise damaged(problem) from problem
    return int(written[0]) if written else 0


def _exact(columns: Sequence[Column]) -> list[Column]:
    """The columns with types that Parquet has."""
    return [replace(c, type="VARCHAR", typed=c.text) if c.type in _TOO_LONG else c for c in columns]
