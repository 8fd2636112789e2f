"""Shapes: what result lines of one kind have in common, learned from an example that the judge has judged. Pure.

A service writes all its plain successes alike; only a few places differ. A shape is the text of such a line with holes,
and what each hole means. A line that is equal to the text with its own values in the holes is judged as the example
was: it is valid JSON, no key is twice in it, and every value that the judge looks at is the example's, but for the
three whose value it passes on as it stands: the answer's text, the model, the counts of tokens.

That holds of values without their escapes too, in the holes between quotes. From the left: up to a hole the line is the
text, so the value that a reader finds at its path is that of the string which begins there. Is that value what stands
behind the quote, and a quote behind that, then the string has no escape, for these make a value shorter than its text,
and no quote, for the value would end there; so it is this string alone, and the line is the text up to the next hole.

What the judge looks at is not written down here: the example is read through objects that note what is asked of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, TypeAlias

import orjson

from batchops.engine.judge import Expectation, judge
from batchops.request.answers import Reading, Usage, read
from batchops.spec.job import Outcome

Step: TypeAlias = str | int
Path: TypeAlias = tuple[Step, ...]

MOST_SHAPES: Final = 3
MOST_HOLES: Final = 60
FEW_EXAMPLES: Final = 12
"""Fewer lines than this do not show that a value is always the same."""

_TOKENS: Final = re.compile(r'[ \t]+|"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_PLAIN_STRING: Final = re.compile(r'"[^"\\]*"')
_IDENTIFIER: Final[Path] = ("custom_id",)
_PROBE_TEXT: Final = "a probe that no service says"
_PROBE_NUMBER: Final = 7_654_321


class Role(Enum):
    """What the value of a hole is to the judge."""

    IDENTIFIER = "custom_id"
    TEXT = "text"
    MODEL = "model"
    INPUT_TOKENS = "input_tokens"
    CACHED_TOKENS = "cached_tokens"
    OUTPUT_TOKENS = "output_tokens"
    REASONING_TOKENS = "reasoning_tokens"
    UNREAD = "unread"


class Form(Enum):
    """How the values of a hole are written."""

    QUOTED = "a string without escapes; its quotes are in the texts around"
    BARE = "a number"
    ANY = "anything"


TOKENS: Final = (Role.INPUT_TOKENS, Role.CACHED_TOKENS, Role.OUTPUT_TOKENS, Role.REASONING_TOKENS)


@dataclass(frozen=True, slots=True)
class Hole:
    """A place whose value differs from line to line. `path` leads to it from the line's object."""

    path: Path
    role: Role
    form: Form = Form.ANY

    @property
    def json_path(self) -> str:
        """The path as DuckDB writes it."""
        return "$" + "".join(f"[{step}]" if isinstance(step, int) else f'."{step}"' for step in self.path)


@dataclass(frozen=True, slots=True)
class Shape:
    """`texts` and `holes` in turn make a line; a text begins and ends it.

    `http`, `finish` and `tool`, the tool that is called, are those of every line of this shape.
    """

    texts: tuple[str, ...]
    holes: tuple[Hole, ...]
    http: int | None
    finish: str | None
    tool: str | None
    usage: Usage
    """What no hole says, because it is the same in every line."""

    def hole(self, role: Role) -> Hole | None:
        return next((hole for hole in self.holes if hole.role is role), None)


def learn(examples: Iterable[tuple[bytes, Mapping[str, Any] | None]], expect: Expectation) -> tuple[Shape, ...]:
    """The commonest shapes among lines (text, object), the commonest first; none of lines that did not succeed."""
    found: dict[Shape, list[tuple[str, ...]]] = {}
    for text, line in examples:
        if line is None or (pieces := _pieces_of(text)) is None:
            continue
        shape = next((shape for shape in found if _values(shape, pieces) is not None), None)
        shape = shape or _shape(pieces, line, expect)
        if shape is not None:
            found.setdefault(shape, []).append(_values(shape, pieces) or ())
    commonest = sorted(found, key=lambda shape: -len(found[shape]))[:MOST_SHAPES]
    return tuple(_filled(shape, found[shape]) for shape in commonest)


def _values(shape: Shape, pieces: Sequence[_Piece]) -> tuple[str, ...] | None:
    """What a line has in the holes of a shape; None where it is of another."""
    texts, _, values = _cut(pieces, {hole.path: hole.role for hole in shape.holes})
    return values if texts == shape.texts else None


