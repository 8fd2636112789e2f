"""A state that somebody else holds, or that is broken: every verb says so, and none writes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable

import pytest
from desk import Desk
from surgery_bench import SETTINGS, codes, job, rows, state, write

HOLDER = """
import sys
from pathlib import Path
from batchops.store.lease import leased
with leased(Path(sys.argv[1]), project="demo", environ={}):
    print("held", flush=True)
    sys.stdin.read()
"""
WRITING = {
    "apply": ["apply", "--auto-approve"],
    "wait": ["wait"],
    "cancel": ["cancel", "chat"],
    "retry": ["retry", "chat"],
    "import": ["import", "chat", "batch_1"],
    "mv": ["state", "mv", "chat", "talk"],
    "rm": ["state", "rm", "chat"],
    "push": ["state", "push", "--force", "copy.duckdb"],
    "repair": ["state", "repair"],
    "compact": ["state", "compact"],
}
READING = {
    "plan": ["plan"],
    "status": ["status"],
    "results": ["results", "chat"],
    "query": ["query", "SELECT * FROM requests"],
    "explain": ["explain", "chat"],
    "list": ["state", "list"],
    "show": ["state", "show", "chat"],
    "pull": ["state", "pull", "pulled.duckdb"],
}


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A project with the local provider that was applied once."""
    workshop = Desk(tmp_path_factory.mktemp("applied"))
    workshop.write({"batchops.toml": f'provider = "local"\n{SETTINGS}', "jobs/chat.yaml": job("chat")})
    workshop.apply()
    return workshop


def test_who_holds_the_state_stops_every_writer_and_no_reader(applied: Desk) -> None:
    applied.run("state", "pull", "copy.duckdb", "--force")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(state(applied))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=applied.environment(),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        lease = str(rows(applied, "SELECT lease_id::VARCHAR AS id FROM state.lease")[0]["id"])
        for name, words in WRITING.items():
            ran = applied.run(*words, code=None)
            assert (name, ran.code) == (name, 11)
            assert f"process {process.pid}" in ran.err
            assert f"    batchops unlock {lease}\n" in ran.err
        assert codes(applied.run("unlock", lease, "--json", code=11)) == ["lease_alive"]
        for name, words in READING.items():
            assert (name, applied.run(*words, code=None).code) == (name, 0)
        process.kill()
        process.wait()
        assert codes(applied.run("unlock", "another", "--json", code=1)) == ["other_lease"]
        assert "can write nothing more" in applied.run("unlock", lease).out
        assert codes(applied.run("unlock", lease, "--json", code=1)) == ["not_leased"]
        applied.run("retry", "chat")
    finally:
        process.kill()
        process.communicate()
    (applied.root / "pulled.duckdb").unlink()


BROKEN: dict[str, tuple[str, Callable[[bytes], bytes] | None]] = {
    "empty": ("state_damaged", lambda content: b""),
    "cut": ("state_damaged", lambda content: content[: len(content) // 2]),
    "text": ("state_foreign", lambda content: b"not a database\n" * 1000),
    "SQLite": ("state_foreign", lambda content: b"SQLite format 3\x00" + bytes(4096)),
    "newer": ("state_too_new", None),
}


@pytest.mark.parametrize(
    "kind", ["empty", "text", "newer", *(pytest.param(kind, marks=pytest.mark.full) for kind in ("cut", "SQLite"))]
)
def test_every_verb_says_what_is_wrong_with_the_state_and_writes_nothing(applied: Desk, kind: str) -> None:
    path = state(applied)
    sound = path.read_bytes()
    applied.run("state", "pull", "copy.duckdb", "--force")
    code, damage = BROKEN[kind]
    if damage is None:
        write(applied, "UPDATE meta SET schema_version = 99")
    else:
        path.write_bytes(damage(sound))
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    verbs = {**WRITING, **READING, "doctor": ["doctor"], "unlock": ["unlock", "x"],
             "push": ["state", "push", "copy.duckdb"]}  # fmt: skip
    try:
        for name, words in verbs.items():
            ran = applied.run(*words, code=None)
            assert (name, ran.code) == (name, 1), ran.err
            assert f"[{code}]" in ran.err, f"{name}: {ran.err}"
            assert hashlib.sha256(path.read_bytes()).hexdigest() == before, name
        assert not (applied.root / "pulled.duckdb").exists()
        applied.run("state", "push", "--force", "copy.duckdb")
        applied.run("plan", "--detailed-exitcode")
    finally:
        path.write_bytes(sound)
