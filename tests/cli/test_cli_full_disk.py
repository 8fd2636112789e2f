"""Disks that take no more, below the project and below the output: said as that, never as a bug or a wrong query."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_process import SETTINGS, batchops, command, environ, make_project

FULL = Path("/dev/full")
GREATEST_FILE = """
import resource, signal, sys
from batchops.cli.main import run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
sys.exit(run())
"""
MANY = """\
name: labels
source:
  query: SELECT i AS id, repeat(md5(i::VARCHAR), 30) AS title FROM range(12000) t(i)
  key: id
model: gpt-5-mini
template: "Label: {{ title }}"
"""
LONG = f"""\
name: labels
source:
  query: SELECT i AS id FROM range(3000) t(i)
  key: id
model: gpt-5-mini
template: "{"word " * 1000}{{{{ id }}}}"
"""
VECTORS = """\
name: labels
source: {query: SELECT i AS id FROM range(800) t(i), key: id}
endpoint: /v1/embeddings
model: text-embedding-3-small
template: "Row {{ id }}"
batch: {max_requests: 400}
"""
needs_full = pytest.mark.skipif(not FULL.exists(), reason="/dev/full is there on Linux alone")


def _limited(root: Path, size: int, *words: str) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, "-c", GREATEST_FILE, str(size), *words]
    return subprocess.run(script, cwd=root, env=environ(), capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("words", [["plan", "--offline"], ["render", "labels"]], ids=lambda words: words[0])
def test_a_disk_that_does_not_hold_the_rows_of_a_source_is_no_fault_of_its_query(
    tmp_path: Path, words: list[str]
) -> None:
    make_project(tmp_path, job=MANY)
    ended = _limited(tmp_path, 1_000_000, *words)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "[scratch_unwritable]" in ended.stderr
    assert "File too large" in ended.stderr


def test_a_disk_that_does_not_hold_an_input_file_is_told_and_the_rows_are_sent_once_there_is_room(
    tmp_path: Path,
) -> None:
    make_project(tmp_path, job=LONG)
    ended = _limited(tmp_path, 8_000_000, "apply", "--auto-approve", "--json")
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["diagnostic"]["code"] for line in lines if line["type"] == "diagnostic"] == ["scratch_unwritable"]
    assert (ended.returncode, lines[-1]["type"], lines[-1]["exit_code"]) == (1, "apply_complete", 1)
    again = _limited(tmp_path, 100_000_000, "apply", "--auto-approve", "--wait", "--json")
    done = json.loads(again.stdout.splitlines()[-1])
    assert (again.returncode, done["summary"]["rows"]["unchanged"]) == (0, 3000)


def test_a_disk_that_does_not_hold_what_is_imported_is_told_and_it_is_imported_once_there_is_room(
    tmp_path: Path,
) -> None:
    make_project(tmp_path, job=LONG)
    applied = batchops(tmp_path, "apply", "--auto-approve", "--wait", "--json").stdout.splitlines()
    (batch,) = [event["batch_id"] for event in map(json.loads, applied) if event["type"] == "batch_created"]
    for path in (tmp_path / "state").glob("batchops.duckdb*"):  # the provider still has it
        path.unlink()
    ended = _limited(tmp_path, 8_000_000, "import", "labels", batch, "--json")
    (found,) = json.loads(ended.stdout)["diagnostics"]
    assert (ended.returncode, found["code"]) == (1, "scratch_unwritable")
    again = _limited(tmp_path, 100_000_000, "import", "labels", batch, "--json")
    assert [(each["requests"], each["is_fetched"]) for each in json.loads(again.stdout)["batches"]] == [(3000, True)]


def test_a_disk_that_does_not_hold_merged_answers_is_told_and_they_stay_as_they_are(tmp_path: Path) -> None:
    make_project(tmp_path, job=VECTORS)
    assert batchops(tmp_path, "apply", "--auto-approve", "--wait").returncode == 0
    ended = _limited(tmp_path, 9_000_000, "state", "compact", "--json")
    (found,) = json.loads(ended.stdout)["diagnostics"]
    assert (ended.returncode, found["code"]) == (1, "scratch_unwritable")
    assert "File too large" in found["detail"]
    assert batchops(tmp_path, "doctor").returncode == 0


@needs_full
@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["--help"],
        ["plan", "--help"],
        ["validate", "--json"],
        ["plan"],
        ["render", "labels"],
        ["query", "SELECT 1"],
        ["status"],
        ["apply", "--auto-approve", "--json"],
    ],
    ids=" ".join,
)
def test_an_output_that_takes_no_more_is_told_of_on_stderr(tmp_path: Path, words: list[str]) -> None:
    make_project(tmp_path, settings=SETTINGS)
    with FULL.open("w") as full:
        ended = subprocess.run(
            command(*words), cwd=tmp_path, env=environ(), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    said = ended.stderr.splitlines()
    assert (ended.returncode, len(said)) == (1, 1)
    assert said[0].startswith("error: The output cannot be written. ")
    assert "No space left on device" in said[0]
    assert said[0].endswith("[output_unwritable]")


def test_a_bug_whose_log_cannot_be_written_shows_its_traceback(tmp_path: Path) -> None:
    script = "import batchops.cli.show as show\nshow._found = None\n" + GREATEST_FILE
    words = [sys.executable, "-c", script, "0", "show", "plan.json"]
    ended = subprocess.run(words, cwd=tmp_path, env=environ(), capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "TypeError: 'NoneType' object is not callable" in ended.stderr
    assert ended.stderr.endswith("Nothing that was submitted is lost.\n  The traceback is above\n")
