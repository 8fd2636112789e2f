"""The command line as a real process, and small projects to run it in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from crew import REPOSITORY, shared_crew

SETTINGS = """\
project = "reviews"
provider = "local"
[poll]
initial = "100ms"
max = "200ms"
"""
JOB = """\
name: labels
source:
  query: SELECT id, title FROM read_csv('data/reviews.csv')
  key: id
model: gpt-5-mini
template: "Label: {{ title }}"
params: {max_completion_tokens: 50}
"""
ROWS = "id,title\n1,Fine\n2,Bad\n3,Odd\n"


def environ(**more: str) -> dict[str, str]:
    """The environment of a command: nobody's keys, no colours, batchops from this repository."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BATCHOPS_", "OPENAI_"))}
    return kept | {"PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1", "PYTHONUTF8": "1", "COLUMNS": "100"} | more


def command(*words: str) -> list[str]:
    """The command line of a process of its own, for what Python itself does at a terminal, a pipe or a signal."""
    return [sys.executable, "-m", "batchops", *words]


def batchops(root: Path, *words: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """Run to the end, without a terminal."""
    ended = shared_crew().run(words, cwd=root, environ=environ(**more), stdin=stdin)
    return subprocess.CompletedProcess(words, ended.code, ended.out, ended.err)


def make_project(root: Path, *, settings: str = SETTINGS, job: str = JOB, rows: str = ROWS) -> Path:
    """A project with one job of three rows, answered by the local provider."""
    (root / "jobs").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "batchops.toml").write_text(settings)
    (root / "jobs/labels.yaml").write_text(job)
    (root / "data/reviews.csv").write_text(rows)
    return root
