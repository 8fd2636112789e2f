"""Damaged answer files and full disks: each is told as what it is, by every verb that reads answers."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import duckdb
import pytest
from result_states import State, every_state

from batchops.cli.main import run
from batchops.store.connection import open_memory

CLI = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))\nfrom batchops.cli.main import run"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "jobs").mkdir()
    state = every_state(tmp_path / "state" / "batchops.duckdb")
    job = state.job("vectors", spec={"endpoint": "/v1/embeddings"})
    batch = state.submission(job)
    for number in range(5):
        state.answered(job, str(number), batch, number, [0.5, number])
    state.write()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["results", "review-sentiment", "--format", "jsonl"],
        ["results", "review-sentiment", "--format", "csv"],
        ["results", "review-sentiment", "-o", "out.parquet"],
        ["results", "vectors", "-o", "out.parquet"],
        ["explain", "review-sentiment@9"],
        ["query", "SELECT count(*) FROM requests"],
        ["query", 'SELECT sentiment FROM results."review-sentiment"'],
    ],
    ids=["jsonl", "csv", "parquet", "vectors", "explain", "query of state", "query of answers"],
)
def test_whatever_is_wrong_with_an_answer_file_it_is_told_of(
    project: Path, capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """Single bits and spans of 40 bytes, all over the file; those that nothing depends on may pass unseen."""
    path = project / "state" / "answers" / "1.parquet"
    whole = path.read_bytes()
    ends = set()
    for place in range(4, len(whole) - 44, 89):
        for length, mask in ((1, 1 << place % 8), (40, 0x5A)):
            changed = bytes(byte ^ mask for byte in whole[place : place + length])
            path.write_bytes(whole[:place] + changed + whole[place + length :])
            code = run(words)
            said = capfd.readouterr().err
            ends.add((code, "[answer_file_damaged]" in said, "This is a bug" in said))
    assert not [end for end in ends if end[2]]
    assert [end for end in ends if end[1]]
    if words[0] != "query":  # that works where the query needs no answer, and tells what of it failed where it does
        assert ends == {(0, False, False), (1, True, False)}


def test_a_query_of_state_works_whatever_is_wrong_with_answers(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = project / "state" / "answers" / "1.parquet"
    path.write_bytes(path.read_bytes()[:-40] + bytes(40))
    assert run(["query", "SELECT count(*) AS n FROM requests", "--format", "csv"]) == 0
    printed = capfd.readouterr()
    assert (printed.out, "[answer_file_damaged]" in printed.err) == ("n\n13\n", True)


def test_no_piece_of_a_damaged_answer_is_told(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A text that is no UTF-8: DuckDB says which."""
    state = State(project / "plain" / "state" / "batchops.duckdb")
    job = state.job("plain")
    state.answered(job, "1", state.submission(job), 0, "a secret word")
    state.write()
    (project / "plain" / "jobs").mkdir()
    path = project / "plain" / "state" / "answers" / "1.parquet"
    con = duckdb.connect()
    con.execute(f"COPY (FROM read_parquet('{path}')) TO '{path}.new' (FORMAT parquet, COMPRESSION uncompressed)")
    con.close()
    path.write_bytes(Path(f"{path}.new").read_bytes().replace(b"secret word", b"secret wor\xff"))
    assert run(["-C", str(project / "plain"), "results", "plain", "--format", "jsonl"]) == 1
    said = capfd.readouterr().err
    assert ("[answer_file_damaged]" in said, "secret" in said) == (True, False)


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_full_disk_below_the_output_is_not_taken_for_damage(project: Path, form: str) -> None:
    command = [sys.executable, "-c", f"{CLI.format(64)}\nsys.exit(run())"]
    ran = subprocess.run(
        [*command, "results", "review-sentiment", "-o", f"out.{form}"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, "[output_unwritable]" in ran.stderr, "File too large" in ran.stderr) == (1, True, True)
    assert sorted(path.name for path in project.iterdir()) == ["jobs", "state"]


@pytest.mark.parametrize("words", [["results", "long"], ["query", "SELECT * FROM results.long ORDER BY answer"]])
def test_a_full_temporary_folder_is_not_taken_for_damage(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    state = State(project / "big" / "state" / "batchops.duckdb")
    job = state.job("long")
    batch = state.submission(job)
    for number in range(40_000):
        state.answered(job, str(number), batch, number, f"{number:08}" * 50)
    state.write()
    (project / "big" / "jobs").mkdir()
    limited = partial(open_memory, threads=1)
    monkeypatch.setattr(
        "batchops.store.snapshot.open_memory", lambda **given: limited(**given | {"memory_limit": "40MB"})
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        code = run(["-C", str(project / "big"), *words, "--json"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    found = json.loads(capfd.readouterr().out)["diagnostics"][0]
    assert (code, found["code"], "TMPDIR" in found["detail"]) == (1, "scratch_unwritable", True)
