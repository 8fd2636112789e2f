"""The versions of the state file, as an ordered list of named steps. Append only; each runs once, in a transaction."""

from __future__ import annotations

from collections.abc import Callable
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


STEPS: tuple[Step, ...] = (Step("first tables", _first_tables),)


def schema_sql() -> str:
    """The tables of version 1."""
    return resources.files("batchops.store").joinpath("schema.sql").read_text(encoding="utf-8")


def create(con: duckdb.DuckDBPyConnection, *, lineage: UUID, project: str, now: datetime) -> None:
    """Make all tables in the attached, empty `state`, and give it its identity."""
    con.execute("USE state")
    try:
        for step in STEPS:
            step.perform(con)
        con.execute("INSERT INTO meta VALUES (?, 0, ?, ?, ?, ?)", [lineage, len(STEPS), DIGEST_VERSION, project, now])
    finally:
        con.execute("USE memory")


def check_version(recorded: int) -> None:
    """Refuse a state that a newer batchops made."""
    if recorded > len(STEPS):
        raise BatchopsError(
            error(
                "state_too_new",
                "The state is of a newer batchops.",
                f"It has version {recorded}; this batchops knows up to {len(STEPS)}. Upgrade: pip install -U batchops",
            )
        )


def migrate(con: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    """Bring the attached `state` up to date; returns the names of the steps taken. Nothing else is written beside."""
    row = con.execute("SELECT schema_version FROM state.meta").fetchone()
    assert row is not None
    check_version(row[0])
    taken = []
    for step in STEPS[row[0] :]:
        step.perform(con)
        taken.append(step.name)
    if taken:
        con.execute("UPDATE state.meta SET schema_version = ?", [len(STEPS)])
        con.execute("CHECKPOINT state")
    return tuple(taken)
