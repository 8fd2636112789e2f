"""Reading YAML: values of the core schema, places of everything, and no file that can hurt."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchops.diagnostics import Position
from batchops.spec.document import MAX_DEPTH, Document
from batchops.spec.yaml import MAX_BYTES, parse


def _document(text: str) -> Document:
    parsed = parse(text, "a.yaml")
    assert parsed.diagnostics == ()
    (document,) = parsed.documents
    return document


def _found(text: bytes | str) -> list[tuple[str, int, int]]:
    places = [(found.code, found.location) for found in parse(text, "a.yaml").diagnostics]
    return [(code, place.start.line, place.start.column) for code, place in places if place is not None]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("012", 12),
        ("0o17", 15),
        ("0xff", 255),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("~", None),
        ("", None),
        ("TRUE", True),
        ('"true"', "true"),
        ("!!str 1", "1"),
        ("!!float 1", 1.0),
        ("! 1", "1"),
        ('"\\ud83d\\ude00"', "😀"),
        ("|\n  a\n\n  b", "a\n\nb\n"),
        (">-\n  a\n  b", "a b"),
    ],
)
def test_scalar_has_the_value_of_the_yaml_1_2_core_schema(written: str, value: object) -> None:
    found = _document(f"a: {written}\n").tree["a"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_read() -> None:
    assert math.isnan(_document("a: .nan\n").tree["a"])


@pytest.mark.parametrize("form", ["a: x{}y\n", "a: 'x{}y'\n", 'a: "x{}y"\n', "a: |-\n  x{}y\n", "a: >-\n  x{}y\n"])
@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029", "\ue000\u2028\ue001"])
def test_line_ends_of_yaml_1_1_are_ordinary_characters(form: str, character: str) -> None:
    assert _document(form.format(character)).tree == {"a": f"x{character}y"}
    assert _document(f"{character}: 1 # {character}\nb: 2\n").key_location(("b",)).start == Position(2, 1)


def test_keys_are_text_as_written() -> None:
    assert _document("50256: a\ntrue: b\n~: c\n").tree == {"50256": "a", "true": "b", "~": "c"}


def test_every_path_has_its_place() -> None:
    document = _document("a: 1\nb:\n  - c: [x, y]\n    d: |\n      text\n")
    assert document.location(("b", 0, "c", 1)).start == Position(3, 12)
    assert document.key_location(("b", 0, "d")).start == Position(4, 5)
    assert document.location(("b", 0, "c", 7, "deeper")).start == document.location(("b", 0, "c")).start
    assert document.places.texts["b", 0, "d"].start == Position(5, 7)
    assert document.places.texts["b", 0, "c", 1].start == Position(3, 12)
    assert document.snippet(document.location(("b", 0, "c"))) == "  - c: [x, y]"


def test_anchored_and_merged_values_are_found_where_they_stand() -> None:
    text = "x-base: &base\n  a: 1\n  b: &list [2]\nc:\n  <<: *base\n  b: 3\nd: *list\n"
    document = _document(text)
    assert document.tree == {"c": {"a": 1, "b": 3}, "d": [2]}
    assert document.location(("c", "a")).start == Position(2, 6)
    assert document.location(("c", "b")).start == Position(6, 6)
    assert document.location(("d", 0)).start == Position(3, 13)


def test_earlier_merges_win_and_the_order_of_writing_is_kept() -> None:
    document = _document("z: 1\n<<: [{a: 1, b: 1}, {b: 2, c: 2}]\ny: 2\n")
    assert list(document.tree.items()) == [("z", 1), ("a", 1), ("b", 1), ("c", 2), ("y", 2)]


def test_several_documents_of_a_file_keep_their_lines() -> None:
    parsed = parse("a: 1\n---\n# nothing\n---\nb: &x 2\n", "a.yaml")
    assert [document.tree for document in parsed.documents] == [{"a": 1}, None, {"b": 2}]
    assert parsed.documents[2].key_location(("b",)).start == Position(5, 1)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: 1\nb: 2\na: 3\n", [("duplicate_key", 3, 1)]),
        ("1: a\n'1': b\n", [("duplicate_key", 2, 1)]),
        ("<<: {a: 1}\n<<: {b: 1}\n", [("duplicate_key", 2, 1)]),
        ("a: {b: {c: 1, c: 2}}\n", [("duplicate_key", 1, 15)]),
        ("a: *nobody\n", [("unknown_anchor", 1, 4)]),
        ("a: &a\n  b: *a\n", [("unknown_anchor", 2, 6)]),
        ("a: &x 1\n---\nb: *x\n", [("unknown_anchor", 3, 4)]),
        ("a: {{ b }}\n", [("key_not_text", 1, 5)]),
        ("a: !env B\n", [("unknown_tag", 1, 4)]),
        ("a: !!int x\n", [("unknown_tag", 1, 4)]),
        ("a: !!set {b}\n", [("unknown_tag", 1, 4)]),
        ("<<: 1\n", [("merge_value", 1, 5)]),
        ("\ta: 1\n", [("yaml_syntax", 1, 1)]),
        ("a: 1\n\tb: 2\n", [("yaml_syntax", 2, 1)]),
        ("a: b: c\n", [("yaml_syntax", 1, 5)]),
        ('a: "x\n', [("yaml_syntax", 2, 1)]),
        ("a: \x01\n", [("yaml_syntax", 1, 4)]),
        ('a: "\\ud83d"\n', [("yaml_syntax", 1, 4)]),
        ('a: "\\U00110000"\n', [("yaml_syntax", 1, 1)]),
        (b"a: 1\nb: \xff\n", [("file_encoding", 2, 4)]),
        ("a: 1\na: 2\nb: [\n", [("duplicate_key", 2, 1), ("yaml_syntax", 4, 1)]),
    ],
)
def test_mistake_is_found_at_its_place(text: bytes | str, found: list[tuple[str, int, int]]) -> None:
    assert _found(text) == found


def test_documents_before_a_mistake_are_still_read() -> None:
    assert [document.tree for document in parse("a: 1\n---\nb: [\n", "a.yaml").documents] == [{"a": 1}]


def test_windows_line_ends_and_a_byte_order_mark_move_no_place() -> None:
    document = _document("\ufeffa: 1\r\nb: |\r\n  x\r\n")
    assert document.tree == {"a": 1, "b": "x\n"}
    assert document.key_location(("b",)).start == Position(2, 1)


_BOMB = "a0: &a0 [x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    "text",
    [
        _BOMB,
        _BOMB.replace("[x, x, x]", "{k: 1}"),
        "[" * 5000,
        "{a: " * 5000,
        "- " * 100_000,
        "---\na\n" * 100_000,
        "- " * (MAX_DEPTH + 2),
        "a: " + "9" * 5000,
        "x" * (MAX_BYTES + 1),
        "x0: &x0 {a: 1}\n" + "".join(f"x{i}: &x{i} {{<<: [{', '.join([f'*x{i - 1}'] * 9)}]}}\n" for i in range(1, 40)),
    ],
    ids=["aliases", "mappings", "brackets", "braces", "dashes", "documents", "levels", "digits", "bytes", "merges"],
)
def test_bomb_ends_in_a_diagnostic_and_not_in_a_dead_machine(text: str) -> None:
    assert [code for code, _, _ in _found(text)] == ["yaml_limit"]


@pytest.mark.parametrize("piece", ["|", "> ", "<b>x</b>", "|2", "> #", "| ", "#", "[a, ", " "])
def test_long_lines_of_marks_are_read_as_they_stand(piece: str) -> None:
    text = f'a: "{piece * (900_000 // len(piece))}"\n'  # what looks on from each mark takes hours for it
    assert _document(text).tree["a"] == text[4:-2]


def test_two_thousand_lines_are_read_in_a_fraction_of_a_second() -> None:
    job = "name: a\nsource:\n  query: |\n    SELECT 1\n    FROM t\n  key: id\nmodel: m\ntags: [a, b]\nowner: me\n---\n"
    text = job * 200
    taken = []
    for _ in range(3):
        began = time.process_time()
        assert len(parse(text, "a.yaml").documents) == 201
        taken.append(time.process_time() - began)
    assert min(taken) < 0.6  # about 0.2 on a quiet machine; a quadratic reader takes minutes


_TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)


@given(_TREES)
def test_any_json_is_read_as_what_it_says(tree: Any) -> None:

    parsed = parse(json.dumps(tree), "a.json")
    assert parsed.diagnostics == ()
    read = parsed.documents[0].tree
    if isinstance(tree, dict):
        tree = {key: value for key, value in tree.items() if not key.startswith("x-")}
    assert read == tree


@given(st.text(st.sampled_from("ab:- \n\t#[]{}'\"&*|>!%@`,?\u2028\ufeff\x00é"), max_size=60))
def test_no_text_makes_the_reader_raise(text: str) -> None:
    parse(text, "a.yaml")
    parse(text.encode(), "a.yaml")
