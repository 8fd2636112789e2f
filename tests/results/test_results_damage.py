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
            ends.add((code, "[answer_file_damaged]" in said, "[query_failed]" in said or "This is a bug" in said))
    needs_no_answer = {(0, True, False)} if "FROM requests" in words[-1] else {(1, True, False)}
    assert ends == {(0, False, False), *needs_no_answer}


def test_a_query_of_state_works_whatever_is_wrong_with_answers(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = project / "state" / "answers" / "1.parquet"
    path.write_bytes(path.read_bytes()[:-40] + bytes(40))
    assert run(["query", "SELECT count(*) AS n FROM requests", "--format", "csv"]) == 0
    printed = capfd.readouterr()
    assert (printed.out, "[answer_file_damaged]" in printed.err) == ("n\n13\n", True)


def _recorded(state_path: Path, path: Path) -> None:
    """Put the size and the hash of an answer file on record, as a fetch does."""
    con = duckdb.connect(str(state_path))
    con.execute("UPDATE answer_files SET bytes = octet_length(content), sha256 = unhex(sha256(content))"
                " FROM read_blob(?)", [str(path)])  # fmt: skip
    con.close()


@pytest.fixture
def labels(tmp_path: Path) -> tuple[Path, Path]:
    """A project with 4,000 answers in two row groups, and its answer file."""
    root = tmp_path / "labels"
    (root / "jobs").mkdir(parents=True)
    state = State(root / "state" / "batchops.duckdb")
    job = state.job("labels")
    batch = state.submission(job)
    for number in range(4000):
        state.answered(job, str(number), batch, number, f"{number}")
    state.write()
    return root, root / "state" / "answers" / "1.parquet"


def test_metadata_that_contradict_each_other_are_damage_and_no_fault_of_the_query(
    labels: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """Single bits of the footer: of a column that has other counts than its group DuckDB tells no path."""
    root, path = labels
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    ends = set()
    for place in range(footer, len(whole), 19):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        code = run(["-C", str(root), "query", "SELECT count(*) FROM results.labels"])
        said = capfd.readouterr().err
        ends.add((code, "[answer_file_damaged]" in said, "[query_failed]" in said))
    assert ends == {(0, False, False), (1, True, False)}


def test_a_file_that_is_not_what_was_written_is_told_where_its_values_do_not_fit_the_query(
    labels: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    root, path = labels
    sql = "SELECT max(answer::INTEGER) FROM results.labels"
    told = []
    for answer in ("answer", "answer || '.x'"):
        con = duckdb.connect()
        con.execute(f"COPY (SELECT * REPLACE ({answer} AS answer) FROM read_parquet('{path}')) TO '{path}.new'"
                    " (FORMAT parquet)")  # fmt: skip
        con.close()
        Path(f"{path}.new").replace(path)
        told.append((run(["-C", str(root), "query", sql]), capfd.readouterr().err))
    assert told[0] == (0, "")
    assert (told[1][0], "[answer_file_damaged]" in told[1][1]) == (1, True)
    _recorded(root / "state" / "batchops.duckdb", path)
    assert run(["-C", str(root), "query", sql]) == 1
    assert "[query_failed]" in capfd.readouterr().err


def test_a_damaged_file_is_told_once_by_the_query_that_needs_it(
    labels: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    root, path = labels
    path.write_bytes(path.read_bytes()[:-40] + bytes(40))
    assert run(["-C", str(root), "query", "SELECT count(*) FROM results.labels"]) == 1
    said = capfd.readouterr().err
    assert (said.count("[answer_file_damaged]"), said.count("\n")) == (1, 1)


def test_a_column_of_another_type_is_damage(labels: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    """One bit of the footer makes bytes of a text."""
    root, path = labels
    con = duckdb.connect()
    con.execute(f"COPY (SELECT * REPLACE (answer::BLOB AS answer) FROM read_parquet('{path}')) TO '{path}.new'"
                " (FORMAT parquet)")  # fmt: skip
    con.close()
    Path(f"{path}.new").replace(path)
    for words in (["query", "SELECT * FROM results.labels"], ["results", "labels"]):
        assert run(["-C", str(root), *words]) == 1
        assert "[answer_file_damaged]" in capfd.readouterr().err


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


@pytest.mark.parametrize(
    "words", [["explain", "review-sentiment@9"], ["query", 'SELECT sentiment FROM results."review-sentiment"']]
)
def test_an_answer_that_is_no_json_any_more_is_damage(
    project: Path, capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    path = project / "state" / "answers" / "1.parquet"
    con = duckdb.connect()
    con.execute(f"""COPY (SELECT * REPLACE (answer[:-2] || 'e}}' AS answer) FROM read_parquet('{path}'))
                    TO '{path}.new' (FORMAT parquet)""")
    con.close()
    Path(f"{path}.new").replace(path)
    assert run(words) == 1
    assert "[answer_file_damaged]" in capfd.readouterr().err


def test_a_damaged_state_is_not_taken_for_damaged_answers(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each block of the state in turn; those that the question does not read may pass unseen."""
    path = project / "state" / "batchops.duckdb"
    whole = path.read_bytes()
    told = ""
    for place in range(3 * 4096, len(whole), 262_144):
        path.write_bytes(
            whole[: place + 99] + bytes(byte ^ 0x5A for byte in whole[place + 99 : place + 139]) + whole[place + 139 :]
        )
        run(["explain", "review-sentiment@9"])
        told += capfd.readouterr().err
    assert "[state_damaged]" in told
    assert "[answer_file_damaged]" not in told
    assert "[bug]" not in told


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
