"""Three ways to read a text give the same: by libyaml and without places, by libyaml, and by ruamel's own parser."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchops.diagnostics import Location, Position
from batchops.spec import events, trees
from batchops.spec.document import Document
from batchops.spec.yaml import parse

ROOT = Path(__file__).parents[2]
SPECS = [path.read_text() for room in ("jobs", "examples") for path in sorted((ROOT / room).rglob("*.yaml"))]
PLAIN = "a: 1\nb: [x, {c: d}]\ne: |\n  text\n"
JSON = '{"é": [1, {"b": "😀"}, {}], "c": {"d":{"e":2}}}'
PECULIAR = {
    "tab": "a:\t1\n",
    "mark": "a: x\ufeff\n",
    "old line end": "a: 1\rb: 2\n",
    "end": "a: 1\n...\n",
    "directive": "%YAML 1.2\n---\na: 1\n",
    "head with a comment": "a: |2-#x\n  b\n",
    "spaces before a block": "a: |\n \n  b\n",
    "anchor": "a: &x 1\n",
    "tag": "a: !!str 1\n",
    "nothing": "a:\n",
    "pair in a list": 'a: ["b":c]\n',
    "pair after an empty list": "a: [[]:c]\n",
    "pair after an empty mapping": "a: [{}:c]\n",
    "pair of a marked key": 'a: [? "b":c]\n',
    "a key of braces": "a: {{ b }}\n",
    "scalar": "abc\n",
    "wrong": "a: [\n",
    "deep": "[" * 5000,
    "many": "- a\n" * 200_000,
    "half a character": "a: \ud800\n",
}

MANIFOLD = {
    "several documents": "a: 1\n---\nb: 2\n",
    "the same key twice": "a: 1\na: 2\n",
    "a key that is no text": "? {a: 1}\n: b\n",
    "a merge": "a: {b: 1}\n<<: {c: 2}\n",
    "a number of many digits": f"a: {'1' * 401}\n",
    "a key of many digits": f"{'1' * 401}: a\n",
    "U+2028": "a: 'x\u2028y'\n",
    "deep": "[" * 60 + "]" * 60,
    "many": "- a\n" * 50_000,
    "many keys": "".join(f"k{number}: 1\n" for number in range(25_000)),
}

needs_libyaml = pytest.mark.skipif(events.CParser is None, reason="not every interpreter has libyaml")


def _read(text: str) -> list[Any]:
    parsed = parse(text, "a.yaml")
    return [parsed.diagnostics, parsed.lines, *map(_told, parsed.documents)]


def _told(document: Document) -> Any:
    places = document.places
    return repr(document.tree), document.lines, places.values, places.keys, places.texts, places.damaged


def _read_by_ruamel(text: str) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "CParser", None)
        patch.setattr(trees, "CParser", None)
        return _read(text)


_PIECES = st.sampled_from([
    *"aabb--::  ??,,[]{}##&*!|>'\"%@`\n\n\n  0~\\/<.=+é\t\r\x00\x7f\x85\ue000\u2028\u3000\ufeff😀",
    *("\r\n", ": ", ": ", "- ", "- ", "\n  ", "\n  ", "\n- ", "---\n", "\n---\n", "...\n", "# c", " # c"),
    *("|\n", ">-\n", "|2\n", "|+\n", "|-\n  a\n\n", '"x"', "'y'", "\\n", "\\u0041", "\\x41", "\\/", "\\\n"),
    *("? a\n: b", "{{ x }}", "{% if a %}", "key: ", "\nkey: ", "{a: b}", "[a, b]", '"a": 1', "<<: ", '"a\n\n b"'),
    *('"":', "[]:", "[?", "!!str ", "&a ", "*a", "%YAML 1.1\n", "http://a:1", "1:30", "a:b", "a ,b"),
    "k: |\n    a\n   \n    b\n",
])  # fmt: skip
_NOISE = st.lists(_PIECES, min_size=1, max_size=6).map("".join)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Short noise where a value may stand, or a piece of a spec with noise in it."""
    if draw(st.booleans()):
        return draw(st.sampled_from(["{}", "k: {}", "- {}", "a: {{{}}}\nb: c", "a: [{}]\n", "a:\n  {}\n"])).format(
            draw(_NOISE)
        )
    lines = draw(st.sampled_from(SPECS)).split("\n")
    first = draw(st.integers(0, max(0, len(lines) - 8)))
    text = "\n".join(lines[first : first + 8])
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(_NOISE) + text[at + draw(st.integers(0, 3)) :]


@needs_libyaml
def test_libyaml_and_ruamel_read_alike() -> None:
    taken: list[bool] = []
    at_once: list[bool] = []

    @settings(max_examples=settings().max_examples * 10)
    @given(texts())
    def check(text: str) -> None:
        taken.append(events.plain_events(text) is not None)
        at_once.append(trees.plain_tree(text) is not None)
        assert _read(text) == _read_by_ruamel(text)

    check()
    print(f"libyaml reads {sum(taken)} of {len(taken)} texts, {sum(at_once)} of them at once")
    assert sum(taken) > 0.1 * len(taken)
    assert sum(at_once) > 0.05 * len(taken)


@needs_libyaml
@pytest.mark.parametrize("text", SPECS)
def test_specs_are_read_alike(text: str) -> None:
    assert _read(text) == _read_by_ruamel(text)


@needs_libyaml
def test_most_specs_are_read_by_libyaml() -> None:
    taken = [text for text in SPECS if events.plain_events(text) is not None]
    at_once = [text for text in taken if trees.plain_tree(text) is not None]
    print(f"libyaml reads {len(taken)} of {len(SPECS)} specs, {len(at_once)} of them at once")
    assert len(at_once) > 0.8 * len(SPECS)


@needs_libyaml
@pytest.mark.parametrize("text", PECULIAR.values(), ids=PECULIAR)
def test_what_they_might_read_differently_is_left_to_ruamel(text: str) -> None:
    assert events.plain_events(PLAIN) is not None
    assert events.plain_events(JSON) is not None
    assert events.plain_events(text) is None
    assert trees.plain_tree(text) is None
    assert _read(text) == _read_by_ruamel(text)


@needs_libyaml
@pytest.mark.parametrize("text", MANIFOLD.values(), ids=MANIFOLD)
def test_what_is_more_than_one_plain_tree_is_read_with_its_places(text: str) -> None:
    assert trees.plain_tree(PLAIN) == {"a": 1, "b": ["x", {"c": "d"}], "e": "text\n"}
    assert trees.plain_tree(text) is None
    assert events.plain_events(text) is not None
    assert _read(text) == _read_by_ruamel(text)


@needs_libyaml
def test_places_are_those_of_the_text_whenever_they_are_asked_for() -> None:
    (document,) = parse(PLAIN, "a.yaml").documents
    assert "places" not in vars(document)
    (copied,) = pickle.loads(pickle.dumps([document]))
    assert copied.location(("b", 1, "c")) == Location("a.yaml", Position(2, 12), Position(2, 13))
    assert document.places.texts["e",] == Location("a.yaml", Position(4, 3))
