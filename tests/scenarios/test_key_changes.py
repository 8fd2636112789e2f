"""A job whose key becomes another one: rows under the old key stay on record, and everything still reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from yard import Yard, job

pytest_plugins = ("yard_fixtures",)
QUERY = "SELECT * FROM (VALUES (1, 'x', 'k1'), (2, 'y', 'k2')) v(id, body, name)"
KEYS = {"number": "id", "text": "name", "both": ["id", "name"]}
ADDRESSES = {"number": "1", "text": "k1", "both": '["1","k1"]'}
FITTING: dict[str, list[dict[str, Any]]] = {
    "number": [{"id": 1}, {"id": 2}],
    "text": [{"name": "k1"}, {"name": "k2"}],
    "both": [{"id": 1, "name": "k1"}, {"id": 2, "name": "k2"}],
}
LEFT: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("number", "text"): [{"name": "1"}, {"name": "2"}],
    ("number", "both"): [{"id": 1, "name": None}, {"id": 2, "name": None}],
    ("text", "number"): [{"id": "k1"}, {"id": "k2"}],
    ("text", "both"): [{"id": "k1", "name": None}, {"id": "k2", "name": None}],
    ("both", "number"): [{"id": '["1","k1"]'}, {"id": '["2","k2"]'}],
    ("both", "text"): [{"name": '["1","k1"]'}, {"name": '["2","k2"]'}],
}


def ask(yard: Yard, key: str) -> None:
    yard.write({"jobs/chat.yaml": job(source={"query": QUERY, "key": KEYS[key]})})
    yard.apply()


@pytest.mark.parametrize(("old", "new"), LEFT)
def test_rows_that_stay_under_a_former_key_can_be_read(yard: Yard, old: str, new: str) -> None:
    ask(yard, old)
    ask(yard, new)
    assert sum(yard.executed().values()) == 2
    assert [row["key"] for row in yard.results("chat")] == FITTING[new]
    shown = [row["key"] for row in yard.results("chat", "--all")]
    assert sorted(map(str, shown)) == sorted(map(str, FITTING[new] + LEFT[old, new]))
    for form in ("table", "csv"):
        yard.run("results", "chat", "--all", "--format", form)
    yard.run("results", "chat", "--all", "-o", "all.parquet")
    if new != "both":
        told = json.loads(yard.run("explain", f"chat@{ADDRESSES[old]}", "--json").out)
        assert told["key"] == LEFT[old, new][0]
