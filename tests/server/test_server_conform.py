"""Values drawn for a schema satisfy it, whatever the schema is."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchops.server.conform import Conformer

HARD_SCHEMAS: list[dict[str, Any]] = [
    {"type": "string", "pattern": r"^[A-Z]{2}-\d{4}(-[a-f]+)?$"},
    {"type": "string", "pattern": r"^(\w+)@(foo|bar)\.(com|org)$"},
    {"type": "string", "pattern": r"[^a-z]{3,5}\s?x*$"},
    {"type": "string", "minLength": 100, "maxLength": 101},
    {"type": "string", "maxLength": 3},
    *({"type": "string", "format": name} for name in ("date-time", "date", "time", "duration", "email", "hostname")),
    *({"type": "string", "format": name} for name in ("ipv4", "ipv6", "uuid", "uri")),
    {"type": "integer", "exclusiveMinimum": 7, "exclusiveMaximum": 9},
    {"type": "integer", "minimum": -9, "maximum": -7},
    {"type": "integer", "maximum": -1000},
    {"type": "integer", "multipleOf": 7, "minimum": 50},
    {"type": "number", "multipleOf": 0.25, "minimum": 1, "maximum": 2},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.001},
    {"type": "number", "minimum": 1000},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 5, "maxItems": 6},
    {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 3},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "minItems": 2},
    {"const": {"a": [1, None]}},
    {"enum": [None, "x", 3]},
    {"type": "null"},
    {"anyOf": [{"type": "integer", "minimum": 5}, {"type": "null"}]},
    {"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 4}]},
    {"type": "object", "properties": {"a": {"type": "integer"}}, "anyOf": [{"required": ["a"]}]},
    {"allOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"const": 1}}, "required": ["b"]}]},
    {"type": "integer", "not": {"enum": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}, "minimum": 0, "maximum": 30},
    {"type": "object", "additionalProperties": {"type": "integer"}, "required": ["x"], "minProperties": 3},
    {"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {
        "value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
        "required": ["value", "children"], "additionalProperties": False}}},
    {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"],
     "additionalProperties": False},
]  # fmt: skip


@pytest.mark.parametrize("schema", HARD_SCHEMAS, ids=lambda schema: json.dumps(schema)[:60])
def test_drawn_values_satisfy_their_schema(schema: dict[str, Any]) -> None:
    validator = jsonschema_rs.validator_for(schema, validate_formats=True)
    conformer, rng = Conformer(schema), Random(1)
    for _ in range(40):
        value = conformer.value(rng)
        json.dumps(value, allow_nan=False)
        assert validator.is_valid(value), value


_LEAVES = st.one_of(
    st.builds(
        lambda low, width: {"type": "integer", "minimum": low, "maximum": low + width},
        st.integers(-1000, 1000),
        st.integers(0, 50),
    ),
    st.builds(lambda low: {"type": "number", "minimum": low, "maximum": low + 0.5}, st.integers(-100, 100)),
    st.builds(lambda options: {"enum": options}, st.lists(st.text(max_size=5), min_size=1, max_size=4)),
    st.sampled_from([{"type": "boolean"}, {"type": "string"}, {"type": ["string", "null"]}, {"type": "null"}]),
)
_SCHEMAS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.builds(
            lambda properties: {
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            },
            st.dictionaries(st.text(min_size=1, max_size=6), inner, max_size=4),
        ),
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 3)),
        st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=12,
)


@given(schema=_SCHEMAS, seed=st.integers(0, 2**32))
def test_drawn_values_satisfy_any_strict_schema(schema: dict[str, Any], seed: int) -> None:
    value = Conformer(schema).value(Random(seed))
    assert jsonschema_rs.is_valid(schema, value)
