"""A schema as expressions: what matches fits, and is written as the canonical form writes it."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from result_files import SCHEMA, Writer

from batchops.engine.schemasql import fitting

_SCHEMAS: tuple[dict[str, Any], ...] = (
    SCHEMA,
    {"type": "string"},
    {"type": ["number", "null"], "minimum": 0},
    {"type": "integer", "minimum": 1, "maximum": 5},
    {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
    {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "number"}}, "required": ["a"]},
    {"enum": ["a\nb", 'q"', 1, None, True, 0.5]},
    {"const": "x.y*"},
    {"type": "string", "enum": ["a", 1]},
)
_LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-10, 10), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["a", "a\nb", 'q"', "x.y*", "xzyy", "\x1f", "\x7f", "é"]), st.text(max_size=4),
)  # fmt: skip
_VALUES = st.one_of(
    _LEAVES,
    st.lists(_LEAVES, max_size=4),
    st.fixed_dictionaries({"a": _LEAVES}, optional={"b": _LEAVES, "c": _LEAVES}),
)


def proves(schema: dict[str, Any], text: str) -> None:
    """Whatever an expression of the schema matches fits it, in the form that it says."""
    found = fitting(schema)
    assert found is not None
    canonical, spaced = (re.fullmatch(pattern, text) is not None for pattern in (found.canonical, found.spaced))
    if canonical or spaced:
        assert jsonschema_rs.is_valid(schema, orjson.loads(text))
    if canonical:
        assert orjson.dumps(orjson.loads(text)).decode() == text


@given(schema=st.sampled_from(_SCHEMAS), value=_VALUES)
def test_what_matches_fits(schema: dict[str, Any], value: Any) -> None:
    proves(schema, orjson.dumps(value).decode() if _is_64_bit(value) else json.dumps(value))
    proves(schema, json.dumps(value))
    proves(schema, json.dumps(value, indent=1))


@given(seed=st.integers(0, 2**32))
def test_what_models_say_matches_only_where_it_fits(seed: int) -> None:
    text = Writer(seed).structured(is_plain=False)
    if not re.search("[\ud800-\udfff]", text):  # not to be had in a line that was read
        proves(SCHEMA, text)


def _is_64_bit(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (SCHEMA, '{"label":"pos","score":0.93,"count":12,"tags":["a","b"],"more":{"is_sure":true,"amount":-2.5}}'),
        (SCHEMA, '{"label":"é \\"quoted\\"","score":1,"count":null,"tags":[],"more":null}'),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3}, "[1,2,3]"),
        ({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "null"}}, "required": ["a"]},
         '{"a":""}'),
        ({"type": "integer", "minimum": 1, "maximum": 5}, "5"),
        ({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "t", "type": "boolean"}, "true"),
    ],
)  # fmt: skip
def test_usual_answer_is_recognised(schema: dict[str, Any], text: str) -> None:
    found = fitting(schema)
    assert found is not None
    assert re.fullmatch(found.canonical, text)
    assert re.fullmatch(found.spaced, json.dumps(json.loads(text), indent=2, ensure_ascii=False))


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "string", "pattern": "^a"},
        {"type": "string", "minLength": 1},
        {"type": "number", "minimum": -1},
        {"type": "number", "multipleOf": 2},
        {"type": "object", "properties": {}, "required": ["a"]},
        {"type": "object", "patternProperties": {"a": {}}},
        {"type": "array"},
        {"type": "array", "items": {"type": "null"}, "uniqueItems": True},
        {"oneOf": [{"type": "string"}]},
        {"allOf": [{"type": "string"}], "enum": ["a"]},
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "string"},
        {"$ref": "#"},
        {"$ref": "#/$defs/gone"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}},
        {"enum": [0.5, {"a": 1}]},
        {"not": {"type": "string"}},
    ],
)
def test_what_no_expression_can_promise_is_left_to_the_validator(schema: dict[str, Any]) -> None:
    assert fitting(schema) is None
