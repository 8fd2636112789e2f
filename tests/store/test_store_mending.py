"""What is broken in a state is found, and put right where the rest of it leaves no doubt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made_states import create, digest, fetch, held, lived, record, write

from batchops.store.integrity import INVARIANTS, find_damage, lost_files
from batchops.store.retention import Trim
from batchops.store.store import StateReader
from batchops.store.surgery import FetchAgain, ForgetRows, Mend, MoveJobs

LOST_JOB = "DELETE FROM jobs WHERE address = 'new'"
MENDABLE = {
    "a row of no job": LOST_JOB,
    "a request that stands twice": "INSERT INTO requests FROM requests WHERE state = 2",
    "a request that stands twice and once was not asked": (
        "INSERT INTO requests (digest, round, state, attempts, free_attempts)"
        " SELECT digest, round, 0, 0, 0 FROM requests"
    ),
    "a row that stands twice": "INSERT INTO rows FROM rows",
    "a row whose request is gone": "DELETE FROM requests",
    "a request in a batch that was fetched": "UPDATE requests SET state = 1 WHERE state IN (2, 4)",
    "a request in a batch that never was": "UPDATE submissions SET phase = 'absent' WHERE phase = 'created'",
    "a serial behind its events": "UPDATE meta SET serial = 2",
}
LEFT = {
    "a line that is missing": "DELETE FROM attempts WHERE submission_id = 1 AND line = 2",
    "a try in two batches": (
        "INSERT INTO attempts SELECT 2, line + 1, digest, round, attempt, NULL, NULL FROM attempts"
        " WHERE submission_id = 1 AND line = 0"
    ),
    "a line judged twice": "INSERT INTO outcomes FROM outcomes WHERE line = 0",
    "an answer without its outcome": "DELETE FROM outcomes WHERE line = 0",
    "an outcome without its file": "DELETE FROM answer_files",
    "a batch of no job": "DELETE FROM rows WHERE job_id = 1; DELETE FROM jobs WHERE job_id = 1",
    "a submission twice": "INSERT INTO submissions FROM submissions WHERE submission_id = 2",
    "a job twice": "INSERT INTO jobs FROM jobs WHERE address = 'open'",
}


def _requests(path: Path) -> dict[str, tuple[int, int]]:
    """State and attempts by key, for keys that ask for themselves."""
    keys = {digest(key): key for key in "abcdef"}
    rows = StateReader(path).rows("SELECT digest, state, attempts FROM state.requests")
    return {keys[row["digest"]]: (row["state"], row["attempts"]) for row in rows}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lived(tmp_path_factory.mktemp("model") / "batchops.duckdb").parent


@pytest.fixture
def path(model: Path, tmp_path: Path) -> Path:
    """A copy of a state that has seen some life, answer files and all."""
    shutil.copytree(model, tmp_path / "state")
    return tmp_path / "state" / "batchops.duckdb"


def test_a_state_that_was_only_committed_to_is_sound(path: Path) -> None:
    assert find_damage(StateReader(path)) == ()


@pytest.mark.parametrize("kind", MENDABLE)
def test_what_leaves_no_doubt_is_put_right_and_nothing_answered_is_asked_again(path: Path, kind: str) -> None:
    before = _requests(path)
    write(path, MENDABLE[kind])
    found = find_damage(StateReader(path))
    assert {problem.code for problem in found} == {"state_inconsistent"}
    with held(path) as store:
        store.commit(Mend())
        assert find_damage(store) == ()
    after = _requests(path)
    assert {key: after[key] for key in "abc"} == {key: before[key] for key in "abc"}
    assert after["d"] == ((0, 0) if kind == "a request in a batch that never was" else before["d"])


@pytest.mark.parametrize("kind", LEFT)
def test_what_leaves_doubt_is_left_as_it_is(path: Path, kind: str) -> None:
    write(path, LEFT[kind])
    broken = find_damage(StateReader(path))
    assert broken
    assert all(problem.fixes == ("batchops state repair",) for problem in broken)
    before = _requests(path)
    with held(path) as store:
        store.commit(Mend())
    assert find_damage(StateReader(path)) == broken
    assert _requests(path) == before


def test_mending_a_sound_state_changes_nothing_but_the_serial(path: Path) -> None:
    before = _requests(path)
    with held(path) as store:
        store.commit(Mend())
        assert _requests(path) == before
        assert find_damage(store) == ()


def test_every_invariant_is_broken_by_some_test(path: Path, tmp_path: Path) -> None:
    said = set()
    statements = [*MENDABLE.values(), *LEFT.values(), "INSERT INTO lease FROM lease",
                  "INSERT INTO outcomes (submission_id, line, outcome) VALUES (9, 9, 0)",
                  "UPDATE jobs SET job_id = 1", "UPDATE attempts SET line = 0 WHERE submission_id = 1"]  # fmt: skip
    content = path.read_bytes()
    for statement in statements:
        other = tmp_path / "other.duckdb"
        other.write_bytes(content)
        write(other, statement)
        told = " ".join(found.detail for found in find_damage(StateReader(other)))
        said |= {invariant.says for invariant in INVARIANTS if invariant.says in told}
    assert {invariant.says for invariant in INVARIANTS} - said == {"meta has one row"}, "that one is no state at all"


@pytest.mark.parametrize("harm", ["gone", "cut", "changed"])
def test_an_answer_file_that_is_not_what_was_written_is_named(path: Path, harm: str) -> None:
    file = path.parent / "answers" / "000001.parquet"
    content = file.read_bytes()
    match harm:
        case "gone":
            file.unlink()
        case "cut":
            file.write_bytes(content[:-1])
        case "changed":
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (found,) = find_damage(StateReader(path))
    assert found.code == "answers_lost"
    assert str(file) in found.detail
    assert [lost.file_no for lost in lost_files(StateReader(path))] == [1]


def test_a_batch_that_is_fetched_again_ends_as_it_did(path: Path) -> None:
    before = _requests(path)
    (path.parent / "answers" / "000001.parquet").unlink()
    with held(path) as store:
        store.commit(FetchAgain([1], [1]))
        assert find_damage(store) == ()
        assert {key: _requests(path)[key] for key in "abc"} == dict.fromkeys("abc", (1, 0))
        assert store.rows("SELECT phase FROM state.submissions WHERE submission_id = 1") == [{"phase": "ended"}]
        store.commit(FetchAgain([1], []))  # saying it again changes nothing
        fetch(store, 1, "done", ["a", "b", "c"], refused=["c"], file_no=2)
        assert find_damage(store) == ()
    assert _requests(path) == before


def test_a_job_is_moved_with_its_rows_and_batches(path: Path) -> None:
    with held(path) as store:
        store.commit(MoveJobs("default", (("done", "other"),)))
        assert find_damage(store) == ()
    rows = StateReader(path).rows(
        "SELECT j.address, count(*) AS n FROM state.rows JOIN state.jobs j USING (job_id) GROUP BY ALL ORDER BY ALL"
    )
    assert rows == [{"address": "new", "n": 1}, {"address": "open", "n": 1}, {"address": "other", "n": 3}]


def test_a_forgotten_job_gives_its_name_and_its_batches_to_the_one_that_takes_it(path: Path) -> None:
    with held(path) as store:
        store.commit(ForgetRows("default", "done"))
        store.commit(MoveJobs("default", (("open", "done"),)))
        assert find_damage(store) == ()
    assert StateReader(path).rows(
        "SELECT DISTINCT j.address FROM state.submissions JOIN state.jobs j USING (job_id)"
    ) == [{"address": "done"}]


def test_forgotten_rows_leave_their_paid_answers_in_the_ledger(path: Path) -> None:
    before = _requests(path)
    with held(path) as store:
        store.commit(ForgetRows("default", "done", ("a",)))
        store.commit(ForgetRows("default", "done"))
        assert find_damage(store) == ()
    assert _requests(path) == before
    assert StateReader(path).rows("SELECT key FROM state.rows ORDER BY key") == [{"key": "d"}, {"key": "e"}]


def test_only_requests_that_nobody_asked_and_nobody_wants_are_dropped(path: Path) -> None:
    with held(path) as store:
        store.commit(Trim())
        assert set(_requests(path)) == set("abcde")
        for job in ("done", "open", "new"):
            store.commit(ForgetRows("default", job))
        store.commit(Trim())
        assert set(_requests(path)) == set("abcd"), "a try, whatever came of it, is never dropped"


def test_requests_of_a_batch_that_never_was_go_on_where_they_stood(path: Path) -> None:
    """`c` was refused in batch 1 and asked again in batch 3, which never was: it stays given up."""
    with held(path) as store:
        record(store, "again", ["f"])
        create(store, 3, "again", ["f"])
    write(path, "UPDATE submissions SET phase = 'absent' WHERE submission_id = 3",
          f"UPDATE requests SET state = 1, submission_id = 3 WHERE digest = '{digest('c')}'",
          f"INSERT INTO attempts VALUES (3, 1, '{digest('c')}', 0, 2, NULL, NULL)",
          "UPDATE submissions SET n = 2 WHERE submission_id = 3")  # fmt: skip
    with held(path) as store:
        store.commit(Mend())
        assert find_damage(store) == ()
    assert _requests(path)["c"] == (4, 1)
    assert _requests(path)["f"] == (0, 0)
