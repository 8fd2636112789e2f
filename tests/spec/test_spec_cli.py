"""`validate`, `fmt`, `schema` and `init` as commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from crew import shared_crew
from spec_bench import JOB

from batchops.cli.init import scaffold
from batchops.spec.editor import job_schema

ROOT = Path(__file__).parents[2]
UNTIDY = "model: gpt-4o-mini\nname: labels\nsource:\n    query: SELECT 1 AS id\n    key: id # why\ntemplate: x\n"


def _batchops(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    ended = shared_crew().run(words, cwd=cwd, environ=os.environ | {"NO_COLOR": "1"})
    return subprocess.CompletedProcess(words, ended.code, ended.out, ended.err)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "batchops.toml").write_text('provider = "local"\n', encoding="utf-8")
    (tmp_path / "jobs/a.yaml").write_text(JOB, encoding="utf-8")
    return tmp_path


def test_validate_counts_jobs_files_and_warnings(project: Path) -> None:
    assert _batchops("validate", cwd=project).stdout == "Success! 1 job in 1 file is valid.\n"
    two = JOB.replace("labels", "b") + "---\n" + JOB.replace("labels", "c").replace("gpt-4o-mini", "gpt-5-codex")
    (project / "jobs/b.yaml").write_text(two, encoding="utf-8")
    done = _batchops("validate", cwd=project)
    assert (done.returncode, done.stdout) == (0, "Success! 3 jobs in 2 files are valid. 1 warning.\n")
    assert "jobs/b.yaml:12:8: warning: The model cannot be asked in a batch." in done.stderr


def test_validate_prints_the_source_line_with_a_caret(project: Path) -> None:
    (project / "jobs/a.yaml").write_text(JOB + "retry:\n  bakoff: {}\n", encoding="utf-8")
    done = _batchops("validate", cwd=project)
    assert (done.returncode, done.stdout) == (1, "")
    first, line, caret = done.stderr.splitlines()[:3]
    assert first.startswith('jobs/a.yaml:8:3: error: Unknown key. "bakoff" is not a key of "retry".')
    assert line.endswith("  bakoff: {}")
    assert caret.endswith("^^^^^^")
    assert line.index("bakoff") == caret.index("^")


def test_validate_json_is_the_documented_shape(project: Path) -> None:
    (project / "jobs/a.yaml").write_text(JOB + "retry:\n  bakoff: {}\n", encoding="utf-8")
    done = _batchops("validate", "--json", cwd=project)
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout) == {
        "format_version": "1.0",
        "valid": False,
        "error_count": 1,
        "warning_count": 0,
        "diagnostics": [
            {
                "severity": "error",
                "code": "unknown_key",
                "summary": "Unknown key.",
                "detail": '"bakoff" is not a key of "retry". Did you mean "backoff"?',
                "address": "labels",
                "range": {
                    "filename": "jobs/a.yaml",
                    "start": {"line": 8, "column": 3},
                    "end": {"line": 8, "column": 9},
                },
                "snippet": "  bakoff: {}",
                "fixes": ["backoff"],
            }
        ],
    }


def test_validate_finds_what_only_the_query_engine_can_tell(project: Path) -> None:
    (project / "jobs/a.yaml").write_text(JOB.replace("{{ id }}", "{{ idd }}"), encoding="utf-8")
    done = _batchops("validate", "-C", "jobs", cwd=project)
    assert done.returncode == 1
    assert 'Did you mean "id"?' in done.stderr
    assert 'template: "{{ idd }}"' in done.stderr


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (["validate"], ["openai", "duckdb"]),
        (["schema"], ["openai", "duckdb"]),
        (["fmt", "--check"], ["openai", "duckdb"]),
        (["validate", "--with-a-job"], ["openai"]),
    ],
)
def test_command_imports_no_engine_that_it_does_not_need(project: Path, words: list[str], unwanted: list[str]) -> None:
    if "--with-a-job" not in words:
        (project / "jobs/a.yaml").unlink()
    words = [word for word in words if word != "--with-a-job"]
    program = (
        "import sys; from batchops.cli.main import run; code = run(sys.argv[1:]);"
        f"print(code, sorted(set(sys.modules) & set({unwanted!r})), file=sys.stderr)"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=project, env=environ, capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "0 []"


def test_fmt_writes_canonical_text_and_names_the_files(project: Path) -> None:
    path = project / "jobs/b.yaml"
    path.write_text(UNTIDY, encoding="utf-8")
    path.chmod(0o640)
    done = _batchops("fmt", cwd=project)
    assert (done.returncode, done.stdout) == (0, "jobs/b.yaml\n")
    assert path.read_text(encoding="utf-8").startswith(
        "name: labels\nsource:\n  query: SELECT 1 AS id\n  key: id # why\n"
    )
    assert path.stat().st_mode & 0o777 == 0o640
    assert _batchops("fmt", "--check", cwd=project).returncode == 0
    assert sorted(path.name for path in path.parent.iterdir()) == ["a.yaml", "b.yaml"]


def test_fmt_check_changes_nothing_and_exits_3(project: Path) -> None:
    (project / "jobs/b.yaml").write_text(UNTIDY, encoding="utf-8")
    done = _batchops("fmt", "--check", "--diff", cwd=project)
    assert done.returncode == 3
    assert done.stdout.startswith("--- a/jobs/b.yaml\n+++ b/jobs/b.yaml\n@@")
    assert "-    key: id # why\n" in done.stdout
    assert "+  key: id # why\n" in done.stdout
    assert (project / "jobs/b.yaml").read_text(encoding="utf-8") == UNTIDY


def test_fmt_tells_in_json_which_files_it_changed(project: Path) -> None:
    (project / "jobs/b.yaml").write_text(UNTIDY, encoding="utf-8")
    done = _batchops("--json", "fmt", "--check", "--diff", cwd=project)
    told = json.loads(done.stdout)
    (changed,) = told.pop("changed")
    assert (done.returncode, told) == (3, {"format_version": "1.0", "diagnostics": []})
    assert changed["file"] == "jobs/b.yaml"
    assert changed["diff"].startswith("--- a/jobs/b.yaml\n")
    assert json.loads(_batchops("fmt", "--json", cwd=project).stdout)["changed"] == [{"file": "jobs/b.yaml"}]
    (project / "jobs/b.yaml").write_text("name: [\n", encoding="utf-8")
    (project / "jobs/c.yaml").write_text(UNTIDY, encoding="utf-8")
    done = _batchops("fmt", "--json", cwd=project)
    told = json.loads(done.stdout)
    assert (done.returncode, told["diagnostics"][0]["code"]) == (1, "yaml_syntax")
    assert told["changed"] == [{"file": "jobs/c.yaml"}], "it was written"


def test_fmt_formats_what_it_can_and_reports_the_rest(project: Path) -> None:
    (project / "jobs/b.yaml").write_text(UNTIDY, encoding="utf-8")
    (project / "jobs/c.yaml").write_text("name: [\n", encoding="utf-8")
    done = _batchops("fmt", cwd=project)
    assert (done.returncode, done.stdout) == (1, "jobs/b.yaml\n")
    assert "jobs/c.yaml:2:1: error: Not valid YAML." in done.stderr
    assert (project / "jobs/c.yaml").read_text(encoding="utf-8") == "name: [\n"


def test_fmt_takes_files_and_folders(project: Path) -> None:
    (project / "more").mkdir()
    (project / "more/b.yaml").write_text(UNTIDY, encoding="utf-8")
    (project / "more/link.yaml").symlink_to("b.yaml")
    assert _batchops("fmt", "--check", "more/b.yaml", cwd=project).stdout == "more/b.yaml\n"
    assert _batchops("fmt", "more", cwd=project).stdout == "more/b.yaml\n"
    assert (project / "more/link.yaml").is_symlink()
    assert _batchops("fmt", "nowhere", cwd=project).returncode == 1


def test_schema_prints_the_editor_schema_anywhere(tmp_path: Path) -> None:
    assert json.loads(_batchops("schema", cwd=tmp_path).stdout) == job_schema()


def test_init_makes_a_project_that_is_valid_and_formatted(tmp_path: Path) -> None:
    done = _batchops("init", "reviews", cwd=tmp_path)
    assert done.returncode == 0
    assert "  cd reviews\n  batchops validate\n" in done.stdout
    made = {path.relative_to(tmp_path / "reviews").as_posix() for path in (tmp_path / "reviews").rglob("*")}
    assert {name for name in made if (tmp_path / "reviews" / name).is_file()} == set(scaffold())
    valid = _batchops("validate", cwd=tmp_path / "reviews")
    assert (valid.stdout, valid.stderr) == ("Success! 1 job in 1 file is valid.\n", "")
    assert _batchops("fmt", "--check", cwd=tmp_path / "reviews").returncode == 0


def test_init_tells_in_json_what_it_made(tmp_path: Path) -> None:
    told = json.loads(_batchops("init", "reviews", "--json", cwd=tmp_path).stdout)
    assert (told["folder"], set(told["files"])) == (str(tmp_path / "reviews"), set(scaffold()))


@pytest.mark.parametrize("words", [["watch"], ["serve", "--port", "0"]], ids=lambda words: words[0])
def test_json_before_a_verb_that_has_none_is_refused_as_it_is_behind_it(project: Path, words: list[str]) -> None:
    for line in (["--json", *words], [*words, "--json"]):
        done = _batchops(*line, cwd=project)
        assert (done.returncode, json.loads(done.stdout)["diagnostics"][0]["code"]) == (64, "unknown_option")


def test_init_overwrites_nothing_and_lists_what_is_in_the_way(project: Path) -> None:
    before = (project / "batchops.toml").read_bytes()
    done = _batchops("init", cwd=project)
    assert done.returncode == 1
    assert "this folder has: batchops.toml." in done.stderr
    assert (project / "batchops.toml").read_bytes() == before
    assert sorted(path.name for path in project.iterdir()) == ["batchops.toml", "jobs"]


def test_init_keeps_the_gitignore_of_a_repository(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("mine\n", encoding="utf-8")
    assert _batchops("init", cwd=tmp_path).returncode == 0
    assert (tmp_path / ".gitignore").read_text(encoding="utf-8") == "mine\n"
    assert (tmp_path / "state/.gitignore").exists()
