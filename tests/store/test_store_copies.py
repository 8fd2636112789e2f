"""Whole copies: backups that are kept ten deep, files to carry away, and what may take the state's place."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_states import contents, environment, held, lived, record, write

from batchops.diagnostics import BatchopsError, Leased
from batchops.store.copies import KEPT_BACKUPS, backup, backups, copy_file, nobody_holds
from batchops.store.job_changes import HoldJobs
from batchops.store.push import push
from batchops.store.store import StateReader, StateStore


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lived(tmp_path_factory.mktemp("model") / "batchops.duckdb").parent


@pytest.fixture
def path(model: Path, tmp_path: Path) -> Path:
    """A copy of a state that has seen some life, answer files and all."""
    shutil.copytree(model, tmp_path / "state")
    return tmp_path / "state" / "batchops.duckdb"


def test_a_backup_is_the_state_and_is_named_by_serial_and_verb(path: Path) -> None:
    serial = StateReader(path).identity().serial
    kept = backup(path, "mv")
    assert kept == path.parent / "backups" / f"{serial}-mv.duckdb"
    assert contents(kept) == contents(path)
    assert sorted(found.name for found in kept.parent.iterdir()) == [kept.name]


def test_only_the_ten_newest_backups_are_kept(path: Path) -> None:
    with held(path) as store:
        made = []
        for number in range(KEPT_BACKUPS + 2):
            made.append(backup(path, "mv"))
            os.utime(made[-1], (number, number))
            store.commit(HoldJobs("default", (), "on"))
        made.append(backup(path, "last"))
    assert set(backups(path)) == set(made[-KEPT_BACKUPS:])


def test_a_copy_is_of_one_moment_and_says_that_nobody_holds_it(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.duckdb"
    with held(path):
        copy_file(path, target, nobody_holds)
    assert contents(target) == contents(path)
    assert StateReader(target).rows("SELECT holder FROM state.lease") == [{"holder": None}]


def test_a_copy_that_fails_leaves_neither_a_file_nor_a_draft(path: Path, tmp_path: Path) -> None:
    before = contents(path)
    with pytest.raises(ZeroDivisionError):
        copy_file(path, tmp_path / "copy.duckdb", lambda con: print(1 // 0))
    assert [found.name for found in tmp_path.iterdir()] == ["state"]
    with pytest.raises(ZeroDivisionError):
        copy_file(path, path, lambda con: print(1 // 0))
    assert contents(path) == before


def test_the_state_may_be_written_anew_in_its_own_place(path: Path) -> None:
    before = contents(path)
    with held(path) as store:
        copy_file(path, path)
        assert contents(path) == before
        store.commit(HoldJobs("default", (), "the lease still holds"))


def _code(source: Path, target: Path) -> str:
    before = contents(target)
    with pytest.raises(BatchopsError) as caught:
        push(source, target)
    assert contents(target) == before
    (found,) = caught.value.diagnostics
    assert found.fixes == (f"batchops state push --force {source}",)
    assert caught.value.exit_code == 1
    return found.code


def test_the_same_state_further_on_takes_the_place_and_what_was_there_is_kept(path: Path, tmp_path: Path) -> None:
    further = Path(shutil.copy(path, tmp_path / "further.duckdb"))
    with held(further) as store:
        store.commit(HoldJobs("default", ("open",), "elsewhere"))
    before, serial = contents(path), StateReader(further).identity().serial
    done = push(further, path)
    assert (done.serial, done.is_changed) == (serial + 1, True)
    assert done.kept is not None
    assert contents(done.kept) == before
    assert StateReader(path).rows("SELECT held FROM state.jobs WHERE address = 'open'") == [{"held": "elsewhere"}]
    assert StateReader(path).identity().serial == done.serial


def test_the_state_itself_is_pushed_without_a_change(path: Path, tmp_path: Path) -> None:
    copy_file(path, tmp_path / "copy.duckdb", nobody_holds)
    before = contents(path)
    done = push(tmp_path / "copy.duckdb", path)
    assert (done.is_changed, done.kept) == (False, None)
    assert contents(path) == before


def test_other_lineage_is_refused_unless_forced(path: Path, tmp_path: Path) -> None:
    other = lived(tmp_path / "other.duckdb")
    assert _code(other, path) == "other_lineage"
    done = push(other, path, force=True)
    assert StateReader(path).identity().lineage == StateReader(other).identity().lineage
    assert done.kept is not None


def test_older_state_is_refused_unless_forced_and_the_serial_never_goes_back(path: Path, tmp_path: Path) -> None:
    copy_file(path, tmp_path / "copy.duckdb", nobody_holds)
    with held(path) as store:
        serial = store.commit(HoldJobs("default", ("open",), "since"))
    assert _code(tmp_path / "copy.duckdb", path) == "older_state"
    done = push(tmp_path / "copy.duckdb", path, force=True)
    assert done.serial == serial + 1
    assert StateReader(path).rows("SELECT held FROM state.jobs WHERE address = 'open'") == [{"held": None}]


def test_forked_state_with_changes_that_the_other_lacks_is_refused(path: Path, tmp_path: Path) -> None:
    fork = Path(shutil.copy(path, tmp_path / "fork.duckdb"))
    for state, commits in ((path, 1), (fork, 2)):
        with held(state) as store:
            for _ in range(commits):
                store.commit(HoldJobs("default", ("open",), state.name))
    assert _code(fork, path) == "forked_state"


def test_any_state_takes_the_place_of_none_and_of_one_that_was_never_used(path: Path, tmp_path: Path) -> None:
    for target in (tmp_path / "none" / "batchops.duckdb", tmp_path / "new" / "batchops.duckdb"):
        if target.parent.name == "new":
            with held(target):
                pass
        push(path, target)
        assert StateReader(target).identity().lineage == StateReader(path).identity().lineage


def test_whoever_held_the_state_before_a_push_writes_nothing_after_it(path: Path, tmp_path: Path) -> None:
    copy_file(path, tmp_path / "copy.duckdb", nobody_holds)
    with held(path) as store:
        record(store, "since", ["f"])
        with pytest.raises(Leased):
            push(tmp_path / "copy.duckdb", path, force=True)
        fence = store.fence
    push(tmp_path / "copy.duckdb", path, force=True)
    before = contents(path)
    with pytest.raises(Leased):
        StateStore(path, fence=fence).commit(HoldJobs("default", (), "late"))
    assert contents(path) == before


def test_state_absent_is_said_of_a_file_that_is_not_there(path: Path, tmp_path: Path) -> None:
    for source in (tmp_path / "none.duckdb", tmp_path / "no" / "folder.duckdb"):
        with pytest.raises(BatchopsError) as caught:
            push(source, path, force=True)
        assert [found.code for found in caught.value.diagnostics] == ["state_absent"]


def test_a_log_that_a_killed_writer_left_is_part_of_the_copy(path: Path, tmp_path: Path) -> None:
    write(path, "PRAGMA disable_checkpoint_on_shutdown", "UPDATE jobs SET held = 'in the log'")
    assert path.with_name(f"{path.name}.wal").exists()
    copy_file(path, tmp_path / "copy.duckdb")
    found = StateReader(tmp_path / "copy.duckdb").rows("SELECT DISTINCT held FROM state.jobs")
    assert found == [{"held": "in the log"}]


def test_a_log_that_a_killed_writer_left_does_not_meet_the_file_that_is_pushed(path: Path, tmp_path: Path) -> None:
    further = Path(shutil.copy(path, tmp_path / "further.duckdb"))
    with held(further) as store:
        store.commit(HoldJobs("default", ("open",), "elsewhere"))
    write(path, "PRAGMA disable_checkpoint_on_shutdown", "UPDATE jobs SET held = 'in the log'")
    done = push(further, path)
    assert done.kept is not None
    assert StateReader(done.kept).rows("SELECT DISTINCT held FROM state.jobs") == [{"held": "in the log"}]
    assert not path.with_name(f"{path.name}.wal").exists()
    assert StateReader(path).rows("SELECT held FROM state.jobs WHERE address = 'open'") == [{"held": "elsewhere"}]


DIES = """
import os, sys
from pathlib import Path
from batchops.store.copies import copy_file
path = Path(sys.argv[1])
copy_file(path, path, lambda con: os.kill(os.getpid(), 9))
"""


def test_kill_9_while_the_state_is_written_anew_leaves_it_as_it_was(path: Path) -> None:
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", DIES, str(path)], env=environment(), check=False)
    assert done.returncode == -9
    assert path.read_bytes() == before
    with held(path) as store:
        store.commit(HoldJobs("default", (), "goes on"))
