"""Answers in SQL: what is not left to the judge is what the judge makes of it, to the byte."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import duckdb
import jsonschema_rs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from result_files import SCHEMA, Writer

from batchops.engine.answersql import answer_sql

FLAT: dict[str, Any] = {
    "type": "object",
    "properties": {"label": {"enum": ["a", "b,", 'c"d']}, "score": {"type": "number"}, "why": {"type": "string"}},
    "required": ["label", "score", "why"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        yield opened


def in_sql(con: duckdb.DuckDBPyConnection, schema: dict[str, Any], said: list[str]) -> list[str | None]:
    """The answers of these texts by the engine."""
    sql = answer_sql(None, schema)
    rows = con.execute(
        f"""SELECT {sql.text} FROM (SELECT *, {sql.parts} AS part
            FROM (SELECT unnest(?::VARCHAR[]) AS said, generate_subscripts(?::VARCHAR[], 1) AS n)) ORDER BY n""",
        [said, said],
    ).fetchall()
    return [row[0] for row in rows]


def by_validator(schema: dict[str, Any], said: str) -> str | None:
    try:
        value = orjson.loads(said)
    except ValueError:
        return None
    return orjson.dumps(value).decode() if jsonschema_rs.is_valid(schema, value) else None


def agree(con: duckdb.DuckDBPyConnection, schema: dict[str, Any], said: list[str]) -> list[str | None]:
    """The engine answers as the validator does, or leaves it to the judge."""
    found = in_sql(con, schema, said)
    for text, answer in zip(said, found, strict=True):
        assert answer in {None, by_validator(schema, text)}, text
    return found


def mishaps(text: str) -> Iterator[str]:
    """The text, and what a lenient reader would take for it."""
    yield text
    for found in re.finditer(r"[}\]]", text):
        yield f"{text[: found.start()]},{text[found.start() :]}"
        yield f"{text[: found.start()]}, {text[found.start() :]}"
    yield re.sub(r"\d", "NaN", text, count=1)
    yield text.replace("{", '{"more": 1, ', 1)
    yield text.replace("{", '{"label": "a", ', 1)
    yield text.replace(",", ", ")
    yield text.replace(":", " :")
    yield f" {text}"
    yield f"{text}{text}"
    yield f"/* {text} */{text}"


@given(seed=st.integers(0, 2**32))
def test_answers_of_a_schema_are_the_validators(con: duckdb.DuckDBPyConnection, seed: int) -> None:
    writer = Writer(seed)
    said = [writer.structured(is_plain=writer.is_so(2)) for _ in range(5)]
    known = [text for text in said if not re.search("[\ud800-\udfff]", text)]  # not to be had in a line that was read
    agree(con, SCHEMA, [odd for text in known for odd in mishaps(text)])


_FLAT_VALUES = st.fixed_dictionaries(
    {
        "label": st.sampled_from(["a", "b,", 'c"d', "e", 7]),
        "score": st.one_of(st.integers(-10, 10), st.floats(allow_nan=False, allow_infinity=False), st.just("1")),
        "why": st.one_of(st.text(max_size=6), st.sampled_from(['a,"b', 'x": y', "a, ", "\x00", "\x0b", "\\u0041"])),
    },
    optional={"more": st.none()},
)


@given(value=_FLAT_VALUES, is_spaced=st.booleans(), is_ascii=st.booleans())
def test_answers_of_a_flat_schema_are_the_validators(
    con: duckdb.DuckDBPyConnection, value: dict[str, Any], is_spaced: bool, is_ascii: bool
) -> None:
    text = json.dumps(value, separators=(", ", ": ") if is_spaced else (",", ":"), ensure_ascii=is_ascii)
    agree(con, FLAT, list(mishaps(text)))
    backwards = json.dumps(dict(reversed(value.items())), ensure_ascii=is_ascii)
    agree(con, FLAT, list(mishaps(backwards)))


@pytest.mark.parametrize(
    "said",
    [
        '{"label":"a","score":0.5,"why":"because"}',
        '{"label": "b,", "score": -2, "why": "naïve \\"quoted\\" \\n"}',
        '{\n  "label": "a",\n  "score": 0.5,\n  "why": "indented"\n}',
        '{"label": "a", "score": 0.5, "why": "caf\\u00e9"}',
    ],
)
def test_plain_answers_are_not_left_to_the_judge(con: duckdb.DuckDBPyConnection, said: str) -> None:
    assert agree(con, FLAT, [said]) == [orjson.dumps(orjson.loads(said)).decode()]