def _filled(shape: Shape, lines: Sequence[tuple[str, ...]]) -> Shape:
    """The shape with the forms of its holes as these lines have them.

    Holes of no meaning in which all lines say the same are filled: each costs time on each line.
    """
    texts, holes = [shape.texts[0]], []
    for index, (hole, after) in enumerate(zip(shape.holes, shape.texts[1:], strict=True)):
        said = {values[index] for values in lines}
        if hole.role is Role.UNREAD and len(said) == 1 and len(lines) >= FEW_EXAMPLES:
            texts[-1] += said.pop() + after
            continue
        form = _form(hole, said)
        quote = '"' if form is Form.QUOTED else ""
        texts[-1] += quote
        holes.append(replace(hole, form=form))
        texts.append(quote + after)
    return replace(shape, texts=tuple(texts), holes=tuple(holes))


def _form(hole: Hole, said: Collection[str]) -> Form:
    """The form of what is said in a hole. What the model says has none: it is looked at as it stands in the line."""
    if hole.role is Role.TEXT:
        return Form.ANY
    if all(_NUMBER.fullmatch(value) for value in said):
        return Form.BARE
    return Form.QUOTED if all(_PLAIN_STRING.fullmatch(value) for value in said) else Form.ANY


def _shape(pieces: Sequence[_Piece], line: Mapping[str, Any], expect: Expectation) -> Shape | None:
    """The shape of a line; None where it did not succeed, or where its answer is more than one string of the line."""
    judged, reading = judge(line, expect), _reading(line, expect)
    if judged.outcome is not Outcome.SUCCEEDED or reading is None:
        return None
    called = reading.tool_call
    roles, read_paths = _roles(line, expect), _read_paths(line, expect)
    is_odd = list(roles.values()).count(Role.TEXT) != 1 or Role.IDENTIFIER not in roles.values()
    if is_odd or (called is not None and called.is_custom):
        return None
    unread = {piece.path: Role.UNREAD for piece in pieces if piece.path is not None and piece.path not in read_paths}
    texts, holes, _ = _cut(pieces, unread | roles)
    if len(holes) > MOST_HOLES:
        return None
    usage = replace(judged.usage, **{role.value: None for role in TOKENS if role in roles.values()})
    return Shape(texts, holes, judged.http, judged.finish, called.name if called else None, usage)


# The places of a line


@dataclass(slots=True)
class _Piece:
    """A piece of a line: punctuation and keys have no path, values have."""

    text: str
    path: Path | None = None


def _pieces_of(text: bytes) -> list[_Piece] | None:
    """The pieces of a line; None where its text is not what the judge was given: mended, or with a key twice."""
    try:
        return list(_pieces(text.decode()))
    except ValueError:
        return None


def _pieces(text: str) -> Iterator[_Piece]:
    """The pieces of a JSON object's text in order. ValueError for a key that is twice in one object, or odd."""
    stack: list[_Open] = []
    at = 0
    while at < len(text):
        token = _TOKENS.match(text, at)
        if token is None:
            raise ValueError("no JSON")
        at, piece = token.end(), token[0]
        top = stack[-1] if stack else None
        if piece[0] in "{[":
            stack.append(_Open(piece == "[", top.here if top else ()))
        elif piece[0] in "}]":
            stack.pop()
        elif piece == ",":
            assert top is not None
            top.advance()
        elif top is not None and not top.is_list and top.key is None and piece[0] == '"':
            top.name(orjson.loads(piece))
        elif piece != ":" and not piece.isspace():
            yield _Piece(piece, top.here if top else ())
            continue
        yield _Piece(piece)


@dataclass(slots=True)
class _Open:
    """A list or an object whose end has not come yet."""

    is_list: bool
    path: Path
    index: int = 0
    key: str | None = None
    seen: set[str] | None = None

    @property
    def here(self) -> Path:
        return (*self.path, self.index if self.is_list else str(self.key))

    def advance(self) -> None:
        self.index += 1
        self.key = None

    def name(self, key: str) -> None:
        self.seen = self.seen or set()
        if key in self.seen or not _PLAIN_KEY.fullmatch(key):
            raise ValueError("a key is twice in an object, or odd")
        self.seen.add(key)
        self.key = key


