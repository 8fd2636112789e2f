"""The limits of input files, by the profile of the provider, known before anything connects."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchops.engine.planning import shard_limits
from batchops.engine.project import open_project
from batchops.settings import load_settings

SETTINGS = """\
[providers.kimi]
kind = "openai"
base_url = "https://api.moonshot.ai/v1"
[providers.vast]
kind = "openai"
profile = "nebius"
max_bytes = "1GB"
"""
JOB = """\
name: {name}
provider: {name}
source: {{query: SELECT 1 AS id, key: id}}
model: some-model
template: "{{{{ id }}}}"
batch: {{max_requests: 1000000, max_bytes: 2GB}}
"""


def test_limits_are_the_least_of_profile_settings_and_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # and back: opening a project moves there
    (tmp_path / "jobs").mkdir()
    (tmp_path / "batchops.toml").write_text(SETTINGS)
    for name in ("kimi", "openai", "vast"):
        (tmp_path / "jobs" / f"{name}.yaml").write_text(JOB.format(name=name))
    with open_project(tmp_path, load_settings(tmp_path, environ={})) as project:
        limits = {job.name: shard_limits(project, job) for job in project.jobs()}
    assert {name: (found.max_requests, found.max_bytes) for name, found in limits.items()} == {
        "kimi": (50_000, 100_000_000),
        "openai": (50_000, 200_000_000),
        "vast": (1_000_000, 1_000_000_000),
    }
