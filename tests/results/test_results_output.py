"""Where `results -o` writes: what stands at the path is neither destroyed nor waited for."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from result_states import every_state


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "jobs").mkdir()
    every_state(tmp_path / "state" / "batchops.duckdb").write()
    return tmp_path


def results(
    project: Path, *words: str, stdout: IO[bytes] | int = subprocess.PIPE, pass_fds: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "batchops", "results", "review-sentiment", *words]
    return subprocess.run(
        command, cwd=project, stdout=stdout, stderr=subprocess.PIPE, pass_fds=pass_fds, timeout=120, check=False
    )


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_pipe_that_a_shell_names_by_its_number_is_written_through(project: Path, form: str) -> None:
    reading, writing = os.pipe()
    ran = results(project, "--format", form, "-o", f"/proc/self/fd/{writing}", pass_fds=(writing,))
    os.close(writing)
    with os.fdopen(reading, "rb") as read:
        assert (ran.returncode, ran.stderr, read.read()) == (0, b"", results(project, "--format", form).stdout)


def test_parquet_to_a_pipe_is_refused_without_waiting_for_a_reader(project: Path) -> None:
    os.mkfifo(project / "pipe.parquet")
    ran = results(project, "-o", "pipe.parquet")
    assert (ran.returncode, b"[output_needed]" in ran.stderr) == (64, True)
    assert stat.S_ISFIFO((project / "pipe.parquet").stat().st_mode)


def test_the_file_that_stdout_is_added_to_is_added_to(project: Path) -> None:
    log = project / "log.csv"
    log.write_bytes(b"before\n")
    with log.open("ab") as stdout:
        assert results(project, "-o", "log.csv", stdout=stdout).returncode == 0
    assert log.read_bytes() == b"before\n" + results(project, "--format", "csv").stdout


def test_a_file_that_is_named_by_its_number_is_added_to_and_not_replaced(project: Path) -> None:
    log = project / "log.csv"
    with log.open("wb") as opened:
        number = opened.fileno()
        assert results(project, "-o", f"/proc/self/fd/{number}", "--format", "csv", pass_fds=(number,)).returncode == 0
        assert os.path.samestat(os.fstat(number), log.stat())
    assert log.read_bytes() == results(project, "--format", "csv").stdout
    with log.open("wb") as opened:
        refused = results(project, "-o", f"/proc/self/fd/{opened.fileno()}", "--format", "parquet",
                          pass_fds=(opened.fileno(),))  # fmt: skip
    assert (refused.returncode, b"[output_needed]" in refused.stderr, log.read_bytes()) == (64, True, b"")


def test_links_in_a_circle_are_told_of_and_left(project: Path) -> None:
    (project / "a.csv").symlink_to("b.csv")
    (project / "b.csv").symlink_to("a.csv")
    ran = results(project, "-o", "a.csv")
    assert (ran.returncode, b"[output_unwritable]" in ran.stderr) == (1, True)
    assert (project / "a.csv").is_symlink()
