"""Two processes at once, and processes killed at random moments from outside."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import pytest
from yard import KILLED, Yard, job

pytest_plugins = ("yard_fixtures",)
ROWS = 6


@pytest.mark.parametrize("round_", [*range(3), *(pytest.param(n, marks=pytest.mark.full) for n in range(3, 20))])
def test_of_two_applies_one_wins_before_anything_is_paid(yard: Yard, round_: int) -> None:
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    words = ("apply", "--auto-approve", "--wait", "--json")
    ended = [command.wait() for command in [yard.start(*words), yard.start(*words)]]
    codes = sorted(one.code for one in ended)
    assert codes in ([0, 0], [0, 11]), ended
    assert all("lease_held" in one.out for one in ended if one.code == 11)
    yard.hold_laws(rows=ROWS)


def test_who_waits_for_the_lease_gets_it_and_finds_nothing_left_to_do(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    words = ("apply", "--auto-approve", "--wait", "--json", "--lock-timeout", "60s")
    first, second = yard.start(*words), yard.start(*words)  # whichever comes second waits
    assert (first.wait().code, second.wait().code) == (0, 0)
    yard.hold_laws(rows=ROWS)


def test_the_lease_says_who_holds_it_since_when_and_how_to_take_it(yard: Yard) -> None:
    """The code is lease_held."""
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.service.faults({"on": "batch", "effect": "stall", "seconds": 5000})
    holder = yard.start("apply", "--auto-approve", "--wait", "--json")
    yard.wait_until(lambda: bool(yard.batches()))
    told = yard.run("apply", "--auto-approve", code=11).err
    assert f"process {holder.pid}" in told
    assert "since " in told
    assert "batchops unlock " in told
    assert yard.plan()["summary"]["batches"]["in_flight"] == 1, "who only reads is not kept out"
    holder.kill()
    assert holder.wait().code == KILLED
    yard.service.faults()
    yard.service.advance(10_000)
    yard.converge()
    yard.hold_laws(rows=ROWS)


@pytest.mark.full  # the process may be stopped while it has the state open, and then nobody else gets on
def test_a_sender_that_slept_through_the_loss_of_its_lease_pays_nothing_and_writes_nothing(yard: Yard) -> None:
    """A disk without locks lets two processes in; the fence and the deleted input file keep them apart.

    The code is lease_lost.
    """
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    sleeper = yard.start("apply", "--auto-approve", "--wait", "--json", step="before_create!")
    yard.wait_until(lambda: is_stopped(sleeper.pid))
    (yard.root / "state" / "batchops.lease").unlink()
    yard.converge()
    sleeper.kill(signal.SIGCONT)
    ended = sleeper.wait()
    assert ended.code == 11
    assert "lease_lost" in ended.out
    yard.wait_ended()
    assert sorted(batch["status"] for batch in yard.batches()) == ["completed", "failed"]
    yard.hold_laws(rows=ROWS)


def is_stopped(pid: int) -> bool:
    told = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return told.stdout.startswith("T")


@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(n, marks=pytest.mark.full) for n in range(2, 20))])
def test_kills_at_random_moments_pay_nothing_twice_and_lose_nothing(yard: Yard, seed: int) -> None:
    dice = random.Random(int(os.environ.get("SEED", "0")) * 1000 + seed)
    yard.write({"jobs/chat.yaml": job(rows=ROWS, batch={"max_requests": 2})})
    yard.service.faults({"on": "POST /v1/batches", "effect": "drop_after", "nth": dice.randrange(1, 4)})
    for _ in range(6):
        command = yard.start("apply", "--auto-approve", "--wait", "--json")
        time.sleep(dice.uniform(0.0, 1.5))
        command.kill()
        assert command.wait().code in {KILLED, 0}
    yard.converge()
    yard.hold_laws(rows=ROWS)
