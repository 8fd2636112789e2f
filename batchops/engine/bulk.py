"""The fast path of judging: lines that provably succeeded are read, judged and priced inside the engine.

`read_file` puts the lines of a result file into the relation `found`, in their order:

    raw VARCHAR, id VARCHAR (its custom_id), answer VARCHAR (NULL: for the judge to decide),
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

from batchops.engine.answersql import answer_sql
from batchops.engine.judge import Expectation, read_lines
from batchops.engine.shapes import TOKENS, Form, Hole, Role, Shape, learn
from batchops.plan.prices import LONG_PROMPT_TOKENS, Price
from batchops.store.connection import AS_WRITTEN, file_text, sql_text

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
    held, values = _held_values(shapes)
    around = ", ".join(
        f"{sql} AS {side}{number}"
        for number, shape in enumerate(shapes)
        for side, sql in zip(("before", "after"), _around(shape, held), strict=True)
    )
    cuts = ", ".join(f"{_between(number)} AS between{number}" for number in range(len(shapes)))
    proofs = " ".join(f"WHEN {_is_like(shape, held, number)} THEN {number}" for number, shape in enumerate(shapes))
    columns = {
        name: _by_shape([_column(name, shape, held) for shape in shapes])
        for name in FOUND
        if name not in {"raw", "answer"}
    }
    counts = " AND ".join(f"coalesce({_by_shape([_is_count(shape, role, held) for shape in shapes])}, false)"
                          for role in TOKENS)  # fmt: skip
    chosen = ", ".join(f"{expression} AS {name}" for name, expression in columns.items())
    texts = [f"nullif({_held(shape, Role.TEXT, held)}, '')" for shape in shapes]
    answers = [answer_sql(shape.tool, schemas.get(shape.tool or "")) for shape in shapes]
    # Each step has a SELECT of its own, and none a WHERE: the engine then computes it once for a line.
    return f"""
        SELECT raw, id, CASE WHEN is_fit THEN answer END AS answer, http, finish, model,
               {", ".join(f"CASE WHEN is_fit THEN TRY_CAST({role.value} AS UINTEGER) END" for role in TOKENS)}
        FROM (SELECT *, {_by_shape([answer.text for answer in answers])} AS answer
              FROM (SELECT raw, shape, said, {chosen}, {counts} AS is_fit,
                           {_by_shape([answer.parts for answer in answers])} AS part
                    FROM (SELECT *, {_by_shape(texts)} AS said
                          FROM (SELECT *, CASE {proofs} END AS shape
                                FROM (SELECT *, {cuts}
                                      FROM (SELECT *, {around} FROM (SELECT raw, {values} FROM {_lines(path)})))))))
    """


def _held_values(shapes: tuple[Shape, ...]) -> tuple[dict[Hole, str], str]:
    """SQL of the value of each hole, and of the lists that these are of.

    `plain` are values without quotes and escapes, `written` as the engine writes them: that costs a second reading.
    """
    holes = dict.fromkeys(hole for shape in shapes for hole in shape.holes)
    is_plain = {hole: hole.form is not Form.ANY or hole.role is Role.TEXT for hole in holes}
    plain = list(dict.fromkeys(hole.json_path for hole in holes if is_plain[hole]))
    written = list(dict.fromkeys(hole.json_path for hole in holes if not is_plain[hole]))
    held = {
        hole: f"plain[{plain.index(hole.json_path) + 1}]"
        if is_plain[hole]
        else f"written[{written.index(hole.json_path) + 1}]"
        for hole in holes
    }
    values = f"TRY(json_extract_string(raw, [{', '.join(map(sql_text, plain))}])) AS plain"
    if written:
        values += f", TRY(json_extract(raw, [{', '.join(map(sql_text, written))}])) AS written"
    return held, values


def _lines(path: Path) -> str:
    """SQL of a file's lines as `raw`; an error where they are not plain text. Blank lines are NULL."""
    return (
        f"(SELECT coalesce(raw, '') AS raw FROM read_csv({file_text(path)}, columns = {{'raw': 'VARCHAR'}},"
        " delim = chr(1), quote = '', escape = '', comment = '', header = false, auto_detect = false,"
        f" max_line_size = {LARGEST_LINE}, buffer_size = {2 * LARGEST_LINE}, {AS_WRITTEN}))"
    )


