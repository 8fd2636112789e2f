"""A table as aligned lines of text, cut to a width and never wrapped. Pure: cells in, lines out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from batchops.terminal import cells, fit, pad, visible

SAMPLED_ROWS = 1000
"""Widths are taken from so many rows; what comes later is cut to them, so that a million rows stream."""

WIDEST_CELL = 100
"""No column is wider, also where there is no terminal to fit into."""

_GAP = "  "
_NARROWEST = 12
_ESCAPES = str.maketrans({"\n": "\\n", "\t": "\\t"})


@dataclass(frozen=True)
class Head:
    """A column: its title, whether its cells stand to the right as numbers do, and whether it may go when empty."""

    title: str
    right: bool = False
    optional: bool = False


def grid(heads: Sequence[Head], rows: Iterable[Sequence[str | None]], *, width: int | None = None) -> Iterator[str]:
    """The header, a rule and the rows as lines of at most `width` columns (None: as wide as the cells).

    No rows give no lines. Control characters are shown as escapes, None as an empty cell. Where the columns do not
    all fit, long cells are cut first; then columns are left out from the right, and the last line says which.
    """
    source = iter(rows)
    first = list(itertools.islice(source, SAMPLED_ROWS))
    if not first:
        return
    shown = [i for i, head in enumerate(heads) if not head.optional or any(row[i] is not None for row in first)]
    heads = [heads[i] for i in shown]
    lines = ([_cell(row[i]) for i in shown] for row in itertools.chain(first, source))
    sample = list(itertools.islice(lines, len(first)))
    widths = _shrink(_natural_widths(heads, sample), width)
    yield _line([head.title for head in heads], heads, widths).rstrip()
    yield _GAP.join("─" * column for column in widths)
    for row in itertools.chain(sample, lines):
        yield _line(row, heads, widths).rstrip()
    if left_out := heads[len(widths) :]:
        text = f"({len(left_out)} more: {', '.join(head.title for head in left_out)})"
        yield text if width is None else fit(text, width)


def _cell(value: str | None) -> str:
    return "" if value is None else visible(value[: WIDEST_CELL + 1].translate(_ESCAPES))


def _natural_widths(heads: Sequence[Head], sample: Sequence[Sequence[str]]) -> list[int]:
    widths = [cells(head.title) for head in heads]
    for row in sample:
        widths = [max(width, cells(value)) for width, value in zip(widths, row, strict=True)]
    return [min(width, WIDEST_CELL) for width in widths]


def _shrink(natural: list[int], width: int | None) -> list[int]:
    """Give every column its natural width if possible; else cut the widest ones, then drop columns from the right."""
    if width is None:
        return natural
    kept = list(natural)
    while len(kept) > 1 and _total(min(column, _NARROWEST) for column in kept) > width:
        kept.pop()
    while _total(kept) > width and max(kept) > 1:
        widest = max(kept)
        second = max((column for column in kept if column < widest), default=1)
        count = kept.count(widest)
        surplus = _total(kept) - width
        cut = min(widest - second, -(-surplus // count))
        kept = [column - max(cut, 1) if column == widest else column for column in kept]
    return kept


def _total(widths: Iterable[int]) -> int:
    listed = list(widths)
    return sum(listed) + len(_GAP) * (len(listed) - 1)


def _line(row: Sequence[str], heads: Sequence[Head], widths: Sequence[int]) -> str:
    return _GAP.join(
        pad(fit(value, width), width, right=head.right)
        for value, head, width in zip(row, heads, widths, strict=False)  # columns that do not fit are left out
    )
