"""A YAML document as written and as meant: nodes with their places, and the plain values they stand for.

Aliases and merge keys are carried out here, within bounds: a hostile file can make them expand without end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Final, TypeAlias

from batchops.diagnostics import Diagnostic, Location, Position, error

Path: TypeAlias = tuple[str | int, ...]

MAX_DEPTH: Final = 60
MAX_NODES: Final = 50_000


@dataclass(slots=True, eq=False)
class Node:
    """A value as written.

    `kind` is scalar, sequence, mapping or alias (whose `value` is the node it repeats); `style` is ruamel's: None, ',
    ", | or >, or flow.
    """

    kind: str
    start: Position
    end: Position
    value: Any = None
    style: str | None = None
    items: list[Node] = field(default_factory=list)
    entries: list[tuple[Node, Node]] = field(default_factory=list)

    def location(self, filename: str) -> Location:
        return Location(filename, self.start, self.end)


@dataclass(frozen=True)
class Places:
    """Where a document is written: its nodes, and each path of its tree.

    `values` and `keys` are complete: what comes from an alias or a merge key is found where it really stands.
    `texts` says, for texts written line by line, where their first character stands.
    """

    root: Node
    values: Mapping[Path, Location]
    keys: Mapping[Path, Location]
    texts: Mapping[Path, Location]
    damaged: frozenset[Position] = frozenset()
    """Where values begin that could not be read in full: what follows from them is no news."""


@dataclass(frozen=True)
class Document:
    """One YAML document: `tree` of plain values, and where each path of it is written.

    Most documents have nothing to tell about, so `find` looks for the places when the first of them is asked for.
    """

    filename: str
    tree: Any
    lines: tuple[str, ...]
    find: Callable[[], Places]

    @cached_property
    def places(self) -> Places:
        return self.find()

    def location(self, path: Path) -> Location:
        """Where the value of `path`, or the nearest part above it, is written."""
        values = self.places.values
        return next(values[path[:n]] for n in range(len(path), -1, -1) if path[:n] in values)

    def key_location(self, path: Path) -> Location:
        """Where the key of `path` is written; the value's place for list entries."""
        return self.places.keys.get(path) or self.location(path)

    def snippet(self, location: Location) -> str | None:
        """The source line at `location`."""
        number = location.start.line
        return self.lines[number - 1] if 1 <= number <= len(self.lines) else None


class Unreadable(Exception):
    """The rest of the file cannot be read; carries its diagnostic."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.summary)
        self.diagnostic = diagnostic


def too_much(detail: str, filename: str, start: Position) -> Diagnostic:
    """A limit that keeps hostile files from taking the machine."""
    return error("yaml_limit", "The YAML is too large.", detail, location=Location(filename, start))


class Expansion:
    """A node tree with its aliases and merge keys carried out, within bounds. `diagnostics` tell what could not be."""

    def __init__(self, root: Node, filename: str, lines: tuple[str, ...]) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.damaged: set[Position] = set()
        self._root = root
        self._filename = filename
        self._lines = lines
        self._count = 0
        self._values: dict[Path, Location] = {}
        self._keys: dict[Path, Location] = {}
        self._texts: dict[Path, Location] = {}

    def document(self, damaged: frozenset[Position]) -> Document:
        """The document; raises Unreadable beyond the bounds."""
        tree = self._value(self._root, ())
        tree = without_extensions(tree)
        places = Places(self._root, self._values, self._keys, self._texts, damaged | self.damaged)
        return Document(self._filename, tree, self._lines, partial(_known, places))

    def _value(self, node: Node, path: Path) -> Any:
        node = _target(node)
        self._count += 1
        if self._count > MAX_NODES or len(path) > 2 * MAX_DEPTH:
            detail = f"Its aliases expand to more than {MAX_NODES} values or {2 * MAX_DEPTH} levels."
            raise Unreadable(too_much(detail, self._filename, node.start))
        self._values[path] = node.location(self._filename)
        if node.kind == "scalar":
            if isinstance(node.value, str) and (start := self._text_start(node)) is not None:
                self._texts[path] = Location(self._filename, start)
            return node.value
        if node.kind == "sequence":
            return [self._value(item, (*path, index)) for index, item in enumerate(node.items)]
        return {key.value: self._entry(key, value, path) for key, value in self._merged(node)}

    def _entry(self, key: Node, value: Node, path: Path) -> Any:
        inner = (*path, key.value)
        self._keys[inner] = key.location(self._filename)
        found = self._value(value, inner)
        if found is None and value.start == value.end:
            self._values[inner] = self._keys[inner]  # ruamel's mark of nothing is where the next word starts
        return found

    def _merged(self, node: Node, level: int = 0) -> list[tuple[Node, Node]]:
        """Entries in the order of writing; own keys win over merged ones, earlier merges over later ones."""
        taken = {key.value for key, _ in node.entries if not _is_merge(key)}
        entries: list[tuple[Node, Node]] = []
        for key, value in node.entries:
            if not _is_merge(key):
                entries.append((key, value))
                continue
            for inner_key, inner_value in self._sources(value, level):
                if inner_key.value not in taken:
                    taken.add(inner_key.value)
                    entries.append((inner_key, inner_value))
        return entries

    def _sources(self, node: Node, level: int) -> Iterator[tuple[Node, Node]]:
        node = _target(node)
        sources = [_target(item) for item in node.items] if node.kind == "sequence" else [node]
        for source in sources:
            self._count += 1
            if level > MAX_DEPTH or self._count > MAX_NODES:
                raise Unreadable(too_much("Too many merge keys are nested.", self._filename, source.start))
            if source.kind == "mapping":
                merged = self._merged(source, level + 1)
                self._count += len(merged)
                yield from merged
            else:
                detail = "<<: takes an alias of a mapping, or a list of them."
                place = source.location(self._filename)
                self.damaged.add(node.start)
                found = error("merge_value", "Only mappings can be merged.", detail, location=place)
                self.diagnostics.append(found)

    def _text_start(self, node: Node) -> Position | None:
        """The place of the first character, where line n of the text is line n of the file."""
        line = self._lines[node.start.line - 1][node.start.column - 1 :]
        line = re.sub(r"^&\S+\s+", "", line)
        offset = len(self._lines[node.start.line - 1]) - len(line) + 1
        if node.style == "|":
            return self._block_start(node, line)
        if node.start.line != node.end.line:
            return None
        return Position(node.start.line, offset + (node.style in {"'", '"'}))

    def _block_start(self, node: Node, header: str) -> Position | None:
        if re.match(r"\|[-+]?\d|\|\d", header):
            return None
        text = self._lines[node.start.line : node.end.line]
        first = next((line for line in text if line.strip(" \t")), None)
        return None if first is None else Position(node.start.line + 1, len(first) - len(first.lstrip(" ")) + 1)


def without_extensions(tree: Any) -> Any:
    """A document's tree without the keys that begin with `x-`: they hold what anchors name, and are no part of it."""
    if not isinstance(tree, dict):
        return tree
    return {key: value for key, value in tree.items() if not key.startswith("x-")}


def _known(places: Places) -> Places:
    return places


def _is_merge(key: Node) -> bool:
    return key.value == "<<" and key.style is None


def _target(node: Node) -> Node:
    return node.value if node.kind == "alias" else node
