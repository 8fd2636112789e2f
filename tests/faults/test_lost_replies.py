"""Replies that are lost, late, cut or garbage, on each call: it converges, and each row is paid once."""

from __future__ import annotations

from typing import Any

import pytest
from yard import Yard, codes, job

pytest_plugins = ("yard_fixtures",)

EFFECTS = ("drop_before", "drop_after", "error_before", "error_after", "garbage", "truncate", "throttle")
CALLS = (
    "POST /v1/files",
    "GET /v1/files",
    "GET /v1/files/*",
    "GET /v1/files/*/content",
    "DELETE /v1/files/*",
    "POST /v1/batches",
    "GET /v1/batches",
    "GET /v1/batches/*",
)
REACHED_BY = {
    "GET /v1/files": {"on": "POST /v1/files", "effect": "drop_after", "nth": 1},
    "DELETE /v1/files/*": {"on": "POST /v1/batches", "effect": "drop_before", "nth": 1},
}
"""Calls that are made only after another one's reply was lost."""
ROWS = 4


def fault(call: str, effect: str, nth: int) -> dict[str, Any]:
    return {"on": call, "effect": effect, "nth": nth, "retry_after": 0.0}


@pytest.mark.parametrize("effect", EFFECTS)
def test_the_first_reply_of_every_call_may_be_lost(yard: Yard, effect: str) -> None:
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.service.faults(*(fault(call, effect, 1) for call in CALLS))
    yard.converge()
    yard.hold_laws(rows=ROWS)


@pytest.mark.full
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("call", CALLS)
def test_any_reply_may_be_lost_the_first_or_the_second_time(yard: Yard, call: str, effect: str, nth: int) -> None:
    yard.write({"jobs/chat.yaml": job(rows=ROWS, batch={"max_requests": 2})})
    rules = [fault(call, effect, nth)]
    if call in REACHED_BY:
        rules.append(REACHED_BY[call])
    yard.service.faults(*rules)
    yard.converge()
    yard.hold_laws(rows=ROWS)


def test_a_batch_that_the_list_shows_late_is_found_within_the_grace(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.service.faults({"on": "POST /v1/batches", "effect": "hide_from_list", "looks": 2, "nth": 1})
    assert yard.crash("after_create")
    events = yard.apply().lines
    assert not [event for event in events if event["type"] == "batch_created"]
    assert len(yard.batches()) == 1
    yard.hold_laws(rows=ROWS)


def test_where_absence_cannot_be_proven_nothing_is_asked_again_and_a_person_is_told_how(yard: Yard) -> None:
    """The code is unsettled_submission."""
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.service.faults({"on": "POST /v1/batches", "effect": "drop_before", "nth": 1},
                        {"on": "DELETE /v1/files/*", "effect": "error_before", "status": 403})  # fmt: skip
    yard.apply(code=1)
    ran = yard.apply(code=1)
    assert codes(ran) == ["unsettled_submission"]
    told = next(event["diagnostic"] for event in ran.lines if event["type"] == "diagnostic")
    assert [fix.split()[:2] for fix in told["fixes"]] == [["batchops", "import"], ["batchops", "state"]]
    assert yard.plan()["summary"]["batches"]["settle"] == 1
    assert not yard.batches()
    yard.service.faults()
    yard.converge()
    yard.hold_laws(rows=ROWS)


def test_a_create_whose_reply_was_lost_is_not_told_as_refused_when_the_list_fails_too(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.service.faults(
        {"on": "POST /v1/batches", "effect": "drop_after", "nth": 1},
        {"on": "GET /v1/batches", "effect": "error_before", "status": 500, "nth": list(range(2, 40))},
    )
    assert codes(yard.run("apply", "--auto-approve", "--json", code=1)) == ["unsettled_submission"]
    yard.service.faults()
    yard.converge()
    yard.hold_laws(rows=ROWS)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_batch_the_service_denies_is_no_outcome_and_holds_its_job(yard: Yard, status: int) -> None:
    """The code is batch_not_visible."""
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.service.faults({"on": "batch", "effect": "stall", "seconds": 5000})
    yard.run("apply", "--auto-approve")
    yard.write({"jobs/chat.yaml": job(rows=ROWS + 1)})
    yard.service.faults({"on": "GET /v1/batches/*", "effect": "error_before", "status": status})
    assert codes(yard.apply(code=1)) == ["batch_not_visible"]
    plan = yard.plan()
    assert plan["summary"]["rows"]["in_flight"] == ROWS
    assert plan["summary"]["rows"]["held"] == 1
    assert len(yard.batches()) == 1
    yard.service.faults()
    yard.service.advance(10_000)
    yard.converge()
    yard.hold_laws(rows=ROWS + 1)


def test_a_service_that_is_not_there_leaves_everything_as_it_was(yard: Yard) -> None:
    """The code is provider_unreachable."""
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.environ["OPENAI_BASE_URL"] = "http://127.0.0.1:9/v1"
    assert codes(yard.apply(code=1)) == ["provider_unreachable"]
    del yard.environ["OPENAI_BASE_URL"]
    yard.converge()
    yard.hold_laws(rows=ROWS)
