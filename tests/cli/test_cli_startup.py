"""What a command loads before it does anything: the price of every keystroke of completion and every --help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_process import batchops, environ, make_project

from batchops.engine.operations import make_plan
from batchops.engine.project import open_project
from batchops.settings import load_settings
from batchops.spec import load
from batchops.spec.yaml import Parsed, parse

HEAVY = ("openai", "duckdb", "pydantic", "ruamel", "rich", "jinja2", "watchfiles", "starlette", "orjson")
PROBE = """
import json, sys
sys.argv = ["batchops", *sys.argv[1:]]
from batchops.__main__ import main
try:
    main()
except SystemExit:
    pass
print("\\n" + json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def modules(root: Path, *words: str, **more: str) -> set[str]:
    """The modules that a command had loaded when it was done."""
    script = [sys.executable, "-W", "error", "-c", PROBE, *words]  # Python ends as it always does then
    done = subprocess.run(script, cwd=root, env=environ(**more), capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


def loaded(root: Path, *words: str, **more: str) -> set[str]:
    """The top-level ones of them."""
    return {name.split(".")[0] for name in modules(root, *words, **more)}


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["plna"], ["plan", "--help"], ["apply", "--help"]])
def test_help_and_version_load_nothing_heavy(tmp_path: Path, words: list[str]) -> None:
    assert loaded(tmp_path, *words) & set(HEAVY) == set()


def test_version_does_not_even_load_click(tmp_path: Path) -> None:
    assert "click" not in loaded(tmp_path, "--version")


def test_completion_loads_nothing_heavy(tmp_path: Path) -> None:
    more = {"_BATCHOPS_COMPLETE": "bash_complete", "COMP_WORDS": "batchops plan --", "COMP_CWORD": "2"}
    assert loaded(tmp_path, **more) & set(HEAVY) == set()


def test_the_help_of_the_group_imports_no_verb(tmp_path: Path) -> None:
    ours = {name for name in modules(tmp_path, "--help") if name.startswith("batchops.cli.")}
    assert ours == {"batchops.cli.main", "batchops.cli.options", "batchops.cli.signals"}


READING = {
    "annotated_types", "click", "duckdb", "jinja2", "jsonschema_rs", "markupsafe", "orjson", "pydantic",
    "pydantic_core", "ruamel", "typing_extensions", "typing_inspection",
}  # fmt: skip
"""What it takes to read specs and bind their queries: nothing that talks to anybody, and nothing that draws."""


def libraries(modules: set[str]) -> set[str]:
    others = {"batchops", "cython_runtime"}  # the latter comes with any extension made by Cython
    return {name for name in modules - sys.stdlib_module_names if not name.startswith("_")} - others


@pytest.mark.parametrize("words", [["validate"], ["plan"], ["plan", "--offline", "--json"]])
def test_reading_a_project_loads_what_it_takes_and_nothing_else(tmp_path: Path, words: list[str]) -> None:
    assert libraries(loaded(make_project(tmp_path / "p"), *words)) == READING


def test_a_plan_with_nothing_to_do_loads_nothing_that_acts(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p")
    assert batchops(root, "apply", "--auto-approve", "--wait").returncode == 0
    found = modules(root, "plan")
    assert libraries({name.split(".")[0] for name in found}) == READING
    acting = ("converge", "submit", "fetch", "judge", "settle", "adopt")
    assert found & {f"batchops.engine.{name}" for name in acting} == set()
    writing = {"batchops.store.changes", "batchops.store.job_changes", "batchops.store.lease", "batchops.plan.events"}
    assert found & (writing | {"batchops.views.progress", "batchops.server"}) == set()


def test_a_command_reads_each_spec_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_project(tmp_path / "p")
    read: list[str] = []

    def noted(data: bytes, name: str) -> Parsed:
        read.append(name)
        return parse(data, name)

    monkeypatch.setattr(load, "parse", noted)
    with monkeypatch.context() as patched:
        patched.chdir(root)
        with open_project(root, load_settings(root, environ={})) as project:
            make_plan(project, offline=True)
    assert sorted(read) == sorted(path.relative_to(root).as_posix() for path in (root / "jobs").iterdir())


def test_show_needs_neither_duckdb_nor_pydantic_outside_of_a_project(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    assert loaded(tmp_path, "show", "plan.json") & {"openai", "duckdb", "ruamel", "rich"} == set()
