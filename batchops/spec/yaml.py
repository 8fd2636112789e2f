"""YAML text → plain values, and a Location for every key and value in them. The only importer of ruamel.

Scalars follow the YAML 1.2 core schema (`on`, `no` and `012` are text, text and 12), keys are always text as written,
and what a hostile file could abuse is bounded: size, depth, and how much its aliases expand to. Knows no job.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from batchops.diagnostics import Diagnostic, Location, Position, error

Path: TypeAlias = tuple[str | int, ...]

MAX_BYTES: Final = 4_000_000
MAX_DEPTH: Final = 60
MAX_NODES: Final = 50_000
_MAX_DIGITS: Final = 400
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_STANDARD = "tag:yaml.org,2002:"
_HINTS = {
    "found character '\\t' that cannot start any token": "A tab cannot indent YAML: use spaces.",
    "mapping values are not allowed here": 'Check the indentation; text that contains ": " must be quoted.',
    "found unexpected end of stream": "A quote or bracket is not closed.",
    "found character '@' that cannot start any token": "Quote text that starts with @.",
    "found character '`' that cannot start any token": "Quote text that starts with a backtick.",
    "found character '%' that cannot start any token": "Quote text that starts with %, such as a Jinja statement.",
}


@dataclass(slots=True, eq=False)
class Node:
    """A value as written. `kind` is scalar, sequence or mapping; `style` is ruamel's: None, ', ", | or >, or flow."""

    kind: str
    start: Position
    end: Position
    value: Any = None
    style: str | None = None
    items: list[Node] = field(default_factory=list)
    entries: list[tuple[Node, Node]] = field(default_factory=list)
    is_alias: bool = False


