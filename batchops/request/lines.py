"""Rows → the lines of an input file: each body between a head of its own and a common tail, in a given order.

What is sent is what was planned: SQL compares its hash of each body with the one that was taken beside the digest,
Jinja2 the digest itself. A row that SQL leaves to Jinja2, and one whose hash differs, come with their columns.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain

import duckdb

from batchops.request.blocks import blocks
from batchops.request.general import NotAsPlanned
from batchops.request.render import fetched_columns, utc_cursor
from batchops.request.source import CARRIED, DIGEST, HASH, HEAD, KEY, LINE, ROW, SourceTable
from batchops.request.sql import FastPath, compile_sql
from batchops.request.template import CompiledRequest
from batchops.request.values import literal, quoted
from batchops.request.workers import MOST_WORKERS, Rendering, rendering

_FETCHED_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that are written together, held in memory by the engine.

    `lines` is a relation (row BIGINT, line BIGINT, head VARCHAR, body_digest UUID, body_hash UBIGINT): the position in
    the source, the order, what stands before the body, and what the body must be (`render.digest_rows`). It has
    `count` lines, in their order, no two of one row. `first_row` and `last_row` bound the positions, `size` is the
    bytes that all lines have together.
    """

    lines: str
    count: int
    first_row: int
    last_row: int
    size: int

    @property
    def is_stretch(self) -> bool:
        """Whether it is made of every row between the first and the last."""
        return self.last_row - self.first_row + 1 == self.count


@contextmanager
def line_writer(
    con: duckdb.DuckDBPyConnection, table: SourceTable, request: CompiledRequest, *, tail: str
) -> Iterator[LineWriter]:
    """Make lines of a job's rows; its workers, if it needs any, end with the block."""
    path = compile_sql(request, table)
    columns = fetched_columns(table, request)
    # Where SQL makes most lines, it would cost more to pass them around than to render the rest here.
    with rendering(request, list(columns), most_workers=1 if isinstance(path, FastPath) else MOST_WORKERS) as each:
        yield LineWriter(con, table, columns, path if isinstance(path, FastPath) else None, each, tail)


class LineWriter:
    """Makes the lines of one job's rows."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        table: SourceTable,
        columns: Mapping[str, str],
        path: FastPath | None,
        each: Rendering,
        tail: str,
    ) -> None:
        self._con, self._table, self._columns, self._path, self._each, self._tail = (
            con,
            table,
            columns,
            path,
            each,
            tail,
        )

    def write(self, pieces: Iterable[Piece]) -> Iterator[bytes | memoryview]:
        """The lines of the pieces, joined in blocks; a block is good until the next. Raises NotAsPlanned.

        The engine makes a piece in one thread: the next is made while a block is used.
        """
        if self._path is None:  # what renders row by row spreads its work by itself
            yield from chain.from_iterable(map(self._row_by_row, pieces))
            return
        with ExitStack() as stack, ThreadPoolExecutor(max_workers=1) as pool:
            making = (stack.enter_context(closing(self._piece(piece))) for piece in pieces)
            begun = ((made, pool.submit(next, made, None)) for made in making)
            coming = next(begun, None)
            while coming is not None:
                made, first = coming
                block, coming = first.result(), next(begun, None)
                if block is not None:
                    yield block
                    yield from made

    def _piece(self, piece: Piece) -> Generator[bytes | memoryview, None, None]:
        if self._path is None or not (yield from self._by_sql(self._path, piece)):
            yield from self._row_by_row(piece)

    def _by_sql(self, path: FastPath, piece: Piece) -> Generator[bytes | memoryview, None, bool]:
        """The block that SQL makes; nothing, and False, where it leaves a row to Jinja2: then bytes are missing."""
        query = f"SELECT {self._line(path)} FROM {self._over(path, piece)}"
        with utc_cursor(self._con) as cursor:
            try:
                made = blocks(cursor, query)
                first = next(made, memoryview(b""))
                if len(first) == piece.size:  # as good as always: an engine that splits a piece costs a copy
                    yield first
                    return True
                copied = [bytes(first), *map(bytes, made)]
            except duckdb.Error:  # as in render_rows
                return False
        is_whole = sum(map(len, copied)) == piece.size
        if is_whole:
            yield from copied
        return is_whole

    def _row_by_row(self, piece: Piece) -> Iterator[bytes]:
        """Blocks of a few rows each: lines where SQL makes them, columns for Jinja2 where it does not."""
        written, tail = 0, self._tail.encode()
        with utc_cursor(self._con) as cursor:
            self._execute(cursor, piece)
            fetched = iter(lambda: cursor.fetchmany(_FETCHED_ROWS), [])
            for block in self._each("lines", ((rows, tail) for rows in fetched)):
                written += len(block)
                yield block
        if written != piece.size:
            raise NotAsPlanned(f"{written:,} bytes of {piece.size:,}")

    def _execute(self, cursor: duckdb.DuckDBPyConnection, piece: Piece) -> None:
        if self._path is not None:
            with suppress(duckdb.Error):  # as in render_rows
                cursor.execute(self._mixed(self._path, piece))
                return
        columns = "".join(f", {sql}" for sql in self._columns.values())
        cursor.execute(f"SELECT NULL, {HEAD}, {_HEX}{columns} FROM {self._rows(piece)}")

    def _mixed(self, path: FastPath, piece: Piece) -> str:
        left = [HEAD, _HEX, *path.names.values()]
        chosen = "".join(f", CASE WHEN made IS NULL THEN {column} END" for column in left)
        return f"SELECT made{chosen} FROM (SELECT *, {self._line(path)} AS made FROM {self._over(path, piece)})"

    def _line(self, path: FastPath) -> str:
        line = f"encode(concat({HEAD}, {path.body}, {literal(self._tail)}))"
        return f"CASE WHEN hash({path.body}) = {HASH} THEN {line} END"

    def _over(self, path: FastPath, piece: Piece) -> str:
        return path.over(self._rows(piece), *CARRIED)

    def _rows(self, piece: Piece) -> str:
        """The rows of the source that a piece is made of, in order, with what is carried along.

        A stretch of the source is laid beside its lines; the engine does that in one thread, as the two are stored.
        Others are joined, and put in order before they are rendered, when they are shorter; from there on the engine
        keeps an order. Whatever it does, the hash of each body says whether it stands behind its own head.
        """
        used = "".join(f", s.{quoted(name)}" for name in self._columns)
        chosen = f"s.{KEY}{used}, l.line AS {LINE}, l.head AS {HEAD}, l.body_digest AS {DIGEST}, l.body_hash AS {HASH}"
        between = f"{self._table.name} AS s WHERE s.rowid BETWEEN {piece.first_row} AND {piece.last_row}"
        if piece.is_stretch:
            return (
                f"(SELECT {chosen} FROM (SELECT s.{KEY}{used} FROM {between}) AS s POSITIONAL JOIN {piece.lines} AS l)"
            )
        rows = f"(SELECT s.{KEY}{used}, s.rowid AS {ROW} FROM {between})"
        return f"(SELECT {chosen} FROM {rows} AS s JOIN {piece.lines} AS l ON s.{ROW} = l.row ORDER BY {LINE})"


_HEX = f"replace(CAST({DIGEST} AS VARCHAR), '-', '')"
