"""Rows to bodies, digests and fingerprints."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import duckdb
import orjson
import pytest
from request_parts import contents, make_job, render_all, table_of

from batchops.diagnostics import BatchopsError, Diagnostic
from batchops.request.digest import digest
from batchops.request.render import digest_rows, explain, fingerprint, fingerprint_sql, render_rows
from batchops.request.template import compile_request
from batchops.request.tokens import estimate_tokens
from batchops.spec.job import Job

_PIECES = [
    '"', "'", "\\", "\n", "\r\n", "\t", "\x00", "\x01", "\x0b", "\x1a", "\x1f", "\x7f", "\x85", "\xa0", "é", "ß", "İ",
    "\u2028", "\u2029", "\ufeff", "\U0001f984", "\U0001f469\u200d\U0001f467", "{{ x }}", "{% if %}", "{#", "}}",
    "<b>&amp;</b>", "\\u000B", "\\\\", "/", "a" * 10_000, " ", "null", "None", "${x}", "%s", "\U0010ffff", "e\u0301",
]  # fmt: skip


def nasty_rows() -> list[tuple[int, str | None, str]]:
    """200 rows of text that breaks things: every piece alone, then random mixtures; some NULL."""
    chosen = random.Random(7)
    texts = [*_PIECES, "", *("".join(chosen.choices(_PIECES, k=chosen.randint(2, 9))) for _ in range(161))]
    return [(n, None if n % 17 == 5 else text, texts[-n]) for n, text in enumerate(texts[:200])]


def test_200_nasty_rows_are_rendered_byte_for_byte(con: duckdb.DuckDBPyConnection) -> None:
    rows = nasty_rows()
    assert len(rows) == 200
    con.execute("CREATE TABLE nasty(id INT, a VARCHAR, b VARCHAR)")
    con.executemany("INSERT INTO nasty VALUES (?, ?, ?)", rows)
    template = [{"role": "system", "content": 'Q"\\ {{ b }}'}, {"role": "user", "content": "<{{ a }}>\n{{ b }}\n"}]
    made = render_all(con, make_job(template, query="FROM nasty", nulls="text"))
    for key, a, b in rows:
        first, second = orjson.dumps(f'Q"\\ {b}'), orjson.dumps(f"<{a}>\n{b}")
        body = b'{"model":"m","messages":[{"role":"system","content":%b},{"role":"user","content":%b}]}' % (
            first,
            second,
        )
        assert made[str(key)].body == body
        assert made[str(key)].digest == digest("/v1/chat/completions", "m", body)


def test_digests_sizes_and_tokens_are_those_of_the_bodies(con: duckdb.DuckDBPyConnection) -> None:
    query = "SELECT range AS id, repeat('é', range::INT % 100) AS t FROM range(5000)"
    job = make_job(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{ t }}{{ id }}"}], query=query
    )
    table, request = table_of(con, job), compile_request(job)
    bodies = {row.key: row for rows in render_rows(con, table, request, batch_rows=7) for row in rows}
    digest_rows(con, table, request, keys=None, into="digests_0")
    found = con.execute("FROM digests_0").fetchall()
    positions = dict(con.execute("SELECT __key, rowid FROM source_0").fetchall())
    hashes = {
        key: con.execute("SELECT hash(?::VARCHAR)", [row.body.decode()]).fetchone() for key, row in bodies.items()
    }
    assert len(found) == len(bodies) == 5000
    for key, position, made, body_bytes, tokens, inputs, body_hash, fingerprinted in found:
        row = bodies[key]
        assert fingerprinted is None, "nobody asked for it"
        assert (position, (body_hash,)) == (positions[key], hashes[key])
        assert (made, body_bytes, inputs) == (row.digest, len(row.body), 1)
        assert tokens == estimate_tokens(orjson.loads(row.body), request.url)
    types = [kind for _, kind, *_ in con.execute("DESCRIBE digests_0").fetchall()]
    assert types == ["VARCHAR", "BIGINT", "UUID", "UINTEGER", "UINTEGER", "UINTEGER", "UBIGINT", "UHUGEINT"]


@pytest.mark.parametrize(
    ("template", "by_sql"),
    [("{{ t }}{{ id }}", 300), ("{{ t | upper }}", 299), ("{{ t }}{% for i in [1] %}{% endfor %}", 0)],
)
def test_one_pass_makes_the_same_fingerprints_on_every_path(
    con: duckdb.DuckDBPyConnection, template: str, by_sql: int
) -> None:
    text = "CASE range WHEN 5 THEN NULL WHEN 7 THEN 'ǰ' ELSE repeat('e', range::INT % 100) END"
    query = f"SELECT range AS id, {text} AS t FROM range(300)"
    job = make_job(template, query=query, nulls="text")
    table, request = table_of(con, job), compile_request(job)
    assert explain(con, table, request).by_sql == by_sql
    fingerprint(con, table, request, into="d", is_simulated=True)
    made = fingerprint_sql(table, request, is_simulated=True)
    digest_rows(con, table, request, keys=None, into="digests_0", fingerprint=made)
    found = con.execute("SELECT key, fingerprint FROM digests_0 ORDER BY ALL").fetchall()
    assert found == con.execute("FROM d ORDER BY ALL").fetchall()
    assert len(found) == 300


def test_inputs_of_embeddings_are_counted(con: duckdb.DuckDBPyConnection) -> None:
    job = make_job(None, endpoint="/v1/embeddings", body={"input": ["{{ id }}", "b", "c"]})
    table = table_of(con, job)
    digest_rows(con, table, compile_request(job), keys=None, into="d")
    assert con.execute("SELECT inputs, input_tokens FROM d").fetchall() == [(3, 1)]


def test_only_the_keys_that_are_asked_for_are_rendered(con: duckdb.DuckDBPyConnection) -> None:
    job = make_job("{{ 1 // (id - 3) }}", query="SELECT range AS id FROM range(10)")
    table, request = table_of(con, job), compile_request(job)
    con.execute("CREATE TABLE wanted AS SELECT * FROM (VALUES ('1'), ('7'), ('no such key')) AS t(key)")
    rows = [row for batch in render_rows(con, table, request, keys="wanted") for row in batch]
    digest_rows(con, table, request, keys="wanted", into="d")
    assert {row.key for row in rows} == {"1", "7"}
    assert con.execute("SELECT key FROM d ORDER BY key").fetchall() == [("1",), ("7",)]


def test_connection_is_free_while_rows_stream(con: duckdb.DuckDBPyConnection) -> None:
    job = make_job(query="SELECT range AS id FROM range(5000)")
    table, request = table_of(con, job), compile_request(job)
    con.execute("CREATE TABLE seen(key VARCHAR)")
    for rows in render_rows(con, table, request, batch_rows=1000):
        con.execute("INSERT INTO seen SELECT unnest(?::VARCHAR[])", [[row.key for row in rows]])
    assert con.execute("SELECT count(*), count(DISTINCT key) FROM seen").fetchone() == (5000, 5000)


def test_empty_source_gives_empty_relations(con: duckdb.DuckDBPyConnection) -> None:
    job = make_job(query="SELECT 1 AS id WHERE false")
    table, request = table_of(con, job), compile_request(job)
    fingerprint(con, table, request, into="desired_0")
    digest_rows(con, table, request, keys=None, into="d")
    assert list(render_rows(con, table, request)) == []
    assert con.execute("SELECT (SELECT count(*) FROM d), (SELECT count(*) FROM desired_0)").fetchone() == (0, 0)


def test_column_that_only_some_sources_have_may_be_asked_for(con: duckdb.DuckDBPyConnection) -> None:
    template = "{{ id }}{% if extra is defined %}+{{ extra }}{% endif %}{{ more | default('-') }}"
    assert contents(con, make_job(template)) == {"1": "1-"}
    assert contents(con, make_job(template, query="SELECT 1 AS id, 2 AS extra, 3 AS more")) == {"1": "1+23"}


# --- failures


def failures_of(con: duckdb.DuckDBPyConnection, job: Job) -> list[Diagnostic]:
    table, request = table_of(con, job), compile_request(job)
    with pytest.raises(BatchopsError) as one:
        digest_rows(con, table, request, keys=None, into="d")
    with pytest.raises(BatchopsError) as other:
        list(render_rows(con, table, request))
    assert one.value.diagnostics == other.value.diagnostics
    return list(one.value.diagnostics)


def test_bad_rows_do_not_hide_each_other_or_the_good_ones(con: duckdb.DuckDBPyConnection) -> None:
    query = "SELECT range AS id, nullif(range % 5, 2) AS a, range % 4 AS b FROM range(1000)"
    job = make_job(
        [{"role": "user", "content": "x\n{{ a }}"}, {"role": "user", "content": "{{ 1 // b }}"}], query=query
    )
    told = failures_of(con, job)
    assert [(found.code, found.address) for found in told] == [
        ("null_in_template", "labels"),
        ("template_render_failed", "labels"),
    ]
    assert 'Column "a" is NULL (line 2). It fails on 200 rows: labels@' in told[0].detail
    assert "and 197 more" in told[0].detail
    assert "Integer division or modulo by zero. It fails on 200 rows" in told[1].detail
    assert con.execute("SELECT count(*) FROM d").fetchone() == (600,)


def test_key_that_is_sensitive_is_not_shown(con: duckdb.DuckDBPyConnection) -> None:
    query = "SELECT 'ann@example' AS mail, NULL::VARCHAR AS a"
    (found,) = failures_of(con, make_job("{{ a }}", query=query, key="mail", sensitive=["mail"]))
    assert "It fails on 1 row." in found.detail
    assert "ann" not in found.detail


def test_pass_ends_at_the_first_row_that_costs_too_much(con: duckdb.DuckDBPyConnection) -> None:
    query = "SELECT range AS id FROM range(1000)"
    loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{{ id }}"
    (found,) = failures_of(con, make_job(loops, query=query))
    assert found.code == "template_too_large"
    assert "1 row: labels@" in found.detail


# --- fingerprints


def fingerprints(con: duckdb.DuckDBPyConnection, job: Job) -> dict[str, int]:
    table = table_of(con, job)
    fingerprint(con, table, compile_request(job), into="desired_0")
    return dict(con.execute("SELECT key, fingerprint FROM desired_0").fetchall())


def one(con: duckdb.DuckDBPyConnection, query: str, template: Any = "{{ a }}{{ b }}", **fields: Any) -> int:
    (made,) = fingerprints(con, make_job(template, query=query, **fields)).values()
    return made


def test_fingerprint_is_that_of_version_2(con: duckdb.DuckDBPyConnection) -> None:
    made = one(con, "SELECT 1 AS id, 'x' AS a, 2 AS b")
    assert made >> 64 == 0x022F98F18F1E8FB7
    assert (made % 2**64,) == con.execute("SELECT hash('x', '2')").fetchone()
    assert one(con, "SELECT 1 AS id", "Hello.") % 2**64 == 0
    described = con.execute("DESCRIBE desired_0").fetchall()
    assert [(name, kind) for name, kind, *_ in described] == [("key", "VARCHAR"), ("fingerprint", "UHUGEINT")]


DIFFERENT = [
    "'x' AS a, 'y' AS b",
    "'y' AS a, 'x' AS b",
    "'xy' AS a, '' AS b",
    "'' AS a, 'xy' AS b",
    "NULL::VARCHAR AS a, '' AS b",
    "'' AS a, NULL::VARCHAR AS b",
    "NULL::VARCHAR AS a, NULL::VARCHAR AS b",
    "'-' AS a, '-' AS b",
    "'1' AS a, '2' AS b",
    "1 AS a, 2 AS b",
    "1::BIGINT AS a, 2 AS b",
    "1.0::DOUBLE AS a, 2 AS b",
    "'0.0'::DOUBLE AS a, 2 AS b",
    "'-0.0'::DOUBLE AS a, 2 AS b",
    "'nan'::DOUBLE AS a, 2 AS b",
    "['a', 'b'] AS a, 2 AS b",
    "['a, b'] AS a, 2 AS b",
    "['a', NULL] AS a, 2 AS b",
    "['a', 'NULL'] AS a, 2 AS b",
    "[0.0::DOUBLE] AS a, 2 AS b",
    "['-0.0'::DOUBLE] AS a, 2 AS b",
    "{'k': 1} AS a, 2 AS b",
    "{'k': NULL::INT} AS a, 2 AS b",
    "MAP {'k': 1} AS a, 2 AS b",
    "'a'::BLOB AS a, 2 AS b",
    "'\\x00'::BLOB AS a, 2 AS b",
    "DATE '2024-01-01' AS a, 2 AS b",
    "TIMESTAMP '2024-01-01' AS a, 2 AS b",
    "TIMESTAMPTZ '2024-01-01 00:00:00+00' AS a, 2 AS b",
    "INTERVAL '1 month' AS a, 2 AS b",
    "INTERVAL '30 days' AS a, 2 AS b",
]


def test_rows_that_differ_in_a_used_column_have_different_fingerprints(con: duckdb.DuckDBPyConnection) -> None:
    made = {one(con, f"SELECT 1 AS id, {columns}") for columns in DIFFERENT}
    assert len(made) == len(DIFFERENT)


def test_columns_that_no_template_names_do_not_count(con: duckdb.DuckDBPyConnection) -> None:
    made = one(con, "SELECT 1 AS id, 'x' AS a, 'y' AS b")
    assert made == one(con, "SELECT 'other' AS z, 2 AS id, 'x' AS a, 'y' AS b, now() AS later")


def test_render_id_counts(con: duckdb.DuckDBPyConnection) -> None:
    query = "SELECT 1 AS id, 'x' AS a, 'y' AS b"
    made = {
        one(con, query),
        one(con, query, "{{ a }} {{ b }}"),
        one(con, query, model="n"),
        one(con, query, params={"seed": 1}),
        one(con, query, nulls="text"),
    }
    assert len(made) == 5
    assert one(con, query, description="other") in made


def test_machine_with_another_time_zone_has_the_same_fingerprints(con: duckdb.DuckDBPyConnection) -> None:
    query = "SELECT 1 AS id, TIMESTAMPTZ '2024-01-01 00:00:00+00' AS a, ['x'] AS b"
    with duckdb.connect() as plain:
        plain.execute("SET GLOBAL TimeZone = 'Asia/Tokyo'")
        assert one(plain, query) == one(con, query)


def test_rows_are_told_apart_by_key_alone(con: duckdb.DuckDBPyConnection) -> None:
    made = fingerprints(con, make_job("{{ a }}", query="SELECT range AS id, range // 2 AS a FROM range(10)"))
    assert made["0"] == made["1"] != made["2"]
    assert len(set(made.values())) == 5


def test_table_may_stand_under_another_number(con: duckdb.DuckDBPyConnection) -> None:
    job = make_job(query="SELECT 1 AS id, 'secret' AS t")
    table, request = table_of(con, job), compile_request(make_job("{{ t }}"))
    con.execute("CREATE TABLE source_77 AS SELECT * REPLACE ('masked' AS t) FROM source_0")
    (row,) = [row for batch in render_rows(con, replace(table, job_no=77), request) for row in batch]
    assert b"masked" in row.body
