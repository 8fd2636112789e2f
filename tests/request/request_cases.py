"""Random templates over a table with nasty values of every type, and what both paths make of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import duckdb
from hypothesis import strategies as st
from request_parts import make_job, table_of

from batchops.request.render import fetched_rows, utc_cursor
from batchops.request.source import KEY, SourceTable
from batchops.request.sql import FastPath, Unfitness, compile_sql
from batchops.request.template import compile_request
from batchops.request.text import RowFailed

ROWS = 97

TEXTS = [
    "", " ", "a", "plain words here", "  padded\t\n", "Ünïcode Straße", "ΣΊΣΥΦΟΣ Σ", "İstanbul ıI", "ǆ ǅ Ǆ", "ﬁne ŉ",
    '"quoted" \\ and / <b>&amp;</b>', "\x00nul", "\x01\x0b\x0c\x0e\x1a\x1b\x1f\x7f", "line\nline\r\nline", "\ufeffbom",
    "\u2028\u2029\x85\xa0", "e\u0301 combining", "\U0001f469\u200d\U0001f467 family", "\U0010ffff", "12", "-7", "+3",
    " 42 ", "١٢٣", "3.14", "1e5", "-0.0", "nan", "inf", "0x1f", "None", "null", "True", "false", "{{ x }}", "%s %d",
    "\\u000B \\\\u000b", "word " * 60, "x" * 300, "w" * 250 + " " + "v" * 10, "\u3000wide\u2003", "中文 日本語 한국어",
    "МОСКВА москва", "ab" * 2000, "a b\nc d " * 99, "9" * 18, "9" * 19, "99999999999999999999", "Ꭰ Ꮿ", "ა Ა", "ẞ ß",
    "\U00010400\U00010428", "ꭰ", "Infinity", "½ ²", "word", "1_000",
]  # fmt: skip
INTEGERS = [0, 1, -1, 2, 7, 42, 100, -100, 2**31 - 1, -(2**31)]
BIGS = [0, 3, -5, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]
HUGE = [0, 5, -(2**127), 2**127 - 1, 10**20]
FLOATS = [
    0.0, -0.0, 1.0, -1.5, 0.1, 2.5, 3.5, 0.125, 0.375, 2.675, 1e16, 1e15, 123456789.125, 1e-7, 1e-5, 5e-324, 1e22,
    1e300, 1.7976931348623157e308, float("nan"), float("inf"), float("-inf"), 2.0**53, 1e17, 0.30000000000000004, -0.04,
    1234567.0005,
]  # fmt: skip
SMALL_FLOATS = [x for x in FLOATS if not 1e30 < abs(x) < float("inf")]

COLUMNS = {
    "t": "VARCHAR", "u": "VARCHAR", "s": "VARCHAR", "i": "INTEGER", "b": "BIGINT", "h": "HUGEINT", "uh": "UHUGEINT",
    "ti": "UTINYINT", "f": "DOUBLE", "r": "FLOAT", "d": "DECIMAL(9,2)", "dd": "DECIMAL(38,10)", "d0": "DECIMAL(5,0)",
    "ok": "BOOLEAN", "day": "DATE", "at": "TIMESTAMP", "tz": "TIMESTAMPTZ", "tm": "TIME", "iv": "INTERVAL",
    "id2": "UUID", "raw": "BLOB", "bits": "BIT", "e": "ENUM('alpha', 'Beta', 'γ')", "js": "JSON",
    "st": "STRUCT(a VARCHAR, n INTEGER, x DOUBLE, day DATE, items VARCHAR)", "ls": "VARCHAR[]",
    "m": "MAP(VARCHAR, INTEGER)", "i8": "TINYINT", "i16": "SMALLINT", "u16": "USMALLINT", "u32": "UINTEGER",
    "u64": "UBIGINT", "big": "BIGNUM", "tmz": "TIMETZ", "tmn": "TIME_NS", "ats": "TIMESTAMP_S", "atm": "TIMESTAMP_MS",
    "atn": "TIMESTAMP_NS", "ar": "INTEGER[2]", "un": "UNION(n INTEGER, s VARCHAR)",
    "va": "VARIANT", "ge": "GEOMETRY", "tzn": "TIMESTAMPTZ_NS", "tu": "TUPLE(INTEGER, VARCHAR)",
}  # fmt: skip
"""Names and types. `s` holds no NULL."""

VALUES: dict[str, list[Any]] = {
    "i8": [0, -128, 127], "i16": [0, -(2**15), 2**15 - 1], "u16": [0, 2**16 - 1], "u32": [0, 2**32 - 1],
    "u64": [0, 2**64 - 1], "big": ["0", "-" + "9" * 60], "tmz": ["12:34:56+02", "00:00:00.5-15:59"],
    "tmn": ["12:34:56.123456789", "00:00:00"], "ats": ["2024-01-31 12:00:00", "1969-12-31 23:59:59"],
    "atm": ["2024-01-31 12:00:00.5"], "atn": ["2024-01-31 12:00:00.123456789"], "ar": [[1, 2], [None, -1]],
    "un": [7, "x"], "va": [{"a": 1}, "text", 1.5], "ge": ["POINT (1 2)"],
    "tzn": ["2024-01-31 12:00:00.123456789+02"], "tu": [],
}  # fmt: skip
"""What columns hold that are made from a list alone, beside NULL."""


def _pick(values: list[Any], number: int, *, step: int, null_every: int) -> Any:
    return (
        None
        if null_every and number % null_every == 3
        else values[(number * step + number // len(values)) % len(values)]
    )


def nasty_table(con: duckdb.DuckDBPyConnection) -> None:
    """Create `nasty`: ROWS rows with every column of COLUMNS, NULLs in all but `s`."""
    rows = []
    present = columns_here(con)
    for n in range(ROWS):
        pick = partial(_pick, number=n)
        text = pick(TEXTS, step=7, null_every=11) or ""
        rows.append((
            n, pick(TEXTS, step=1, null_every=9), pick(TEXTS, step=5, null_every=7), pick(TEXTS, step=3, null_every=0),
            pick(INTEGERS, step=1, null_every=8), pick(BIGS, step=1, null_every=9), pick(HUGE, step=1, null_every=10),
            pick([0, 2**128 - 1, 17], step=1, null_every=10), pick([0, 1, 255], step=1, null_every=10),
            pick(FLOATS, step=1, null_every=12), pick(SMALL_FLOATS, step=1, null_every=12),
            pick(["0.00", "1.50", "-0.50", "9.99", "10.00", "9999999.99", "-3.10"], step=1, null_every=8),
            pick(["0", "0.0000000001", "-1.5", "9999999999999999999999999999.9999999999"], step=1, null_every=8),
            pick(["0", "5", "-99999"], step=1, null_every=8), pick([True, False], step=1, null_every=5),
            pick(["2024-02-29", "infinity", "0044-03-15 (BC)"], step=1, null_every=13),
            pick(["2024-01-31 12:00:00.5", "1969-12-31 23:59:59"], step=1, null_every=13),
            pick(["2024-01-31 12:00:00+02", "1999-01-01 00:00:00+00"], step=1, null_every=13),
            pick(["12:34:56", "00:00:00.000001"], step=1, null_every=13),
            pick(["1 day", "3 months 2 hours", "-1 second"], step=1, null_every=13),
            pick(["6ba7b810-9dad-11d1-80b4-00c04fd430c8"], step=1, null_every=13),
            pick([b"", b"\x00\xff", b"text"], step=1, null_every=13), pick(["0101", "1"], step=1, null_every=13),
            pick(["alpha", "Beta", "γ"], step=1, null_every=6), pick(['{"k": 1}', "[]", '"x"'], step=1, null_every=6),
            None if n % 10 == 4 else {"a": None if n % 6 == 1 else text, "n": None if n % 7 == 1 else n, "x": n / 8,
                                      "day": "2024-01-31", "items": "i"},
            pick([["a", "b"], [], ["x", None]], step=1, null_every=8), pick([{"k": 1}, {}], step=1, null_every=8),
            *(pick(VALUES[name], step=1, null_every=4 + number % 7)
              for number, name in enumerate(VALUES) if name in present and name != "tu"),
        ))  # fmt: skip
    columns = ", ".join(f'"{name}" {kind}' for name, kind in present.items() if name != "tu")
    con.execute(f"CREATE OR REPLACE TABLE nasty(id INTEGER, {columns})")
    marks = ", ".join("?" for _ in rows[0])
    con.executemany(f"INSERT INTO nasty VALUES ({marks})", rows)
    if "tu" in present:  # Python has no value that becomes one
        con.execute(f"ALTER TABLE nasty ADD COLUMN tu {COLUMNS['tu']}")
        con.execute("UPDATE nasty SET tu = row(id, s) WHERE id % 5 <> 3")


def columns_here(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """COLUMNS, without those whose type this DuckDB does not have."""
    return {name: kind for name, kind in COLUMNS.items() if _has_type(con, kind)}


def _has_type(con: duckdb.DuckDBPyConnection, kind: str) -> bool:
    try:
        con.execute(f"SELECT NULL::{kind}")
    except duckdb.Error:
        return False
    return True


# --- templates


CONSTANTS = ["'a'", "'x y'", "''", "'é\"\\\\'", "'None'", "'12'", "'word'", "'\\n'", "'…'"]
TEXT_COLUMNS = [
    "t",
    "u",
    "s",
    "s",
    "s",
    "st.a",
    "e",
    "day",
    "at",
    "tz",
    "id2",
    "raw",
    "js",
    "iv",
    "tm",
    "bits",
    "st['a']",
    "st.day",
    *["big", "tmz", "tmn", "ats", "atm", "atn", "va", "ge", "tzn"],
]
INT_COLUMNS = ["i", "b", "ti", "h", "uh", "st.n", "i8", "i16", "u16", "u32", "u64"]
FLOAT_COLUMNS = ["f", "r", "st.x"]
DECIMAL_COLUMNS = ["d", "dd", "d0"]
NAMES = [*TEXT_COLUMNS, *INT_COLUMNS, *FLOAT_COLUMNS, *DECIMAL_COLUMNS, "ok"]


def _apply(form: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map(lambda given: form.format(*given))


def _texts(depth: int) -> st.SearchStrategy[str]:
    leaf = st.sampled_from(TEXT_COLUMNS) | st.sampled_from(CONSTANTS)
    if depth == 0:
        return leaf
    text, anything, truth = _texts(depth - 1), _anything(depth - 1), _truths(depth - 1)
    constant = st.sampled_from(CONSTANTS)
    return st.one_of(
        leaf,
        st.tuples(
            text | anything,
            st.sampled_from([
                "upper", "lower", "trim", "capitalize", "string", "trim('xa ')", "replace('a', 'bb')", "tojson", "d",
                "replace('word', '')", "replace(' ', s)", "truncate(9)", "truncate(40, true)",
                "truncate(20, false, '')",
                "truncate(20, end='…')", "truncate(30, leeway=0)", "truncate", "truncate(4000)", "default('none')",
                "default('x', true)",
            ]),
        ).map(lambda given: f"({given[0]}) | {given[1]}"),
        _apply("({} ~ {})", anything, anything),
        _apply("({} ~ '-' ~ {} ~ {})", text, anything, text),
        _apply("({} if {} else {})", text, truth, text),
        _apply("([{}, {}] | join({}))", anything, anything, constant),
        _apply("({})[:{}]", text, st.sampled_from(["0", "1", "5", "1000"])),
        _apply("({})[{}:9]", text, st.sampled_from(["0", "2", "12"])),
        _apply("({}).{}", text, st.sampled_from(["upper()", "lower()", "strip()", "replace('a', 'b')"])),
        _apply("({} or {})", text, text),
        _apply("({} and {})", text, text),
        _apply("({} + {})", text, text),
        _apply("({} | default({}))", anything, anything),
    )  # fmt: skip


def _numbers(depth: int) -> st.SearchStrategy[str]:
    leaf = st.sampled_from([*INT_COLUMNS, *FLOAT_COLUMNS, "0", "1", "7", "100", "2.5", "0.1", "1e3"])
    if depth == 0:
        return leaf
    number = _numbers(depth - 1)
    return st.one_of(
        leaf,
        _apply("({} {} {})", number, st.sampled_from(["+", "-", "*", "/"]), number),
        _apply("({} {} {})", number, st.sampled_from(["//", "%"]), st.sampled_from(["1", "3", "10"])),
        _apply(
            "({} | {})", number, st.sampled_from(["round(2)", "round", "round(1)", "round(6)", "int", "float", "abs"])
        ),
        _apply(
            "({} | {})", _texts(depth - 1), st.sampled_from(["length", "int", "int(7)", "float", "float(1.5)", "count"])
        ),
        _apply("(-{})", number),
        _apply("({} | default(0))", number),
    )


def _truths(depth: int) -> st.SearchStrategy[str]:
    anything = _anything(depth - 1) if depth else st.sampled_from(NAMES)
    text = _texts(depth - 1) if depth else st.sampled_from(TEXT_COLUMNS)
    number = _numbers(depth - 1) if depth else st.sampled_from(INT_COLUMNS + FLOAT_COLUMNS)
    compare = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
    simple = st.one_of(
        anything,
        _apply("{} {} {}", text, compare, text),
        _apply("({}) {} ({})", number, compare, number),
        _apply(
            "{} {} {}",
            st.sampled_from(DECIMAL_COLUMNS),
            compare,
            st.sampled_from(["1", "9.99", "1.5", "-0.5", "10", "0.1"]),
        ),
        _apply("{} in ['a', 'x y', {}]", text, text),
        _apply("{} not in {}", st.sampled_from(CONSTANTS), text),
        _apply("{} in {}", text, text),
        _apply(
            "({}) is {}",
            anything,
            st.sampled_from(["none", "not none", "string", "number", "integer", "float", "boolean"]),
        ),
        _apply(
            "{} is {}", st.sampled_from([*NAMES[:3], "nope"]), st.sampled_from(["defined", "undefined", "not defined"])
        ),
        _apply("({}) is {}", st.sampled_from(INT_COLUMNS), st.sampled_from(["even", "odd", "divisibleby 3"])),
        _apply("{} == none", st.sampled_from(NAMES)),
        _apply("ok {} true", st.sampled_from(["==", "!="])),
        _apply("({}).{}", text, st.sampled_from(["startswith('a')", "endswith('s')", "startswith(s)"])),
        st.sampled_from(["ls is none", "m is not none", "st is none", "nope is defined", "ok is true", "1 < i < 100"]),
    )
    if depth == 0:
        return simple
    truth = _truths(depth - 1)
    return st.one_of(
        simple, _apply("({} and {})", truth, truth), _apply("({} or {})", truth, truth), _apply("(not {})", truth)
    )


def _anything(depth: int) -> st.SearchStrategy[str]:
    if depth == 0:
        return st.sampled_from(NAMES)
    return st.one_of(_texts(depth), _numbers(depth), st.sampled_from(NAMES), _truths(depth - 1))


def _statements(depth: int) -> st.SearchStrategy[str]:
    shown = _anything(2).map(lambda expression: "{{ " + expression + " }}")
    plain = st.sampled_from(["Text ", "\n", ' "q" ', "é\t", "{# note #}", " - "])
    if depth == 0:
        return shown | plain
    inner = _statements(depth - 1)
    return st.one_of(
        shown, shown, shown, plain,
        _apply("{{% if {} %}}{}{{% endif %}}", _truths(1), inner),
        _apply("{{% if {} %}}{}{{% elif {} %}}{}{{% else %}}.{{% endif %}}", _truths(1), inner, _truths(1), inner),
        _apply("Title: {}\n  {{%- if {} -%}}\n  {}\n  {{%- else %}}\n  -\n{{% endif -%}}\n", inner, _truths(1), inner),
        _apply("{{%- if {} %}}  {} {{%- endif +%}}\n", _truths(1), inner),
        _apply("{{{{ {} if {} }}}}", _texts(1), _truths(1)),
        _apply("{{% set v = {} %}}<{{{{ v }}}}{{{{ v | tojson }}}}>", _anything(1)),
        st.sampled_from([
            "{% for x in ls or [] %}{{ x }},{% endfor %}", "{{ ls | join(',') }}", "{{ ls | length }}",
            "{% if ls %}y{% endif %}", "{{ t | title }}", "{{ m }}",
            "{{ st }}", "{{ i ** 2 }}", "{{ t | wordcount }}", "{{ '%s' | format(i) }}", "{{ ar }}", "{{ un }}",
            "{{ ar | join('/') }}", "{{ tu }}", "{{- t -}}",
        ]),
    )  # fmt: skip


TEMPLATES = st.lists(_statements(1), min_size=1, max_size=3).map("".join)
NULLS = st.sampled_from(["error", "empty", "text", "text", "empty"])


# --- both paths


@dataclass
class Compared:
    """What both paths made of one template. `wrong` holds the rows on which they differ."""

    reasons: tuple[Unfitness, ...] = ()
    by_sql: int = 0
    guarded: int = 0
    wrong: tuple[tuple[str, bytes, bytes | str], ...] = ()


def compare(con: duckdb.DuckDBPyConnection, template: str, nulls: str) -> Compared:
    """Render every row of `nasty` by both paths."""
    request = compile_request(make_job(template, query="FROM nasty", nulls=nulls))
    table = nasty_source()
    path = compile_sql(request, table)
    if not isinstance(path, FastPath):
        return Compared(reasons=path)
    by_sql = dict(_by_sql(con, path))
    wrong = []
    for rows in fetched_rows(con, table, request, None, 1000):
        for key, row in rows:
            expected: bytes | str
            try:
                expected = request.canonical(row)
            except RowFailed as problem:
                expected = problem.reason
            if key in by_sql and by_sql[key] != expected:
                wrong.append((key, by_sql[key], expected))
    return Compared(by_sql=len(by_sql), guarded=ROWS - len(by_sql), wrong=tuple(wrong))


def _by_sql(con: duckdb.DuckDBPyConnection, path: FastPath) -> Iterator[tuple[str, bytes]]:
    with utc_cursor(con) as cursor:
        made = cursor.execute(f"SELECT {KEY}, encode({path.body}) FROM {path.relation()}").fetchall()
    return ((key, body) for key, body in made if body is not None)


_SOURCES: dict[str, SourceTable] = {}


def nasty_source() -> SourceTable:
    return _SOURCES["nasty"]


def load_nasty(con: duckdb.DuckDBPyConnection) -> None:
    """Make the table and load it as source 0."""
    nasty_table(con)
    _SOURCES["nasty"] = table_of(con, make_job(query="FROM nasty"))