@dataclass(frozen=True)
class Document:
    """One YAML document: `tree` of plain values, and where each path of it is written.

    `values` and `keys` are complete: what comes from an alias or a merge key is found where it really stands.
    `texts` says, for texts written line by line, where their first character stands.
    """

    filename: str
    tree: Any
    root: Node
    values: Mapping[Path, Location]
    keys: Mapping[Path, Location]
    texts: Mapping[Path, Location]
    lines: tuple[str, ...]
    damaged: frozenset[Position] = frozenset()
    """Where values begin that could not be read in full: what follows from them is no news."""

    def location(self, path: Path) -> Location:
        """Where the value of `path`, or the nearest part above it, is written."""
        return next(self.values[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.values)

    def key_location(self, path: Path) -> Location:
        """Where the key of `path` is written; the value's place for list entries."""
        return self.keys.get(path) or self.location(path)

    def snippet(self, location: Location) -> str | None:
        """The source line at `location`."""
        number = location.start.line
        return self.lines[number - 1] if 1 <= number <= len(self.lines) else None


@dataclass(frozen=True)
class Parsed:
    """Every readable document of a file, and what is wrong with the text."""

    documents: tuple[Document, ...]
    diagnostics: tuple[Diagnostic, ...]
    lines: tuple[str, ...] = ()


class _Stop(Exception):
    """The rest of the file cannot be read; carries its diagnostic."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.summary)
        self.diagnostic = diagnostic


def parse(data: bytes | str, filename: str) -> Parsed:
    """Read every document of a YAML text. Never raises for what the text says."""
    try:
        text = _decode(data, filename)
    except _Stop as stop:
        return Parsed((), (stop.diagnostic,))
    reader = _Reader(text, filename)
    documents: list[Document] = []
    try:
        documents.extend(reader.documents())
    except _Stop as stop:
        reader.diagnostics.append(stop.diagnostic)
        documents = reader.finished
    return Parsed(tuple(documents), tuple(map(reader.with_snippet, reader.diagnostics)), reader.lines)


def split_lines(text: str) -> tuple[str, ...]:
    """Lines as YAML counts them: U+2028 and U+0085 are ordinary characters."""
    return tuple(_LINE_BREAK.split(text))


def _decode(data: bytes | str, filename: str) -> str:
    if len(data) > MAX_BYTES:
        raise _Stop(_too_much(f"The file has {len(data)} bytes; {MAX_BYTES} are the limit.", filename, Position(1, 1)))
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as problem:
        before = split_lines(data[: problem.start].decode("utf-8"))
        place = Location(filename, Position(len(before), len(before[-1]) + 1))
        detail = f"Byte 0x{data[problem.start]:02x} is not UTF-8. Save the file as UTF-8."
        raise _Stop(error("file_encoding", "The file is not UTF-8.", detail, location=place)) from problem


def _too_much(detail: str, filename: str, start: Position) -> Diagnostic:
    return error("yaml_limit", "The YAML is too large.", detail, location=Location(filename, start))


class _Reader:
    """Events → nodes → documents, with one list of diagnostics."""

    def __init__(self, text: str, filename: str) -> None:
        self.filename = filename
        self.lines = split_lines(text)
        self.diagnostics: list[Diagnostic] = []
        self.finished: list[Document] = []
        self.damaged: set[Position] = set()
        self._text = text
        self._anchors: dict[str, Node | None] = {}

    def documents(self) -> list[Document]:
        events = self._events()
        for event in events:
            if isinstance(event, DocumentStartEvent):
                self._anchors = {}
                root = self._node(next(events), events, 0)
                self.finished.append(_Expansion(self, root).document())
        return self.finished

    def with_snippet(self, diagnostic: Diagnostic) -> Diagnostic:
        place = diagnostic.location
        if place is None or not 1 <= place.start.line <= len(self.lines):
            return diagnostic
        return diagnostic.at(place, self.lines[place.start.line - 1])

    def location(self, node: Node) -> Location:
        return Location(self.filename, node.start, node.end)

    def _events(self) -> Iterator[Any]:
        try:
            yield from YAML(typ="safe", pure=True).parse(self._text)
        except MarkedYAMLError as problem:
            raise _Stop(self._syntax(problem)) from problem
        except YAMLError as problem:
            raise _Stop(self._unprintable()) from problem
        except (ValueError, OverflowError) as problem:  # ruamel: "\U00110000", %YAML 1.x.y
            raise _Stop(self._malformed("An escape or directive is not valid.", Position(1, 1))) from problem

    def _malformed(self, detail: str, start: Position) -> Diagnostic:
        return error("yaml_syntax", "Not valid YAML.", detail, location=Location(self.filename, start))

    def _syntax(self, problem: MarkedYAMLError) -> Diagnostic:
        mark = problem.problem_mark or problem.context_mark
        said = str(problem.problem or "it cannot be read")
        detail = _HINTS.get(said) or f"{said[0].upper()}{said[1:]}."
        began = problem.context_mark
        if began is not None and mark is not began and (began.line, began.column) != (mark.line, mark.column):
            detail += f" It happened {problem.context} that starts at {began.line + 1}:{began.column + 1}."
        return self._malformed(detail, _position(mark) if mark is not None else Position(1, 1))

    def _unprintable(self) -> Diagnostic:
        found = re.search("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", self._text)
        before = split_lines(self._text[: found.start()] if found else "")
        name = f"U+{ord(found[0]):04X}" if found else "A character"
        return self._malformed(
            f'{name} may not stand in YAML; in quotes it is written "\\u…".', Position(len(before), len(before[-1]) + 1)
        )

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        if isinstance(event, AliasEvent):
            return self._alias(event)
        if depth > MAX_DEPTH:
            raise _Stop(
                _too_much(f"More than {MAX_DEPTH} levels are nested.", self.filename, _position(event.start_mark))
            )
        anchor = event.anchor
        if anchor is not None:
            self._anchors[anchor] = None
        if isinstance(event, ScalarEvent):
            node = self._scalar(event)
        elif isinstance(event, SequenceStartEvent):
            node = self._sequence(event, events, depth)
        else:
            node = self._mapping(event, events, depth)
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _alias(self, event: AliasEvent) -> Node:
        start, end = _position(event.start_mark), _position(event.end_mark)
        target = self._anchors.get(event.anchor)
        if target is None:
            place = Location(self.filename, start, end)
            if event.anchor in self._anchors:
                detail = f'"*{event.anchor}" stands inside the value that it repeats.'
            else:
                detail = f'No "&{event.anchor}" stands above it in this document.'
            self.diagnostics.append(error("unknown_anchor", "The alias has no value.", detail, location=place))
            self.damaged.add(start)
            return Node("scalar", start, end)
        return Node("alias", start, end, value=target)

    def _scalar(self, event: ScalarEvent) -> Node:
        start, end = _position(event.start_mark), _position(event.end_mark)
        node = Node("scalar", start, end, value=event.value, style=event.style or None)
        tag = str(event.tag) if event.tag is not None else None
        if event.style in {None, ""} and tag is None:
            node.value = self._resolved(event.value, start)
        elif tag is not None and tag not in {"!", _STANDARD + "str"}:
            node.value = self._tagged(event.value, tag, node)
        return node

    def _resolved(self, text: str, start: Position) -> Any:
        if len(text) > _MAX_DIGITS and _INT.match(text):
            raise _Stop(_too_much(f"A number of {len(text)} digits.", self.filename, start))
        return plain(text)

    def _tagged(self, text: str, tag: str, node: Node) -> Any:
        value = self._resolved(text, node.start)
        kinds = {"int": int, "float": float, "bool": bool, "null": type(None)}
        wanted = kinds.get(tag.removeprefix(_STANDARD))
        if wanted is float and type(value) is int:
            return float(value)
        if wanted is None or type(value) is not wanted:
            self._unknown_tag(tag, node)
        return value

    def _unknown_tag(self, tag: str, node: Node) -> None:
        self.damaged.add(node.start)
        detail = f'"{tag.replace(_STANDARD, "!!")}" does not fit here; specs need no tags.'
        self.diagnostics.append(error("unknown_tag", "Unknown YAML tag.", detail, location=self.location(node)))

    def _sequence(self, event: SequenceStartEvent, events: Iterator[Any], depth: int) -> Node:
        node = Node("sequence", _position(event.start_mark), _position(event.end_mark), style=_style(event))
        self._check_tag(event, "seq", node)
        for inner in events:
            if isinstance(inner, SequenceEndEvent):
                _close(node, inner, node.items)
                break
            node.items.append(self._node(inner, events, depth + 1))
        return node

    def _mapping(self, event: MappingStartEvent, events: Iterator[Any], depth: int) -> Node:
        node = Node("mapping", _position(event.start_mark), _position(event.end_mark), style=_style(event))
        self._check_tag(event, "map", node)
        seen: dict[str, Position] = {}
        for inner in events:
            if isinstance(inner, MappingEndEvent):
                _close(node, inner, [value for _, value in node.entries])
                break
            key = self._key(inner, events, depth)
            value = self._node(next(events), events, depth + 1)
            if key is None:
                self.damaged.add(node.start)
            elif not self._is_duplicate(key, seen):
                node.entries.append((key, value))
        return node

    def _check_tag(self, event: Any, standard: str, node: Node) -> None:
        tag = None if event.tag is None else str(event.tag)
        if tag not in {None, "!", _STANDARD + standard}:
            self._unknown_tag(str(tag), node)

    def _key(self, event: Any, events: Iterator[Any], depth: int) -> Node | None:
        node = self._node(event, events, depth + 1)
        if isinstance(event, AliasEvent) and node.kind == "alias":
            node = Node("scalar", node.start, node.end, value=node.value.value) if node.value.kind == "scalar" else node
        elif isinstance(event, ScalarEvent):
            node.value = event.value  # as written: `50256: -100` has the key "50256"
            return node
        if node.kind == "scalar":
            node.value = str(node.value)
            return node
        braces = self.lines[node.start.line - 1][: node.start.column].endswith("{{")
        detail = 'Quote text that starts with {{: "{{ column }}".' if braces else "Lists and mappings cannot be keys."
        self.diagnostics.append(error("key_not_text", "A key must be text.", detail, location=self.location(node)))
        return None

    def _is_duplicate(self, key: Node, seen: dict[str, Position]) -> bool:
        first = seen.setdefault(key.value, key.start)
        if first is key.start:
            return False
        detail = f'"{key.value}" stands at {first.line}:{first.column} already.'
        if key.value == "<<":
            detail += " Merge several with one list: <<: [*a, *b]."
        self.diagnostics.append(error("duplicate_key", "Duplicate key.", detail, location=self.location(key)))
        return True


class _Expansion:
    """A node tree with its aliases and merge keys carried out, within bounds."""

    def __init__(self, reader: _Reader, root: Node) -> None:
        self._reader = reader
        self._root = root
        self._count = 0
        self._values: dict[Path, Location] = {}
        self._keys: dict[Path, Location] = {}
        self._texts: dict[Path, Location] = {}

    def document(self) -> Document:
        tree = self._value(self._root, ())
        if isinstance(tree, dict):
            tree = {key: value for key, value in tree.items() if not key.startswith("x-")}
        reader = self._reader
        places = (self._values, self._keys, self._texts)
        return Document(reader.filename, tree, self._root, *places, reader.lines, frozenset(reader.damaged))

    def _value(self, node: Node, path: Path) -> Any:
        node = _target(node)
        self._count += 1
        if self._count > MAX_NODES or len(path) > 2 * MAX_DEPTH:
            detail = f"Its aliases expand to more than {MAX_NODES} values or {2 * MAX_DEPTH} levels."
            raise _Stop(_too_much(detail, self._reader.filename, node.start))
        self._values[path] = self._reader.location(node)
        if node.kind == "scalar":
            if isinstance(node.value, str) and (start := self._text_start(node)) is not None:
                self._texts[path] = Location(self._reader.filename, start)
            return node.value
        if node.kind == "sequence":
            return [self._value(item, (*path, index)) for index, item in enumerate(node.items)]
        return {key.value: self._entry(key, value, path) for key, value in self._merged(node)}

    def _entry(self, key: Node, value: Node, path: Path) -> Any:
        inner = (*path, key.value)
        self._keys[inner] = self._reader.location(key)
        return self._value(value, inner)

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
                raise _Stop(_too_much("Too many merge keys are nested.", self._reader.filename, source.start))
            if source.kind == "mapping":
                merged = self._merged(source, level + 1)
                self._count += len(merged)
                yield from merged
            else:
                detail = "<<: takes an alias of a mapping, or a list of them."
                place = self._reader.location(source)
                self._reader.damaged.add(node.start)
                found = error("merge_value", "Only mappings can be merged.", detail, location=place)
                self._reader.diagnostics.append(found)

    def _text_start(self, node: Node) -> Position | None:
        """The place of the first character, where line n of the text is line n of the file."""
        line = self._reader.lines[node.start.line - 1][node.start.column - 1 :]
        line = re.sub(r"^&\S+\s+", "", line)
        offset = len(self._reader.lines[node.start.line - 1]) - len(line) + 1
        if node.style == "|":
            return self._block_start(node, line)
        if node.start.line != node.end.line:
            return None
        return Position(node.start.line, offset + (node.style in {"'", '"'}))

    def _block_start(self, node: Node, header: str) -> Position | None:
        if re.match(r"\|[-+]?\d|\|\d", header):
            return None
        text = self._reader.lines[node.start.line : node.end.line]
        first = next((line for line in text if line.strip()), None)
        return None if first is None else Position(node.start.line + 1, len(first) - len(first.lstrip(" ")) + 1)


def plain(text: str) -> Any:
    """The value of an unquoted scalar by the YAML 1.2 core schema."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.match(text):
        return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)
    if _FLOAT.match(text):
        return float(text)
    if special := _SPECIAL.match(text):
        return math.nan if special[3] else math.inf * (-1 if special[1] == "-" else 1)
    return text


def _position(mark: Any) -> Position:
    return Position(mark.line + 1, mark.column + 1)


def _style(event: Any) -> str | None:
    return "flow" if event.flow_style else None


def _close(node: Node, event: Any, children: list[Node]) -> None:
    """Block collections end with their last child: ruamel's mark is the start of whatever follows."""
    if node.style == "flow":
        node.end = _position(event.end_mark)
    elif children:
        node.end = children[-1].end


def _is_merge(key: Node) -> bool:
    return key.value == "<<" and key.style is None


def _target(node: Node) -> Node:
    return node.value if node.kind == "alias" else node
