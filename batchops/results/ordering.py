"""Answers in the order of their keys, in bounded memory: however many they are, and however long.

A few are sorted by the query that reads them. With many, each large join leaves a table: requests beside the rows,
outcomes beside those, answers beside those, and what comes of it is sorted. A query that does all of it holds too much
of each at once: 4,000,000 answers of 220 bytes do not go through one in 1 GB. Long answers pass through a file:
DuckDB's sort spills by rows and not by bytes, and 100,000 texts of 20 kB do not fit through it in 1 GB (2.0, 2026-11).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO, Final

import duckdb
import orjson

from batchops.store.connection import AS_WRITTEN, file_text, sql_text

MANY_ROWS: Final = 250_000
"""With fewer, of answers that are not long, all fits into 700 MB at once."""
LONG_BYTES: Final = 500
"""Answers that are longer on average are long; the sort holds 122,880 rows of each thread in memory."""
MANY_BYTES: Final = 64 * 10**6
"""So much text may be sorted in any case."""
_SAMPLED: Final = 2_048
_TOGETHER: Final = 128
_AS_WRITTEN: Final = "'join_order,build_side_probe_side'"
"""A join then holds its right side: the rows, not the answers."""


class Amount(Enum):
    """What there is to be put in order; it decides how."""

    FEW = auto()
    MANY = auto()
    LONG = auto()


def amount(con: duckdb.DuckDBPyConnection, job_id: int, paths: Sequence[Path]) -> Amount:
    """The amount of a job's rows in a snapshot, whose answers are in the files `paths`."""
    if _has_long_answers(con, paths):
        return Amount.LONG
    return Amount.MANY if has_many_rows(con, job_id) else Amount.FEW


def has_many_rows(con: duckdb.DuckDBPyConnection, job_id: int) -> bool:
    """Whether a job has more rows in a snapshot than one query should join, with all that belongs to them."""
    rows = con.execute("SELECT count(*) FROM main.rows WHERE job_id = ?", [job_id]).fetchone()
    assert rows is not None
    return bool(rows[0] > MANY_ROWS)


def _has_long_answers(con: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> bool:
    """Whether there are too many too long texts in these answer files for a sort; read from a few of their pages."""
    if not paths:
        return False
    files = ", ".join(map(file_text, paths))
    row = con.execute(
        f"""SELECT (SELECT sum(num_values) FROM parquet_metadata([{files}]) WHERE path_in_schema = 'answer'),
                   (SELECT sum(total_uncompressed_size) FROM parquet_metadata([{files}])
                    WHERE path_in_schema = 'answer'),
                   (SELECT avg(strlen(answer)) FROM (
                       FROM read_parquet([{files}], {AS_WRITTEN}) SELECT answer LIMIT {_SAMPLED}))"""
    ).fetchone()
    assert row is not None
    count, size, sampled = (int(value or 0) for value in row)
    mean = max(size // max(count, 1), sampled)  # a text that repeats is stored once
    return mean > LONG_BYTES and mean * count > MANY_BYTES


@dataclass(frozen=True)
class Ordering:
    """Puts `rows` of a snapshot in `order`, and cuts them at `limit`.

    `rows` is SQL of a relation with `has_answer`, and `submission_id` and `line`, which find the column `answer` in the
    relation `answers`; `join` makes SQL of rows with their answers. Each step makes one large join, and leaves it in a
    table: the tables of two do not always fit beside each other, whatever they are allowed. Both methods change how the
    connection works.
    """

    con: duckdb.DuckDBPyConnection
    rows: str
    answers: str
    join: Callable[[str, str], str]
    order: Sequence[str]
    limit: int | None

    def by_join(self) -> str:
        """SQL of the rows and their answers, in order."""
        self._pick()
        self.con.execute(f"CREATE OR REPLACE TABLE main.told AS {self.join('main.picked', self.answers)}")
        self.con.execute("DROP TABLE main.picked")
        return f"FROM main.told ORDER BY {', '.join(self.order)}"

    def by_file(self, folder: Path) -> str:
        """The same, as a file in `folder` that is read in bounded memory."""
        self._pick()
        told = self.join("main.picked", self.answers)
        self.con.execute("SET preserve_insertion_order = true")
        self.con.execute(
            f"CREATE OR REPLACE TABLE main.told AS"
            f" SELECT * EXCLUDE (answer) FROM ({told}) ORDER BY {', '.join(self.order)}"
        )
        spool, ordered = folder / "answers", folder / "ordered.jsonl"
        with spool.open("w+b") as file:
            places = _spool(self.con, self.answers, file)
            with ordered.open("wb") as lines:
                longest = max((_write(lines, line) for line in _lines(self.con, file, *places)), default=0)
        spool.unlink()
        described = self.con.execute("DESCRIBE main.told").fetchall()
        columns = ", ".join(
            f"{sql_text(name)}: {sql_text(kind)}" for name, kind, *_ in [*described, ("answer", "VARCHAR")]
        )
        return (
            f"FROM read_json({file_text(ordered)}, format = 'newline_delimited', columns = {{{columns}}},"
            f" maximum_object_size = {max(longest, 1 << 24)}, {AS_WRITTEN})"
        )

    def _pick(self) -> None:
        """Make the table `picked`: the rows, in no order."""
        self.con.execute("RESET disabled_optimizers")
        self.con.execute("SET preserve_insertion_order = false")
        top = "" if self.limit is None else f" ORDER BY {', '.join(self.order)} LIMIT {self.limit}"
        self.con.execute(f"CREATE OR REPLACE TABLE main.picked AS FROM ({self.rows}){top}")
        self.con.execute(f"SET disabled_optimizers = {_AS_WRITTEN}")


def _spool(con: duckdb.DuckDBPyConnection, answers: str, file: BinaryIO) -> tuple[array[int], array[int]]:
    """Write the answers as JSON texts, one after the other; where those of `told` begin, and their lengths."""
    row = con.execute("SELECT count(*) FROM main.told").fetchone()
    assert row is not None
    starts, lengths = array("Q", bytes(8 * row[0])), array("Q", bytes(8 * row[0]))
    position = 0
    result = con.execute(
        f"SELECT p.rowid, a.answer FROM {answers} a JOIN main.told p USING (submission_id, line)"
        " WHERE p.has_answer AND a.answer IS NOT NULL"
    )
    while found := result.fetchmany(_TOGETHER):
        for place, answer in found:
            starts[place], lengths[place] = position, file.write(orjson.dumps(answer))
            position += lengths[place]
    return starts, lengths


def _lines(con: duckdb.DuckDBPyConnection, file: BinaryIO, starts: array[int], lengths: array[int]) -> Iterator[bytes]:
    """The rows as JSON objects, each with its answer."""
    result = con.execute("SELECT to_json(p)::VARCHAR FROM main.told p")
    place = 0
    while found := result.fetchmany(_TOGETHER):
        for (text,) in found:
            file.seek(starts[place])
            answer = file.read(lengths[place]) or b"null"
            yield b'%b,"answer":%b}\n' % (text.encode()[:-1], answer)
            place += 1


def _write(file: BinaryIO, line: bytes) -> int:
    return file.write(line)
