"""What templates see of every DuckDB type, and the canonical JSON form."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import duckdb
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from request_parts import contents, make_job, prompt_of

from batchops.request.values import _SIMPLE, canonical_json

FORMS = [
    # SQL, printed, as JSON
    ("true", "True", "true"),
    ("(-128)::TINYINT", "-128", "-128"),
    ("65535::USMALLINT", "65535", "65535"),
    ("18446744073709551615::UBIGINT", "18446744073709551615", "18446744073709551615"),
    ("(-170141183460469231731687303715884105728)::HUGEINT", "-170141183460469231731687303715884105728",
     "-170141183460469231731687303715884105728"),
    ("340282366920938463463374607431768211455::UHUGEINT", "340282366920938463463374607431768211455",
     "340282366920938463463374607431768211455"),
    ("123456789012345678901234567890::BIGNUM", "123456789012345678901234567890", '"123456789012345678901234567890"'),
    ("0.1::FLOAT", "0.1", "0.1"),
    ("16777216::FLOAT", "16777216.0", "16777216.0"),
    ("0.1::DOUBLE", "0.1", "0.1"),
    ("1e16::DOUBLE", "1e+16", "1e+16"),
    ("1e-7::DOUBLE", "1e-07", "1e-07"),
    ("'-0.0'::DOUBLE", "-0.0", "-0.0"),
    ("'nan'::DOUBLE", "nan", "null"),
    ("'-inf'::DOUBLE", "-inf", "null"),
    ("1.50::DECIMAL(9,2)", "1.50", "1.50"),
    ("0.0000001::DECIMAL(18,10)", "0.0000001000", "0.0000001000"),
    ("(-7)::DECIMAL(5,0)", "-7", "-7"),
    ("'a\"b'", 'a"b', '"a\\"b"'),
    ("'b'::ENUM('a','b')", "b", '"b"'),
    ("'{\"k\": 1}'::JSON", '{"k": 1}', '"{\\"k\\": 1}"'),
    ("'\\xFFab'::BLOB", "/2Fi", '"/2Fi"'),
    ("'0101'::BIT", "0101", '"0101"'),
    ("'6ba7b810-9dad-11d1-80b4-00c04fd430c8'::UUID", "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
     '"6ba7b810-9dad-11d1-80b4-00c04fd430c8"'),
    ("DATE '2024-02-29'", "2024-02-29", '"2024-02-29"'),
    ("'infinity'::DATE", "infinity", '"infinity"'),
    ("DATE '0044-03-15 (BC)'", "0044-03-15 (BC)", '"0044-03-15 (BC)"'),
    ("TIME '12:34:56.789'", "12:34:56.789", '"12:34:56.789"'),
    ("'12:34:56+02'::TIMETZ", "12:34:56+02", '"12:34:56+02"'),
    ("TIMESTAMP '2024-01-31 12:00:00'", "2024-01-31 12:00:00", '"2024-01-31 12:00:00"'),
    ("TIMESTAMP_NS '2024-01-31 12:00:00.123456789'", "2024-01-31 12:00:00.123456789",
     '"2024-01-31 12:00:00.123456789"'),
    ("TIMESTAMPTZ '2024-01-31 12:00:00+02:00'", "2024-01-31 10:00:00+00", '"2024-01-31 10:00:00+00"'),
    ("INTERVAL '1 year 2 days 3 seconds'", "1 year 2 days 00:00:03", '"1 year 2 days 00:00:03"'),
    ("['a', NULL, 'ü']", '["a",null,"ü"]', '["a",null,"ü"]'),
    ("[0.1::FLOAT, NULL]", "[0.1,null]", "[0.1,null]"),
    ("[1.50::DECIMAL(9,2)]::DECIMAL(9,2)[1]", "[1.50]", "[1.50]"),
    ("[['a'::BLOB], NULL]", '[["YQ=="],null]', '[["YQ=="],null]'),
    ("{'a': 1, 'b c': [DATE '2024-02-29']}", '{"a":1,"b c":["2024-02-29"]}', '{"a":1,"b c":["2024-02-29"]}'),
    ("{'h': 170141183460469231731687303715884105727::HUGEINT}", '{"h":170141183460469231731687303715884105727}',
     '{"h":170141183460469231731687303715884105727}'),
    ("[{'t': TIMESTAMPTZ '2024-01-31 12:00:00+00'}, NULL]", '[{"t":"2024-01-31 12:00:00+00"},null]',
     '[{"t":"2024-01-31 12:00:00+00"},null]'),
    ("MAP {'b': 1, 'a': NULL}", '{"b":1,"a":null}', '{"b":1,"a":null}'),
    ("MAP {1: 0.5::FLOAT}", '{"1":0.5}', '{"1":0.5}'),
    ("MAP {[1]: 'x'}", '{"[1]":"x"}', '{"[1]":"x"}'),
    ("union_value(n := 5)", "5", "5"),
    ("union_value(d := DATE '2024-02-29')", "2024-02-29", '"2024-02-29"'),
    ("''", "", '""'),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "printed", "as_json"), FORMS, ids=[form[0] for form in FORMS])
def test_template_sees_a_type_as_the_table_says(
    con: duckdb.DuckDBPyConnection, sql: str, printed: str, as_json: str
) -> None:
    job = make_job("{{ v }}\n{{ v | tojson }}", query=f"SELECT 1 AS id, {sql} AS v")
    assert contents(con, job)["1"].split("\n") == [printed, as_json]


def test_every_type_that_duckdb_has_can_be_printed_and_written_as_json(con: duckdb.DuckDBPyConnection) -> None:
    names = [name for name, *_ in con.execute("DESCRIBE FROM test_all_types()").fetchall()]
    for template in ("{{ %s }}", "{{ %s | tojson }}"):
        job = make_job(
            "\n".join(template % f"x_{name}" for name in names),
            query="SELECT row_number() OVER () AS id, COLUMNS(*) AS 'x_\\0' FROM test_all_types()",
            nulls="text",
        )
        made = contents(con, job)
        assert made.keys() == {"1", "2", "3"}
        if "tojson" in template:
            assert all(orjson.loads(line.encode()) is None for line in made["3"].split("\n"))
        else:
            assert set(made["3"].split("\n")) == {"None"}


def test_machine_with_another_time_zone_prints_the_same(con: duckdb.DuckDBPyConnection) -> None:
    plain = duckdb.connect()
    plain.execute("SET GLOBAL TimeZone = 'Asia/Tokyo'")
    job = make_job("{{ t }}", query="SELECT 1 AS id, TIMESTAMPTZ '2024-01-31 12:00:00+02:00' AS t")
    try:
        assert contents(plain, job) == contents(con, job) == {"1": "2024-01-31 10:00:00+00"}
    finally:
        plain.close()


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ s.a }}/{{ s['b'] }}/{{ s.l[1] }}", "1/x/3"),
        ("{% for k, v in s.items() %}{{ k }}={{ v }};{% endfor %}", "a=1;b=x;l=[2,3];"),
        ("{{ s.l ~ '!' }} {{ s.l | join('-') }} {{ [s.a, true, 1.5] }}", "[2,3]! 2-3 [1,true,1.5]"),
        ("{{ s | tojson(indent=1) }}", '{\n "a": 1,\n "b": "x",\n "l": [\n  2,\n  3\n ]\n}'),
        ("{{ ('[1, {\"k\": null}]' | fromjson)[1].k is none }}", "True"),
        ("{{ d + 1 }} {{ d * 2 }} {{ d | round(1) }} {{ d | string | length }}", "2.50 3.00 1.5 4"),
        ("{{ (d * d) ~ '' }} {{ d | int }} {{ d | float }}", "2.2500 1 1.5"),
    ],
)
def test_values_inside_values_are_within_reach(template: str, text: str) -> None:
    row = {"s": {"a": 1, "b": "x", "l": [2, 3]}, "d": Decimal("1.50")}
    assert prompt_of(template, row) == text


TEXT = st.text(st.characters(codec="utf-8"))


def _trees(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda part: st.lists(part, max_size=3) | st.dictionaries(TEXT, part, max_size=3), max_leaves=10
    )


@given(_trees(st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXT))
def test_canonical_json_is_what_orjson_writes(value: Any) -> None:
    assert canonical_json(value) == orjson.dumps(value)


@given(_trees(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()))
def test_canonical_json_keeps_every_number(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert repr(json.loads(text)) == repr(value)


@pytest.mark.parametrize("value", ["\ud800", ["\udfff", 2**70], {"\ud800": 1}, object(), [object(), 2**70]])
def test_what_has_no_json_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="has no JSON form"):
        canonical_json(value)


def test_simple_types_are_those_that_the_engine_makes_of_their_names() -> None:
    assert len(_SIMPLE) > 20
    for name, kind in _SIMPLE.items():
        assert (kind, kind.id) == (duckdb.sqltype(name), duckdb.sqltype(name).id)
