"""What a command loads before it does anything: the price of every keystroke of completion and every --help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_process import environ, make_project

HEAVY = ("openai", "duckdb", "pydantic", "ruamel", "rich", "jinja2", "watchfiles", "starlette", "orjson")
PROBE = """
import json, sys
sys.argv = ["batchops", *sys.argv[1:]]
from batchops.__main__ import main
try:
    main()
except SystemExit:
    pass
print("\\n" + json.dumps(sorted({name.split(".")[0] for name in sys.modules})), file=sys.stderr)
"""


def loaded(root: Path, *words: str, **more: str) -> set[str]:
    """The top-level modules that a command had loaded when it was done."""
    script = [sys.executable, "-c", PROBE, *words]
    done = subprocess.run(script, cwd=root, env=environ(**more), capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["plna"], ["plan", "--help"], ["apply", "--help"]])
def test_help_and_version_load_nothing_heavy(tmp_path: Path, words: list[str]) -> None:
    assert loaded(tmp_path, *words) & set(HEAVY) == set()


def test_version_does_not_even_load_click(tmp_path: Path) -> None:
    assert "click" not in loaded(tmp_path, "--version")


def test_completion_loads_nothing_heavy(tmp_path: Path) -> None:
    more = {"_BATCHOPS_COMPLETE": "bash_complete", "COMP_WORDS": "batchops plan --", "COMP_CWORD": "2"}
    assert loaded(tmp_path, **more) & set(HEAVY) == set()


def test_the_help_of_the_group_imports_no_verb(tmp_path: Path) -> None:
    script = PROBE.replace('name.split(".")[0]', "name")
    done = subprocess.run(
        [sys.executable, "-c", script, "--help"],
        cwd=tmp_path,
        env=environ(),
        capture_output=True,
        text=True,
        check=True,
    )
    ours = {name for name in json.loads(done.stderr.splitlines()[-1]) if name.startswith("batchops.cli.")}
    assert ours == {"batchops.cli.main", "batchops.cli.options", "batchops.cli.signals"}


def test_a_plan_with_nothing_in_flight_does_not_load_openai(tmp_path: Path) -> None:
    found = loaded(make_project(tmp_path / "p"), "plan")
    assert "openai" not in found
    assert "duckdb" in found


def test_show_needs_neither_duckdb_nor_pydantic_outside_of_a_project(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    assert loaded(tmp_path, "show", "plan.json") & {"openai", "duckdb", "ruamel", "rich"} == set()
