"""Old states: read as they will be, migrated once, after a backup, and never at the cost of a row."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from made_states import TABLES, contents, held, lived

from batchops.diagnostics import BatchopsError
from batchops.store import migrations
from batchops.store.copies import backups
from batchops.store.migrations import Step
from batchops.store.snapshot import snapshot
from batchops.store.store import StateReader, ensure_state

ALL = migrations.STEPS
FIRST = ALL[:1]


def _add_note(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("ALTER TABLE jobs ADD COLUMN note VARCHAR")
    con.execute("UPDATE jobs SET note = 'from ' || address")
    con.execute("CREATE TABLE notes AS SELECT job_id, note FROM jobs")


def _lose_rows(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("DELETE FROM rows WHERE key = 'a'")


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state of the first version with rows in every table."""
    monkeypatch.setattr(migrations, "STEPS", FIRST)
    return lived(tmp_path / "batchops.duckdb")


def _counts(path: Path) -> dict[str, int]:
    return {table: len(rows) for table, rows in contents(path).items()}


def test_a_state_of_the_first_version_comes_through_every_step_with_all_its_rows(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _counts(old)
    assert all(before[table] for table in TABLES)
    monkeypatch.undo()
    with held(old):
        pass
    assert _counts(old) == before
    assert StateReader(old).rows("SELECT schema_version FROM state.meta") == [{"schema_version": len(migrations.STEPS)}]


def test_a_step_is_taken_once_after_a_backup_and_counts_the_rows(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(old)
    monkeypatch.setattr(migrations, "STEPS", (*FIRST, Step("add notes", _add_note)))
    assert ensure_state(old, project="reviews") == ("add notes",)
    assert ensure_state(old, project="reviews") == ()
    after = contents(old)
    for table in set(TABLES) - {"meta", "jobs"}:
        assert after[table] == before[table]
    assert StateReader(old).rows("SELECT note FROM state.notes ORDER BY note") == [
        {"note": "from done"}, {"note": "from new"}, {"note": "from open"},
    ]  # fmt: skip
    (kept,) = backups(old)
    assert kept.name == f"{StateReader(old).identity().serial}-migrate.duckdb"
    monkeypatch.setattr(migrations, "STEPS", FIRST)
    assert contents(kept) == before, "the backup is the state as it was"


def test_an_old_state_is_read_as_it_will_be_and_not_written(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = old.read_bytes()
    monkeypatch.setattr(migrations, "STEPS", (*ALL, Step("add notes", _add_note)))
    assert StateReader(old).rows("SELECT note FROM state.jobs WHERE address = 'done'") == [{"note": "from done"}]
    with snapshot(old, environment="default") as con:
        assert con.execute("SELECT note FROM jobs WHERE address = 'open'").fetchone() == ("from open",)
    assert old.read_bytes() == before
    assert backups(old) == []


def test_migration_refused_when_a_step_would_lose_rows(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(old)
    monkeypatch.setattr(migrations, "STEPS", (*FIRST, Step("lose rows", _lose_rows)))
    with pytest.raises(BatchopsError) as caught, held(old):
        pass
    (found,) = caught.value.diagnostics
    assert found.code == "migration_refused"
    assert "rows has 4 of 5" in found.detail
    monkeypatch.setattr(migrations, "STEPS", FIRST)
    assert contents(old) == before


def test_a_new_state_and_an_absent_one_have_the_tables_of_the_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "STEPS", (*FIRST, Step("add notes", _add_note)))
    assert StateReader(tmp_path / "none.duckdb").rows("SELECT note FROM state.jobs") == []
    ensure_state(tmp_path / "new.duckdb", project="reviews")
    assert StateReader(tmp_path / "new.duckdb").rows("SELECT note FROM state.jobs") == []
