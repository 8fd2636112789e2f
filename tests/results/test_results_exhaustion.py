"""Memory and temporary folders that do not suffice while state and answers are read: every verb tells them as that."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest
from result_states import State, every_state

from batchops.cli.main import run
from batchops.store.connection import open_memory

COPYING = [["results", "review-sentiment"], ["query", "SELECT count(*) FROM requests"]]
"""Verbs that work on a copy of the state."""
READING = [["status"], ["explain", "review-sentiment"], ["state", "list"]]
"""Verbs that read the state where it is."""

BEGUN_FULL = (
    "import resource, sys\nfrom batchops.cli.main import run\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    "sys.exit(run())"
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose state does not fit into 24 MB."""
    (tmp_path / "jobs").mkdir()
    state = every_state(tmp_path / "state" / "batchops.duckdb").write()
    con = duckdb.connect(str(state))
    con.execute("INSERT INTO events SELECT i, NULL, 1, 'tick', md5(i::VARCHAR), '{}' FROM range(600000) t(i)")
    con.close()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _limited(monkeypatch: pytest.MonkeyPatch, memory_limit: str, *settings: str) -> None:
    one_thread = partial(open_memory, threads=1)

    def opened(**given: Any) -> duckdb.DuckDBPyConnection:
        con = one_thread(**given | {"memory_limit": memory_limit})
        for setting in settings:
            con.execute(setting)
        return con

    monkeypatch.setattr("batchops.store.snapshot.open_memory", opened)


@contextmanager
def _greatest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _told(words: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run([*words, "--json"])
    (found,) = json.loads(capfd.readouterr().out)["diagnostics"]
    return code, found["code"], found["detail"]


@pytest.mark.parametrize("words", COPYING, ids=lambda words: " ".join(words[:2]))
def test_a_temporary_folder_that_is_full_before_the_state_is_copied_is_told_of(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    _limited(monkeypatch, "24MB")
    with _greatest_file(100_000):
        code, found, detail = _told(words, capfd)
    assert (code, found) == (1, "scratch_unwritable")
    assert "File too large" in detail
    assert "TMPDIR" in detail


@pytest.mark.parametrize("words", READING, ids=lambda words: " ".join(words[:2]))
def test_what_asks_little_of_the_state_needs_neither_memory_nor_a_folder_for_the_rest(
    project: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    _limited(monkeypatch, "24MB")
    with _greatest_file(100_000):
        assert run([*words, "--json"]) == 0


def test_a_disk_without_room_for_what_memory_does_not_hold_is_no_lack_of_memory(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """DuckDB takes no more than was free, and says "Out of Memory" then."""
    _limited(monkeypatch, "24MB", "SET max_temp_directory_size = '1MB'")
    code, found, detail = _told(COPYING[0], capfd)
    assert (code, found, "TMPDIR" in detail) == (1, "scratch_unwritable", True)


def test_where_no_temporary_folder_can_be_made_that_is_told(project: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", BEGUN_FULL, "status"], capture_output=True, text=True, check=False)
    assert (ran.returncode, "[scratch_unwritable]" in ran.stderr, "TMPDIR" in ran.stderr) == (1, True, True)


def test_memory_that_does_not_hold_a_row_of_state_is_told_of_by_whoever_reads_it(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    con = duckdb.connect("state/batchops.duckdb")
    con.execute("UPDATE jobs SET spec = json_object('x', repeat('0123456789', 3000000))")
    con.close()
    _limited(monkeypatch, "24MB")
    code, found, detail = _told(["status"], capfd)
    assert (code, found, "SET threads" in detail) == (1, "out_of_memory", False)


def test_a_query_that_runs_out_of_memory_after_many_rows_is_told_like_one_that_does_at_once(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The second answer file is one piece of 40 MB; the rows of the first are out by then, but for DuckDB 1.5."""
    _make_late(project / "late")
    _limited(monkeypatch, "32MB")
    monkeypatch.setattr("batchops.results.query.lift_memory_limit", lambda _: None)
    rows = []
    for sql in ("SELECT line, answer FROM {}", "SELECT max(answer), list(answer) FROM {}"):
        code = run(["-C", str(project / "late"), "query", sql.format(_late_files(project)), "--format", "csv"])
        printed = capfd.readouterr()
        assert (code, "[out_of_memory]" in printed.err, "SET threads" in printed.err) == (1, True, False), printed.err
        rows.append(len(printed.out.splitlines()))
    assert rows[0] > 2000 or duckdb.__version__.startswith("1.")
    assert rows[1] == 0


def test_a_query_that_needs_more_memory_than_is_allowed_at_first_gets_it(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _make_late(project / "late")
    _limited(monkeypatch, "32MB")
    sql = f"SELECT len(list(answer)) AS texts FROM {_late_files(project)}"
    assert run(["-C", str(project / "late"), "query", sql, "--json"]) == 0
    printed = capfd.readouterr()
    assert (json.loads(printed.out), printed.err) == ([{"texts": 6400}], "")


def _make_late(project: Path) -> None:
    """A project with many short answers in one file, and then long ones in another."""
    state = State(project / "state" / "batchops.duckdb")
    job = state.job("late")
    first, second = state.submission(job), state.submission(job)
    for number in range(6000):
        state.answered(job, str(number), first, number, f"{number}")
    for number in range(400):
        state.answered(job, f"long {number}", second, number, f"{number:08}" * 12_500)
    state.write()
    (project / "jobs").mkdir()


def _late_files(project: Path) -> str:
    return f"read_parquet({[str(path) for path in sorted((project / 'late/state/answers').iterdir())]})"
