"""Projects below folders whose names DuckDB would take for columns, such as `state=ca`: they are names, and no more."""

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
