"""The lease between real processes: one at a time, free again the moment its holder dies, broken only when it has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from made_states import environment, held

from batchops.diagnostics import BatchopsError, Leased
from batchops.store.job_changes import HoldJobs
from batchops.store.lease import current_holder, leased, unlock
from batchops.store.store import StateStore, ensure_state

ROUNDS = 20
HOLDER = """
import sys
from datetime import timedelta
from pathlib import Path
from batchops.diagnostics import Leased
from batchops.store.lease import leased

path = Path(sys.argv[1])
for line in sys.stdin:
    try:
        with leased(path, project="reviews", environ={}) as store:
            print("won", store.fence, flush=True)
            sys.stdin.readline()
        print("released", flush=True)
    except Leased as problem:
        print("lost", problem.diagnostics[0].code, flush=True)
        sys.stdin.readline()
        print("released", flush=True)
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that reads lines: at each first one it takes the lease, at each second one it lets go."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "state" / "batchops.duckdb"
    ensure_state(found, project="reviews")
    return found


def test_of_two_processes_that_race_exactly_one_wins_each_time(path: Path) -> None:
    fences = []
    with holder(path) as one, holder(path) as other:
        for _ in range(ROUNDS):
            say(one)
            say(other)
            heard = sorted([hear(one), hear(other)])
            assert heard[0] == "lost lease_held"
            word, fence = heard[1].split()
            assert word == "won"
            fences.append(int(fence))
            for process in (one, other):
                say(process)
                assert hear(process) == "released"
    assert fences == list(range(1, ROUNDS + 1)), "each holder has a fence of its own, one higher than the last"


def test_kill_9_frees_the_lease_at_once(path: Path) -> None:
    with holder(path) as process:
        say(process)
        assert hear(process) == "won 1"
        process.send_signal(signal.SIGKILL)
        process.wait()
        with held(path) as store:
            assert store.fence == 2
            assert store.commit(HoldJobs("default", (), "goes on")) == 1


def test_who_holds_it_is_told_with_the_line_that_unlocks(path: Path) -> None:
    environ = {"GITHUB_SERVER_URL": "https://forge", "GITHUB_REPOSITORY": "a/b", "GITHUB_RUN_ID": "7"}
    with leased(path, project="reviews", environ=environ):
        with pytest.raises(Leased) as caught, held(path):
            pass
        who = current_holder(path)
    assert who is not None
    (found,) = caught.value.diagnostics
    assert (who.pid, who.run_url) == (os.getpid(), "https://forge/a/b/actions/runs/7")
    assert f"process {who.pid} (https://forge/a/b/actions/runs/7), since {who.taken_at:%Y-%m-%d}" in found.detail
    assert found.fixes == (f"batchops unlock {who.lease_id}",)
    assert caught.value.exit_code == 11
    assert current_holder(path) is None, "who lets go is no longer on record"


def test_patience_waits_for_the_holder_to_let_go(path: Path) -> None:
    with holder(path) as process:
        say(process)
        assert hear(process) == "won 1"
        say(process)
        with leased(path, project="reviews", environ={}, patience=timedelta(seconds=60)) as store:
            assert store.fence == 2


def test_unlock_of_a_dead_holder_raises_the_fence_and_keeps_a_backup(path: Path) -> None:
    with holder(path) as process:
        say(process)
        assert hear(process) == "won 1"
        process.kill()
        process.wait()
        who = current_holder(path)
        assert who is not None
        broken, kept = unlock(path, who.lease_id)
    assert broken == who
    assert kept.name == "0-unlock.duckdb"
    assert kept.exists()
    assert current_holder(path) is None
    with pytest.raises(Leased):
        StateStore(path, fence=1).commit(HoldJobs("default", (), "back from the dead"))


def test_lease_alive_unlock_refuses_while_the_holder_lives_and_says_where(path: Path) -> None:
    with holder(path) as process:
        say(process)
        assert hear(process) == "won 1"
        who = current_holder(path)
        assert who is not None
        with pytest.raises(Leased) as caught:
            unlock(path, who.lease_id)
        assert current_holder(path) == who
    (found,) = caught.value.diagnostics
    assert found.code == "lease_alive"
    assert f"on {who.host}, process {process.pid}" in found.detail


def test_other_lease_unlock_takes_only_the_id_that_is_on_record(path: Path) -> None:
    with holder(path) as process:
        say(process)
        hear(process)
        process.kill()
        process.wait()
    who = current_holder(path)
    assert who is not None
    with pytest.raises(BatchopsError) as caught:
        unlock(path, "another")
    (found,) = caught.value.diagnostics
    assert (found.code, found.fixes) == ("other_lease", (f"batchops unlock {who.lease_id}",))
    assert current_holder(path) == who


def test_not_leased_nothing_is_unlocked_where_nobody_holds_it(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    for state in (path, tmp_path / "none.duckdb"):
        with pytest.raises(BatchopsError) as caught:
            unlock(state, "any")
        assert [found.code for found in caught.value.diagnostics] == ["not_leased"]
    assert path.read_bytes() == before
    assert not (tmp_path / "none.duckdb").exists()
