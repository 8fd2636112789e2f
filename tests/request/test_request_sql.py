"""The fast path makes the bytes that Jinja2 makes, or leaves the row to it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from request_cases import NULLS, ROWS, TEMPLATES, Compared, compare, load_nasty
from request_parts import contents, make_job, render_all, table_of

from batchops.diagnostics import BatchopsError
from batchops.request.render import digest_rows, explain, render_rows
from batchops.request.source import load_source, open_work
from batchops.request.sql import FastPath, compile_sql
from batchops.request.sqltypes import COLUMN_SIZES
from batchops.request.sqlvalues import _SAME_CASE, WHITESPACE, is_case_unsure, json_text
from batchops.request.template import compile_request
from batchops.request.values import canonical_json
from batchops.spec.load import load_project

SHARE = 0.6
PAIRS = 20_000
NO_COLUMN = {"NULL", "TYPE"}
"""What no column can be: a NULL of no type is loaded as an INTEGER, and types are not stored."""


@pytest.fixture(scope="module")
def nasty() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        load_nasty(connection)
        yield connection


def _same(con: duckdb.DuckDBPyConnection, template: str, nulls: str) -> Compared:
    made = compare(con, template, nulls)
    assert made.wrong == (), f"{template!r} under nulls: {nulls}"
    return made


def test_random_templates_make_the_bytes_of_jinja_and_most_of_them_in_sql(
    nasty: duckdb.DuckDBPyConnection, record_property: Callable[[str, object], None]
) -> None:
    tally: Counter[str] = Counter()

    @settings(max_examples=settings().max_examples * 5, deadline=None, suppress_health_check=list(HealthCheck))
    @given(template=TEMPLATES, nulls=NULLS)
    def compared(template: str, nulls: str) -> None:
        made = _same(nasty, template, nulls)
        tally["templates"] += 1
        tally["fast"] += not made.reasons
        tally["rows"] += made.by_sql + made.guarded
        tally["rows in SQL"] += made.by_sql

    compared()
    share, rows = tally["fast"] / tally["templates"], tally["rows in SQL"] / tally["rows"]
    record_property(
        "reached",
        f"rendering, {tally['templates'] * ROWS:,} random pairs of template and row: {share:.0%} of the templates in"
        f" SQL, and {rows:.0%} of their rows",
    )
    assert tally["templates"] * ROWS >= PAIRS
    assert share >= SHARE


def test_the_rows_hold_every_type_that_duckdb_has(nasty: duckdb.DuckDBPyConnection) -> None:
    known = {name for (name,) in nasty.execute("SELECT DISTINCT logical_type FROM duckdb_types()").fetchall()}
    shown = nasty.execute("SELECT column_type FROM (DESCRIBE nasty)").fetchall()
    held = {re.sub(r"\(.*", "", kind) for (kind,) in shown}
    held |= {"LIST"} if "VARCHAR[]" in held else set()
    held |= {"ARRAY"} if "INTEGER[2]" in held else set()
    assert known - held == known & NO_COLUMN


FAST = [
    "plain {# comment #}",
    "{{ s }}",
    "{{ t }}",
    "{{ i }} {{ b }} {{ ti }} {{ ok }} {{ f }} {{ r }} {{ d }} {{ dd }} {{ d0 }} {{ h }} {{ uh }}",
    "{{ day }} {{ at }} {{ tz }} {{ tm }} {{ iv }} {{ id2 }} {{ raw }} {{ bits }} {{ e }} {{ js }}",
    "{{ s | upper }}{{ s | lower }}{{ s | capitalize }}{{ s.upper() }}",
    "{{ s | trim }}|{{ s.strip() }}",
    "{{ s | replace('a', '') }}{{ s | replace('\\\\', '/') }}{{ s | replace(' ', t) }}",
    "{{ s | truncate }}{{ s | truncate(10) }}{{ s | truncate(10, true, '…', 0) }}{{ s | truncate(3, end='') }}",
    "{{ t | default('-') }}{{ nope | default(s) }}{{ s | default('-', true) }}{{ i | default(0) }}",
    "{{ [t, i, 'x'] | join(', ') }}",
    "{{ s | length }}{{ (s | length) * 2 }}",
    "{{ s | tojson }}{{ i | tojson }}{{ f | tojson }}{{ ok | tojson }}{{ d | tojson }}",
    "{{ e | int }}{{ s[:3] | int(7) }}{{ e | float }}{{ d | float }}{{ i | abs }}{{ ok | int }}",
    "{% if t %}a{% elif ok %}b{% else %}c{% endif %}",
    "{{ 'a' if t is none else t }}",
    "{{ 'x' if ok }}",
    "{{ t ~ i ~ none_such | default('') }}",
    "{{ s[:5] }}{{ s[2:] }}",
    "{{ t or 'none' }}{{ t and i }}",
    "{% if f >= 0.5 or d < 9.99 or i != 7 or s == 'a' %}y{% endif %}",
    "{% if 'a' in s and s not in ['a', 'b'] %}y{% endif %}",
    "{% if i is even or i is divisibleby 3 or t is string or nope is defined %}y{% endif %}",
    "{{ st.a }}{{ st.n + 1 }}{{ st['x'] }}{% if st is none %}n{% endif %}",
    "{% set v = s | upper %}{{ v }}{{ v }}",
    "{{ (i + 1) * 3 // 2 % 5 }}{{ -i }}{{ i / 4 }}",
    "{{ s.startswith('a') }}{{ s.endswith(' ') }}",
    "{{ ls | join(';') }}{{ ls | length }}{% if ls %}y{% endif %}",
]


@pytest.mark.parametrize("template", FAST)
@pytest.mark.parametrize("nulls", ["error", "empty", "text"])
def test_common_templates_are_compiled(nasty: duckdb.DuckDBPyConnection, template: str, nulls: str) -> None:
    made = _same(nasty, template, nulls)
    assert made.reasons == ()
    assert made.by_sql > ROWS // 4


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for x in ls %}{{ x }}{% endfor %}", '"for" is not compiled to SQL'),
        ("{{ s | title }}", 'the filter "title"'),
        ("{{ m }}", '"m" is a list or mapping'),
        ("{{ i ** 2 }}", '"pow" is not compiled to SQL'),
        ("{{ s | replace(t, '') }}", "replace of a text that is no constant"),
        ("{{ s | truncate(i) }}", "an argument that is no constant int"),
        ("{{ nope }}", '"nope" is no column'),
        ("{{ st.items }}", '"items" is a method of mappings'),
        ("{{ i == t }}", "a comparison of int and text"),
        ("{% set t = 1 %}{{ t }}", '"t" is both a column and set'),
        ("{{ s | replace('a', '" + "b" * 999 + "') }}", "a text that may become too long"),
    ],
)
def test_what_sql_cannot_do_exactly_is_left_to_jinja(
    nasty: duckdb.DuckDBPyConnection, template: str, reason: str
) -> None:
    assert [unfit.reason for unfit in compare(nasty, template, "text").reasons] == [reason]


@pytest.mark.parametrize(
    "construct",
    [
        "{{ s | title }}",
        "{% if s is lower %}y{% endif %}",
        "{% if ok and i == t %}y{% endif %}",
        "{{ 'y' if not (m in s) }}",
        "{% if t %}y{% elif s.title() %}z{% endif %}",
        "{{ s | replace('a', '" + "b" * 999 + "') }}",
        "{% for x in ls %}{{ x }}{% endfor %}",
    ],
)
def test_the_line_of_what_sql_cannot_do_is_told(nasty: duckdb.DuckDBPyConnection, construct: str) -> None:
    (unfit,) = compare(nasty, f"{{{{ s }}}}\n\n{{{{ t }}}} {construct}\n", "text").reasons
    assert unfit.line == 3, unfit


def test_template_may_hold_the_text_of_its_own_query(con: duckdb.DuckDBPyConnection) -> None:
    text = "(SELECT __key FROM source_0) AS __t0 FROM source_0) -- '"
    con.execute("CREATE TABLE wanted AS SELECT '1' AS key")
    table = table_of(con, make_job(query="SELECT range AS id FROM range(3)"))
    request = compile_request(make_job(text + "{{ id }}"))
    made = [row.body for rows in render_rows(con, table, request, keys="wanted") for row in rows]
    assert made == [request.canonical({"id": 1})]


def test_query_that_the_engine_refuses_is_left_to_jinja() -> None:
    job = make_job("{{ t " + "| truncate(5) " * 60 + "}}", query="SELECT 1 AS id, 'ab' AS t")
    with duckdb.connect() as con:
        table, request = table_of(con, job), compile_request(job)
        con.execute("SET GLOBAL max_expression_depth = 60")
        (row,) = [row for rows in render_rows(con, table, request) for row in rows]
        digest_rows(con, table, request, keys=None, into="d")
        assert row.body == request.canonical({"t": "ab"})
        assert con.execute("SELECT digest FROM d").fetchall() == [(row.digest,)]


def test_many_columns_are_compiled_for_shorter_texts(con: duckdb.DuckDBPyConnection) -> None:
    query = f"SELECT range AS id, repeat('x', {COLUMN_SIZES[1]} + range::INT) AS t FROM range(2)"
    job = make_job("{{ t }}" * 200, query=query)
    table, request = table_of(con, job), compile_request(job)
    assert explain(con, table, request).by_sql == 1
    assert {key: len(text) for key, text in contents(con, job).items()} == {"0": 2_000_000, "1": 2_000_200}


@pytest.mark.parametrize("name", ["range", "dict", "self", "loop", "namespace"])
def test_name_of_jinja_itself_is_left_to_it(nasty: duckdb.DuckDBPyConnection, name: str) -> None:
    for template in ("{{ %s is defined }}{{ i }}", "{{ (%s | default('x')) is none }}{{ i }}"):
        assert compare(nasty, template % name, "text").reasons


@pytest.mark.parametrize(
    ("template", "message"),
    [("{{ t }}", "labels@3"), ("{{ s | replace('a', nope) }}", "undefined")],
)
def test_row_that_jinja_refuses_is_refused_by_both(
    nasty: duckdb.DuckDBPyConnection, template: str, message: str
) -> None:
    job = make_job(template, query="FROM nasty", nulls="error")
    table, request = table_of(nasty, job), compile_request(job)
    with pytest.raises(BatchopsError, match=message):
        digest_rows(nasty, table, request, keys=None, into="d")
    with pytest.raises(BatchopsError, match=message):
        list(render_rows(nasty, table, request))
    load_nasty(nasty)


def test_long_text_is_left_to_jinja_and_comes_out_the_same(con: duckdb.DuckDBPyConnection) -> None:
    query = f"SELECT range AS id, repeat('x', {COLUMN_SIZES[0] - 1} + range::INT) AS t FROM range(4)"
    job = make_job("{{ t | upper }}", query=query)
    table, request = table_of(con, job), compile_request(job)
    assert explain(con, table, request).by_sql == 2
    made = contents(con, job)
    assert made == {str(n): "X" * (COLUMN_SIZES[0] - 1 + n) for n in range(4)}
    digest_rows(con, table, request, keys=None, into="d")
    found = con.execute("SELECT key, digest, body_bytes FROM d").fetchall()
    assert sorted(found) == sorted((row.key, row.digest, len(row.body)) for row in render_all(con, job).values())
    assert con.execute("SELECT table_name FROM duckdb_tables() ORDER BY ALL").fetchall() == [("d",), ("source_0",)]


def test_keys_restrict_both_paths(con: duckdb.DuckDBPyConnection) -> None:
    query = "SELECT range AS id, CASE WHEN range % 2 = 0 THEN 'ß' ELSE 'a' END AS t FROM range(10)"
    job = make_job("{{ t | upper }}", query=query)
    table, request = table_of(con, job), compile_request(job)
    con.execute("CREATE TABLE wanted AS SELECT unnest(['2', '3', '4', 'x']) AS key")
    digest_rows(con, table, request, keys="wanted", into="d")
    assert con.execute("SELECT key FROM d ORDER BY ALL").fetchall() == [("2",), ("3",), ("4",)]
    made = {row.key: row.body for rows in render_rows(con, table, request, keys="wanted") for row in rows}
    assert {key: body[-6:] for key, body in made.items()} == {"2": b'SS"}]}', "3": b'"A"}]}', "4": b'SS"}]}'}
    assert con.execute("FROM wanted ANTI JOIN d USING (key)").fetchall() == [("x",)]


def test_digest_and_tokens_of_both_paths_agree(nasty: duckdb.DuckDBPyConnection) -> None:
    template: list[dict[str, Any]] = [
        {"role": "system", "content": "Say {{ e }}"},
        {"role": "user", "content": [{"type": "text", "text": "{{ s }}{{ d }}"}, {"type": "x", "y": "{{ i }}"}]},
    ]
    fast = make_job(template, query="FROM nasty", nulls="text")
    template[0]["content"] += "{% for x in [] %}{% endfor %}"
    slow = make_job(template, query="FROM nasty", nulls="text")
    found = []
    for job in (fast, slow):
        table, request = table_of(nasty, job), compile_request(job)
        assert isinstance(compile_sql(request, table), FastPath) == (job is fast)
        digest_rows(nasty, table, request, keys=None, into="d")
        found.append(nasty.execute("FROM d ORDER BY key").fetchall())
    assert found[0] == found[1]
    assert len(found[0]) == ROWS


# --- what DuckDB and Python must agree on


def _chunks_of_characters() -> list[str]:
    codes = [code for first, last in _SAME_CASE for code in range(first, last + 1) if not 0xD800 <= code <= 0xDFFF]
    return [chr(code) for code in codes if code]


def test_case_of_the_characters_taken_for_sure_is_pythons() -> None:
    with duckdb.connect() as con:
        con.execute("CREATE TABLE c AS SELECT unnest(?::VARCHAR[]) AS c", [_chunks_of_characters()])
        made = con.execute(f"SELECT c, upper(c), lower(c), {is_case_unsure('c')} FROM c").fetchall()
    assert [c for c, upper, lower, _ in made if (upper, lower) != (c.upper(), c.lower())] == []
    assert not any(unsure for *_, unsure in made)


@pytest.mark.parametrize("character", ["ß", "İ", "Σ", "ŉ", "ﬁ", "ᾳ", "\U00010400", "ꙁ"])
def test_character_whose_case_may_differ_is_not_taken_for_sure(character: str) -> None:
    with duckdb.connect() as con:
        assert con.execute(f"SELECT {is_case_unsure('c')} FROM (SELECT ? AS c)", [f"a{character}"]).fetchone() == (
            True,
        )


def test_whitespace_is_what_python_strips() -> None:
    assert {chr(code) for code in range(0x110000) if not chr(code).strip()} == set(WHITESPACE)
    every = "".join(WHITESPACE)
    with duckdb.connect() as con:
        assert con.execute("SELECT trim(?, ?)", [f"{every}a{every}b{every}", every]).fetchone() == (f"a{every}b",)


def test_json_of_every_character_is_canonical() -> None:
    texts = (
        [chr(code) for code in range(0x3000)]
        + [rf"\u{code:04X}" for code in range(32)]
        + ["\\" * n + "\x0b" for n in range(5)]
    )
    with duckdb.connect() as con:
        con.execute("CREATE TABLE c AS SELECT unnest(?::VARCHAR[]) AS c", [texts])
        made = con.execute(f"SELECT c, {json_text('c')} FROM c").fetchall()
    assert [c for c, text in made if text.encode() != canonical_json(c)] == []


ROOT = Path(__file__).parents[2]
PROJECTS = sorted(path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("examples/*/batchops.toml"))


@pytest.mark.parametrize("project", [".", *PROJECTS])
def test_every_row_of_the_jobs_that_we_show_takes_the_fast_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, project: str
) -> None:
    ignored = shutil.ignore_patterns("state", ".*", "__pycache__", "tests", "docs", "batchops")
    root = shutil.copytree(ROOT / project, tmp_path / "project", ignore=ignored)
    if (root / "extract.py").exists():
        subprocess.run([sys.executable, "extract.py"], cwd=root, check=True, capture_output=True)
    monkeypatch.chdir(root)
    jobs = load_project(root, default_provider="local", providers=("local", "openai")).jobs
    assert jobs
    con = open_work(tmp_path / "work.duckdb", root)
    try:
        for number, job in enumerate(jobs):
            found = explain(con, load_source(con, number, job), compile_request(job))
            assert found.unfit == (), job.address
            assert found.by_sql == found.rows > 0, job.address
    finally:
        con.close()


def test_reasons_name_no_python_class() -> None:
    sources = Path(__file__).parents[2] / "batchops" / "request"
    reasons = [
        m for p in sources.glob("sql*.py") for m in re.findall(r'Unfit\(f?["\'](.*?)["\']', p.read_text("utf-8"))
    ]
    assert reasons
    assert not any("nodes." in reason for reason in reasons)
