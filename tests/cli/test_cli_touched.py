"""Which jobs a changed file touches."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from batchops.cli.touched import is_watched, touched
from batchops.spec.job import Job, JobSpec


def job(name: str, query: str, *paths: str) -> Job:
    spec = JobSpec.model_validate(
        {"name": name, "source": {"query": query, "key": "id"}, "model": "gpt-5-mini", "template": "x"}
    )
    return Job(spec, name, "local", query, "x", None, (f"jobs/{name}.yaml", *paths))


CSV = job("csv", "SELECT * FROM read_csv('data/reviews.csv') WHERE lang = 'en'", "schemas/a.json")
GLOB = job("glob", "FROM read_parquet(['data/parts/*.parquet', './extra/one.parquet'])", "prompts/p.md")
TABLE = job("table", "FROM \"data/reviews.csv\" r JOIN 'data/it''s.csv'", "schemas/a.json", "queries/q.sql")
ALL = (CSV, GLOB, TABLE)


def touches(*changed: str) -> frozenset[str] | None:
    return touched([PurePosixPath(path) for path in changed], ALL, ALL)


@pytest.mark.parametrize(
    ("changed", "addresses"),
    [
        ("jobs/csv.yaml", {"csv"}),
        ("schemas/a.json", {"csv", "table"}),
        ("prompts/p.md", {"glob"}),
        ("queries/q.sql", {"table"}),
        ("data/reviews.csv", {"csv", "table"}),
        ("data/parts/7.parquet", {"glob"}),
        ("extra/one.parquet", {"glob"}),
        ("data/it's.csv", {"table"}),
        ("data/other.csv", set()),
        ("README.md", set()),
    ],
)
def test_a_file_touches_the_jobs_that_read_it(changed: str, addresses: set[str]) -> None:
    assert touches(changed) == frozenset(addresses)


def test_several_files_touch_all_their_jobs() -> None:
    assert touches("prompts/p.md", "jobs/csv.yaml") == frozenset({"csv", "glob"})


@pytest.mark.parametrize("name", ["batchops.toml", "pyproject.toml", ".env"])
def test_settings_may_touch_everything(name: str) -> None:
    assert touches(name, "README.md") is None


def test_a_spec_that_is_gone_needs_a_plan_of_the_whole_project() -> None:
    assert touched([PurePosixPath("jobs/csv.yaml")], (GLOB, TABLE), ALL) is None


def test_a_new_spec_touches_itself() -> None:
    assert touched([PurePosixPath("jobs/csv.yaml")], ALL, (GLOB,)) == frozenset({"csv"})


@pytest.mark.parametrize(
    ("path", "watched"),
    [
        ("jobs/a.yaml", True),
        (".env", True),
        ("batchops.toml", True),
        ("data/.env", False),
        (".git/HEAD", False),
        ("jobs/.a.yaml.swp", False),
        ("jobs/a.yaml~", False),
        ("jobs/4913", False),
        ("state/batchops.duckdb", False),
        ("state/local/x/y.json", False),
        ("__pycache__/x.pyc", False),
        ("statements/a.csv", True),
    ],
)
def test_what_tools_write_for_themselves_is_not_watched(path: str, watched: bool) -> None:
    assert is_watched(PurePosixPath(path), PurePosixPath("state")) is watched
