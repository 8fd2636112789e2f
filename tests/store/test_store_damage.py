"""What stands in the state's place and is no state: each has its own sentence, and nobody writes to it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from made_states import environment, held, lived, write

from batchops.diagnostics import BatchopsError
from batchops.store import connection
from batchops.store.copies import copy_file
from batchops.store.push import push
from batchops.store.snapshot import snapshot
from batchops.store.store import StateReader


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a state with some life in it, compacted: every block of the file is in use."""
    path = lived(tmp_path_factory.mktemp("sound") / "batchops.duckdb")
    copy_file(path, path)
    return path.read_bytes()


def _flipped(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + 64] = b"\xa5" * len(content[at : at + 64])
    path.write_bytes(bytes(content))


def _sqlite(path: Path) -> None:
    path.unlink()
    con = sqlite3.connect(path)
    con.execute("CREATE TABLE rows (job_id INTEGER)")
    con.commit()
    con.close()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _duckdb(path: Path, *statements: str) -> None:
    path.unlink()
    write(path, *statements)


DAMAGES: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "empty": ("state_damaged", "it is empty", lambda path: path.write_bytes(b"")),
    "cut in its header": ("state_damaged", "Could not read", lambda path: os.truncate(path, 5000)),
    "cut in half": ("state_damaged", "cut short", lambda path: os.truncate(path, path.stat().st_size // 2)),
    "cut at its end": ("state_damaged", "cut short", lambda path: os.truncate(path, path.stat().st_size - 9000)),
    "flipped bits": ("state_damaged", "checksum", lambda path: _flipped(path, 4110)),
    "flipped bits in its tables": ("state_damaged", "checksum", lambda path: _flipped(path, 12_400)),
    "text": ("state_foreign", "another kind of file", lambda path: path.write_text("hello\n" * 2000)),
    "SQLite": ("state_foreign", "another kind of file", _sqlite),
    "a folder": ("state_foreign", "another kind of file", _folder),
    "a DuckDB file": ("state_foreign", "other tables", lambda path: _duckdb(path, "CREATE TABLE meta (x INTEGER)")),
    "no identity": ("state_foreign", "identity", lambda path: write(path, "DELETE FROM meta")),
    "too new": ("state_too_new", "version 999", lambda path: write(path, "UPDATE meta SET schema_version = 999")),
}


def _by_snapshot(path: Path) -> None:
    with snapshot(path):
        pass


def _by_lease(path: Path) -> None:
    with held(path):
        pass


USES: dict[str, Callable[[Path], object]] = {
    "read": lambda path: StateReader(path).rows("SELECT count(DISTINCT digest) FROM state.rows"),
    "snapshot": _by_snapshot,
    "lease": _by_lease,
    "pull": lambda path: copy_file(path, path.with_name("copy.duckdb")),
    "push of it": lambda path: push(path, path.with_name("target.duckdb")),
}


def _fingerprint(path: Path) -> object:
    return sorted(path.iterdir()) if path.is_dir() else (path.read_bytes(), path.stat().st_mtime_ns)


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("use", USES)
def test_what_is_no_state_has_its_own_sentence_and_is_left_as_it_is(
    tmp_path: Path, sound: bytes, kind: str, use: str
) -> None:
    path = tmp_path / "batchops.duckdb"
    path.write_bytes(sound)
    code, says, damage = DAMAGES[kind]
    damage(path)
    before = _fingerprint(path)
    with pytest.raises(BatchopsError) as caught:
        USES[use](path)
    (found,) = caught.value.diagnostics
    assert (found.code, caught.value.exit_code) == (code, 1)
    assert says in found.detail
    assert _fingerprint(path) == before
    assert {found.name for found in tmp_path.iterdir()} <= {path.name, "batchops.lease", "target.lease"}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_happens_to_a_state_between_two_visits_is_noticed(tmp_path: Path, sound: bytes, kind: str) -> None:
    path = tmp_path / "batchops.duckdb"
    path.write_bytes(sound)
    code, says, damage = DAMAGES[kind]
    for _ in range(2):
        USES["read"](path)
    before = path.stat()
    damage(path)
    if path.is_file():
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copying tool leaves it
    for _ in range(2):
        with pytest.raises(BatchopsError) as caught:
            USES["read"](path)
        assert (caught.value.diagnostics[0].code, says in caught.value.diagnostics[0].detail) == (code, True)


def test_a_state_that_is_replaced_while_it_is_opened_is_looked_at_again(
    tmp_path: Path, sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, newer = tmp_path / "batchops.duckdb", tmp_path / "newer.duckdb"
    for each in (path, newer):
        each.write_bytes(sound)
    write(newer, "UPDATE meta SET schema_version = 999")
    attach = connection._attach

    def replaced(con: duckdb.DuckDBPyConnection, statement: str, *rest: Any) -> None:
        attach(con, statement, *rest)
        newer.replace(path)

    with monkeypatch.context() as patched:
        patched.setattr(connection, "_attach", replaced)
        USES["read"](path)  # the one that was there
    with pytest.raises(BatchopsError, match="newer version"):
        USES["read"](path)


def test_a_damaged_state_is_only_pushed_over_by_force_and_kept_aside(tmp_path: Path) -> None:
    source = lived(tmp_path / "good" / "batchops.duckdb")
    path = tmp_path / "state" / "batchops.duckdb"
    path.parent.mkdir()
    path.write_bytes(b"rubbish")
    with pytest.raises(BatchopsError):
        push(source, path)
    done = push(source, path, force=True)
    assert done.kept is not None
    assert done.kept.name.startswith("batchops-damaged-")
    assert done.kept.read_bytes() == b"rubbish"
    assert StateReader(path).identity().serial == done.serial


def test_damage_deep_in_a_table_is_found_when_it_is_read_and_said_so(tmp_path: Path) -> None:
    path = lived(tmp_path / "batchops.duckdb")
    write(path, "INSERT INTO events SELECT 1, NULL, 1, 'tick', md5(i::VARCHAR), '{}' FROM range(40000) t(i)")
    content = path.read_bytes()
    codes = set()
    for at in range(300_000, len(content) - 64, 262_144):
        path.write_bytes(content)
        _flipped(path, at)
        codes.add(_code_of_reading(path))
    assert "state_damaged" in codes
    assert codes <= {"state_damaged", None}


def _code_of_reading(path: Path) -> str | None:
    try:
        StateReader(path).rows("SELECT max(subject) FROM state.events")
    except BatchopsError as problem:
        return problem.diagnostics[0].code
    return None


FULL = """
import resource, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID
import duckdb
from batchops.diagnostics import BatchopsError
from batchops.store.changes import Created, Creating
from batchops.store.job_changes import HoldJobs
from batchops.store.lease import leased

path, room, which = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
changes = {
    "hold": HoldJobs("default", ("open",), "x" * 100_000),
    "created": Created(1, "batch_9", {"metadata": "x" * 100_000}, 'open["gpt-5"]'),
}
try:
    with leased(path, project="reviews", environ={}) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        store.commit(changes[which])
except BatchopsError as problem:
    (found,) = problem.diagnostics
    print(found.code, found.detail, *found.fixes, sep="\\n")
"""


def _commit_without_room(path: Path, which: str) -> list[str]:
    command = [sys.executable, "-c", FULL, str(path), "20000", which]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


def test_state_unwritable_a_commit_that_finds_no_room_records_nothing_and_says_so(tmp_path: Path) -> None:
    path = lived(tmp_path / "batchops.duckdb")
    before = StateReader(path).identity()
    code, detail, *fixes = _commit_without_room(path, "hold")
    assert code == "state_unwritable"
    assert "File too large" in detail
    assert fixes == []
    assert StateReader(path).identity() == before
    assert StateReader(path).rows("SELECT held FROM state.jobs WHERE address = 'open'") == [{"held": None}]
    with held(path) as store:
        assert store.identity() == before, "the next one goes on"


def test_a_batch_whose_id_could_not_be_written_is_kept_beside_with_the_line_that_records_it(tmp_path: Path) -> None:
    path = lived(tmp_path / "batchops.duckdb")
    write(path, "UPDATE submissions SET phase = 'creating' WHERE submission_id = 1")
    code, detail, fix = _commit_without_room(path, "created")
    assert (code, fix) == ("state_unwritable", """batchops import 'open["gpt-5"]' batch_9""")
    note = (tmp_path / "errored.jsonl").read_text()
    assert str(tmp_path / "errored.jsonl") in detail
    assert '"batch_id":"batch_9"' in note
    assert StateReader(path).rows("SELECT phase FROM state.submissions WHERE submission_id = 1") == [
        {"phase": "creating"}
    ]


def test_a_folder_that_allows_no_writing_is_no_damage(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    with pytest.raises(BatchopsError) as caught, held(file / "state" / "batchops.duckdb"):
        pass
    assert [found.code for found in caught.value.diagnostics] == ["state_unwritable"]


def test_no_state_is_taken_for_a_short_one_however_often_it_was_written(tmp_path: Path) -> None:
    """Free blocks make a file longer than it has to be, and none may ever make it look shorter."""
    path = lived(tmp_path / "batchops.duckdb")
    con = duckdb.connect(path)
    for size in (50_000, 200, 90_000, 0, 30_000):
        con.execute("DELETE FROM events")
        con.execute("INSERT INTO events SELECT i, NULL, 1, 'tick', md5(i::VARCHAR), '{}' FROM range(?) t(i)", [size])
        con.execute("CHECKPOINT")
    con.close()
    with held(path) as store:
        assert store.rows("SELECT count(*) AS n FROM state.events") == [{"n": 30_000}]
