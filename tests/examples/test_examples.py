"""Every project that we show, this repository's own included, validates, plans, applies and then has nothing to do."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from crew import shared_crew

from batchops.diagnostics import ExitCode

ROOT = Path(__file__).parents[2]
PROJECTS = sorted(path.parent.name for path in ROOT.glob("examples/*/batchops.toml"))
REPOSITORY = ("batchops.toml", "jobs", "prompts", "queries", "schemas")


def copy_project(name: str, target: Path) -> Path:
    if name != "repository":
        ignored = shutil.ignore_patterns("state", "__pycache__")
        return shutil.copytree(ROOT / "examples" / name, target, ignore=ignored, dirs_exist_ok=True)
    for part in REPOSITORY:
        source = ROOT / part
        shutil.copytree(source, target / part) if source.is_dir() else shutil.copy(source, target)
    return target


def run(project: Path, *words: str, expect: int = 0) -> str:
    ended = shared_crew().run(words, cwd=project, environ=os.environ)
    assert ended.code == expect, f"{words} exited {ended.code}\n{ended.out}\n{ended.err}"
    return ended.out


@pytest.fixture(scope="module", params=[*PROJECTS, "repository"])
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_project(request.param, tmp_path_factory.mktemp(request.param))
    if (folder / "extract.py").exists():
        subprocess.run([sys.executable, "extract.py"], cwd=folder, check=True, capture_output=True)
    return folder


def rows(document: str) -> dict[str, Any]:
    counts: dict[str, Any] = json.loads(document)["summary"]["rows"]
    return {kind: count for kind, count in counts.items() if count}


def test_project_works_from_validate_to_results(project: Path) -> None:
    limit = ("--limit", "100")
    run(project, "fmt", "--check")
    run(project, "validate")
    planned = rows(run(project, "plan", *limit, "--json"))
    assert list(planned) == ["submit"]

    run(project, "apply", *limit, "--auto-approve", "--wait", "--timeout", "100s")
    run(project, "plan", *limit, "--detailed-exitcode", expect=ExitCode.DONE)

    status = json.loads(run(project, "status", "--json"))
    names = [job["address"] for job in status["jobs"]]
    answers = [
        json.loads(line) for name in names for line in run(project, "results", name, "--format", "jsonl").splitlines()
    ]
    assert {answer["status"] for answer in answers} == {"succeeded"}
    assert len(answers) == planned["submit"]


def commands(readme: str) -> list[list[str]]:
    """The words of every `$ batchops` command in the console blocks, without what a shell would do to them."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", readme, flags=re.DOTALL):
        for command in re.split(r"^\$ ", block, flags=re.MULTILINE):
            words = shlex.split(command, comments=True)
            if words[:1] == ["batchops"]:
                found.append(words[1 : words.index("|") if "|" in words else None])
    return found


def test_every_command_of_the_readme_works_as_written(project: Path) -> None:
    readme = project / "README.md"
    if not readme.exists():
        pytest.skip("the README of the repository itself is about more than one project")
    if (project / "run.sh").exists():
        pytest.skip("its commands need the servers that its script starts, and test_local_model.py runs that")
    for words in commands(readme.read_text(encoding="utf-8")):
        assert run(project, *words), words


def test_stdlib_docs_has_thousands_of_distinct_documented_names(tmp_path: Path) -> None:
    folder = copy_project("stdlib-docs", tmp_path / "stdlib-docs")
    subprocess.run([sys.executable, "-W", "error", "extract.py"], cwd=folder, check=True, capture_output=True)
    entries = [json.loads(line) for line in (folder / "data" / "stdlib.jsonl").read_text("utf-8").splitlines()]
    assert len(entries) > 9_000
    assert len({entry["name"] for entry in entries}) == len(entries)
    assert all(entry["text"].strip() for entry in entries)
