"""The entry points as users start them, one command line of every verb: what a fresh process says is what a forked one
says, so that the rest of the tests may fork.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_process import batchops, command, environ, make_project
from crew import shared_crew

from batchops.cli.main import VERBS

WORDS = {
    "init": ["init", "new"],
    "validate": ["validate", "--json"],
    "fmt": ["fmt", "--diff", "drafts"],
    "plan": ["plan", "--detailed-exitcode"],
    "show": ["show", "plan.json"],
    "apply": ["apply", "--auto-approve"],
    "status": ["status"],
    "wait": ["wait"],
    "watch": ["watch", "--limit", "none"],
    "cancel": ["cancel", "labels"],
    "retry": ["retry", "labels"],
    "results": ["results", "labels", "--format", "jsonl"],
    "query": ["query", "SELECT job, count(*) AS n FROM requests GROUP BY ALL"],
    "explain": ["explain", "labels"],
    "render": ["render", "labels"],
    "import": ["import", "labels", "batch_that_nobody_made"],
    "state": ["state", "list"],
    "unlock": ["unlock", "nothing"],
    "serve": ["serve", "--key", "not-a-reference"],
    "schema": ["schema"],
    "doctor": ["doctor"],
}
"""A command line of each verb that says the same wherever and whenever it is given to the same project."""


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose three rows are answered, with the plan that was saved before."""
    root = make_project(tmp_path_factory.mktemp("entry") / "p")
    (root / "drafts").mkdir()
    (root / "drafts/untidy.yaml").write_text("model:   gpt-5-mini\nname: draft\n")
    assert batchops(root, "plan", "--out", "plan.json").returncode == 0
    assert batchops(root, "apply", "--auto-approve", "--wait", "--timeout", "60s").returncode == 0
    return root


def test_every_verb_has_a_command_line_here() -> None:
    assert list(WORDS) == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_a_fresh_process_and_a_forked_one_end_alike(applied: Path, tmp_path: Path, verb: str) -> None:
    root = tmp_path / "p"
    shutil.copytree(applied, root)
    fresh = subprocess.run(
        command(*WORDS[verb]), cwd=root, env=environ(), capture_output=True, text=True, check=False, timeout=120
    )
    shutil.rmtree(root)
    shutil.copytree(applied, root)
    forked = shared_crew().run(WORDS[verb], cwd=root, environ=environ())
    assert (forked.code, told(forked.out), told(forked.err)) == (
        fresh.returncode,
        told(fresh.stdout),
        told(fresh.stderr),
    )
    assert fresh.stdout or fresh.stderr
    assert "Traceback" not in fresh.stderr
    assert "This is a bug" not in fresh.stderr


def told(text: str) -> str:
    """What was said, but for the time of day, spans of time and free ports."""
    return re.sub(r"\d{4}-\d\d-\d\d\S+|\d+(\.\d+)? (ms|s|min)\b|127.0.0.1:\d+", "…", text)


def test_the_console_script_is_the_same_command_line(applied: Path) -> None:
    script = [str(Path(sys.executable).with_name("batchops")), "render", "labels"]
    done = subprocess.run(script, cwd=applied, env=environ(), capture_output=True, text=True, check=True)
    assert done.stdout == batchops(applied, "render", "labels").stdout
