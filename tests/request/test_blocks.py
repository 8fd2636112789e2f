"""Blocks of bytes straight from the engine: the same values that fetching gives, whatever they are."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchops.request.blocks import blocks


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


@given(st.lists(st.none() | st.binary(max_size=40), max_size=30), st.integers(0, 30))
def test_blocks_are_the_values_one_behind_the_other(values: list[bytes | None], skipped: int) -> None:
    with duckdb.connect() as con:
        con.execute("CREATE TABLE t AS SELECT unnest(?::BLOB[]) AS b", [values])
        query = f"SELECT b FROM t ORDER BY rowid OFFSET {skipped}"
        fetched = [value for (value,) in con.execute(query).fetchall() if value is not None]
        assert b"".join(map(bytes, blocks(con, query))) == b"".join(fetched)


def test_many_values_come_whole_and_in_order(con: duckdb.DuckDBPyConnection) -> None:
    query = "SELECT encode(range || repeat('x', 20) || chr(10)) FROM range(1200000) ORDER BY range"
    parts = [bytes(block) for block in blocks(con, query)]
    assert len(parts) > 1
    assert b"".join(parts) == b"".join(b"%d%b\n" % (n, b"x" * 20) for n in range(1_200_000))


@pytest.mark.parametrize("query", ["SELECT 1", "SELECT 'text'", "SELECT 'a'::BLOB, 'b'::BLOB"])
def test_anything_but_one_column_of_bytes_is_refused(con: duckdb.DuckDBPyConnection, query: str) -> None:
    with pytest.raises(duckdb.Error, match="a column of bytes was expected"):
        list(blocks(con, query))


@pytest.mark.parametrize("rows", [1, 500_000])
def test_what_the_engine_says_is_raised(con: duckdb.DuckDBPyConnection, rows: int) -> None:
    query = f"SELECT CASE WHEN range = {rows - 1} THEN error('no further') ELSE 'a'::BLOB END FROM range({rows})"
    with pytest.raises(duckdb.Error, match="no further"):
        list(blocks(con, query))


def test_connection_is_free_once_the_blocks_are_let_go(con: duckdb.DuckDBPyConnection) -> None:
    made = blocks(con, "SELECT encode(range::VARCHAR) FROM range(3000000)")
    next(made)
    made.close()
    assert con.execute("SELECT 42").fetchone() == (42,)
