"""The lines of a YAML text laid out again: two spaces a level, one after `-` and `:`, single blank lines.

Works on lines and never writes a scalar anew, so comments, anchors, quotes and block scalars survive by construction.
Columns are 0-based here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from batchops.spec.document import Node

STEP = 2
_HEADER = re.compile(r"[|>]([-+]?)(\d?)([-+]?)")


@dataclass(frozen=True)
class _Level:
    """A block's column as written and as it will be."""

    old: int
    new: int


def laid_out(lines: Iterable[str], roots: Iterable[Node]) -> list[str]:
    """The lines in canonical layout. `roots` are the documents of the same text."""
    layout = _Layout(list(lines))
    for root in roots:
        layout.root(root)
    return _without_extra_blanks(layout.result(), layout.scalar_lines())


def last_line(node: Node, lines: list[str]) -> int:
    """The 0-based line in which a value ends; the blank lines below a block scalar are not part of it."""
    if node.kind == "mapping" and node.style != "flow" and node.entries:
        return last_line(node.entries[-1][1], lines)
    if node.kind == "sequence" and node.style != "flow" and node.items:
        return last_line(node.items[-1], lines)
    if node.style in {"|", ">"}:
        return _block_end(node, lines)
    return node.end.line - 1


def _block_end(node: Node, lines: list[str]) -> int:
    """The last line of a block scalar's content: trailing blank lines count only where the header keeps them."""
    first, stop = node.start.line, min(node.end.line - (node.end.column == 1), len(lines))
    content = [number for number in range(first, stop) if lines[number].strip(" \t")]
    indent = min((_indent(lines[number]) for number in content[:1]), default=0)
    header = _HEADER.search(lines[node.start.line - 1], node.start.column - 1)
    if header is not None and header[2]:
        indent = 1
    inside = [number for number in content if _indent(lines[number]) >= indent]
    while content and content[-1] not in inside:
        content.pop()
    end = content[-1] if content else node.start.line - 1
    if header is not None and "+" in (header[1], header[3]):
        while end + 1 < stop and not lines[end + 1].strip(" \t"):
            end += 1
    return end


