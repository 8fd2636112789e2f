"""Paths in specs: what is the own text of a project, and what is not read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from spec_bench import JOB, Load, placed

from batchops.spec.load import load_project


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/etc/hostname", "path_outside"),
        ("../outside.md", "path_outside"),
        ("prompts/../../outside.md", "path_outside"),
        ("C:\\prompts\\a.md", "path_outside"),
        (".env", "path_forbidden"),
        (".git/config", "path_forbidden"),
        ("prompts/.secret", "path_forbidden"),
        ("state/batchops.duckdb", "path_forbidden"),
        ("./state/batchops.duckdb", "path_forbidden"),
        ("prompts/../state/batchops.duckdb", "path_forbidden"),
        ("links/env", "path_forbidden"),
        ("links/state/batchops.duckdb", "path_forbidden"),
        ("links/out", "path_outside"),
        ("links/folder/passwd", "path_outside"),
        ("links/loop", "missing_file"),
        ("prompts", "missing_file"),
        ("pipe", "missing_file"),
        ("prompts/none.md", "missing_file"),
        ("prompts/a.md/b", "missing_file"),
        ("a\0b", "missing_file"),
        ("x" * 300, "missing_file"),
    ],
)
def test_path_that_is_not_the_projects_own_text_is_refused(tmp_path: Path, path: str, code: str) -> None:
    root = tmp_path / "project"
    for folder in ("jobs", "prompts", "state", "links", ".git"):
        (root / folder).mkdir(parents=True)
    for name in (".env", ".git/config", "prompts/.secret", "state/batchops.duckdb", "prompts/a.md", "../outside.md"):
        (root / name).write_text("SECRET", encoding="utf-8")
    (root / "links/env").symlink_to("../.env")
    (root / "links/state").symlink_to("../state")
    (root / "links/out").symlink_to("../../outside.md")
    (root / "links/folder").symlink_to("/etc")
    (root / "links/loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    (root / "jobs/a.yaml").write_text(JOB.replace('"{{ id }}"', json.dumps({"file": path})), encoding="utf-8")
    project = load_project(root, default_provider="local", providers=["local"])
    assert placed(project.diagnostics) == [f"{code} jobs/a.yaml:6:20"]
    assert project.jobs == ()
    assert "SECRET" not in repr(project)


def test_link_inside_the_project_is_followed(load: Load, tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/a.md").symlink_to("b.md")
    (tmp_path / "prompts/b.md").write_text("Hello", encoding="utf-8")
    (job,) = load({"jobs/a.yaml": JOB.replace('"{{ id }}"', "{file: prompts/a.md}")}).jobs
    assert job.template == "Hello"


def test_spec_files_behind_links_that_leave_the_project_are_refused(load: Load, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "b.yaml").write_text(JOB.replace("labels", "b"), encoding="utf-8")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/b.yaml").symlink_to(outside / "b.yaml")
    (tmp_path / "jobs/folder").symlink_to(outside)
    (tmp_path / "jobs/again").symlink_to(".")
    (tmp_path / "jobs/loop.yaml").symlink_to("loop.yaml")
    project = load({"jobs/a.yaml": JOB})
    assert [job.name for job in project.jobs] == ["labels"]
    assert placed(project.diagnostics) == [
        "path_outside jobs/b.yaml:1:1",
        "path_outside jobs/folder:1:1",
        "missing_file jobs/loop.yaml:1:1",
    ]
