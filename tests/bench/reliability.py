"""Counts what is paid and what is answered when things go wrong: `make bench`, or `reliability.py ROWS`.

Each line is one project of so many rows, applied by the real command line against the embedded service as a process of
its own, with one thing going wrong. A row is paid when the service made an answer for it; ideal is each row paid once
and answered.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.extend(str(Path(__file__).parents[1] / kit) for kit in ("kit", "scenarios"))

from measuring import size_asked
from service import Service, serving
from workshop import Workshop

SETTINGS = 'project = "bench"\n[poll]\ninitial = "50ms"\n[submit]\nsettle_grace = "2s"\n'
MOST_APPLIES = 3

Rule = Mapping[str, Any]


@dataclass(frozen=True)
class Scenario:
    name: str
    rules: Sequence[Rule]


def scenarios(rows: int) -> tuple[Scenario, ...]:
    few = max(1, rows // 100)
    create = {"on": "POST /v1/batches", "nth": 1}
    return (
        Scenario("nothing goes wrong", ()),
        Scenario("the reply to the create is lost", [{**create, "effect": "drop_after"}]),
        Scenario("the create itself is lost", [{**create, "effect": "drop_before"}]),
        Scenario("the batch expires at 50 %", [{"on": "batch", "effect": "expire", "at": 0.5, "nth": 1}]),
        Scenario("1 % of the answers stand in the error file", [{"on": "line", "effect": "wrong_file", "times": few}]),
        Scenario("1 % of the lines fail with HTTP 500", [{"on": "line", "effect": "error", "times": few}]),
    )


@dataclass(frozen=True)
class Counted:
    paid: int
    paid_twice: int
    answered: int
    applies: int
    seconds: float


def run(scenario: Scenario, rows: int, folder: Path) -> Counted:
    """Apply until it exits 0; RuntimeError when it does not."""
    with serving(folder / "served") as service:
        service.faults(*scenario.rules)
        shop = Workshop(folder / "project", environ=service.environ)
        shop.write({"batchops.toml": SETTINGS, "jobs/bench.yaml": _job(rows)})
        began = time.perf_counter()
        applies = _converge(shop)
        seconds = time.perf_counter() - began
        answered = sum(row["status"] == "succeeded" for row in shop.results("bench"))
        return Counted(*_paid(service), answered, applies, seconds)


def _job(rows: int) -> str:
    source = {"query": f"SELECT i AS id, 'Row ' || i AS body FROM range({rows}) t(i)", "key": "id"}
    retry = {"backoff": {"initial": "10ms"}}
    spec = {"name": "bench", "source": source, "model": "gpt-5-mini", "template": "Label: {{ body }}", "retry": retry}
    return json.dumps(spec)


def _converge(shop: Workshop) -> int:
    for number in range(1, MOST_APPLIES + 1):
        if shop.apply(code=None).code == 0:
            return number
    raise RuntimeError(f"not converged after {MOST_APPLIES} applies")


def _paid(service: Service) -> tuple[int, int]:
    """How many answers were made, and how many of them for a row that had one already."""
    answered: list[str] = []
    for batch in service.get("/batches?limit=100")["data"]:
        for file_id in (batch["output_file_id"], batch["error_file_id"]):
            lines = service.lines(file_id) if file_id else []
            answered += [
                line["custom_id"].partition("-")[0]
                for line in lines
                if (line["response"] or {}).get("status_code") == 200
            ]
    return len(answered), len(answered) - len(set(answered))


def main(rows: int) -> None:
    print(f"{rows:,} rows; `batchops apply --wait`, again until it exits 0\n")
    print(f"{'what goes wrong':44} {'paid':>7} {'twice':>6} {'answered':>9} {'applies':>8} {'time':>8}")
    for scenario in scenarios(rows):
        with tempfile.TemporaryDirectory(prefix="batchops-reliability-") as name:
            found = run(scenario, rows, Path(name))
        print(
            f"{scenario.name:44} {found.paid:7,} {found.paid_twice:6,} {found.answered:9,} {found.applies:8}"
            f" {found.seconds:6.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main(size_asked(__doc__, 1_000))