def _around(shape: Shape, held: Mapping[Hole, str]) -> tuple[str, str]:
    """SQL of what stands before and after what the model said, in a line of this shape with the values of this line.

    concat leaves out what is NULL: the line then differs, because a value is never empty where no quotes are around it.
    """
    parts = [sql_text(shape.texts[0])]
    for hole, text in zip(shape.holes, shape.texts[1:], strict=True):
        parts += [held[hole], sql_text(text)]
    place = 2 * next(index for index, hole in enumerate(shape.holes) if hole.role is Role.TEXT) + 1
    return f"concat({', '.join(parts[:place])})", f"concat({', '.join(parts[place + 1 :])})"


def _between(number: int) -> str:
    """SQL of what stands between the two, as it stands in the line; NULL where the line does not have both.

    Bytes are cut faster than characters, and before and after end where characters do.
    """
    before, after = f"before{number}", f"after{number}"
    return (
        f"CASE WHEN strlen(raw) > strlen({before}) + strlen({after})"
        f" AND starts_with(raw, {before}) AND ends_with(raw, {after})"
        f" THEN decode(encode(raw)[strlen({before}) + 1 : strlen(raw) - strlen({after})]) END"
    )


def _is_like(shape: Shape, held: Mapping[Hole, str], number: int) -> str:
    """SQL: whether a line is the shape's text with its own values in the holes, byte for byte.

    Of what the model said, which services escape as they like, one JSON string is enough.
    """
    numbers = [
        f"{held[hole]} >= '-' AND {held[hole]} < ':'"
        for hole in shape.holes
        if hole.form is Form.BARE and hole.role is Role.UNREAD
    ]
    return " AND ".join([f"starts_with(between{number}, '\"')", f"json_valid(between{number})", *numbers])


def _by_shape(expressions: list[str]) -> str:
    if len(expressions) == 1:
        return f"CASE WHEN shape = 0 THEN {expressions[0]} END"
    return f"CASE shape {' '.join(f'WHEN {n} THEN {e}' for n, e in enumerate(expressions))} END"


def _held(shape: Shape, role: Role, held: Mapping[Hole, str]) -> str | None:
    hole = shape.hole(role)
    return None if hole is None else held[hole]


def _column(name: str, shape: Shape, held: Mapping[Hole, str]) -> str:
    if name in {"http", "finish"}:
        value = getattr(shape, name)
        return "NULL" if value is None else sql_text(value) if isinstance(value, str) else str(value)
    if name == "id":
        return _string(shape, Role.IDENTIFIER, held)
    if name == "model":
        return f"nullif({_string(shape, Role.MODEL, held)}, '')"
    hole = _held(shape, Role(name), held)
    known = getattr(shape.usage, name)
    return hole if hole is not None else "NULL" if known is None else sql_text(str(known))


def _string(shape: Shape, role: Role, held: Mapping[Hole, str]) -> str:
    """SQL of the text in a hole, NULL where there is no text."""
    hole = shape.hole(role)
    if hole is None or hole.form is Form.BARE:
        return "NULL"
    if hole.form is Form.QUOTED:
        return held[hole]
    return f"CASE WHEN starts_with({held[hole]}, '\"') THEN json_extract_string({held[hole]}, '$') END"


def _is_count(shape: Shape, role: Role, held: Mapping[Hole, str]) -> str:
    """SQL: whether a hole for tokens holds a whole number that the column can hold. 1.0 is none."""
    hole = _held(shape, role, held)
    return "true" if hole is None else f"(TRY_CAST({hole} AS UINTEGER)::VARCHAR = {hole})"


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
