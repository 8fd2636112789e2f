"""Every diagnostic code has a case that shows it, a variant that does not, and a line in docs/diagnostics.md.

A case file `tests/cases/diagnostics/CODE.yaml` has `command` (the words after `batchops`), `files` (the project),
`expect` (what must be printed), `exit`, and `ok` (the files to replace). A file is a text, or a mapping with one of
`base64: …`, `link: TARGET`, or `repeat: TEXT` and `times: N`; null removes a file. Codes that only faults at run time
can show are listed in RUNTIME.txt as `code: path::test_name`.
"""

from __future__ import annotations

import ast
import base64
import importlib.util
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crew import Command, shared_crew

from batchops.cli.main import module_of
from batchops.spec.yaml import parse

ROOT = Path(__file__).parent.parent
CASES = Path(__file__).parent / "cases" / "diagnostics"
RUNTIME = CASES / "RUNTIME.txt"
_CODE = re.compile(r"[a-z][a-z0-9_]*\Z")


def _read(path: Path) -> dict[str, Any]:
    parsed = parse(path.read_bytes(), path.name)
    assert not parsed.diagnostics, f"{path.name} is not a readable case: {parsed.diagnostics}"
    case = parsed.documents[0].tree
    assert set(case) == {"command", "files", "expect", "exit", "ok"}, f"{path.name} has other keys than a case"
    return dict(case)


def _write(root: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        match content:
            case str():
                target.write_text(content, encoding="utf-8")
            case {"base64": encoded}:
                target.write_bytes(base64.b64decode(encoded))
            case {"link": to}:
                target.symlink_to(to)
            case {"repeat": text, "times": times}:
                target.write_text(text * times, encoding="utf-8")
            case None:
                pass
            case _:
                raise AssertionError(f"{name}: {content!r} is no file of a case")


def _start(root: Path, files: dict[str, Any], command: str) -> Command:
    root.mkdir()
    _write(root, files)
    if not any((root / name).exists() for name in ("batchops.toml", "pyproject.toml")):
        (root / "batchops.toml").write_text('provider = "local"\n', encoding="utf-8")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("BATCHOPS_", "OPENAI_"))}
    environ |= {"NO_COLOR": "1", "HOME": str(root)}
    return shared_crew().start(shlex.split(command), cwd=root, environ=environ)


def _shows(output: str, code: str) -> bool:
    return f"[{code}]" in output or f'"code": "{code}"' in output or f'"code":"{code}"' in output


def _is_built(verb: str) -> bool:
    return importlib.util.find_spec(f"batchops.cli.{module_of(verb)}") is not None


@pytest.mark.parametrize("path", sorted(CASES.glob("*.yaml")), ids=lambda path: path.stem)
def test_code_is_shown_where_it_should_be_and_not_where_all_is_well(path: Path, tmp_path: Path) -> None:
    case = _read(path)
    if not _is_built(case["command"].split()[0]):
        pytest.skip(f"the verb of `{case['command']}` is not built yet")
    wrong = _start(tmp_path / "wrong", case["files"], case["command"])
    right = _start(tmp_path / "right", {**case["files"], **case["ok"]}, case["command"])
    ended = wrong.wait(60)
    shown, silent = (found.out + found.err for found in (ended, right.wait(60)))
    assert case["expect"] in shown
    assert _shows(shown, path.stem), shown
    assert ended.code == case["exit"], shown
    assert not _shows(silent, path.stem), silent
    assert "This is a bug in batchops" not in silent, silent


def _calls() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted((ROOT / "batchops").rglob("*.py")):
        if path.name == "diagnostics.py" and path.parent.name == "batchops":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"error", "warning"}:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def _codes() -> dict[str, str]:
    """Every code that is raised, with one place."""
    found: dict[str, str] = {}
    for place, call in _calls():
        first = call.args[0] if call.args else None
        assert isinstance(first, ast.Constant), f"{place}: the code must be a text literal and the first argument"
        assert _CODE.match(str(first.value)), f"{place}: {first.value!r} is not a snake_case code"
        found.setdefault(str(first.value), place)
    return found


def _runtime() -> dict[str, str]:
    lines = RUNTIME.read_text(encoding="utf-8").splitlines() if RUNTIME.exists() else []
    written = [line.partition(":") for line in lines if line.strip() and not line.startswith("#")]
    return {code.strip(): test.strip() for code, _, test in written}


def _documented() -> set[str]:
    page = (ROOT / "docs" / "diagnostics.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `([a-z0-9_]+)` \|", page, flags=re.MULTILINE))


def test_every_code_that_is_raised_has_a_case_that_shows_it() -> None:
    shown = {path.stem for path in CASES.glob("*.yaml")} | _runtime().keys()
    assert {code: place for code, place in _codes().items() if code not in shown} == {}


def test_every_case_shows_a_code_that_is_raised() -> None:
    assert {path.stem for path in CASES.glob("*.yaml")} | _runtime().keys() <= _codes().keys()


def test_every_code_has_one_summary_wherever_it_is_raised() -> None:
    summaries: dict[str, set[str]] = {}
    for _, call in _calls():
        code, summary, *_ = map(ast.unparse, call.args)
        summaries.setdefault(code, set()).add(summary)
    assert {code: found for code, found in summaries.items() if len(found) > 1} == {}


def test_every_code_has_exactly_one_line_in_the_docs() -> None:
    assert _documented() == _codes().keys()


@pytest.mark.parametrize(("code", "test"), sorted(_runtime().items()))
def test_code_that_only_faults_show_has_the_test_that_is_named(code: str, test: str) -> None:
    path, _, name = test.partition("::")
    assert (ROOT / path).is_file(), f"{code}: {path} does not exist"
    functions = {
        node.name
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert name.partition("[")[0] in functions, f"{code}: {path} has no test {name}"