def _cut(
    pieces: Sequence[_Piece], roles: Mapping[Path, Role]
) -> tuple[tuple[str, ...], tuple[Hole, ...], tuple[str, ...]]:
    """Texts, holes and what is in them, with a hole at each of these places."""
    texts, holes, values = [""], [], []
    for piece in pieces:
        if piece.path is None or piece.path not in roles:
            texts[-1] += piece.text
        else:
            holes.append(Hole(piece.path, roles[piece.path]))
            values.append(piece.text)
            texts.append("")
    return tuple(texts), tuple(holes), tuple(values)


# What the judge makes of each place


def _reading(line: Mapping[str, Any], expect: Expectation) -> Reading | None:
    response = line.get("response")
    return read(expect.endpoint, response.get("body")) if isinstance(response, Mapping) else None


def _read_paths(line: Mapping[str, Any], expect: Expectation) -> frozenset[Path]:
    """The places that the judge looks at."""
    seen: set[Path] = {_IDENTIFIER}
    judge(_Noted.of(line, (), seen), expect)
    return frozenset(seen)


def _roles(line: Mapping[str, Any], expect: Expectation) -> dict[Path, Role]:
    """The places whose value is passed on as it stands, told by putting another value there."""
    before = _reading(line, expect)
    assert before is not None, "a line that succeeded can be read"
    roles: dict[Path, Role] = {_IDENTIFIER: Role.IDENTIFIER} if isinstance(line.get("custom_id"), str) else {}
    for path in _read_paths(line, expect) - {_IDENTIFIER}:
        value = _at(line, path)
        if isinstance(value, str) and value:
            role = _role_of_text(before, _reading(_with(line, path, _PROBE_TEXT), expect))
        elif type(value) is int:
            role = _role_of_number(before, _reading(_with(line, path, _PROBE_NUMBER), expect))
        else:
            role = None
        if role is not None:
            roles[path] = role
    return roles


def _role_of_text(before: Reading, after: Reading | None) -> Role | None:
    """The one field of a reading in which the probe came out."""
    if after == replace(before, model=_PROBE_TEXT):
        return Role.MODEL
    if after == replace(before, text=_PROBE_TEXT):
        return Role.TEXT
    called = before.tool_call
    if called is not None and after == replace(before, tool_call=replace(called, arguments=_PROBE_TEXT)):
        return Role.TEXT
    return None


def _role_of_number(before: Reading, after: Reading | None) -> Role | None:
    usages = {
        Role.INPUT_TOKENS: replace(before.usage, input_tokens=_PROBE_NUMBER),
        Role.CACHED_TOKENS: replace(before.usage, cached_tokens=_PROBE_NUMBER),
        Role.OUTPUT_TOKENS: replace(before.usage, output_tokens=_PROBE_NUMBER),
        Role.REASONING_TOKENS: replace(before.usage, reasoning_tokens=_PROBE_NUMBER),
    }
    return next((role for role, usage in usages.items() if after == replace(before, usage=usage)), None)


def _at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def _with(value: Any, path: Path, leaf: object) -> Any:
    """A copy with another value at `path`."""
    if not path:
        return leaf
    step, rest = path[0], path[1:]
    if isinstance(value, list):
        return [_with(part, rest, leaf) if index == step else part for index, part in enumerate(value)]
    return {key: _with(part, rest, leaf) if key == step else part for key, part in value.items()}


class _Noted(dict[str, Any]):
    """An object that notes which of its values were asked for, and those of all objects and lists in it."""

    path: Path
    seen: set[Path]

    @classmethod
    def of(cls, value: Any, path: Path, seen: set[Path]) -> Any:
        if isinstance(value, Mapping):
            noted = cls({key: cls.of(part, (*path, key), seen) for key, part in value.items()})
            noted.path, noted.seen = path, seen
            return noted
        if isinstance(value, list):
            listed = _NotedList(cls.of(part, (*path, index), seen) for index, part in enumerate(value))
            listed.path, listed.seen = path, seen
            return listed
        return value

    def __getitem__(self, key: str) -> Any:
        self.seen.add((*self.path, key))
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        if key in self:
            self.seen.add((*self.path, key))
        return super().get(key, default)


class _NotedList(list[Any]):
    """A list that notes which of its values were asked for."""

    path: Path
    seen: set[Path]

    def __iter__(self) -> Iterator[Any]:
        for index, value in enumerate(super().__iter__()):
            self.seen.add((*self.path, index))
            yield value

    def __getitem__(self, index: Any) -> Any:
        self.seen.add((*self.path, index))
        return super().__getitem__(index)
