"""A table to look at: aligned, cut to the terminal, control characters made visible. The other formats have it all."""

from __future__ import annotations

from batchops.grid import Head, grid
from batchops.results.answers import Answers
from batchops.results.columns import flat_columns, select_list
from batchops.results.sinks import Target

_LEFT_TO_FILES = frozenset(
    {"error_message", "finish_reason", "cached_tokens", "reasoning_tokens", "batch_id", "digest"}
)


def write(answers: Answers, target: Target) -> None:
    """Write a header, a rule, and one line a row."""
    columns = [column for column in flat_columns(answers.job) if column.origin not in _LEFT_TO_FILES]
    heads = [Head(column.name, right=column.is_number) for column in columns]
    for line in grid(heads, answers.stream(select_list(columns, typed=False)), width=target.width):
        target.stream.write(line.encode() + b"\n")
