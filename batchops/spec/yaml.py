"""YAML text → plain values, and a Location for every key and value in them.

Keys are always text as written, and what a hostile file could abuse is bounded: size, depth, and how much its aliases
expand to. Knows no job. Most specs are plain, and nothing about their places is ever asked: their trees are read at
once, and all the rest when the first place is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from batchops.diagnostics import Diagnostic, Location, Position, error
from batchops.spec.document import (
    MAX_DEPTH,
    MAX_NODES,
    Document,
    Expansion,
    Node,
    Places,
    Unreadable,
    too_much,
    without_extensions,
)
from batchops.spec.events import (
    OLD_BREAKS,
    TOO_DEEP,
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    MarkedYAMLError,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    YAMLError,
    events_of,
)
from batchops.spec.scalars import is_endless, plain
from batchops.spec.trees import plain_tree

MAX_BYTES: Final = 1_000_000
MAX_DOCUMENTS: Final = 1_000
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_SURROGATE = re.compile("[\ud800-\udfff]")
_STANDARD = "tag:yaml.org,2002:"
_HINTS = {
    "found character '\\t' that cannot start any token": "A tab cannot indent YAML: use spaces.",
    "mapping values are not allowed here": 'Check the indentation; text that contains ": " must be quoted.',
    "more indented follow up line than first in a block scalar": (
        "The block begins with a line of spaces alone: leave that line empty."
    ),
    "found unexpected end of stream": "A quote or bracket is not closed.",
    "found character '@' that cannot start any token": "Quote text that starts with @.",
    "found character '`' that cannot start any token": "Quote text that starts with a backtick.",
    "found character '%' that cannot start any token": "Quote text that starts with %, such as a Jinja statement.",
}


@dataclass(frozen=True)
class Parsed:
    """Every readable document of a file in order, and what is wrong with the text."""

    documents: tuple[Document, ...]
    diagnostics: tuple[Diagnostic, ...]
    lines: tuple[str, ...] = ()


def parse(data: bytes | str, filename: str) -> Parsed:
    """Read every document of a YAML text. Never raises for what the text says."""
    try:
        text = decode(data, filename)
    except Unreadable as stop:
        return Parsed((), (stop.diagnostic,))
    if (tree := plain_tree(text)) is not None:
        lines = split_lines(text)
        document = Document(filename, without_extensions(tree), lines, partial(_places, text, filename))
        return Parsed((document,), (), lines)
    return _read(text, filename)


def _read(text: str, filename: str) -> Parsed:
    reader = _Reader(text, filename)
    documents: list[Document] = []
    try:
        documents.extend(reader.documents())
    except Unreadable as stop:
        reader.diagnostics.append(stop.diagnostic)
        documents = reader.finished
    return Parsed(tuple(documents), tuple(map(reader.with_snippet, reader.diagnostics)), reader.lines)


def _places(text: str, filename: str) -> Places:
    (document,) = _read(text, filename).documents
    return document.places


def split_lines(text: str) -> tuple[str, ...]:
    """Lines as YAML counts them: U+2028 and U+0085 are ordinary characters."""
    return tuple(_LINE_BREAK.split(text))


def decode(data: bytes | str, filename: str) -> str:
    """The text without its byte order mark. Raises Unreadable."""
    if len(data) > MAX_BYTES:
        raise Unreadable(
            too_much(f"The file has {len(data)} bytes; {MAX_BYTES} are the limit.", filename, Position(1, 1))
        )
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as problem:
        before = split_lines(data[: problem.start].decode("utf-8"))
        place = Location(filename, Position(len(before), len(before[-1]) + 1))
        detail = f"Byte 0x{data[problem.start]:02x} is not UTF-8. Save the file as UTF-8."
        raise Unreadable(error("file_encoding", "The file is not UTF-8.", detail, location=place)) from problem


class _Reader:
    """Events → nodes → documents, with one list of diagnostics."""

    def __init__(self, text: str, filename: str) -> None:
        self.filename = filename
        self.lines = split_lines(text)
        self.diagnostics: list[Diagnostic] = []
        self.finished: list[Document] = []
        self.damaged: set[Position] = set()
        self._text, self._restored = _shielded(text)
        self._count = 0
        self._anchors: dict[str, Node | None] = {}

    def documents(self) -> list[Document]:
        events = self._events()
        for event in events:
            if isinstance(event, DocumentStartEvent):
                self._anchors = {}
                root = self._node(next(events), events, 0)
                self._finish(root)
        return self.finished

    def _finish(self, root: Node) -> None:
        if len(self.finished) == MAX_DOCUMENTS:
            raise Unreadable(too_much(f"It has more than {MAX_DOCUMENTS} documents.", self.filename, root.start))
        expansion = Expansion(root, self.filename, self.lines)
        self.finished.append(expansion.document(frozenset(self.damaged)))
        self.diagnostics += expansion.diagnostics

    def with_snippet(self, diagnostic: Diagnostic) -> Diagnostic:
        place = diagnostic.location
        if place is None or not 1 <= place.start.line <= len(self.lines):
            return diagnostic
        return diagnostic.at(place, self.lines[place.start.line - 1])

    def _add(self, diagnostic: Diagnostic, node: Node) -> None:
        self.diagnostics.append(diagnostic.at(node.location(self.filename)))

    def _events(self) -> Iterator[Any]:
        try:
            yield from events_of(self._text)
        except MarkedYAMLError as problem:
            raise Unreadable(self._syntax(problem)) from problem
        except YAMLError as problem:
            raise Unreadable(self._unprintable()) from problem
        except (ValueError, OverflowError) as problem:  # ruamel: "\U00110000", %YAML 1.x.y
            raise Unreadable(self._malformed("An escape or directive is not valid.", Position(1, 1))) from problem

    def _malformed(self, detail: str, start: Position) -> Diagnostic:
        return error("yaml_syntax", "Not valid YAML.", detail, location=Location(self.filename, start))

    def _syntax(self, problem: MarkedYAMLError) -> Diagnostic:
        mark = problem.problem_mark or problem.context_mark
        if problem.problem == TOO_DEEP:
            return too_much(TOO_DEEP, self.filename, _position(mark))
        said = str(problem.problem or problem.context or "it cannot be read")
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
        self._require_bounds(event, depth)
        if isinstance(event, AliasEvent):
            return self._alias(event)
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

    def _require_bounds(self, event: Any, depth: int) -> None:
        self._count += 1
        if depth > MAX_DEPTH:
            raise Unreadable(too_much(TOO_DEEP, self.filename, _position(event.start_mark)))
        if self._count > MAX_NODES:
            detail = f"It has more than {MAX_NODES} values."
            raise Unreadable(too_much(detail, self.filename, _position(event.start_mark)))

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
        event.value = event.value.translate(self._restored)
        node = Node("scalar", start, end, value=event.value, style=event.style or None)
        tag = str(event.tag) if event.tag is not None else None
        if event.style == '"':
            node.value = self._unescaped(event.value, node)
        if event.style in {None, ""} and tag is None:
            node.value = self._resolved(event.value, start)
        elif tag is not None and tag not in {"!", _STANDARD + "str"}:
            node.value = self._tagged(event.value, tag, node)
        return node

    def _unescaped(self, text: str, node: Node) -> str:
        """Text whose "\\ud83d\\ude00" is one character, as in JSON; half a pair is no character at all."""
        if not _SURROGATE.search(text):
            return text
        try:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            self.damaged.add(node.start)
            self.diagnostics.append(self._malformed("Half a surrogate pair is no character.", node.start))
            return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)

    def _resolved(self, text: str, start: Position) -> Any:
        if is_endless(text):
            raise Unreadable(too_much(f"A number of {len(text)} digits.", self.filename, start))
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
        self.diagnostics.append(
            error("unknown_tag", "Unknown YAML tag.", detail, location=node.location(self.filename))
        )

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
            node.value = (
                node.value if event.style == '"' else event.value
            )  # as written: `50256: -100` has the key "50256"
            return node
        if node.kind == "scalar":
            node.value = str(node.value)
            return node
        braces = self.lines[node.start.line - 1][: node.start.column].endswith("{{")
        detail = 'Quote text that starts with {{: "{{ column }}".' if braces else "Lists and mappings cannot be keys."
        self.diagnostics.append(
            error("key_not_text", "A key must be text.", detail, location=node.location(self.filename))
        )
        return None

    def _is_duplicate(self, key: Node, seen: dict[str, Position]) -> bool:
        first = seen.setdefault(key.value, key.start)
        if first is key.start:
            return False
        detail = f'"{key.value}" stands at {first.line}:{first.column} already.'
        if key.value == "<<":
            detail += " Merge several with one list: <<: [*a, *b]."
        self._add(error("duplicate_key", "Duplicate key.", detail), key)
        return True


def _shielded(text: str) -> tuple[str, Mapping[int, str]]:
    """The text with stand-ins for U+0085, U+2028 and U+2029, and the table that restores them.

    They are ordinary characters in YAML 1.2, and ruamel ends lines at them as version 1.1 did.
    """
    found = [character for character in OLD_BREAKS if character in text]
    free = (character for character in map(chr, range(0xE000, 0xF900)) if character not in text)
    shields = list(zip(found, free, strict=False))
    for character, shield in shields:
        text = text.replace(character, shield)
    return text, {ord(shield): character for character, shield in shields}


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
