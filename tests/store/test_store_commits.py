"""The store: made whole or not at all, one serial a commit, nothing written under a fence that has moved."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pytest
from made_states import TABLES, contents, create, digest, environment, held, intend, lived, record

from batchops.diagnostics import BatchopsError, Leased
from batchops.store.changes import Observed, PhaseConflict
from batchops.store.job_changes import HoldJobs
from batchops.store.store import StateReader, StateStore, ensure_state


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "batchops.duckdb"


def test_a_new_state_has_every_table_serial_zero_and_a_lineage_of_its_own(path: Path, tmp_path: Path) -> None:
    ensure_state(path, project="reviews")
    ensure_state(tmp_path / "other.duckdb", project="reviews")
    counts = {table: len(rows) for table, rows in contents(path).items()}
    assert counts == dict.fromkeys(TABLES, 0) | {"meta": 1}
    identity = StateReader(path).identity()
    assert identity.serial == 0
    assert identity.lineage != StateReader(tmp_path / "other.duckdb").identity().lineage
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_making_a_state_that_is_there_changes_nothing(path: Path) -> None:
    ensure_state(path, project="reviews")
    before = path.read_bytes()
    assert ensure_state(path, project="another") == ()
    assert path.read_bytes() == before


def test_a_reader_sees_empty_tables_where_no_state_is_and_makes_none(path: Path) -> None:
    reader = StateReader(path)
    assert reader.rows("SELECT * FROM state.rows") == []
    assert reader.identity().lineage is None
    assert not path.exists()


def test_each_commit_raises_the_serial_by_one_and_leaves_one_event(path: Path) -> None:
    with held(path) as store:
        serials = [store.commit(HoldJobs("default", (), because)) for because in ("one", "two", "three")]
    assert serials == [1, 2, 3]
    events = StateReader(path).rows("SELECT serial, kind, fence FROM state.events ORDER BY serial")
    assert events == [{"serial": n, "kind": "held", "fence": 1} for n in serials]


def test_a_commit_under_an_old_fence_raises_leased_and_writes_nothing(path: Path) -> None:
    with held(path) as first:
        record(first, "job", ["a"])
    with held(path) as second:
        before = contents(path)
        with pytest.raises(Leased) as caught:
            first.commit(HoldJobs("default", ("job",), "too late"))
        assert contents(path) == before
        assert second.fence == first.fence + 1
    assert [found.code for found in caught.value.diagnostics] == ["lease_lost"]
    assert caught.value.exit_code == 11


@dataclass(frozen=True)
class FailsHalfway:
    kind: ClassVar[str] = "failed"
    subject: str = ""

    def perform(self, con: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
        con.execute("DELETE FROM state.rows")
        raise ArithmeticError


def test_a_change_that_fails_halfway_leaves_nothing_behind(path: Path) -> None:
    lived(path)
    with held(path) as store:
        before = contents(path)
        with pytest.raises(ArithmeticError):
            store.commit(FailsHalfway())
        assert contents(path) == before
        assert store.commit(HoldJobs("default", (), "goes on")) == before["meta"][0][1] + 1  # type: ignore[operator]


def test_an_intent_takes_its_requests_wherever_they_lie_in_the_ledger(path: Path) -> None:
    with held(path) as store:
        record(store, "job", list("abcdef"))
        intend(store, 1, "job", ["e", "b"])
        intend(store, 2, "job", ["c", "d"])
        with pytest.raises(PhaseConflict):
            intend(store, 3, "job", ["f", "b"])
        rows = store.rows("SELECT digest, submission_id, line FROM state.requests WHERE state = 1")
    found = {row["digest"]: (row["submission_id"], row["line"]) for row in rows}
    assert found == {digest("e"): (1, 0), digest("b"): (1, 1), digest("c"): (2, 0), digest("d"): (2, 1)}


def test_a_submission_moves_on_from_the_phase_it_is_in_and_from_no_other(path: Path) -> None:
    with held(path) as store:
        record(store, "job", ["a"])
        create(store, 1, "job", ["a"])
        with pytest.raises(PhaseConflict):
            create(store, 2, "job", ["a"])
        with pytest.raises(PhaseConflict):
            store.commit(Observed(9, {}, ended=True, address="job"))
        found = store.rows("SELECT submission_id, phase FROM state.submissions")
    assert found == [{"submission_id": 1, "phase": "created"}]


def test_threads_of_one_process_commit_one_after_the_other(path: Path) -> None:
    with held(path) as store:
        serials: list[int] = []

        def commit() -> None:
            for _ in range(3):
                serials.append(store.commit(HoldJobs("default", (), "thread")))

        threads = [threading.Thread(target=commit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(serials) == list(range(1, 13))


def test_the_file_that_vanished_is_not_made_anew_by_a_commit(path: Path) -> None:
    with held(path) as store:
        path.unlink()
        with pytest.raises(BatchopsError) as caught:
            store.commit(HoldJobs("default", (), "where"))
        assert not path.exists()
    assert [found.code for found in caught.value.diagnostics] == ["state_absent"]


WRITER = """
import sys
from pathlib import Path
from batchops.store.job_changes import HoldJobs
from batchops.store.lease import leased

with leased(Path(sys.argv[1]), project="reviews", environ={}) as store:
    print("ready", flush=True)
    for line in sys.stdin:
        store.commit(HoldJobs("default", (), "tick"))
        print("committed", flush=True)
"""


def test_readers_see_whole_commits_of_another_process_and_do_not_stop_it(path: Path) -> None:
    ensure_state(path, project="reviews")
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    reader = StateReader(path)
    try:
        assert process.stdout.readline() == "ready\n"
        for _ in range(5):
            process.stdin.write("go\n")
            process.stdin.flush()
            found = reader.rows("SELECT serial, (SELECT count(*) FROM state.events) AS events FROM state.meta")
            assert found[0]["serial"] == found[0]["events"]
            assert process.stdout.readline() == "committed\n"
    finally:
        process.communicate()
    assert reader.identity().serial == 5


def test_a_writer_waits_for_a_reader_that_has_the_file(path: Path) -> None:
    with held(path) as store:
        thread = threading.Thread(target=lambda: store.commit(HoldJobs("default", (), "later")))
        with StateReader(path).reading() as con:
            thread.start()
            assert con.execute("SELECT serial FROM state.meta").fetchone() == (0,)
            assert thread.is_alive()
        thread.join()
    assert StateReader(path).identity().serial == 1


def test_a_store_is_never_opened_without_a_lease(path: Path) -> None:
    ensure_state(path, project="reviews")
    with pytest.raises(Leased):
        StateStore(path, fence=0).commit(HoldJobs("default", (), "nobody gave this fence"))
    assert StateReader(path).identity().serial == 0
