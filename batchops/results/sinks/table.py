"""A table to look at: aligned, cut to the terminal, control characters made visible. The other formats have it all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from batchops.grid import Head, grid
from batchops.results.answers import Answers
from batchops.results.columns import flat_columns, select_list
from batchops.results.sinks import Target

_SHOWN_WHEN_SET = frozenset({"error_class", "error_code", "cost_usd"})
_LEFT_TO_FILES = frozenset(
    {"error_message", "finish_reason", "cached_tokens", "reasoning_tokens", "batch_id", "digest"}
)


def write(answers: Answers, target: Target) -> int:
    """Write a header, a rule, and one line a row; nothing at all without rows."""
    columns = [column for column in flat_columns(answers.job) if column.origin not in _LEFT_TO_FILES]
    heads = [Head(column.name, column.is_number, column.origin in _SHOWN_WHEN_SET) for column in columns]
    rows = Counted(answers.stream(select_list(columns, typed=False)))
    for line in grid(heads, rows, width=target.width):
        target.stream.write(line.encode() + b"\n")
    return rows.count


class Counted:
    """An iterable that knows how many it has given."""

    def __init__(self, source: Iterable[Sequence[str | None]]) -> None:
        self.source = source
        self.count = 0

    def __iter__(self) -> Iterator[Sequence[str | None]]:
        for row in self.source:
            self.count += 1
            yield row
