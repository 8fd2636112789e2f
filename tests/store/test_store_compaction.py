"""What compaction drops, what it keeps, and what a kill in the middle of it leaves."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from made_states import contents, create, digest, environment, fetch, held, intend, lived, write

from batchops.plan.decide import ANSWERED, GIVEN_UP
from batchops.store import merging
from batchops.store.copies import backup, copy_file
from batchops.store.footprint import footprint
from batchops.store.integrity import find_damage
from batchops.store.job_changes import HoldJobs, OpenRound
from batchops.store.merging import merge, sweep_answers
from batchops.store.retention import Trim
from batchops.store.store import StateReader, StateStore
from batchops.store.surgery import Mend

LATER = datetime.now(UTC) + timedelta(days=1)
EARLIER = LATER - timedelta(days=100)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """`done` answered in batch 1, but for `c`, which was refused there and answered in batch 3."""
    path = lived(tmp_path / "state" / "batchops.duckdb")
    with held(path) as store:
        store.commit(OpenRound("default", "done"))
    write(path, f"UPDATE requests SET state = 3, round = 0 WHERE digest = '{digest('c')}' AND round = 0",
          f"DELETE FROM requests WHERE digest = '{digest('c')}' AND round = 1",
          f"UPDATE rows SET round = 0 WHERE digest = '{digest('c')}'")  # fmt: skip
    with held(path) as store:
        create(store, 3, "done", ["c"], attempt=2)
        fetch(store, 3, "done", ["c"])
    priced = "input_tokens = 100, output_tokens = 10, cost_nano_usd = 7"
    write(path, f"UPDATE outcomes SET {priced}", "UPDATE answer_files SET n = 3 WHERE file_no = 1")
    assert find_damage(StateReader(path)) == ()
    return path


def _tries(path: Path) -> list[tuple[int, int]]:
    rows = StateReader(path).rows("SELECT submission_id, line FROM state.attempts ORDER BY ALL")
    return [(row["submission_id"], row["line"]) for row in rows]


def _spent(path: Path) -> list[dict[str, object]]:
    return StateReader(path).rows(
        """SELECT submission_id, sum(cost_nano_usd) AS cost, sum(input_tokens) AS input FROM (
               SELECT submission_id, cost_nano_usd, input_tokens FROM state.outcomes
               UNION ALL SELECT submission_id, cost_nano_usd, input_tokens FROM state.dropped)
           GROUP BY ALL ORDER BY ALL"""
    )


# --- tries


def test_a_try_that_a_later_one_made_up_for_goes_and_its_cost_stays(path: Path) -> None:
    before, spent = contents(path), _spent(path)
    with held(path) as store:
        store.commit(Trim(tries_before=LATER))
        assert find_damage(store) == ()
    after = contents(path)
    assert _tries(path) == [(1, 0), (1, 1), (2, 0), (3, 0)]
    assert {name: after[name] for name in ("rows", "requests", "submissions", "answer_files")} == {
        name: before[name] for name in ("rows", "requests", "submissions", "answer_files")
    }
    assert _spent(path) == spent
    assert StateReader(path).rows("FROM state.dropped SELECT submission_id, lines, unpriced, cost_nano_usd") == [
        {"submission_id": 1, "lines": 1, "unpriced": 0, "cost_nano_usd": 7}
    ]
    with held(path) as store:
        store.commit(Trim(tries_before=LATER))
        assert find_damage(store) == ()
    assert _tries(path) == [(1, 0), (1, 1), (2, 0), (3, 0)], "doing it again drops no more"


def test_without_an_age_and_before_it_no_try_goes(path: Path) -> None:
    before = _tries(path)
    with held(path) as store:
        store.commit(Trim())
        store.commit(Trim(tries_before=EARLIER))
    assert _tries(path) == before


def _another_round(path: Path, number: int, *, is_answered: bool = True) -> None:
    """`a` is asked in the next round, as --replace does, in a batch of its own."""
    with held(path) as store:
        store.commit(HoldJobs("default", (), "nothing"))
    found = StateReader(path).rows("SELECT round FROM state.rows WHERE key = 'a'")[0]["round"] + 1
    write(path, f"UPDATE rows SET round = {found} WHERE key = 'a'",
          "INSERT INTO requests (digest, round, state, attempts, free_attempts)"
          f" VALUES ('{digest('a')}', {found}, 0, 0, 0)")  # fmt: skip
    with held(path) as store:
        change = intend(store, number, "done", [])
        assert change.submission_id == number
    state, outcome = (ANSWERED, 0) if is_answered else (GIVEN_UP, 10)
    write(path, f"UPDATE submissions SET phase = 'fetched', ended_at = now(), n = 1 WHERE submission_id = {number}",
          f"INSERT INTO attempts VALUES ({number}, 0, '{digest('a')}', {found}, 1, NULL, NULL)",
          f"INSERT INTO outcomes (submission_id, line, outcome, cost_nano_usd) VALUES ({number}, 0, {outcome}, 7)",
          f"UPDATE requests SET state = {state}, attempts = 1, submission_id = {number}, line = 0"
          f" WHERE digest = '{digest('a')}' AND round = {found}")  # fmt: skip


def _rounds(path: Path) -> list[int]:
    rows = StateReader(path).rows(f"SELECT round FROM state.requests WHERE digest = '{digest('a')}' ORDER BY round")
    return [row["round"] for row in rows]


def test_an_answer_that_was_replaced_goes_and_the_latest_round_stays(path: Path) -> None:
    for number in (4, 5):
        _another_round(path, number)
    spent = _spent(path)
    with held(path) as store:
        store.commit(Trim(tries_before=LATER))
        assert find_damage(store) == ()
    assert _rounds(path) == [2]
    assert _tries(path) == [(1, 1), (2, 0), (3, 0), (5, 0)]
    assert _spent(path) == spent


def test_an_answer_stays_while_no_later_round_was_answered(path: Path) -> None:
    _another_round(path, 4, is_answered=False)
    with held(path) as store:
        store.commit(Trim(tries_before=LATER))
        assert find_damage(store) == ()
    assert _rounds(path) == [0, 1]


def test_an_answer_stays_while_another_environment_stands_on_it(path: Path) -> None:
    _another_round(path, 4)
    write(path, "INSERT INTO jobs SELECT 9, 'staging', address, provider, is_simulated, render_id, parts, spec,"
          " protected, held, removed_at FROM jobs WHERE address = 'done'",
          f"INSERT INTO rows VALUES (9, 'a', 1, '{digest('a')}', 0, NULL)")  # fmt: skip
    with held(path) as store:
        store.commit(Trim(tries_before=LATER))
        assert find_damage(store) == ()
    assert _rounds(path) == [0, 1]


def test_a_request_rebuilt_after_its_tries_went_takes_no_number_again(path: Path) -> None:
    with held(path) as store:
        store.commit(Trim(tries_before=LATER))
    write(path, f"DELETE FROM requests WHERE digest = '{digest('c')}'")
    with held(path) as store:
        store.commit(Mend())
        assert find_damage(store) == ()
    rows = StateReader(path).rows(
        f"SELECT state, attempts + free_attempts AS tries FROM state.requests WHERE digest = '{digest('c')}'"
    )
    assert rows == [{"state": ANSWERED, "tries": 2}]


def test_nothing_of_an_open_batch_goes(path: Path) -> None:
    with held(path) as store:
        store.commit(Trim(tries_before=LATER))
    assert (2, 0) in _tries(path)


# --- events


def test_old_events_go_but_for_plans_and_the_latest(path: Path) -> None:
    with held(path) as store:
        latest = StateReader(path).identity().serial
        store.commit(Trim(events_before=LATER))
        assert find_damage(store) == ()
    rows = StateReader(path).rows("SELECT serial, kind FROM state.events ORDER BY serial")
    assert {row["kind"] for row in rows if row["serial"] < latest} == {"planned"}
    assert [row["serial"] for row in rows[-2:]] == [latest, latest + 1]


# --- answer files


def _answer_files(path: Path) -> dict[int, bool]:
    rows = StateReader(path).rows("SELECT file_no, dropped_at IS NULL AS kept FROM state.answer_files ORDER BY file_no")
    return {row["file_no"]: row["kept"] for row in rows}


def _write_lines(path: Path) -> None:
    """Answer files as fetch writes them, instead of the short ones of the kit."""
    with StateReader(path).reading() as con:
        files = con.execute("SELECT file_no, path FROM state.answer_files WHERE dropped_at IS NULL").fetchall()
        for number, name in files:
            con.execute(
                f"""COPY (SELECT o.submission_id, o.line, a.digest, a.round::UTINYINT AS round, a.attempt, o.outcome,
                          '"said ' || o.submission_id || '.' || o.line || '"' AS answer, NULL::VARCHAR AS message,
                          'm' AS model, '{{}}' AS raw
                    FROM state.outcomes o JOIN state.attempts a USING (submission_id, line)
                    WHERE o.answer_file = {number}) TO '{path.parent / name}' (FORMAT parquet)"""
            )
    sums = [
        f"UPDATE answer_files SET bytes = {file.stat().st_size}, sha256 = NULL WHERE path = 'answers/{file.name}'"
        for file in (path.parent / "answers").glob("*.parquet")
    ]
    write(path, *sums)


def _answers(path: Path) -> dict[tuple[int, int], str]:
    """What every outcome finds in the file that it names."""
    found = {}
    for row in StateReader(path).rows(
        "SELECT o.submission_id, o.line, f.path FROM state.outcomes o"
        " JOIN state.answer_files f ON f.file_no = o.answer_file"
    ):
        (said,) = duckdb.execute(
            f"SELECT answer FROM '{path.parent / row['path']}' WHERE submission_id = ? AND line = ?",
            [row["submission_id"], row["line"]],
        ).fetchall()
        found[row["submission_id"], row["line"]] = said[0]
    return found


def _merge(path: Path) -> list[tuple[int, ...]]:
    with held(path) as store:
        done = []
        for change in merge(store, path.parent):
            store.commit(change)
            done.append(tuple(change.old))
        assert find_damage(store) == ()
    return done


def test_small_files_become_one_with_the_same_answers(path: Path) -> None:
    _write_lines(path)
    before = _answers(path)
    assert len(before) == 4
    assert _merge(path) == [(1, 3)]
    assert _answer_files(path) == {1: False, 3: False, 4: True}
    assert _answers(path) == before
    assert _merge(path) == [], "one small file alone is left as it is"


def test_lines_of_dropped_tries_leave_the_files(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "SMALL_BYTES", 0)
    _write_lines(path)
    before = _answers(path)
    assert _merge(path) == []
    with held(path) as store:
        store.commit(Trim(tries_before=LATER))
    assert _merge(path) == [(1,)]
    assert _answers(path) == {key: said for key, said in before.items() if key != (1, 2)}
    (file,) = [row["path"] for row in StateReader(path).rows("SELECT path FROM state.answer_files WHERE file_no = 4")]
    assert duckdb.execute(f"SELECT count(*) FROM '{path.parent / file}'").fetchone() == (2,)


def test_a_file_without_a_line_that_counts_is_dropped_and_not_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "SMALL_BYTES", 0)
    _write_lines(path)
    write(path, "UPDATE outcomes SET answer_file = NULL WHERE answer_file = 1")
    assert _merge(path) == [(1,)]
    assert _answer_files(path) == {1: False, 3: True}


def test_a_file_that_is_not_what_was_written_is_not_merged(path: Path) -> None:
    _write_lines(path)
    file = path.parent / "answers" / "000001.parquet"
    file.write_bytes(file.read_bytes() + b"more")
    with held(path) as store:
        assert list(merge(store, path.parent)) == []


def test_full_files_are_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_lines(path)
    monkeypatch.setattr(merging, "FULL_BYTES", 10)
    assert _merge(path) == []


def test_an_old_file_stays_for_its_readers_and_its_backups(path: Path) -> None:
    _write_lines(path)
    with held(path) as store:
        kept = backup(store.path, "compact")
    _merge(path)
    old = [path.parent / "answers" / name for name in ("000001.parquet", "000003.parquet")]
    later = StateReader(path, clock=lambda: datetime.now(UTC) + timedelta(hours=2))
    assert sweep_answers(StateReader(path)) == 0, "somebody may be reading it"
    assert sweep_answers(later) == 0, "a backup names it"
    assert all(file.exists() for file in old)
    kept.unlink()
    assert sweep_answers(later) == 2
    assert not any(file.exists() for file in old)
    assert sweep_answers(later) == 0
    assert find_damage(StateReader(path)) == ()


# --- kills

DIES = """
import os, sys
from pathlib import Path
from datetime import UTC, datetime, timedelta
from batchops.store import store as stores
from batchops.store.copies import backup, copy_file
from batchops.store.lease import leased
from batchops.store.merging import merge, sweep_answers
from batchops.store.retention import Trim

