"""kill -9 of the real command line at every step of the engine: nothing is paid twice, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import crash
import pytest
from crash import steps
from yard import KILLED, Yard, job

pytest_plugins = ("yard_fixtures",)

ROWS = 5
EVENTFUL = (
    {"on": "POST /v1/batches", "effect": "throttle", "retry_after": 0.0, "nth": 1},
    {"on": "POST /v1/batches", "effect": "drop_before", "nth": 1},
    {"on": "batch", "effect": "late_file_ids", "looks": 1},
)
"""What makes one apply pass every step: a create that is refused, then one whose reply is lost, then a batch
whose files are named late."""

POINTS = [step for step in steps() if step.startswith("before_")] + ["after_create", "after_upload", "after_settle"]
"""Steps that differ in what is on record, on disk or at the service; the others are equal to their neighbours."""

BEFOREHAND = {"before_abandon": "after_intent", "after_abandon": "after_intent"}
"""Steps that are passed only after an earlier apply died at another."""


def prepare(yard: Yard) -> None:
    """A project whose next apply passes every step: one job that has left it, one that is new."""
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.service.faults(*EVENTFUL)


@pytest.mark.parametrize(
    "step", [step if step in POINTS else pytest.param(step, marks=pytest.mark.full) for step in steps()]
)
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


PAIRS = [(first, second) for first in POINTS for second in POINTS]
SAMPLE = [
    ("after_create", "before_settle"),
    ("before_withdrawn", "before_created"),
    ("before_answers", "before_fetched"),
]


@pytest.mark.parametrize(
    ("first", "second"), SAMPLE + [pytest.param(*pair, marks=pytest.mark.full) for pair in PAIRS if pair not in SAMPLE]
)
def test_two_kills_one_after_the_other_pay_nothing_twice_and_lose_nothing(yard: Yard, first: str, second: str) -> None:
    prepare(yard)
    yard.crash(first)
    yard.crash(second)
    yard.converge()
    yard.hold_laws(rows=ROWS)


@pytest.mark.full
@pytest.mark.parametrize("nth", [2, 3])
@pytest.mark.parametrize("step", steps())
def test_a_kill_when_a_step_is_passed_again_loses_nothing(yard: Yard, step: str, nth: int) -> None:
    yard.write({"jobs/chat.yaml": job(rows=ROWS, batch={"max_requests": 2})})
    yard.service.faults(*EVENTFUL)
    yard.crash(f"{step}:{nth}")
    yard.converge()
    yard.hold_laws(rows=ROWS)


def test_the_launcher_kills_a_command_line_of_its_own(yard: Yard) -> None:
    prepare(yard)
    launcher = Path(crash.__file__)
    words = [sys.executable, str(launcher), "after_intent", "--", "apply", "--auto-approve"]
    done = subprocess.run(words, cwd=yard.root, env=yard.environment(), capture_output=True, timeout=120, check=False)
    assert done.returncode == KILLED, done.stderr
    yard.converge()
    yard.hold_laws(rows=ROWS)
