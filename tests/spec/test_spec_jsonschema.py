"""Answer schemas: the strict subset, what strictify makes of a schema, and that nothing is fetched."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchops.spec.jsonschema import check, lint, strictify, validator
from batchops.spec.load import LoadedProject

Load = Callable[[dict[str, str]], LoadedProject]


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _nested(levels: int) -> dict[str, Any]:
    schema = _object(leaf={"type": "string"})
    for _ in range(levels - 1):
        schema = _object(inner=schema)
    return schema


TEXT = {"type": "string"}
CLOSED = {"required": [], "additionalProperties": False}


@pytest.mark.parametrize(
    "schema",
    [
        _object(),
        _object(a=TEXT, b={"type": ["string", "null"]}, c={"enum": ["x", "y"]}, d={"const": 1}),
        _object(a={"type": "array", "items": _object(b={"type": "number", "minimum": 0}), "maxItems": 3}),
        _object(a={"anyOf": [TEXT, {"type": "null"}]}),
        _object(a={"type": "string", "format": "date-time", "pattern": "^2"}),
        {**_object(a={"$ref": "#/$defs/b"}), "$defs": {"b": _object(again={"$ref": "#"})}},
        {**_object(a=TEXT), "title": "answer", "$schema": "https://json-schema.org/draft/2020-12/schema"},
        _nested(10),
        _object(a={"enum": [str(number) for number in range(1000)]}),
    ],
)
def test_schema_in_the_strict_subset_has_no_problem_and_is_left_alone(schema: dict[str, Any]) -> None:
    assert check(schema) is None
    assert lint(schema) == ()
    assert strictify(schema) == schema


@pytest.mark.parametrize(
    ("schema", "pointers"),
    [
        ({"type": "array", "items": TEXT}, ["$"]),
        ({"anyOf": [_object()]}, ["$"]),
        ({"type": "object", "properties": {"a": TEXT}, "required": ["a"]}, ["$"]),
        ({"type": "object", "properties": {"a": TEXT}, "additionalProperties": False}, ["$"]),
        (_object(a={"type": "object", "additionalProperties": TEXT}), ["$.properties.a"]),
        (_object(tags={"type": "array", "items": {"type": "object"}}), ["$.properties.tags.items"]),
        (_object(a={"anyOf": [TEXT, {"type": "object"}]}), ["$.properties.a.anyOf[1]"]),
        ({**_object(a={"$ref": "#/$defs/b"}), "$defs": {"b": {"type": "object"}}}, ["$.$defs.b"]),
        (_object(a={**TEXT, "default": "x"}), ["$.properties.a.default"]),
        (_object(a={"oneOf": [TEXT]}), ["$.properties.a.oneOf"]),
        (_object(a={"allOf": [TEXT]}), ["$.properties.a.allOf"]),
        (_object(a={**TEXT, "not": {"const": "x"}}), ["$.properties.a.not"]),
        (_object(a={**TEXT, "format": "uri"}), ["$.properties.a.format"]),
        (_object(a={}), ["$.properties.a"]),
        (_object(a={"enum": []}), ["$.properties.a.enum"]),
        ({**_object(a={"$ref": "#/$defs/b", "description": "x"}), "$defs": {"b": TEXT}}, ["$.properties.a.$ref"]),
        ({**_object(a=TEXT), "required": ["a", "b"]}, ["$.required"]),
        (_nested(11), ["$" + ".properties.inner" * 10]),
        (_object(a={"enum": [str(number) for number in range(1001)]}), ["$"]),
        (_object(a={"enum": [f"{number:060}" for number in range(251)]}), ["$.properties.a.enum"]),
        (_object(**{f"p{number}": TEXT for number in range(5001)}), ["$"]),
        (_object(**{"p" * 120_001: TEXT}), ["$"]),
    ],
)
def test_departure_from_the_strict_subset_is_named_by_its_json_path(
    schema: dict[str, Any], pointers: list[str]
) -> None:
    assert [problem.pointer for problem in lint(schema) if problem.is_error] == pointers


def test_words_that_are_only_unproven_are_warned_about() -> None:
    (problem,) = lint(_object(a={**TEXT, "minLength": 3}))
    assert (problem.pointer, problem.is_error) == ("$.properties.a.minLength", False)


def test_fine_tuned_models_take_fewer_words() -> None:
    schema = _object(a={**TEXT, "pattern": "^x"})
    assert [problem.pointer for problem in lint(schema, fine_tuned=True)] == ["$.properties.a.pattern"]
    assert lint(schema) == ()


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (
            {"type": "object", "properties": {"a": TEXT, "b": {"type": "integer", "default": 0}}, "required": ["a"]},
            _object(a=TEXT, b={"type": ["integer", "null"]}),
        ),
        (
            {"properties": {"a": {"type": "string", "enum": ["x"]}, "b": {"const": 1}}},
            _object(a={"type": ["string", "null"], "enum": ["x", None]}, b={"anyOf": [{"const": 1}, {"type": "null"}]}),
        ),
        ({"type": "array", "items": TEXT}, _object(answer={"type": "array", "items": TEXT})),
        (
            {"anyOf": [{"type": "object"}, TEXT], "title": "t"},
            {"title": "t", **_object(answer={"anyOf": [{"type": "object", **CLOSED}, TEXT]})},
        ),
        ({"allOf": [{"type": "object", "properties": {"a": TEXT}, "required": ["a"]}]}, _object(a=TEXT)),
        (_object(a={"oneOf": [TEXT, {"type": "null"}]}), _object(a={"anyOf": [TEXT, {"type": "null"}]})),
        (_object(a={**TEXT, "format": "uri", "not": {}}), _object(a=TEXT)),
        (
            {**_object(a={"$ref": "#/$defs/b", "description": "d"}), "$defs": {"b": TEXT}},
            {**_object(a={**TEXT, "description": "d"}), "$defs": {"b": TEXT}},
        ),
        (
            {"type": "object", "properties": {"next": {"$ref": "#"}}},
            _object(next={"anyOf": [{"$ref": "#"}, {"type": "null"}]}),
        ),
    ],
)
def test_strictify_says_what_the_schema_would_have_to_be(schema: dict[str, Any], strict: dict[str, Any]) -> None:
    before = copy.deepcopy(schema)
    assert strictify(schema) == strict
    assert [problem for problem in lint(strict) if problem.is_error] == []
    assert schema == before


def test_schema_that_a_pydantic_model_makes_becomes_strict() -> None:
    from pydantic import BaseModel, Field  # noqa: PLC0415  an example of how users make schemas

    class Line(BaseModel):
        text: str
        score: float | None = None

    class Answer(BaseModel):
        label: str = Field(default="x", description="One word")
        lines: list[Line] = []
        best: Line | None = None

    made = Answer.model_json_schema()
    assert any(problem.is_error for problem in lint(made))
    assert not any(problem.is_error for problem in lint(strictify(made)))


_SCHEMAS = st.recursive(
    st.sampled_from([TEXT, {"type": "integer", "default": 1}, {"enum": ["a", "b"]}, {"const": 1}, {"type": "null"}]),
    lambda inner: (
        st.fixed_dictionaries(
            {"properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3)},
            optional={
                "type": st.just("object"),
                "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
                "additionalProperties": inner | st.booleans(),
                "not": inner,
            },
        )
        | st.fixed_dictionaries({"type": st.just("array"), "items": inner})
        | st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)})
        | st.fixed_dictionaries({"oneOf": st.lists(inner, min_size=1, max_size=2)})
        | st.fixed_dictionaries({"allOf": st.lists(inner, min_size=1, max_size=1)})
        | st.fixed_dictionaries({"$ref": st.just("#/$defs/x")}, optional={"description": st.just("d")})
    ),
    max_leaves=6,
)


@example({"type": "string"}, {"allOf": [{"$ref": "#/$defs/x", "description": "d"}]})
@given(_SCHEMAS, _SCHEMAS)
def test_strictified_schema_is_strict_and_stays_as_it_is(schema: dict[str, Any], definition: dict[str, Any]) -> None:
    strict = strictify({**schema, "$defs": {"x": definition}})
    assert [problem for problem in lint(strict) if problem.is_error and "nested" not in problem.why] == []
    assert strictify(strict) == strict


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"type": "objekt"}, "$.type"),
        ({"required": "a"}, "$.required"),
        ({"properties": {"a": {"type": 3}}}, "$.properties.a.type"),
        ({"pattern": "("}, "$.pattern"),
        ({"$schema": "http://127.0.0.1:1/draft"}, "$.$schema"),
        ({"$ref": "http://127.0.0.1:1/x.json"}, "$.$ref"),
        ({"properties": {"a": {"$ref": "other.json#/x"}}}, "$.properties.a.$ref"),
        ({"$id": "http://127.0.0.1:1/", "properties": {"a": {"$ref": "file:///etc/passwd"}}}, "$.properties.a.$ref"),
        ({"$ref": "#/$defs/none"}, "$.$ref"),
    ],
)
def test_what_is_no_schema_or_points_elsewhere_is_refused_without_a_fetch(schema: dict[str, Any], pointer: str) -> None:
    """A fetch from port 1 would fail with another message, and after a while."""
    problem = check(schema)
    assert problem is not None
    assert problem.pointer == pointer
    assert "error sending request" not in problem.why
    with pytest.raises(ValueError, match=r"^\$"):
        validator(schema)


def test_validator_judges_answers() -> None:
    judge = validator(_object(label={"enum": ["x"]}))
    assert judge.is_valid({"label": "x"})
    assert not judge.is_valid({"label": "y"})


JOB = "name: a\nsource: {query: SELECT 1 AS id, key: id}\nmodel: gpt-4o\ntemplate: x\nschema: schemas/a.json\n"


@pytest.mark.parametrize(
    ("text", "code", "line", "column"),
    [
        ("{", "schema_syntax", 1, 2),
        ('{"type": object}', "schema_syntax", 1, 10),
        ('{\n  "type": NaN\n}', "schema_syntax", 1, 1),
        ("[1]", "schema_invalid", 1, 1),
        ('{\n\t"type": "object",\n\t"additionalProperties": false, "default": 1}', "schema_not_strict", 3, 33),
        ('{\n  "type": "object",\n  "type": "object"\n}', "duplicate_key", 3, 3),
        ("[" * 100_000, "yaml_limit", 1, 62),
    ],
)
def test_problem_of_a_schema_file_points_into_that_file(
    load: Load, text: str, code: str, line: int, column: int
) -> None:
    (found,) = load({"jobs/a.yaml": JOB, "schemas/a.json": text}).diagnostics
    place = found.location
    assert place is not None
    assert (found.code, place.filename, place.start.line, place.start.column) == (code, "schemas/a.json", line, column)


def test_first_problem_offers_the_whole_strict_schema(load: Load) -> None:
    schema = {"type": "object", "properties": {"a": TEXT, "b": {"type": "object"}}}
    found = load({"jobs/a.yaml": JOB, "schemas/a.json": json.dumps(schema)}).diagnostics
    assert [len(diagnostic.fixes) for diagnostic in found] == [1, 0, 0]
    assert json.loads(found[0].fixes[0]) == strictify(schema)


def test_schema_may_stand_in_the_spec_or_in_a_yaml_file(load: Load) -> None:
    inline = JOB.replace("schemas/a.json", json.dumps(_object(label=TEXT)))
    in_yaml = JOB.replace("schemas/a.json", "schemas/a.yaml").replace("name: a", "name: b")
    files = {"jobs/a.yaml": inline, "jobs/b.yaml": in_yaml, "schemas/a.yaml": json.dumps(_object(label=TEXT))}
    project = load(files)
    assert project.diagnostics == ()
    assert [job.schema for job in project.jobs] == [_object(label=TEXT)] * 2


def test_property_order_of_a_schema_is_kept(load: Load) -> None:
    schema = _object(z=TEXT, a=TEXT, m=TEXT)
    (job,) = load({"jobs/a.yaml": JOB, "schemas/a.json": json.dumps(schema)}).jobs
    assert job.schema is not None
    assert list(job.schema["properties"]) == ["z", "a", "m"]