path, left = Path(sys.argv[1]), int(sys.argv[2])

def counted(owner, name):
    real = getattr(owner, name)
    def effect(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)
        done = real(*args, **kwargs)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)
        return done
    setattr(owner, name, effect)

for owner, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (os, "unlink"),
                    (stores.StateStore, "_perform"), (stores.StateStore, "commit")):
    counted(owner, name)
with leased(path, project="reviews", environ={}) as store:
    backup(store.path, "compact")
    store.commit(Trim(tries_before=datetime.now(UTC) + timedelta(days=1)))
    for change in merge(store, path.parent):
        store.commit(change)
    copy_file(store.path, store.path)
    sweep_answers(store)
"""


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.full)])
def test_kill_9_before_and_after_the_effects_of_a_compaction_loses_nothing(
    path: Path, tmp_path: Path, stride: int
) -> None:
    _write_lines(path)
    whole, spent = _answers(path), _spent(path)
    kept = {key: said for key, said in whole.items() if key != (1, 2)}
    copy_file(path, tmp_path / "model.duckdb")
    deaths = 0
    while True:
        copy_file(tmp_path / "model.duckdb", path)
        script = [sys.executable, "-c", DIES, str(path), str(1 + deaths * stride)]
        done = subprocess.run(script, env=environment(), check=False, capture_output=True, text=True)
        assert find_damage(StateReader(path)) == (), deaths
        found = _answers(path)
        assert found in (whole, kept), deaths
        assert _spent(path) == spent
        with held(path) as store:
            store.commit(HoldJobs("default", (), "goes on"))
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        deaths += 1
    assert found == kept
    assert deaths * stride >= 20


def test_what_is_reported_counts_files_and_rows_apart(path: Path) -> None:
    _write_lines(path)
    found = footprint(StateReader(path))
    assert found.rows == 5
    assert found.state_bytes == path.stat().st_size
    assert found.answer_bytes == sum(file.stat().st_size for file in (path.parent / "answers").glob("*.parquet"))
    assert found.state_bytes_per_row == path.stat().st_size / 5
    write(path, "UPDATE answer_files SET n = 0")
    assert footprint(StateReader(path)).answer_bytes_per_answer is None


def test_a_store_whose_lease_was_taken_compacts_nothing(path: Path) -> None:
    with held(path) as store:
        fence = store.fence
    with held(path):
        pass
    before = contents(path)
    with pytest.raises(Exception, match="taken by somebody else"):
        StateStore(path, fence=fence).commit(Trim(tries_before=LATER))
    assert contents(path) == before
