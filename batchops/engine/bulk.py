"""The fast path of judging: lines that provably succeeded are read, judged and priced inside the engine.

`read_file` puts the lines of a result file into the relation `found`, in their order:

    raw VARCHAR, id VARCHAR (the JSON text of its custom_id), answer VARCHAR (NULL: for the judge to decide),
    http, finish, model, input_tokens, cached_tokens, output_tokens, reasoning_tokens

A line has an answer there only where a shape (shapes.py) and the answer's schema (schemasql.py) prove what the judge
would say of it. Every other line is the judge's.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import duckdb
import orjson

from batchops.engine.judge import Expectation, read_lines
from batchops.engine.schemasql import fitting
from batchops.engine.shapes import TOKENS, Role, Shape, learn
from batchops.plan.prices import LONG_PROMPT_TOKENS, Price
from batchops.request.sqlvalues import canonical_escapes
from batchops.store.connection import sql_text

FOUND: Final = {
    "raw": "VARCHAR", "id": "VARCHAR", "answer": "VARCHAR", "http": "USMALLINT", "finish": "VARCHAR",
    "model": "VARCHAR", "input_tokens": "UINTEGER", "cached_tokens": "UINTEGER", "output_tokens": "UINTEGER",
    "reasoning_tokens": "UINTEGER",
}  # fmt: skip
TEXT_ENDPOINTS: Final = frozenset({"/v1/chat/completions", "/v1/responses", "/v1/completions"})
"""Those whose answer is one string of the line."""

LARGEST_LINE: Final = 2_000_000
_SAMPLED_PLACES: Final = 3
_SAMPLED_LINES: Final = 10
_MARK: Final = b"\xef\xbb\xbf"


def read_file(con: duckdb.DuckDBPyConnection, path: Path, expect: Expectation, schemas: Mapping[str, Any]) -> bool:
    """Append the lines of a file to `found`. False, and nothing is appended, where the engine cannot promise them all.

    `schemas` are those of the answer (under "") and of each tool's parameters (under its name).
    """
    shapes = learn(_samples(path), expect) if expect.endpoint in TEXT_ENDPOINTS else ()
    if not shapes:
        return False
    before = _size(con)
    con.execute("BEGIN")
    try:
        con.execute(f"INSERT INTO found {_query(path, shapes, schemas)}")
        is_whole = _is_whole(path, before, _size(con))
    except duckdb.Error:  # bytes that are no UTF-8, a line too long, a schema too large to be an expression
        is_whole = False
    con.execute("COMMIT" if is_whole else "ROLLBACK")
    return is_whole


def _size(con: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """The number of lines in `found` and of their bytes."""
    row = con.execute("SELECT count(*), coalesce(sum(strlen(raw)), 0)::BIGINT FROM found").fetchone()
    assert row is not None
    return row[0], row[1]


def _is_whole(path: Path, before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether the lines that were read, and ends like that of the first, are all there is in the file, to the byte."""
    lines, size = after[0] - before[0], after[1] - before[1]
    with path.open("rb") as file:
        mark = len(_MARK) if file.read(len(_MARK)) == _MARK else 0
        end = b"\r\n" if file.readline().endswith(b"\r\n") else b"\n"
        file.seek(-1, os.SEEK_END)
        ends = lines if file.read() == b"\n" else lines - 1
    return path.stat().st_size == mark + size + ends * len(end)


