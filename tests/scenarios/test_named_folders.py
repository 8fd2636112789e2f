"""Projects below folders whose names mean something to DuckDB: columns (`state=ca`) and patterns (`a*b`) are names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from service import serving
from workshop import Workshop

SETTINGS = 'project = "demo"\n[poll]\ninitial = "20ms"\n[submit]\nsettle_grace = "200ms"\n'
FOLDERS = (
    "state=2/outcome=3/round=9/line=7/digest=d/code=c/http=404/has_line=false/submission_id=5",
    "state=ca/raw=r/answer=a/message=m/model=large/name=n",
)
SAID = ("job", "key", "status", "answer", "error", "attempts", "model", "finish_reason", "usage", "cost_usd", "digest")
QUERY = 'SELECT id FROM results."a" WHERE answer IS NOT NULL ORDER BY id'
BROKEN = {"on": "line", "effect": "error", "status": 400, "contains": "<2>"}


def job(name: str, first: int) -> str:
    source = {"query": f"SELECT i AS id FROM range({first}, {first + 6}) t(i)", "key": "id"}
    return json.dumps({"name": name, "source": source, "model": "gpt-5-mini", "template": "Say <{{ id }}>"})


def told(root: Path, served: Path) -> list[dict[str, Any]]:
    """What the rows of two jobs come to, one of which fails; the same before and after their files are merged."""
    root.mkdir(parents=True)
    with serving(served) as service:
        shop = Workshop(root, service.environ)
        shop.write({"batchops.toml": SETTINGS, "jobs/a.yaml": job("a", 0), "jobs/b.yaml": job("b", 100)})
        service.faults(BROKEN)
        shop.apply(code=6)
    found = [row for name in "ab" for row in shop.results(name, "--all")]
    assert shop.run("state", "compact", "--json").json["merged_files"] == 2
    assert [row for name in "ab" for row in shop.results(name, "--all")] == found
    shop.run("doctor")
    return [{name: row[name] for name in SAID} for row in found]


@pytest.mark.parametrize("folders", FOLDERS)
def test_folders_named_like_columns_change_no_answer(tmp_path: Path, folders: str) -> None:
    plain = told(tmp_path / "plain", tmp_path / "served")
    assert [row["status"] for row in plain].count("succeeded") == 11
    assert told(tmp_path / folders / "project", tmp_path / "again") == plain


def shop_of(root: Path, rows: str) -> Workshop:
    """A project that reads a file, answered by the local provider, in as many batches as it has rows."""
    root.mkdir(parents=True)
    shop = Workshop(root, {})
    source = {"query": "SELECT id FROM read_csv('rows.csv')", "key": "id"}
    spec = {"source": source, "model": "gpt-5-mini", "batch": {"max_requests": 1}, "template": "Say <{{ id }}>"}
    settings = SETTINGS.replace("\n", '\nprovider = "local"\n', 1)
    shop.write({"batchops.toml": settings, "jobs/a.yaml": json.dumps({"name": "a", **spec}), "rows.csv": rows})
    return shop


def copied(root: Path, first: int) -> list[int]:
    """The rows that `results` and `query` tell of a project of two, before and after its files are merged."""
    shop = shop_of(root, f"id\n{first}\n{first + 1}\n")
    shop.apply()
    before = shop.results("a")
    assert shop.run("state", "compact", "--json").json["merged_files"] == 2
    assert shop.results("a") == before
    asked = [row["id"] for row in shop.run("query", QUERY, "--format", "jsonl").lines]
    assert asked == [row["key"]["id"] for row in before]
    return asked


def test_folders_named_like_patterns_find_no_files_of_their_neighbours(tmp_path: Path) -> None:
    assert copied(tmp_path / "aXb", 1) == [1, 2]
    assert copied(tmp_path / "a*b", 3) == [3, 4]
    assert copied(tmp_path / "a[X]b", 5) == [5, 6]


@pytest.mark.parametrize("name", ["a?b", "a\\b"])
def test_a_folder_that_no_state_can_lie_in_is_refused_before_anything_is_made(tmp_path: Path, name: str) -> None:
    shop = shop_of(tmp_path / name, "id\n1\n")
    said = shop.run("apply", "--auto-approve", code=1).err
    assert f"A state cannot lie at {shop.root}/state/batchops.duckdb: DuckDB opens no file with {name[1]}" in said
    assert "[unusable_path]" in said
    assert not (shop.root / "state").exists()
