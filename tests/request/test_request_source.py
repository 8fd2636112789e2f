"""The source query: keys, limits, what is not one SELECT, and DuckDB's errors at their places."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from textwrap import indent
from typing import Any

import duckdb
import pytest
from request_parts import loaded_rows, make_job, table_of

from batchops.diagnostics import BatchopsError, Diagnostic, Location, Position
from batchops.request.source import bind_source, estimated_rows, load_source
from batchops.spec.job import Job
from batchops.spec.yaml import parse


def problems_of(con: duckdb.DuckDBPyConnection, job: Job) -> list[Diagnostic]:
    with pytest.raises(BatchopsError) as refused:
        load_source(con, 0, job)
    return list(refused.value.diagnostics)


def keys_of(con: duckdb.DuckDBPyConnection) -> list[str]:
    return [key for (key,) in con.execute("SELECT __key FROM source_0 ORDER BY ALL").fetchall()]


def test_table_holds_the_columns_and_the_text_of_the_key(con: duckdb.DuckDBPyConnection) -> None:
    table = table_of(con, make_job(query="SELECT 1.50 AS id, 'x' AS \"a b\", [DATE '2024-01-01'] AS d"))
    assert (table.job_no, table.key_columns, table.key_types) == (0, ("id",), ("DECIMAL(3,2)",))
    assert table.columns == {"id": "DECIMAL(3,2)", "a b": "VARCHAR", "d": "DATE[]"}
    assert keys_of(con) == ["1.50"]


def test_key_of_several_columns_is_a_json_array_of_texts(con: duckdb.DuckDBPyConnection) -> None:
    query = "SELECT 'a\"\\' || chr(11) AS k, 7 AS n, NULL AS x"
    table = table_of(con, make_job(query=query, key=["n", "k"]))
    assert table.key_types == ("INTEGER", "VARCHAR")
    assert keys_of(con) == ['["7","a\\"\\\\\\u000b"]']


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1 AS id -- the end",
        "SELECT 1 AS id;",
        "SELECT 1 AS id; -- the end",
        "  ;; SELECT 1 AS id ;; /* ; */ ;",
        "/* ; */ SELECT 1 AS id, ';' AS \";\"",
        "FROM (VALUES (1)) AS t(id)",
        "WITH x AS (SELECT 1 AS id) FROM x",
        "SELECT 1 AS id, $$ ; $$ AS \u00fc -- \u00fc;",
        "SELECT 1 AS id UNION SELECT 1",
    ],
)
def test_select_may_end_and_begin_as_people_write_it(con: duckdb.DuckDBPyConnection, query: str) -> None:
    assert loaded_rows(con, make_job(query=query)) == 1


def test_duplicate_keys_are_told_with_examples(con: duckdb.DuckDBPyConnection) -> None:
    (found,) = problems_of(con, make_job(query="SELECT unnest([1, 1, 2, 3, 3, 3]) AS id"))
    assert found.code == "key_duplicate"
    assert "2 values of id stand in several: 3 (3 rows), 1 (2 rows)." in found.detail


def test_keys_are_compared_by_their_text(con: duckdb.DuckDBPyConnection) -> None:
    (found,) = problems_of(con, make_job(query="SELECT unnest(['a', 'a', 'A']) AS id"))
    assert "1 value of id" in found.detail
    assert loaded_rows(con, make_job(query="SELECT unnest(['a', 'A', '']) AS id")) == 3


def test_null_keys_are_told_with_what_stands_beside_them(con: duckdb.DuckDBPyConnection) -> None:
    query = "SELECT * FROM (VALUES (1, 'a'), (NULL, 'b'), (NULL, 'c')) AS t(id, k)"
    (found,) = problems_of(con, make_job(query=query))
    assert (found.code, found.detail.startswith('"id" is NULL in 2 rows.')) == ("key_null", True)
    (found,) = problems_of(con, make_job(query=query, key=["k", "id"]))
    assert '"id" is NULL in 2 rows, such as k = b; k = c.' in found.detail


def test_examples_of_a_sensitive_key_are_not_shown(con: duckdb.DuckDBPyConnection) -> None:
    query = "SELECT * FROM (VALUES ('ann@x', 1), ('ann@x', 1), ('bob@x', NULL)) AS t(mail, n)"
    told = problems_of(con, make_job(query=query, key=["mail", "n"], sensitive=["mail"]))
    assert {found.code for found in told} == {"key_null", "key_duplicate"}
    assert not any("@x" in found.detail for found in told)


def test_null_key_is_found_behind_a_limit(con: duckdb.DuckDBPyConnection) -> None:
    job = make_job(query="SELECT nullif(range, 70) AS id FROM range(100)")
    with pytest.raises(BatchopsError, match="NULL key"):
        load_source(con, 0, job, limit=1)


def test_limit_takes_the_same_rows_and_a_larger_one_more(con: duckdb.DuckDBPyConnection) -> None:
    job = make_job(query="SELECT range AS id FROM range(1000)")
    backwards = make_job(query="SELECT range AS id FROM range(1000) ORDER BY id DESC")
    taken = []
    for limit in (1, 5, 50, 999, 5000):
        load_source(con, 0, job, limit=limit)
        first = keys_of(con)
        load_source(con, 0, backwards, limit=limit)
        assert keys_of(con) == first
        taken.append(set(first))
    assert [len(keys) for keys in taken] == [1, 5, 50, 999, 1000]
    assert all(small <= large for small, large in pairwise(taken))
    assert taken[0] == {"363"}


def test_the_engine_says_how_many_rows_it_expects(con: duckdb.DuckDBPyConnection) -> None:
    job = make_job(query="SELECT range AS id FROM range(200000)")
    assert estimated_rows(con, bind_source(con, 0, job)) == 200_000
    assert estimated_rows(con, bind_source(con, 0, job, limit=20)) == 20


@pytest.mark.parametrize("name", ["__row", "__line", "__Head", "__digest", "__hash", "rowid", "RowId"])
def test_names_that_stand_beside_the_columns_are_reserved(con: duckdb.DuckDBPyConnection, name: str) -> None:
    (found,) = problems_of(con, make_job(query=f"SELECT 1 AS id, 2 AS {name}"))
    assert (found.code, found.detail) == ("reserved_column", f'The query has a column "{name}"; rename it.')


@pytest.mark.parametrize(
    ("fields", "code", "detail"),
    [
        ({"key": "idd"}, "key_missing", 'The query has no column "idd". Did you mean "id"? It has: id.'),
        ({"query": "SELECT 1 AS id, 2 AS __key"}, "reserved_column", 'The query has a column "__key"; rename it.'),
        ({"query": "COPY (SELECT 1) TO 'x'"}, "query_not_select", "It is of type COPY."),
        ({"query": "SELECT 1 AS id; SELECT 2"}, "query_not_select", "There are 2 statements."),
        ({"query": "-- nothing"}, "query_not_select", "There is no statement."),
        ({"query": "SELECT $x AS id"}, "query_not_select", "It has parameters."),
        ({"query": "SELEC 1"}, "query_invalid", 'syntax error at or near "SELEC"'),
        ({"query": "SELECT nope AS id"}, "query_invalid", '"nope"'),
        ({"query": "SELECT error('no') AS id"}, "query_failed", "no"),
    ],
)
def test_wrong_source_is_told_in_words(
    con: duckdb.DuckDBPyConnection, fields: dict[str, Any], code: str, detail: str
) -> None:
    (found,) = problems_of(con, make_job(**fields))
    assert found.code == code
    assert detail in found.detail


def test_error_stands_at_its_line_and_column_of_the_yaml(con: duckdb.DuckDBPyConnection) -> None:
    query = "SELECT 1 AS id,\n  'x' AS t,\n  nope AS n -- ü\n"
    spec = f"name: a\nmodel: m\nsource:\n  query: |\n{indent(query, ' ' * 6)}"
    (document,) = parse(spec, "jobs/a.yaml").documents
    placed = replace(make_job(query=query), document=document)
    (found,) = problems_of(con, placed)
    assert found.location == Location("jobs/a.yaml", Position(7, 9), Position(7, 13))


def test_error_in_a_long_line_stands_at_its_column(con: duckdb.DuckDBPyConnection) -> None:
    query = f"SELECT 1 AS id, '{'y' * 200}' AS t, nope AS n, '{'z' * 200}' AS u"
    placed = replace(make_job(query=query), files={("source", "query"): "q.sql"})
    (found,) = problems_of(con, placed)
    assert found.location is not None
    assert found.location.start == Position(1, query.index("nope") + 1)


def test_values_of_rows_are_not_shown_in_errors(con: duckdb.DuckDBPyConnection, root: Path) -> None:
    (root / "data" / "x.csv").write_text("id,n\n" + "1,2\n" * 30000 + "2,hushhush\n", encoding="utf-8")
    for query in (
        "SELECT 'hushhush'::INT AS id",
        "SELECT * FROM read_csv('data/x.csv', columns={'id': 'INT', 'n': 'INT'})",
    ):
        (found,) = problems_of(con, make_job(query=query))
        assert found.code == "query_failed"
        assert "hushhush" not in found.detail
