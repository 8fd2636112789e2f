"""Long answers in the order of their keys, by way of a file.

DuckDB's sort spills by rows and not by bytes: 100,000 texts of 20 kB do not fit through it in 1 GB (2.0, 2026-11). So
everything but the answers is sorted there, and each answer is looked up in a file where it was put as it came.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import duckdb
import orjson

from batchops.store.connection import sql_text

LONG_BYTES: Final = 500
"""Answers that are longer on average are long; the sort holds 122,880 rows of each thread in memory."""
MANY_BYTES: Final = 64 * 10**6
"""So much text may be sorted in any case."""
_SAMPLED: Final = 2_048
_TOGETHER: Final = 128


def has_long_answers(con: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> bool:
    """Whether there are too many too long texts in these answer files for a sort; read from a few of their pages."""
    if not paths:
        return False
    files = ", ".join(sql_text(str(path)) for path in paths)
    row = con.execute(
        f"""SELECT (SELECT sum(num_values) FROM parquet_metadata([{files}]) WHERE path_in_schema = 'answer'),
                   (SELECT sum(total_uncompressed_size) FROM parquet_metadata([{files}])
                    WHERE path_in_schema = 'answer'),
                   (SELECT avg(strlen(answer)) FROM (FROM read_parquet([{files}]) SELECT answer LIMIT {_SAMPLED}))"""
    ).fetchone()
    assert row is not None
    count, size, sampled = (int(value or 0) for value in row)
    mean = max(size // max(count, 1), sampled)  # a text that repeats is stored once
    return mean > LONG_BYTES and mean * count > MANY_BYTES


def in_order(
    con: duckdb.DuckDBPyConnection, rows: str, answers: str, *, order: Sequence[str], limit: int | None, folder: Path
) -> str:
    """SQL of the relation `rows`, in `order`, as a file in `folder` that is read in bounded memory.

    `rows` has `submission_id` and `line`, which find the column `answer` in the relation `answers`, and `has_answer`.
    The connection keeps the order of what it reads from now on.
    """
    con.execute("SET preserve_insertion_order = true")
    top = "" if limit is None else f" LIMIT {limit}"
    con.execute(
        f"CREATE OR REPLACE TABLE main.picked AS"
        f" SELECT * EXCLUDE (answer) FROM ({rows}) ORDER BY {', '.join(order)}{top}"
    )
    spool, ordered = folder / "answers", folder / "ordered.jsonl"
    with spool.open("w+b") as file:
        places = _spool(con, answers, file)
        with ordered.open("wb") as lines:
            longest = max((_write(lines, line) for line in _lines(con, file, *places)), default=0)
    spool.unlink()
    described = con.execute("DESCRIBE main.picked").fetchall()
    columns = ", ".join(f"{sql_text(name)}: {sql_text(kind)}" for name, kind, *_ in [*described, ("answer", "VARCHAR")])
    return (
        f"read_json({sql_text(str(ordered))}, format = 'newline_delimited', columns = {{{columns}}},"
        f" maximum_object_size = {max(longest, 1 << 24)})"
    )


def _spool(con: duckdb.DuckDBPyConnection, answers: str, file: BinaryIO) -> tuple[array[int], array[int]]:
    """Write the answers as JSON texts, one after the other; where those of `picked` begin, and their lengths."""
    row = con.execute("SELECT count(*) FROM main.picked").fetchone()
    assert row is not None
    starts, lengths = array("Q", bytes(8 * row[0])), array("Q", bytes(8 * row[0]))
    position = 0
    con.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")  # the rows are held, not the answers
    try:
        result = con.execute(
            f"SELECT p.rowid, a.answer FROM {answers} a JOIN main.picked p USING (submission_id, line)"
            " WHERE p.has_answer AND a.answer IS NOT NULL"
        )
        while found := result.fetchmany(_TOGETHER):
            for place, answer in found:
                starts[place], lengths[place] = position, file.write(orjson.dumps(answer))
                position += lengths[place]
    finally:
        con.execute("RESET disabled_optimizers")
    return starts, lengths


def _lines(con: duckdb.DuckDBPyConnection, file: BinaryIO, starts: array[int], lengths: array[int]) -> Iterator[bytes]:
    """The rows as JSON objects, each with its answer."""
    result = con.execute("SELECT to_json(p)::VARCHAR FROM main.picked p")
    place = 0
    while found := result.fetchmany(_TOGETHER):
        for (text,) in found:
            file.seek(starts[place])
            answer = file.read(lengths[place]) or b"null"
            yield b'%b,"answer":%b}\n' % (text.encode()[:-1], answer)
            place += 1


def _write(file: BinaryIO, line: bytes) -> int:
    return file.write(line)
