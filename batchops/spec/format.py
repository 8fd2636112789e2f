"""Specs in canonical form: layout, and keys in the order of the docs. Never changes what a text means."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from batchops.diagnostics import BatchopsError
from batchops.spec.document import Node, Path
from batchops.spec.layout import laid_out, last_line
from batchops.spec.problems import keys_at
from batchops.spec.yaml import Parsed, decode, parse, split_lines

_MODELINE = re.compile(r"#\s*(yaml-language-server:|yamllint |prettier-ignore|-\*-|vim?:)")


def format_text(data: bytes | str, filename: str) -> str:
    """The canonical text. Raises BatchopsError for text that is not YAML, RuntimeError rather than change its meaning.

    Formatting a formatted text changes nothing.
    """
    before = _readable(data, filename)
    text = decode(data, filename)
    result = _text(laid_out(split_lines(text), [document.places.root for document in before.documents]))
    _require_same(before, result, filename, text)
    for index in range(len(before.documents)):
        ordered = _in_order(result, filename, index)
        if ordered is not None and _is_same(before, parse(ordered, filename)):
            result = ordered
    _require_same(before, result, filename, text)
    return result


def _readable(data: bytes | str, filename: str) -> Parsed:
    parsed = parse(data, filename)
    if parsed.diagnostics:
        raise BatchopsError(*parsed.diagnostics)
    return parsed


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n" if lines else ""


def _require_same(before: Parsed, result: str, filename: str, text: str) -> None:
    if not _is_same(before, parse(result, filename)) or _words(text) != _words(result):
        raise RuntimeError(f"formatting would change what {filename} means")


def _words(text: str) -> Counter[str]:
    """Every line without its spaces and dashes: formatting moves those and whole lines, and nothing else."""
    return Counter(filter(None, (re.sub(r"^-+|[ \t]+", "", line.strip(" \t")) for line in split_lines(text))))


def _is_same(before: Parsed, after: Parsed) -> bool:
    if after.diagnostics or len(before.documents) != len(after.documents):
        return False
    pairs = zip(before.documents, after.documents, strict=True)
    return all(_equal(one.tree, other.tree, ()) for one, other in pairs)


def _equal(one: Any, other: Any, path: Path) -> bool:
    """Equal values. Order counts in what users write into requests, not among the keys of a job."""
    if isinstance(one, dict) and isinstance(other, dict):
        same_keys = one.keys() == other.keys() if keys_at(path) else list(one) == list(other)
        return same_keys and all(_equal(one[key], other[key], (*path, key)) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(
            _equal(a, b, (*path, index)) for index, (a, b) in enumerate(zip(one, other, strict=True))
        )
    return type(one) is type(other) and repr(one) == repr(other)


def _in_order(text: str, filename: str, index: int) -> str | None:
    """The text with the keys of one document in order; None when nothing is to be moved."""
    document = parse(text, filename).documents[index]
    lines = list(split_lines(text))
    for path, node in _known_mappings(document.places.root, ()):
        _sort_entries(lines, node, path)
    ordered = "\n".join(lines)
    return None if ordered == text else ordered


def _known_mappings(node: Node, path: Path) -> Iterator[tuple[Path, Node]]:
    """Block mappings whose keys are ours, inner ones first: sorting one moves whole lines inside the outer's ranges."""
    if node.style == "flow":
        return
    for index, item in enumerate(node.items):
        yield from _known_mappings(item, (*path, index))
    for key, value in node.entries:
        yield from _known_mappings(value, (*path, key.value))
    if len(node.entries) > 1 and keys_at(path):
        yield path, node


def _sort_entries(lines: list[str], node: Node, path: Path) -> None:
    ranks = [_rank(key.value, path) for key, _ in node.entries]
    first = node.entries[0][0]
    begin, column = first.start.line - 1, first.start.column - 1
    prefix = lines[begin][:column]
    is_on_dash = bool(prefix.strip(" \t"))
    starts = [begin if is_on_dash else _lead(lines, begin, column, -1)]
    for (_, value), (key, _) in pairwise(node.entries):
        starts.append(_lead(lines, key.start.line - 1, column, last_line(value, lines)))
    stop = _below(lines, last_line(node.entries[-1][1], lines) + 1, column)
    chunks = [lines[start:end] for start, end in zip(starts, [*starts[1:], stop], strict=True)]
    order = sorted(range(len(chunks)), key=ranks.__getitem__)
    if chunks[order[0]][0] == "":  # no blank line before the first key: it goes before the one that was first
        chunks[order[0]] = chunks[order[0]][1:]
        chunks[0] = ["", *chunks[0]]
    if is_on_dash:
        if chunks[order[0]][0].lstrip(" \t").startswith("#"):
            return
        blank = 1 if chunks[0][0] == "" else 0
        chunks[0][blank] = " " * column + chunks[0][blank][column:]
        chunks[order[0]][0] = prefix + chunks[order[0]][0][column:]
    lines[starts[0] : stop] = [line for index in order for line in chunks[index]]


def _lead(lines: list[str], key_line: int, column: int, after: int) -> int:
    """Where a key's own lines begin: the comments right above it, and the blank line above those."""
    start = key_line
    while (
        start - 1 > after and lines[start - 1].startswith(" " * column + "#") and not _MODELINE.match(lines[start - 1])
    ):
        start -= 1
    return start - 1 if after >= 0 and start - 1 > after and lines[start - 1] == "" else start


def _below(lines: list[str], stop: int, column: int) -> int:
    """Comments below the last value that stand deeper than the keys belong to it."""
    deeper = re.compile(rf" {{{column + 1},}}#")
    while stop < len(lines) and deeper.match(lines[stop]):
        stop += 1
    return stop


def _rank(key: str, path: Path) -> int:
    """Anchors' homes first, then merge keys, then the order of the docs; unknown keys last, as written."""
    keys = keys_at(path)
    if key in keys:
        return keys.index(key)
    if key.startswith("x-") and not path:
        return -2
    return -1 if key == "<<" else len(keys)