def _samples(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Some lines of the beginning, the middle and the end."""
    size = path.stat().st_size
    for place in range(_SAMPLED_PLACES):
        yield from itertools.islice(read_lines(path, start=size * place // _SAMPLED_PLACES), _SAMPLED_LINES)


def _query(path: Path, shapes: tuple[Shape, ...], schemas: Mapping[str, Any]) -> str:
    """SQL of the columns of `found` for each line of a file."""
    paths = list(dict.fromkeys(hole.json_path for shape in shapes for hole in shape.holes))
    held = {path: f"v[{index}]" for index, path in enumerate(paths, start=1)}
    wanted = ", ".join(map(sql_text, paths))
    around = ", ".join(
        f"{sql} AS {side}{number}"
        for number, shape in enumerate(shapes)
        for side, sql in zip(("before", "after"), _around(shape, held), strict=True)
    )
    proofs = " ".join(f"WHEN {_is_like(shape, held, number)} THEN {number}" for number, shape in enumerate(shapes))
    columns = {
        name: _by_shape([_column(name, shape, held, schemas) for shape in shapes]) for name in FOUND if name != "raw"
    }
    counts = " AND ".join(f"coalesce({_by_shape([_is_count(shape, role, held) for shape in shapes])}, false)"
                          for role in TOKENS)  # fmt: skip
    chosen = ", ".join(f"{expression} AS {name}" for name, expression in columns.items() if name != "answer")
    # Each step has a SELECT of its own: the engine then computes it once for a line.
    return f"""
        SELECT raw, id, CASE WHEN is_fit THEN answer END AS answer, http, finish, model,
               {", ".join(f"CASE WHEN is_fit THEN TRY_CAST({role.value} AS UINTEGER) END" for role in TOKENS)}
        FROM (SELECT raw, {chosen}, {columns["answer"]} AS answer, {counts} AS is_fit
              FROM (SELECT *, {_by_shape([_text(shape, held) for shape in shapes])} AS said
                    FROM (SELECT *, CASE {proofs} END AS shape
                          FROM (SELECT *, {around}
                                FROM (SELECT raw, TRY(json_extract(raw, [{wanted}])) AS v FROM {_lines(path)})))))
    """


def _lines(path: Path) -> str:
    """SQL of a file's lines as `raw`; an error where they are not plain text. Blank lines are NULL."""
    return (
        f"(SELECT coalesce(raw, '') AS raw FROM read_csv({sql_text(str(path))}, columns = {{'raw': 'VARCHAR'}},"
        " delim = chr(1), quote = '', escape = '', comment = '', header = false, auto_detect = false,"
        f" max_line_size = {LARGEST_LINE}))"
    )


def _around(shape: Shape, held: Mapping[str, str]) -> tuple[str, str]:
    """SQL of what stands before and after what the model said, in a line of this shape with the values of this line.

    concat leaves out what is NULL: the line then differs, because a hole is never empty.
    """
    parts = [sql_text(shape.texts[0])]
    for hole, text in zip(shape.holes, shape.texts[1:], strict=True):
        parts += [held[hole.json_path], sql_text(text)]
    place = 2 * next(index for index, hole in enumerate(shape.holes) if hole.role is Role.TEXT) + 1
    return f"concat({', '.join(parts[:place])})", f"concat({', '.join(parts[place + 1 :])})"


def _is_like(shape: Shape, held: Mapping[str, str], number: int) -> str:
    """SQL: whether a line is the shape's text with its own values in the holes, byte for byte.

    The engine writes values in one form. Where a service escapes more than it must, what the model said is looked at as
    it stands in the line: what is between the text before it and the text after it is one JSON string.
    """
    before, after, text = f"before{number}", f"after{number}", _held(shape, Role.TEXT, held)
    size = f"strlen(raw) - strlen({before}) - strlen({after})"
    # Bytes are cut faster than characters, and before and after end where characters do.
    said = f"decode(encode(raw)[strlen({before}) + 1 : strlen(raw) - strlen({after})])"
    return (
        f"CASE WHEN NOT (starts_with(raw, {before}) AND ends_with(raw, {after})) THEN false"
        f" WHEN {size} = strlen({text}) AND raw = concat({before}, {text}, {after}) THEN true"
        f" WHEN {size} > 1 AND contains(raw, '\\u') THEN starts_with({said}, '\"') AND json_valid({said})"
        f" ELSE false END"
    )


def _by_shape(expressions: list[str]) -> str:
    if len(expressions) == 1:
        return f"CASE WHEN shape = 0 THEN {expressions[0]} END"
    return f"CASE shape {' '.join(f'WHEN {n} THEN {e}' for n, e in enumerate(expressions))} END"


def _held(shape: Shape, role: Role, held: Mapping[str, str]) -> str | None:
    hole = shape.hole(role)
    return None if hole is None else held[hole.json_path]


def _column(name: str, shape: Shape, held: Mapping[str, str], schemas: Mapping[str, Any]) -> str:
    if name == "id":
        return str(_held(shape, Role.IDENTIFIER, held))
    if name == "answer":
        return _answer(shape, held, schemas)
    if name == "model":
        model = _held(shape, Role.MODEL, held)
        return "NULL" if model is None else f"CASE WHEN {_is_text(model)} THEN json_extract_string({model}, '$') END"
    if name in {"http", "finish"}:
        value = getattr(shape, name)
        return "NULL" if value is None else sql_text(value) if isinstance(value, str) else str(value)
    hole = _held(shape, Role(name), held)
    known = getattr(shape.usage, name)
    return hole if hole is not None else "NULL" if known is None else sql_text(str(known))


def _is_count(shape: Shape, role: Role, held: Mapping[str, str]) -> str:
    """SQL: whether a hole for tokens holds a whole number that the column can hold. 1.0 is none."""
    hole = _held(shape, role, held)
    return "true" if hole is None else f"(TRY_CAST({hole} AS UINTEGER)::VARCHAR = {hole})"


def _text(shape: Shape, held: Mapping[str, str]) -> str:
    """SQL of what the model said, or NULL where it is no string or empty."""
    hole = _held(shape, Role.TEXT, held)
    return f"CASE WHEN {_is_text(str(hole))} THEN {hole} END"


def _is_text(held: str) -> str:
    """SQL: whether a value is a string that says something."""
    return f"(starts_with({held}, '\"') AND strlen({held}) > 2)"


def _answer(shape: Shape, held: Mapping[str, str], schemas: Mapping[str, Any]) -> str:
    """SQL of the canonical answer, or NULL where it is the judge's to say."""
    schema = schemas.get(shape.tool or "")
    if schema is None and shape.tool is None:
        return canonical_escapes("said")
    fit = fitting(schema) if isinstance(schema, Mapping) else None
    if fit is None:
        return "NULL"
    text = "json_extract_string(said, '$')"
    compact = f"regexp_full_match({text}, {sql_text(fit.canonical)})"
    spaced = f"regexp_full_match({text}, {sql_text(fit.spaced)})"
    written = canonical_escapes(f"CAST(json({text}) AS VARCHAR)")
    answer = f"CASE WHEN {compact} THEN {text} WHEN {spaced} THEN {written} END"
    if shape.tool is None:
        return answer
    before = '{"name":' + orjson.dumps(shape.tool).decode() + ',"arguments":'
    return f"({sql_text(before)} || {answer} || '}}')"


def cost_sql(price: Price | None) -> str:
    """SQL of `cost_nano_usd` over columns of its names: the same sums in the same order, so the same to the unit."""
    if price is None:
        return "NULL::UBIGINT"
    if price.is_free:
        return "0::UBIGINT"
    exact = _tier(price)
    if price.long is not None:
        exact = f"CASE WHEN input_tokens > {LONG_PROMPT_TOKENS} THEN {_tier(price.long)} ELSE {exact} END"
    return f"round_even({exact}, 0)::UBIGINT"


def _tier(price: Price) -> str:
    cached = "least(coalesce(cached_tokens, 0), input_tokens)"
    cached_rate = _double(price.input if price.cached is None else price.cached)
    return (
        f"(((input_tokens::BIGINT - {cached}::BIGINT)::DOUBLE * {_double(price.input)}"
        f" + {cached}::DOUBLE * {cached_rate}) + output_tokens::DOUBLE * {_double(price.output)}) * 1000::DOUBLE"
    )


def _double(value: float) -> str:
    return f"'{float(value)!r}'::DOUBLE"
