"""The state as its readers see it, copied or not: beside a writer, and with a sentence for every broken file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import duckdb
import pytest
from result_states import START, State, digest, every_state

from batchops.diagnostics import BatchopsError
from batchops.store import snapshot as snapshots
from batchops.store.snapshot import TABLES, reading, snapshot

Reading = Callable[..., AbstractContextManager[duckdb.DuckDBPyConnection]]

WRITER = """
import sys, duckdb
path, is_ready = sys.argv[1], False
while True:
    try:
        con = duckdb.connect(path)
    except duckdb.IOException:
        continue
    con.execute("BEGIN")
    con.execute("UPDATE meta SET serial = serial + 1")
    con.execute("INSERT INTO events (serial, kind) SELECT serial, 'tick' FROM meta")
    con.execute("COMMIT")
    con.close()
    if not is_ready:
        print("ready", flush=True)
        is_ready = True
"""


@pytest.fixture(params=["snapshot", "large snapshot", "reading"])
def opened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Reading:
    """Each way to read."""
    if request.param == "large snapshot":
        monkeypatch.setattr(snapshots, "LARGE_BYTES", 0)
    return reading if request.param == "reading" else snapshot


@contextmanager
def writer(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that takes the write lock, commits and lets go, over and over."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_reading_works_beside_a_process_that_keeps_taking_the_write_lock(tmp_path: Path, opened: Reading) -> None:
    path = every_state(tmp_path / "s.duckdb").write()
    serials = []
    with writer(path) as process:
        for _ in range(10):
            with opened(path) as con:
                found = con.execute("SELECT (SELECT serial FROM meta), (SELECT count(*) FROM events)").fetchone()
            assert found is not None
            assert found[0] == 7 + found[1], "one snapshot is one moment"
            serials.append(found[0])
        assert process.poll() is None
    assert serials == sorted(serials)
    assert serials[-1] > 7


def test_the_file_is_free_again_while_the_snapshot_is_read(tmp_path: Path) -> None:
    path = every_state(tmp_path / "s.duckdb").write()
    with snapshot(path) as con:
        other = duckdb.connect(path)
        other.execute("DELETE FROM rows")
        other.close()
        assert con.execute("SELECT count(*) FROM rows").fetchone() == (8,)
    with snapshot(path) as con:
        assert con.execute("SELECT count(*) FROM rows").fetchone() == (0,)


def test_every_table_is_there_and_only_the_rows_of_its_environment(tmp_path: Path, opened: Reading) -> None:
    state = State(tmp_path / "s.duckdb")
    default, dev = state.job("a"), state.job("a", environment="dev")
    for job in (default, dev):
        state.answered(job, "x", state.submission(job), 0, "y")
    path = state.write()
    with opened(path, environment="dev") as con:
        counts = {table: con.execute(f"SELECT count(*) FROM {table}").fetchone() for table in TABLES}
        assert con.execute("SELECT job_id FROM rows").fetchall() == [(dev,)]
    assert counts == {
        "meta": (1,), "jobs": (1,), "rows": (1,), "requests": (2,), "submissions": (2,), "attempts": (2,),
        "outcomes": (2,), "answer_files": (1,), "events": (0,), "dropped": (0,),
    }  # fmt: skip


def test_a_state_that_does_not_exist_reads_as_empty_tables_and_is_not_made(tmp_path: Path, opened: Reading) -> None:
    with opened(tmp_path / "none.duckdb") as con:
        assert [con.execute(f"SELECT count(*) FROM {table}").fetchone() for table in TABLES] == [(0,)] * len(TABLES)
    assert list(tmp_path.iterdir()) == []


def read_all(opened: Reading, path: Path) -> None:
    with opened(path) as con:
        for table in TABLES:
            con.execute(f"FROM {table}").fetchall()


def broken(path: Path, damage: str) -> None:
    content = path.read_bytes()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "flipped":
            path.write_bytes(content[:12_400] + b"\xff" * 64 + content[12_464:])
        case "foreign":
            path.write_bytes(b"SQLite format 3\x00" + bytes(4096))


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "foreign"])
def test_a_damaged_state_is_said_to_be_damaged_and_left_as_it_is(tmp_path: Path, opened: Reading, damage: str) -> None:
    path = every_state(tmp_path / "s.duckdb").write()
    broken(path, damage)
    before = path.read_bytes()
    with pytest.raises(BatchopsError) as caught:
        read_all(opened, path)
    expected = "state_foreign" if damage == "foreign" else "state_damaged"
    assert [found.code for found in caught.value.diagnostics] == [expected]
    assert path.read_bytes() == before


def test_another_kind_of_duckdb_file_is_no_state(tmp_path: Path, opened: Reading) -> None:
    con = duckdb.connect(tmp_path / "s.duckdb")
    con.execute("CREATE TABLE something (x INTEGER)")
    con.close()
    with pytest.raises(BatchopsError) as caught, opened(tmp_path / "s.duckdb"):
        pass
    assert caught.value.diagnostics[0].code == "state_foreign"


def test_a_state_of_a_newer_version_is_refused(tmp_path: Path, opened: Reading) -> None:
    path = every_state(tmp_path / "s.duckdb").write()
    con = duckdb.connect(path)
    con.execute("UPDATE meta SET schema_version = 999")
    con.close()
    with pytest.raises(BatchopsError) as caught, opened(path):
        pass
    assert caught.value.diagnostics[0].code == "state_too_new"


def test_a_log_left_by_a_killed_writer_is_read_too(tmp_path: Path, opened: Reading) -> None:
    path = every_state(tmp_path / "s.duckdb").write()
    crash = (
        "import os, sys, duckdb; con = duckdb.connect(sys.argv[1]);"
        "con.execute('UPDATE meta SET serial = 99'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", crash, str(path)], check=False)
    assert path.with_name("s.duckdb.wal").exists()
    with opened(path) as con:
        assert con.execute("SELECT serial FROM meta").fetchone() == (99,)
        assert con.execute("SELECT created_at::VARCHAR, lineage FROM meta").fetchone() == (
            f"{START:%Y-%m-%d %H:%M:%S}+00",
            digest("lineage"),
        )
