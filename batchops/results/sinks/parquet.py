"""Parquet, written by DuckDB: integers, numbers, booleans, simple lists and embeddings keep their types."""

from __future__ import annotations

import duckdb

from batchops.diagnostics import BatchopsError, UsageProblem, error
from batchops.results.answers import Answers, damaged
from batchops.results.columns import flat_columns, select_list
from batchops.results.sinks import Target
from batchops.results.vectors import vector_type
from batchops.store.connection import sql_text


def write(answers: Answers, target: Target) -> int:
    """Write the file at `target.path`. Raises UsageProblem without one: Parquet cannot be written to a pipe."""
    if target.path is None:
        raise UsageProblem(
            error("output_needed", "An output file is needed.", "Parquet is written to a file: -o FILE.parquet")
        )
    columns = flat_columns(answers.job, vectors=vector_type(answers))
    query = answers.select(select_list(columns, typed=True))
    try:
        copy = f"COPY ({query}) TO {sql_text(str(target.path))} (FORMAT parquet, COMPRESSION zstd)"
        written = answers.con.execute(copy).fetchone()
    except (duckdb.IOException, duckdb.InvalidInputException) as problem:
        if str(target.path) in str(problem):
            detail = str(problem).splitlines()[0][:300]
            raise BatchopsError(error("output_unwritable", "The output cannot be written.", detail)) from problem
        raise damaged(problem) from problem
    return int(written[0]) if written else 0
