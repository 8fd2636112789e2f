"""The scanner places every key and value that tomllib finds."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchops.diagnostics import Location
from batchops.settings import toml

TRICKY = '''
# a comment with = and [brackets]
title = "a # no comment \\" [x]"   # one
"quoted.key" . inner = 1_000
dotted.'literal key'.x = 1979-05-27 07:32:00
text = """
[no.table]
key = "no" \\
""""
raw = \'\'\'
'x' = 1\'\'\'
list = [ 1, [ "a", 'b', ], # why
  { deep = { er = true }, n = 0.5e-3 } ,
]
empty = []
none = {}
[ table . "sub.x" ]
on = 07:32:00
[[many]]
a = 1
[many.inner]
b = 2
[[many]]
a = 3
[[many.more]]
c = nan
'''


def walk(tree: Any, path: toml.Path = ()) -> Iterator[tuple[toml.Path, Any]]:
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield (*path, key), value
        yield from walk(value, (*path, key))


def text_at(text: str, location: Location) -> str:
    lines = text.split("\n")
    end = location.end
    assert end is not None
    first, last = location.start.line - 1, end.line - 1
    if first == last:
        return lines[first][location.start.column - 1 : end.column - 1]
    middle = lines[first + 1 : last]
    return "\n".join([lines[first][location.start.column - 1 :], *middle, lines[last][: end.column - 1]])


def assert_places(text: str) -> None:
    document = toml.parse(text, "x.toml")
    for path, value in walk(document.tree):
        place = document.places[path]
        if isinstance(path[-1], str):
            assert tomllib.loads(f"{text_at(text, place.key)} = 1") == {path[-1]: 1}
        if place.value is not None:
            assert repr(tomllib.loads(f"x = {text_at(text, place.value)}")["x"]) == repr(value)


def test_every_key_and_value_of_a_tricky_file_is_placed() -> None:
    assert_places(TRICKY)


def test_windows_line_ends_do_not_move_a_place() -> None:
    assert_places(TRICKY.replace("\n", "\r\n"))


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\x7f", min_codepoint=32), max_size=8)
STRINGS = st.one_of(
    WORDS.map(lambda word: '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'),
    WORDS.map(lambda word: "'" + word.replace("'", "") + "'"),
    WORDS.map(lambda word: '"""\n' + word.replace("\\", "\\\\").replace('"', '\\"') + '\n"""'),
)
SCALARS = st.one_of(STRINGS, st.integers(-99, 99).map(str), st.booleans().map(lambda value: str(value).lower()))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3).map(lambda items: "[ " + ",\n ".join(items) + " ]"),
    max_leaves=6,
)


@given(st.lists(st.tuples(STRINGS.filter(lambda text: '"""' not in text), VALUES), max_size=5))
def test_every_key_and_value_of_any_file_is_placed(pairs: list[tuple[str, str]]) -> None:
    text = "".join(f"{key} = {value} # {index}\n" for index, (key, value) in enumerate(pairs))
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # the same key twice
    assert_places(text)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('api_key = "sk-abc"', "api_key = …"),
        ('api_key = "env:OPENAI_API_KEY"', 'api_key = "env:OPENAI_API_KEY"'),
        ('x = { api_key = "abc", kind = "local" }', "x = { api_key = …"),
        ('max_enqueued_tokens = "2M"', 'max_enqueued_tokens = "2M"'),
        ('kind = "sk-abc-def"', 'kind = "…"'),
        ('url = "s3://me:pass@host/x"', 'url = "s3://…@host/x"'),
    ],
)
def test_a_line_is_shown_without_what_may_be_a_secret(line: str, shown: str) -> None:
    assert toml.safe_line(line) == shown
