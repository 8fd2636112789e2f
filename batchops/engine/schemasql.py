"""A JSON Schema as regular expressions: what matches is provably an answer that fits. Pure.

Only one direction holds. An answer that does not match may still fit (its keys in another order, a number written with
an exponent) and is left to the validator; so every rule here may be stricter than the schema, and none looser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jsonschema_rs
import orjson

MOST_CHARACTERS: Final = 20_000
"""Of one expression; the engine compiles it once for each thread."""

_DEEPEST: Final = 10
_LONGEST_LIST: Final = 100
_LARGEST_BOUND: Final = 200
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_NOTES: Final = frozenset({"title", "description", "default", "examples", "$comment", "$defs", "definitions"})

# Strings as the canonical form writes them, and as any JSON may: no lone surrogates, and no NUL.
CANONICAL_STRING: Final = r'"(?:[^"\\\x00-\x1f]|\\["\\bfnrt]|\\u00(?:0[1-7bef]|1[0-9a-f]))*"'
_ANY_STRING: Final = (
    r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u(?:0(?:00[1-9a-fA-F]|0[1-9a-fA-F][0-9a-fA-F]|[1-9a-fA-F][0-9a-fA-F]{2})'
    r"|[1-9a-cA-CeEfF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}"
    r'|[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}))*"'
)
# Numbers whose canonical form is their own text: at most 15 digits, no exponent, not so small that it would get one.
_WHOLE: Final = r"(?:0|[1-9][0-9]{0,14})"
_PART: Final = r"(?:0|0{0,3}[1-9]|0{0,3}[1-9][0-9]{0,8}[1-9])"
_REAL: Final = rf"(?:0\.{_PART}|[1-9][0-9]{{0,6}}\.(?:0|[0-9]{{0,7}}[1-9]))"


class Unfit(Exception):
    """A schema says something that no expression here can promise."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """Expressions for whole texts. What matches `canonical` is its own canonical form; `spaced` allows white space.

    `members`: where the schema wants an object of these members and no others, the canonical expression of each.
    """

    canonical: str
    spaced: str
    members: Mapping[str, str] = field(default_factory=dict)


def fitting(schema: Mapping[str, Any]) -> Fitting | None:
    """The expressions of a schema, or None where it cannot be had."""
    try:
        writer = _Writer(schema, space="", string=CANONICAL_STRING)
        canonical = writer.value(schema, 0)
        spaced = _Writer(schema, space=r"[ \t\n]*", string=_ANY_STRING).whole()
    except (Unfit, TypeError, ValueError):  # the last two: not a schema, or with text that is no UTF-8
        return None
    if max(len(canonical), len(spaced)) > MOST_CHARACTERS:
        return None
    return Fitting(canonical, spaced, writer.members())


@dataclass(frozen=True, slots=True)
class _Writer:
    root: Mapping[str, Any]
    space: str
    string: str

    def whole(self) -> str:
        return f"{self.space}{self.value(self.root, 0)}{self.space}"

    def members(self) -> dict[str, str]:
        """The expression of each member of an object that must have them all; none where it may have others."""
        properties, required = self.root.get("properties", {}), self.root.get("required", ())
        is_closed = self.root.get("additionalProperties") is False and set(properties) == set(required)
        if not is_closed or not all(map(_PLAIN_NAME.fullmatch, properties)):
            return {}
        return {name: self.value(part, 1) for name, part in properties.items()}

    def value(self, schema: Any, depth: int) -> str:
        """The expression of a value that fits."""
        if not isinstance(schema, Mapping) or depth > _DEEPEST:
            raise Unfit
        said = {key: value for key, value in schema.items() if key not in _NOTES}
        if said.pop("$schema", _DRAFT) != _DRAFT:
            raise Unfit
        for keyword in ("$ref", "anyOf", "enum", "const"):
            if keyword in said:
                return _TABLE[keyword](self, said, depth)
        return self._typed(said, depth)

    def reference(self, said: dict[str, Any], depth: int) -> str:
        place, *more = said.pop("$ref").split("/")
        if place != "#" or said:
            raise Unfit
        found: Any = self.root
        for step in more:
            if not isinstance(found, Mapping) or step not in found:
                raise Unfit
            found = found[step]
        return self.value(found, depth + 1)

    def any_of(self, said: dict[str, Any], depth: int) -> str:
        choices = said.pop("anyOf")
        if said or not choices:
            raise Unfit
        return _either([self.value(choice, depth + 1) for choice in choices])

    def listed(self, said: dict[str, Any], depth: int) -> str:
        """`enum` and `const`: the values that fit all that is said of them."""
        if set(said) - {"enum", "const", "type"}:
            raise Unfit
        values = [said["const"]] if "const" in said else said["enum"]
        simple = [value for value in values if value is None or isinstance(value, str | bool | int)]
        written = [_literal(value) for value in simple if _is_short(value) and jsonschema_rs.is_valid(said, value)]
        return _either(written)

    def _typed(self, said: dict[str, Any], depth: int) -> str:
        types = said.pop("type", None)
        names = [types] if isinstance(types, str) else types
        if not names:
            raise Unfit
        keywords = {keyword: name for name in names for keyword in _KEYWORDS.get(name, ())}
        if set(said) - set(keywords):
            raise Unfit
        return _either([_KINDS[name](self, said, depth) for name in names if name in _KINDS])

    def text(self, said: dict[str, Any], depth: int) -> str:
        return self.string

    def number(self, said: dict[str, Any], depth: int) -> str:
        bounds = _bounds(said)
        if bounds is None:
            sign = "" if said.get("minimum") == 0 else "-?"
            return rf"(?:0|{sign}{_REAL}|{sign}[1-9][0-9]{{0,14}})"
        low, high = bounds
        parts = [rf"{n}\.{_PART}" if n == 0 else rf"{n}\.(?:0|[0-9]{{0,7}}[1-9])" for n in range(low, high)]
        return _either([*map(str, range(low, high + 1)), *parts, rf"{high}\.0"])

    def integer(self, said: dict[str, Any], depth: int) -> str:
        bounds = _bounds(said)
        if bounds is None:
            return _WHOLE if said.get("minimum") == 0 else r"(?:0|-?[1-9][0-9]{0,14})"
        return _either([str(n) for n in range(bounds[0], bounds[1] + 1)])

    def array(self, said: dict[str, Any], depth: int) -> str:
        low, high = said.get("minItems", 0), said.get("maxItems")
        if not isinstance(low, int) or not isinstance(high, int | None) or max(low, high or 0) > _LONGEST_LIST:
            raise Unfit
        s, item = self.space, self.value(said.get("items"), depth + 1)
        if high is not None and high < max(low, 1):
            raise Unfit
        more = f"{{{max(low - 1, 0)},{'' if high is None else high - 1}}}"
        several = f"{item}{s}(?:,{s}{item}{s}){more}"
        return rf"\[{s}{several}\]" if low else rf"\[{s}(?:{several})?\]"

    def object(self, said: dict[str, Any], depth: int) -> str:
        """All properties in the order of the schema; after a required one, others may be left out where they may."""
        s, properties, required = self.space, said.get("properties", {}), set(said.get("required", ()))
        if not required <= set(properties):
            raise Unfit
        members = {
            name: f"{_literal(name)}{s}:{s}{self.value(part, depth + 1)}{s}" for name, part in properties.items()
        }
        written, may_leave_out = "", False
        for name, member in members.items():
            one = f",{s}{member}" if written else member
            written += f"(?:{one})?" if may_leave_out and name not in required else one
            may_leave_out = may_leave_out or name in required
        return rf"\{{{s}{written}\}}"


_TABLE: Final[Mapping[str, Callable[[_Writer, dict[str, Any], int], str]]] = {
    "$ref": _Writer.reference,
    "anyOf": _Writer.any_of,
    "enum": _Writer.listed,
    "const": _Writer.listed,
}
_KINDS: Final[Mapping[str, Callable[[_Writer, dict[str, Any], int], str]]] = {
    "string": _Writer.text,
    "number": _Writer.number,
    "integer": _Writer.integer,
    "boolean": lambda writer, said, depth: "(?:true|false)",
    "null": lambda writer, said, depth: "null",
    "array": _Writer.array,
    "object": _Writer.object,
}
_KEYWORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "number": ("minimum", "maximum"),
    "integer": ("minimum", "maximum"),
    "array": ("items", "minItems", "maxItems"),
    "object": ("properties", "required", "additionalProperties"),
}
"""What may be said of a kind; more than this, and the validator decides."""


def _bounds(said: Mapping[str, Any]) -> tuple[int, int] | None:
    """Small whole bounds of a number, None where it has none or only `minimum: 0`; Unfit for others."""
    low, high = said.get("minimum"), said.get("maximum")
    if high is None and (low is None or low == 0):
        return None
    if type(low) is not int or type(high) is not int or not 0 <= low <= high <= _LARGEST_BOUND:
        raise Unfit
    return low, high


def _either(choices: list[str]) -> str:
    if not choices:
        raise Unfit
    return choices[0] if len(choices) == 1 else f"(?:{'|'.join(choices)})"


def _is_short(value: object) -> bool:
    """Whether the canonical form of a constant is all that is written for it: 10¹⁶ may be, 1.0 is another text."""
    return not isinstance(value, int) or abs(value) < 10**15


def _literal(value: Any) -> str:
    text = orjson.dumps(value).decode()
    assert json.loads(text) == value
    return re.sub(r"[^A-Za-z0-9_ \"\x7f-\U0010ffff]", lambda found: "\\" + found[0], text)
