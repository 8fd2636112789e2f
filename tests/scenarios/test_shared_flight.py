"""Rows that ask what another environment or an unselected job has in flight: its batch is theirs to wait for too."""

from __future__ import annotations

import json
from typing import Any

import pytest
from yard import RETRY, SETTINGS, Yard, job

pytest_plugins = ("yard_fixtures",)
ROWS = 3


def spec(name: str = "chat", **keys: Any) -> dict[str, str]:
    return {f"jobs/{name}.yaml": job(name, rows=ROWS, **keys)}


def stall(yard: Yard) -> None:
    """From now on batches go on when time is advanced, and not before."""
    yard.service.faults({"on": "batch", "effect": "stall", "seconds": 1000})


@pytest.fixture
def dev(yard: Yard) -> Yard:
    """A yard whose environment dev has its rows in flight."""
    yard.write({"batchops.toml": SETTINGS + "[environments.dev]\n", **spec()})
    stall(yard)
    yard.run("apply", "--auto-approve", "--env", "dev")
    return yard


@pytest.mark.parametrize("words", [("apply", "--auto-approve", "--wait"), ("wait",)], ids=["apply", "wait"])
def test_what_another_environment_has_in_flight_is_waited_for_and_fetched(dev: Yard, words: tuple[str, ...]) -> None:
    dev.run("apply", "--auto-approve")
    plan = dev.plan()
    assert plan["summary"]["rows"]["in_flight"] == ROWS
    assert plan["summary"]["batches"]["in_flight"] == 1
    assert dev.run(*words, "--timeout", "100ms", code=9).code == 9
    dev.service.advance(2000)
    dev.run(*words)
    assert dev.statuses() == {"succeeded": ROWS}
    assert sum(dev.executed().values()) == ROWS
    status = json.loads(dev.run("status", "--json", "--env", "dev").out)
    assert status["jobs"][0]["rows"]["answered"] == ROWS


def test_what_another_environment_has_in_flight_alone_is_left_to_it(dev: Yard) -> None:
    dev.write(spec(template="Other words: {{ body }}"))
    dev.service.faults()
    dev.apply()
    assert dev.statuses() == {"succeeded": ROWS}
    dev.write(spec())
    status = json.loads(dev.run("status", "--json", "--env", "dev").out)
    assert status["jobs"][0]["rows"]["in_flight"] == ROWS


def test_cancelling_leaves_the_batch_of_another_environment_alone(dev: Yard) -> None:
    dev.run("apply", "--auto-approve")
    dev.run("cancel", "chat")
    assert [batch["cancelling_at"] or batch["cancelled_at"] for batch in dev.batches()] == [None]


def test_a_selected_job_waits_for_the_batch_of_another_one_that_asks_the_same(yard: Yard) -> None:
    yard.write(spec())
    stall(yard)
    yard.run("apply", "--auto-approve")
    yard.write(spec("other"))
    yard.run("apply", "--auto-approve", "--select", "other")
    yard.service.advance(2000)
    yard.apply("--select", "other")
    assert yard.statuses("other") == {"succeeded": ROWS}
    assert sum(yard.executed().values()) == ROWS


def deny(yard: Yard, batch_id: str) -> None:
    """From now on the service does not show this batch."""
    yard.service.faults({"on": f"GET /v1/batches/{batch_id}", "effect": "error_before", "status": 404})


def held(yard: Yard) -> str | None:
    """Why the job chat of the default environment is held."""
    told: dict[str, str | None] = {
        row["address"]: row["held"] for row in json.loads(yard.run("status", "--json").out)["jobs"]
    }
    return told["chat"]


def test_a_batch_of_another_environment_that_is_seen_lets_no_job_of_this_one_go(dev: Yard) -> None:
    dev.write(spec(template="Other words: {{ body }}") | spec("other"))
    dev.run("apply", "--auto-approve")
    own, _ = (batch["id"] for batch in dev.batches())
    deny(dev, own)
    dev.run("wait", "--timeout", "100ms", code=1)
    assert own in (held(dev) or "")
    dev.run("apply", "--auto-approve", "--select", "other")
    assert own in (held(dev) or "")


def test_a_batch_of_another_environment_that_is_denied_holds_no_job_of_this_one(dev: Yard) -> None:
    dev.write(spec(template="Other words: {{ body }}") | spec("other"))
    dev.run("apply", "--auto-approve")
    _, shared = (batch["id"] for batch in dev.batches())
    deny(dev, shared)
    assert "batch_not_visible" in dev.run("wait", "--json", "--timeout", "100ms", code=1).out
    assert held(dev) is None


def test_explain_tells_of_the_tries_of_the_own_round_and_of_an_answer_that_a_later_one_brought(yard: Yard) -> None:
    once = {"max_attempts": 1, **RETRY}
    yard.service.faults({"on": "line", "effect": "error", "status": 500})
    yard.write(spec(retry=once) | spec("other", retry=once))
    yard.apply(code=6)
    yard.service.faults()
    yard.run("retry", "other")
    yard.apply("--select", "other")
    told = json.loads(yard.run("explain", "chat@0", "--json").out)
    assert told["why"] == "Given up after 1 attempt: the latest try ended server_error (500, server_error)."
    assert told["next"] == "The next apply uses the answer that a later round of this request brought, without paying."
    yard.apply()
    told = json.loads(yard.run("explain", "chat@0", "--json").out)
    assert (told["status"], told["next"]) == ("succeeded", "Nothing, as long as its request stays the same.")
    assert sum(yard.executed().values()) == 2 * ROWS
