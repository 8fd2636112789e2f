"""Texts that match a regular expression, drawn at random from its parsed form."""

from __future__ import annotations

import re
from random import Random
from re import _constants as op  # type: ignore[attr-defined]  # the parsed form has no public name in any release
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

_CATEGORIES = {
    op.CATEGORY_DIGIT: "0123456789",
    op.CATEGORY_WORD: "abcdefghijklmnopqrstuvwxyz0123456789_",
    op.CATEGORY_SPACE: " ",
    op.CATEGORY_NOT_DIGIT: "abcdefghijklmnopqrstuvwxyz",
    op.CATEGORY_NOT_WORD: "-.",
    op.CATEGORY_NOT_SPACE: "abcdefghijklmnopqrstuvwxyz0123456789",
}
_PRINTABLE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/@ "
_MOST_REPEATS = 8
_LONGEST = 4096


def text_matching(pattern: str, rng: Random) -> str:
    """A text that `pattern` finds, or a plain text if the pattern cannot be read."""
    try:
        parsed = parser.parse(pattern)
    except (re.error, RecursionError, OverflowError):
        return "simulated"
    return _sequence(parsed, rng, {})[:_LONGEST]


def _sequence(parsed: Any, rng: Random, groups: dict[int, str]) -> str:
    return "".join(_one(code, argument, rng, groups) for code, argument in parsed)


def _one(code: Any, argument: Any, rng: Random, groups: dict[int, str]) -> str:  # noqa: PLR0911  one return a kind
    if code is op.LITERAL:
        return chr(argument)
    if code is op.ANY:
        return rng.choice(_PRINTABLE)
    if code in (op.NOT_LITERAL, op.IN):
        return _member(code, argument, rng)
    if code is op.BRANCH:
        return _sequence(rng.choice(argument[1]), rng, groups)
    if code in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
        least, most, body = argument
        times = rng.randint(least, max(least, min(most, least + _MOST_REPEATS)))
        return "".join(_sequence(body, rng, groups) for _ in range(min(times, _LONGEST)))
    if code is op.SUBPATTERN:
        text = _sequence(argument[3], rng, groups)
        groups[argument[0]] = text
        return text
    if code is op.ATOMIC_GROUP:
        return _sequence(argument, rng, groups)
    if code is op.GROUPREF:
        return groups.get(argument, "")
    return ""  # anchors and look-around take no text


def _member(code: Any, argument: Any, rng: Random) -> str:
    if code is op.NOT_LITERAL:
        return rng.choice([letter for letter in _PRINTABLE if ord(letter) != argument])
    negated = argument[0][0] is op.NEGATE
    ranges = argument[1:] if negated else argument
    if negated:
        return rng.choice([letter for letter in _PRINTABLE if not any(_has(part, letter) for part in ranges)] or ["~"])
    kind, value = rng.choice(ranges)
    if kind is op.LITERAL:
        return chr(value)
    if kind is op.RANGE:
        return chr(rng.randint(*value))
    return rng.choice(_CATEGORIES.get(value, "a"))


def _has(part: Any, letter: str) -> bool:
    kind, value = part
    if kind is op.LITERAL:
        return bool(ord(letter) == value)
    if kind is op.RANGE:
        return bool(value[0] <= ord(letter) <= value[1])
    return letter in str(_CATEGORIES.get(value, ""))
