"""kill -9 of the real command line at every step of the engine: nothing is paid twice, and nothing is lost."""

from __future__ import annotations

import pytest
from crash import steps
from yard import Yard, job

pytest_plugins = ("yard_fixtures",)

ROWS = 5
EVENTFUL = (
    {"on": "POST /v1/batches", "effect": "throttle", "retry_after": 0.0, "nth": 1},
    {"on": "POST /v1/batches", "effect": "drop_before", "nth": 1},
    {"on": "batch", "effect": "late_file_ids", "looks": 1},
)
"""What makes one apply pass every step: a create that is refused, then one whose reply is lost, then a batch
whose files are named late."""

BEFOREHAND = {"before_abandon": "after_intent", "after_abandon": "after_intent"}
"""Steps that are passed only after an earlier apply died at another."""


def prepare(yard: Yard) -> None:
    """A project whose next apply passes every step: one job that has left it, one that is new."""
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.service.faults(*EVENTFUL)


@pytest.mark.parametrize("step", steps())
def test_a_kill_at_any_step_pays_nothing_twice_and_loses_nothing(yard: Yard, step: str) -> None:
    prepare(yard)
    if step == "after_forget":
        yard.service.faults()
        yard.write({"jobs/old.yaml": job("old", rows=2, source={"query": "SELECT 1 AS id, 'x' AS body", "key": "id"})})
        yard.apply("--select", "old")
        (yard.root / "jobs/old.yaml").unlink()
        yard.service.faults(*EVENTFUL)
    if step in BEFOREHAND:
        assert yard.crash(BEFOREHAND[step])
    assert yard.crash(step), f"no apply passes {step}: let the scenario above pass it"
    yard.converge()
    yard.hold_laws(rows=ROWS, requests=ROWS + (step == "after_forget"))
