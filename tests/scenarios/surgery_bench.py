"""A job whose state is operated on, and looks into that state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
from desk import Desk
from workshop import Ran

from batchops.store.store import StateReader

SETTINGS = 'project = "demo"\n[poll]\ninitial = "20ms"\n[submit]\nsettle_grace = "200ms"\n'
ROWS = 12


def job(name: str, **keys: Any) -> str:
    """A spec as JSON, which is YAML."""
    query = f"SELECT i AS id, 'review ' || i AS body FROM range({ROWS}) t(i)"
    spec = {"name": name, "source": {"query": query, "key": "id"}, "model": "gpt-5-mini",
            "template": "Label {{ body }}.", "retry": {"backoff": {"initial": "10ms"}}, **keys}  # fmt: skip
    return json.dumps(spec)


def state(shop: Desk) -> Path:
    return shop.root / "state" / "batchops.duckdb"


def rows(shop: Desk, sql: str) -> list[dict[str, Any]]:
    return StateReader(state(shop)).rows(sql)


def write(shop: Desk, sql: str) -> None:
    con = duckdb.connect(state(shop))
    con.execute(sql)
    con.close()


def codes(ran: Ran) -> list[str]:
    return [found["code"] for found in ran.json["diagnostics"]]
