"""The versions of the state file, as an ordered list of named steps. Append only; each runs once, in a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from uuid import UUID

import duckdb

from batchops.diagnostics import BatchopsError, error

DIGEST_VERSION = 1


@dataclass(frozen=True)
class Step:
    name: str
    perform: Callable[[duckdb.DuckDBPyConnection], None]


def _first_tables(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(schema_sql())


def _wide_rounds(con: duckdb.DuckDBPyConnection) -> None:
    """A row that is asked anew every day has had 256 rounds before its first year is over."""
    for table in ("rows", "requests", "attempts"):
        con.execute(f"ALTER TABLE {table} ALTER round TYPE USMALLINT")


def _dropped(con: duckdb.DuckDBPyConnection) -> None:
    """What `state compact` dropped of a submission: its lines, and the sums that reports go on counting."""
    con.execute(
        """CREATE TABLE dropped (
               submission_id UINTEGER, lines UINTEGER, unpriced UINTEGER, input_tokens UBIGINT, cached_tokens UBIGINT,
               output_tokens UBIGINT, reasoning_tokens UBIGINT, cost_nano_usd UBIGINT)"""
    )


STEPS: tuple[Step, ...] = (
    Step("first tables", _first_tables),
    Step("rounds of two bytes", _wide_rounds),
    Step("sums of what was dropped", _dropped),
)


def schema_sql() -> str:
    """The tables of version 1."""
    return resources.files("batchops.store").joinpath("schema.sql").read_text(encoding="utf-8")


def create(con: duckdb.DuckDBPyConnection, *, lineage: UUID, project: str, now: datetime) -> None:
    """Make all tables in the attached, empty `state`, and give it its identity."""
    perform(con, STEPS)
    con.execute("INSERT INTO state.meta VALUES (?, 0, ?, ?, ?, ?)", [lineage, len(STEPS), DIGEST_VERSION, project, now])


def perform(con: duckdb.DuckDBPyConnection, steps: Sequence[Step]) -> None:
    """Take the steps on the attached `state`."""
    with _inside_state(con):
        for step in steps:
            step.perform(con)


@contextmanager
def _inside_state(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Tables named alone are those of `state` for the length of the block."""
    before = con.execute("SELECT current_database()").fetchone()
    assert before is not None
    con.execute("USE state")
    try:
        yield
    finally:
        con.execute(f'USE "{before[0]}"')


def check_version(recorded: int) -> None:
    """Refuse a state that a newer batchops made."""
    if recorded > len(STEPS):
        raise BatchopsError(
            error(
                "state_too_new",
                "The state is of a newer version.",
                f"It has version {recorded}; this batchops knows up to {len(STEPS)}. Upgrade: pip install -U batchops",
            )
        )


def missing_steps(con: duckdb.DuckDBPyConnection) -> tuple[Step, ...]:
    """The steps that the attached `state` has not seen."""
    row = con.execute("SELECT schema_version FROM state.meta").fetchone()
    assert row is not None
    check_version(row[0])
    return STEPS[row[0] :]


def migrate(con: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    """Bring the attached `state` up to date in one transaction; returns the names of the steps taken.

    Nothing else is written beside. Raises BatchopsError, and leaves all as it was, when a table would lose rows.
    """
    steps = missing_steps(con)
    if not steps:
        return ()
    with _inside_state(con):
        con.execute("BEGIN")
        try:
            _take(con, steps)
        except BaseException:
            con.execute("ROLLBACK")
            raise
        con.execute("COMMIT")
    con.execute("CHECKPOINT state")
    return tuple(step.name for step in steps)


def _take(con: duckdb.DuckDBPyConnection, steps: Sequence[Step]) -> None:
    before = _row_counts(con)
    for step in steps:
        step.perform(con)
    _refuse_loss(before, _row_counts(con))
    con.execute("UPDATE state.meta SET schema_version = ?", [len(STEPS)])


def _row_counts(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    names = con.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'state'").fetchall()
    counts = {}
    for (name,) in names:
        row = con.execute(f"SELECT count(*) FROM state.{name}").fetchone()
        counts[str(name)] = int(row[0]) if row else 0
    return counts


def _refuse_loss(before: Mapping[str, int], after: Mapping[str, int]) -> None:
    lost = [f"{name} has {after.get(name, 0):,} of {count:,}" for name, count in before.items()
            if after.get(name, 0) != count]  # fmt: skip
    if lost:
        raise BatchopsError(
            error(
                "migration_refused",
                "The state was not migrated: rows would be lost.",
                f"{'; '.join(lost)}. The state is as it was, and its backup is in state/backups. Go back to the version"
                " of batchops that you had, and report this.",
            )
        )
