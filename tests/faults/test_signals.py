"""Ctrl-C and SIGTERM: the write in hand is finished, what goes on is said, and nothing is cancelled or lost."""

from __future__ import annotations

import signal

import pytest
from crew import Command
from yard import Yard, job

pytest_plugins = ("yard_fixtures",)
ROWS = 4


@pytest.fixture
def waiting(yard: Yard) -> tuple[Yard, Command]:
    """An apply that waits for a batch that takes long."""
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.service.faults({"on": "batch", "effect": "stall", "seconds": 5000})
    command = yard.start("apply", "--auto-approve", "--wait")
    yard.wait_until(lambda: "Traceback" in command.err or bool(yard.batches()))
    return yard, command


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_the_waiting_and_says_what_goes_on(
    waiting: tuple[Yard, Command], number: signal.Signals
) -> None:
    yard, command = waiting
    command.kill(number)
    ended = command.wait()
    assert ended.code == 130
    assert "batchops wait" in ended.err
    assert [batch["status"] for batch in yard.batches()] == ["in_progress"]
    assert yard.plan("--offline")["summary"]["batches"] == {"create": 0, "fetch": 0, "settle": 0, "cancel": 0,
                                                            "in_flight": 1}  # fmt: skip
    yard.service.faults()
    yard.service.advance(10_000)
    yard.converge()
    yard.hold_laws(rows=ROWS)


def test_the_second_signal_leaves_at_once_and_nothing_is_lost(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.service.faults({"on": "POST /v1/batches", "effect": "slow", "seconds": 20})
    command = yard.start("apply", "--auto-approve", "--wait")
    yard.wait_until(lambda: bool(yard.batches()))
    command.kill(signal.SIGINT)
    yard.wait_until(lambda: "Ctrl-C again" in command.err)
    command.kill(signal.SIGINT)
    ended = command.wait(timeout=10)
    assert ended.code == 130
    yard.service.faults()
    yard.converge()
    assert len(yard.batches()) == 1
    yard.hold_laws(rows=ROWS)


def test_after_a_signal_no_upload_is_begun(yard: Yard) -> None:
    settings = (yard.root / "batchops.toml").read_text().replace("[submit]", "[submit]\nparallel_uploads = 1")
    yard.write({"batchops.toml": settings, "jobs/chat.yaml": job(rows=ROWS, batch={"max_requests": 1})})
    yard.service.faults({"on": "POST /v1/files", "effect": "slow", "seconds": 3, "nth": 2})
    command = yard.start("apply", "--auto-approve", "--wait")
    yard.wait_until(lambda: bool(yard.batches()))
    command.kill(signal.SIGINT)
    assert command.wait().code == 130
    assert len(yard.batches()) <= 2
    yard.converge()
    yard.hold_laws(rows=ROWS)