class _Layout:
    """What becomes of each line: its new indentation, and gaps in it to be narrowed."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._moves: dict[int, _Level] = {}
        self._stacks: dict[int, tuple[_Level, ...]] = {}
        self._gaps: dict[int, list[tuple[int, int, str]]] = {}
        self._inside: dict[int, str] = {}

    def root(self, node: Node) -> None:
        top = _Level(-STEP, -STEP)
        self._value(node, top, ())

    def scalar_lines(self) -> set[int]:
        """The lines that belong to a scalar or flow collection begun above: nothing but their indentation changes."""
        return set(self._inside)

    def result(self) -> list[str]:
        laid: list[str] = []
        for number, line in enumerate(self._lines):
            if line.startswith(("---", "...")) and number not in self._inside:
                self._stacks.setdefault(number, ())  # comments do not look across documents
        for number, line in enumerate(self._lines):
            if number in self._inside:
                laid.append(self._inside[number])
            elif number in self._moves:
                text = self._narrowed(number)
                laid.append((" " * self._moves[number].new + text.lstrip(" ")).rstrip(" \t"))
            elif line.lstrip(" \t").startswith("#"):
                laid.append(" " * self._comment_column(number) + line.strip(" \t"))
            else:
                laid.append(line.rstrip(" \t"))
        return laid

    def _value(self, node: Node, owner: _Level, stack: tuple[_Level, ...]) -> None:
        if node.style == "flow" or node.kind in {"scalar", "alias"}:
            self._leaf(node, owner, stack)
        elif node.kind == "mapping" and node.entries:
            self._mapping(node, owner, stack)
        elif node.kind == "sequence" and node.items:
            self._sequence(node, owner, stack)

    def _mapping(self, node: Node, owner: _Level, stack: tuple[_Level, ...]) -> None:
        level = _Level(node.entries[0][0].start.column - 1, owner.new + STEP)
        inner = (*stack, level)
        for key, value in node.entries:
            self._begin(key.start.line - 1, level, inner)
            self._narrow_after(key.end.line - 1, key.end.column - 1, value)
            self._value(value, level, inner)

    def _sequence(self, node: Node, owner: _Level, stack: tuple[_Level, ...]) -> None:
        dashes = list(self._dashes(node))
        level = _Level(dashes[0][1], owner.new + STEP)
        inner = (*stack, level)
        for (line, column), item in zip(dashes, node.items, strict=True):
            self._begin(line, level, inner)
            if item.start.line - 1 == line and item.end != item.start:
                self._narrow(line, column + 1, item.start.column - 1, " ")
            self._value(item, level, inner)

    def _dashes(self, node: Node) -> Iterator[tuple[int, int]]:
        """Line and column of each item's dash: in one column, on the item's line or above it."""
        line, column = node.start.line - 1, node.start.column - 1
        if self._lines[line][column] != "-":  # an anchor or tag stands before the first dash
            line = next(n for n in range(line + 1, len(self._lines)) if self._lines[n].lstrip(" ").startswith("-"))
            column = _indent(self._lines[line])
        for item in node.items:
            line = item.start.line - 1
            if item.start.column - 1 <= column:
                line -= 1
            while self._lines[line][column : column + 1] != "-":
                line -= 1
            yield line, column

    def _leaf(self, node: Node, owner: _Level, stack: tuple[_Level, ...]) -> None:
        first, column = node.start.line - 1, node.start.column - 1
        if node.end != node.start and not self._lines[first][:column].strip(" \t"):
            level = _Level(column, owner.new + STEP)
            self._begin(first, level, (*stack, level))
        if node.style in {"|", ">"}:
            self._block_scalar(node, owner)
            return
        for number in range(first + 1, node.end.line):
            line = self._lines[number]
            shifted = _indent(line) + owner.new - owner.old
            self._inside[number] = " " * max(shifted, 0) + line.lstrip(" ") if line.strip(" \t") else ""

    def _block_scalar(self, node: Node, owner: _Level) -> None:
        lines, end = self._lines, last_line(node, self._lines)
        header = _HEADER.search(lines[node.start.line - 1], node.start.column - 1)
        content = range(node.start.line, end + 1)
        written = next((_indent(lines[number]) for number in content if lines[number].strip(" \t")), 0)
        new = owner.new + STEP if owner.new >= 0 else STEP
        if header is not None and header[2]:
            written, new = max(owner.old, 0) + int(header[2]), max(owner.new, 0) + int(header[2])
        for number in content:
            rest = lines[number][written:]
            blank = not lines[number].strip(" \t") and not rest
            self._inside[number] = "" if blank else " " * new + rest

    def _begin(self, line: int, level: _Level, stack: tuple[_Level, ...]) -> None:
        self._moves.setdefault(line, level)
        self._stacks[line] = stack

    def _narrow_after(self, line: int, column: int, value: Node) -> None:
        """One space between a key's colon and a value on the same line."""
        if value.start.line - 1 != line or value.end == value.start:
            return
        gap = self._lines[line][column : value.start.column - 1]
        if gap.strip(" \t") == ":":
            self._narrow(line, column, value.start.column - 1, ": ")

    def _narrow(self, line: int, start: int, end: int, text: str) -> None:
        self._gaps.setdefault(line, []).append((start, end, text))

    def _narrowed(self, number: int) -> str:
        line = self._lines[number]
        for start, end, text in sorted(self._gaps.get(number, ()), reverse=True):
            line = line[:start] + text + line[end:]
        return line

    def _comment_column(self, number: int) -> int:
        """A comment goes where the block goes whose column it stands in: the next one's, else the one above it."""
        column = _indent(self._lines[number])
        below = next((self._stacks[n] for n in range(number, len(self._lines)) if n in self._stacks), ())
        above = next((self._stacks[n] for n in range(number, -1, -1) if n in self._stacks), ())
        for level in (*below, *reversed(above)):
            if level.old == column:
                return level.new
        nearest = [level for level in (*below, *above) if level.old <= column]
        return max(nearest, key=lambda level: level.old).new if nearest else 0


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _without_extra_blanks(lines: list[str], fixed: set[int]) -> list[str]:
    """At most one blank line in a row and none at either end, but for those that scalars are made of."""
    kept: list[tuple[int, str]] = []
    for number, line in enumerate(lines):
        if line or number in fixed or (kept and kept[-1][1]):
            kept.append((number, line))
    while kept and not kept[-1][1] and kept[-1][0] not in fixed:
        kept.pop()
    return [line for _, line in kept]
