"""What the repository promises about itself: documentation that misses nothing, locks that fit, clean texts."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from pydantic import BaseModel
from ruamel.yaml import YAML

from batchops import __version__
from batchops.cli.main import VERBS
from batchops.diagnostics import ExitCode
from batchops.settings import Settings
from batchops.spec.job import JobSpec

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def tracked() -> list[Path]:
    """Every file that is, or would be, committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def pages() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md"]


def undocumented(words: Iterable[str], page: str) -> list[str]:
    """The words that never stand as a word in `page`."""
    text = read(page)
    return [word for word in words if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)]


# What users are told


def test_every_verb_is_documented() -> None:
    text = read("docs/cli.md")
    assert [verb for verb in VERBS if not re.search(rf"`(batchops )?{verb}\b", text)] == []


def test_every_exit_code_is_documented() -> None:
    text = read("docs/cli.md")
    assert [code for code in ExitCode if not re.search(rf"^\|\s*`?{int(code)}`?\s*\|", text, re.M)] == []


def test_every_key_of_a_job_is_documented() -> None:
    assert undocumented(keys(JobSpec), "docs/jobs.md") == []


def test_every_setting_is_documented() -> None:
    assert undocumented(keys(Settings), "docs/settings.md") == []


def test_every_diagnostic_code_is_documented() -> None:
    assert undocumented(sorted(set(diagnostic_codes())), "docs/diagnostics.md") == []


def keys(model: type[BaseModel]) -> list[str]:
    """Every property of the model and of the models in it, as users write them."""
    schema = model.model_json_schema(by_alias=True)
    parts = [schema, *schema.get("$defs", {}).values()]
    return sorted({key for part in parts for key in part.get("properties", {})})


def diagnostic_codes() -> Iterator[str]:
    """The first argument of every call of `error` or `warning` that comes from diagnostics."""
    for path in (ROOT / "batchops").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"error", "warning"}:
                match node.args:
                    case [ast.Constant(value=str(code)), *_] if re.fullmatch(r"[a-z0-9_]+", code):
                        yield code


def job_snippets() -> dict[str, str]:
    """The YAML documents on every page that are whole jobs, by page and number."""
    found = {}
    for page in pages():
        blocks = re.findall(r"^```ya?ml[^\n]*\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
        documents = [document for block in blocks for document in re.split(r"^---$", block, flags=re.M)]
        for number, document in enumerate(documents):
            if all(re.search(rf"^{key}:", document, re.M) for key in ("name", "source", "model")):
                found[f"{page.relative_to(ROOT)}-{number}"] = document
    return found


@pytest.mark.parametrize("document", job_snippets().values(), ids=job_snippets())
def test_a_job_shown_in_the_documentation_is_a_job(document: str) -> None:
    tree = YAML(typ="safe").load(document)
    JobSpec.model_validate({key: value for key, value in tree.items() if not key.startswith("x-")})


def test_the_documentation_shows_jobs() -> None:
    assert len(job_snippets()) > 0


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert [link for link in links if "://" not in link and not leads_somewhere(page, link)] == []


def leads_somewhere(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    return target.exists() and (not anchor or anchor in anchors(target))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# What stands in the tree


# Written with brackets so that this file does not match itself.
FORBIDDEN = {
    "a path of somebody's machine": r"(?<![\w.$])/(w[o]rk/(main|wt|shared|venv)|r[o]ot/|h[o]me/[a-z])",
    "a package registry's host": r"pythonh[o]sted|pyp[i]\.org|npmj[s]\.org|d[e]b\.debian",
    "a secret": r"sk-[A-Za-z0-9]{20}|BEGIN [A-Z ]*PRIVATE KEY",
    "a merge conflict": r"^(<{7}|>{7}) ",
}


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_no_file_contains(kind: str) -> None:
    pattern = re.compile(FORBIDDEN[kind], re.M)
    texts = ((path, path.read_text(encoding="utf-8", errors="replace")) for path in tracked())
    assert [str(path.relative_to(ROOT)) for path, text in texts if pattern.search(text)] == []


def test_nothing_of_a_running_project_is_committed() -> None:
    names = [path.relative_to(ROOT).as_posix() for path in tracked()]
    assert [
        name for name in names if re.search(r"(^|/)state/(?!README\.md$|\.gitignore$)|\.duckdb$|(^|/)\.env$", name)
    ] == []


# Versions


def test_version_is_one_and_the_changelog_knows_it() -> None:
    assert PROJECT["version"] == __version__
    assert f"\n## [{__version__}]" in read("CHANGELOG.md")


def pins(lock: str) -> dict[str, Version]:
    found = re.findall(r"^([a-z0-9.-]+)==(\S+)", read(lock), re.M)
    return {name: Version(version) for name, version in found}


def requirements() -> list[Requirement]:
    listed = [line for line in read("requirements/dev.in").splitlines() if not line.startswith("#")]
    return [Requirement(r) for r in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"], *listed)]


@pytest.mark.parametrize("requirement", requirements(), ids=lambda r: r.name)
def test_the_lock_satisfies(requirement: Requirement) -> None:
    pinned = pins("requirements/dev.lock")
    assert pinned[requirement.name.replace(".", "-")] in requirement.specifier, "make lock"


@pytest.mark.parametrize("lock", ["requirements/dev.lock", "requirements/duckdb-1.5.lock", "requirements/ogx.lock"])
def test_a_lock_has_hashes_and_names_no_place(lock: str) -> None:
    blocks = re.split(r"^(?=[a-z0-9.-]+==)", read(lock), flags=re.M)[1:]
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert re.findall(r"^--.*|https?://\S+|file:\S+", read(lock), re.M) == []


def test_the_oldest_duckdb_that_is_tested_is_the_oldest_that_is_allowed() -> None:
    duckdb = next(r for r in requirements() if r.name == "duckdb")
    floor = next(s.version for s in duckdb.specifier if s.operator == ">=")
    assert pins("requirements/duckdb-1.5.lock") == {"duckdb": Version(floor)}


# Continuous integration


def test_every_declared_python_is_tested() -> None:
    declared = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    workflow = YAML(typ="safe").load(read(".github/workflows/test.yml"))
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == declared


def test_continuous_integration_runs_what_a_developer_runs() -> None:
    assert read(".ci/run").splitlines()[-1] == "exec make test"


def test_actions_are_pinned_to_a_major_version() -> None:
    workflows = [path for path in tracked() if path.parent.name == "workflows"]
    used = [use for path in workflows for use in re.findall(r"uses: (\S+)", path.read_text(encoding="utf-8"))]
    assert used
    assert [use for use in used if not re.fullmatch(r"[\w-]+/[\w-]+@v\d+", use)] == []
