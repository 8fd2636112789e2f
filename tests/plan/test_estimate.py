"""What is to be paid, summed: equal requests once, in one row and in several."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import pytest

from batchops.plan.estimate import Load, loads_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
A, B, C = (f"{letter * 8}-0000-0000-0000-000000000000" for letter in "abc")


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute(
        """CREATE TABLE changes (digest UUID, round USMALLINT, action VARCHAR, due_at TIMESTAMPTZ,
                                 input_tokens UINTEGER, body_bytes UINTEGER, inputs UINTEGER)"""
    )
    return con


def add(con: duckdb.DuckDBPyConnection, digest: str, action: str = "submit", *, due_at: datetime | None = None) -> None:
    con.execute("INSERT INTO changes VALUES (?, 0, ?, ?, 10, 100, 2)", [digest, action, due_at])


def requests(number: int) -> Load:
    return Load(number, 10 * number, 100 * number, 2 * number)


def test_what_is_paid_is_summed_and_nothing_else(con: duckdb.DuckDBPyConnection) -> None:
    assert loads_of(con, "changes", due_at=NOW) == (requests(0), requests(0))
    for digest, action in ((A, "submit"), (B, "retry"), (C, "reuse")):
        add(con, digest, action)
    assert loads_of(con, "changes", due_at=NOW) == (requests(2), requests(2))


def test_equal_requests_count_once_and_are_due_when_one_of_them_is(con: duckdb.DuckDBPyConnection) -> None:
    add(con, A, due_at=LATER)
    add(con, A, due_at=NOW)
    add(con, B, due_at=LATER)
    add(con, B, due_at=LATER)
    assert loads_of(con, "changes", due_at=NOW) == (requests(2), requests(1))


def test_what_others_ask_in_any_case_is_left_out(con: duckdb.DuckDBPyConnection) -> None:
    for digest in (A, A, B, C):
        add(con, digest)
    besides = f"(SELECT '{A}'::UUID AS digest, 0::USMALLINT AS round)"
    assert loads_of(con, "changes", due_at=NOW, besides=besides) == (requests(2), requests(2))
