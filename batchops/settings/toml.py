"""TOML text → tree, and the place of every key and value in it.

`tomllib` says what a file means but not where; the scanner here says where and leaves the meaning to `tomllib`, so it
may assume a valid file.
"""

from __future__ import annotations

import bisect
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from batchops.diagnostics import BatchopsError, Location, Position, error

Path: TypeAlias = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\[\s\S])*?"""(?:"{0,2})'
    r"|'''[\s\S]*?'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
)
_SCALAR = re.compile(r"[^,\]}\s#]+(?: [0-9][^,\]}\s#]*)?")
_SECRET_VALUE = re.compile(
    r"(?i)([\w-]*(?:key|token(?!s)|secret|password|credential)[\w-]*[\"']?\s*=\s*)(?![\"']env:)\S.*"
)
_SECRET_WORD = re.compile(r"\bsk-[\w-]+|(?<=://)[^/@\s]*(?=@)")


@dataclass(frozen=True)
class Place:
    """Where a key is written, and its value; a table header has only a key."""

    key: Location
    value: Location | None = None


@dataclass(frozen=True)
class Document:
    """A parsed TOML file. `places` maps the path of every key, table and array element to where it is written."""

    filename: str
    text: str
    tree: Mapping[str, Any]
    places: Mapping[Path, Place]

    def line(self, number: int) -> str:
        """The source line, 1-based, with anything that may be a secret left out."""
        return safe_line(self.text.split("\n")[number - 1].rstrip("\r"))

    def nearest(self, path: Path) -> Place | None:
        """The place of `path`, or of the nearest table above it."""
        for length in range(len(path), 0, -1):
            if (place := self.places.get(path[:length])) is not None:
                return place
        return None


def safe_line(line: str) -> str:
    """A source line that may be shown: the value of a key that sounds secret is left out, references stay."""
    return _SECRET_WORD.sub("…", _SECRET_VALUE.sub(r"\1…", line))


def parse(text: str, filename: str) -> Document:
    """Parse a TOML file. Raises BatchopsError (`invalid_toml`) at the place of the first mistake."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise BatchopsError(_invalid(problem, text, filename)) from problem
    return Document(filename, text, tree, _Scanner(text, filename).scan())


def _invalid(problem: tomllib.TOMLDecodeError, text: str, filename: str) -> Any:
    message = str(problem)
    found = re.search(r"\(at (?:line (\d+), column (\d+)|end of document)\)", message)
    lines = text.split("\n")
    line, column = (int(found[1]), int(found[2])) if found and found[1] else (len(lines), len(lines[-1]) + 1)
    what = message[: found.start()].strip() if found else message
    snippet = safe_line(lines[line - 1].rstrip("\r"))
    at = Location(filename, Position(line, column))
    return error("invalid_toml", "Invalid TOML.", f"{what.rstrip('.')}.", location=at, snippet=snippet)


@dataclass
class _Scanner:
    """One pass over a valid TOML text; `at` is the offset of the next character."""

    text: str
    filename: str
    at: int = 0
    places: dict[Path, Place] = field(default_factory=dict)
    elements: dict[Path, int] = field(default_factory=dict)

    def scan(self) -> dict[Path, Place]:
        self._starts = [0, *(match.end() for match in re.finditer(r"\n", self.text))]
        table: Path = ()
        self._blank()
        while self.at < len(self.text):
            if self._peek("["):
                table = self._header()
            else:
                self._pair(table)
            self._blank()
        return self.places

    def _header(self) -> Path:
        is_array = self.text.startswith("[[", self.at)
        self.at += 2 if is_array else 1
        path = self._key(())
        if is_array:
            self.elements[path] = self.elements.get(path, -1) + 1
            self.places[(*path, self.elements[path])] = self.places[path]
            path = (*path, self.elements[path])
        self._blank()
        self.at += 2 if is_array else 1
        return path

    def _key(self, table: Path) -> Path:
        """Read a dotted key; every part is placed, unless an earlier line placed it."""
        path = table
        while True:
            self._blank()
            start = self.at
            path = (*path, self._key_part())
            self.places.setdefault(path, Place(self._range(start)))
            self._blank()
            if not self._peek("."):
                return path
            self.at += 1
            if path in self.elements:  # `[a.b]` after `[[a]]` goes into the last element of a
                path = (*path, self.elements[path])

    def _key_part(self) -> str:
        if bare := _BARE_KEY.match(self.text, self.at):
            self.at = bare.end()
            return bare[0]
        quoted = self._match(_STRING)
        return str(tomllib.loads(f"key = {quoted}")["key"])

    def _pair(self, table: Path) -> None:
        path = self._key(table)
        self._blank()
        self.at += 1  # =
        self._blank()
        start = self.at
        self._value(path)
        self.places[path] = Place(self.places[path].key, self._range(start))

    def _value(self, path: Path) -> None:
        if self._peek("["):
            self._array(path)
        elif self._peek("{"):
            self._inline_table(path)
        elif self._peek('"') or self._peek("'"):
            self._match(_STRING)
        else:
            self._match(_SCALAR)

    def _array(self, path: Path) -> None:
        index = 0
        self._open()
        while not self._peek("]"):
            start = self.at
            self._value((*path, index))
            self.places[(*path, index)] = Place(self._range(start), self._range(start))
            index += 1
            self._comma()
        self.at += 1

    def _inline_table(self, path: Path) -> None:
        self._open()
        while not self._peek("}"):
            self._pair(path)
            self._comma()
        self.at += 1

    def _open(self) -> None:
        self.at += 1
        self._blank()

    def _comma(self) -> None:
        self._blank()
        if self._peek(","):
            self._open()

    def _peek(self, character: str) -> bool:
        return self.text.startswith(character, self.at)

    def _blank(self) -> None:
        found = _BLANK.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise AssertionError(f"{self.filename}: the scanner lost its way at offset {self.at}")
        self.at = found.end()
        return found[0]

    def _range(self, start: int) -> Location:
        return Location(self.filename, self._position(start), self._position(self.at))

    def _position(self, offset: int) -> Position:
        line = bisect.bisect_right(self._starts, offset)
        return Position(line, offset - self._starts[line - 1] + 1)
