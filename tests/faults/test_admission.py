"""What is sent now and what later: waves under a queue limit, canaries after a failure, equal requests once."""

from __future__ import annotations

import json

from yard import RETRY, SETTINGS, Yard, codes, job, query

pytest_plugins = ("yard_fixtures",)
NARROW = f"""{SETTINGS}
[providers.openai]
kind = "openai"
[providers.openai.models."gpt-5-mini"]
max_enqueued_tokens = 30
"""


def test_rows_beyond_the_queue_limit_are_planned_as_waves_and_worked_through(yard: Yard) -> None:
    yard.write({"batchops.toml": NARROW, "jobs/chat.yaml": job(rows=20)})
    plan = yard.plan()
    waves = plan["jobs"][0]["waves"]
    assert waves > 2
    yard.service.faults({"on": "batch", "effect": "stall", "seconds": 5000, "nth": 1})
    yard.run("apply", "--auto-approve", "--wait", "--timeout", "1s", code=9)
    assert len(yard.batches()) == 1, "the second wave waits for the first"
    assert 0 < yard.plan()["summary"]["rows"]["submit"] < 20
    yard.service.advance(10_000)
    yard.converge()
    assert len(yard.batches()) >= waves
    yard.hold_laws(rows=20)


def test_the_provider_s_batches_an_hour_are_not_exceeded(yard: Yard) -> None:
    settings = SETTINGS + '[providers.openai]\nkind = "openai"\nmax_batches_per_hour = 2\n'
    yard.write({"batchops.toml": settings, "jobs/chat.yaml": job(rows=3, batch={"max_requests": 1})})
    yard.run("apply", "--auto-approve", "--wait", "--timeout", "1s", code=9)
    assert len(yard.batches()) == 2
    yard.write({"batchops.toml": SETTINGS})
    yard.converge()
    yard.hold_laws(rows=3)


def test_after_a_batch_that_failed_as_one_a_wrong_parameter_costs_a_hundred_lines(yard: Yard) -> None:
    """The codes are canary_first and canary_failed."""
    broken = {"on": "line", "effect": "error", "status": 400, "code": "unsupported_parameter"}
    yard.write({"jobs/chat.yaml": job(rows=250)})
    yard.service.faults(broken)
    yard.apply(code=6)
    yard.write({"jobs/chat.yaml": job(rows=250, template="Judge: {{ body }}")})
    assert codes(yard.apply(code=1)) == ["canary_first", "canary_failed"]
    assert [batch["request_counts"]["total"] for batch in yard.batches()] == [100, 250]
    yard.service.faults()
    yard.write({"jobs/chat.yaml": job(rows=250, template="Grade: {{ body }}")})
    assert codes(yard.apply()) == ["canary_first"]
    assert [batch["request_counts"]["total"] for batch in yard.batches()] == [150, 100, 100, 250]
    assert yard.statuses() == {"succeeded": 250}
    yard.hold_at_most_once()
    yard.hold_empty_plan()


def test_equal_requests_of_two_jobs_are_asked_once_and_answer_both(yard: Yard) -> None:
    yard.write({"jobs/a.yaml": job("a", rows=5)})
    alone = yard.plan()
    yard.write({"jobs/b.yaml": job("b", rows=5)})
    both = yard.plan()
    assert both["cost"]["estimate_usd"] == alone["cost"]["estimate_usd"]
    assert (both["summary"]["rows"]["submit"], both["summary"]["batches"]["create"]) == (10, 1)
    yard.write({"jobs/b.yaml": job("b", rows=7)})
    planned = yard.plan()["summary"]
    assert (planned["rows"]["submit"], planned["batches"]["create"]) == (12, 2)
    done = yard.apply().lines[-1]["summary"]
    assert (done["rows"]["submit"], done["batches"]["create"]) == (12, 2)
    yard.hold_laws(rows=5, job="a", requests=7)
    yard.hold_laws(rows=7, job="b", requests=7)


def test_equal_requests_at_two_prices_are_reviewed_and_limited_at_both(yard: Yard) -> None:
    """Where the cheap provider has no room, the dear one is paid."""
    cheap, dear = (
        f"""[providers.{name}]
kind = "openai"
base_url = "{yard.service.environ["OPENAI_BASE_URL"]}"
[providers.{name}.models.m]
max_enqueued_tokens = {room}
price = {{ input = {price}, output = {price} }}
"""
        for name, price, room in (("cheap", 0.1, 30), ("dear", 1000, 10**6))
    )
    params = {"max_completion_tokens": 100}
    yard.write({
        "batchops.toml": f"{SETTINGS}{cheap}{dear}[budget]\nmax_cost_usd = 0.01\n",
        "jobs/a.yaml": job("a", rows=10, provider="cheap", model="m", params=params),
        "jobs/b.yaml": job("b", rows=10, provider="dear", model="m", params=params),
    })  # fmt: skip
    plan = json.loads(yard.run("plan", "--json", code=5).out)
    assert [planned["cost"]["estimate_usd"]["high"] > 0.9 for planned in plan["jobs"]] == [False, True]
    assert "over_budget" in codes(yard.apply(code=5))
    assert yard.batches() == []


def test_equal_requests_are_retried_once_and_answer_every_row(yard: Yard) -> None:
    same = {"query": query(6).replace("'review ' || i", "'review ' || i // 2"), "key": "id"}
    yard.write({"jobs/a.yaml": job("a", source=same), "jobs/b.yaml": job("b", source=same, retry=RETRY)})
    yard.service.faults({"on": "line", "effect": "error", "status": 500, "times": 3})
    yard.apply()
    assert set(yard.executed().values()) == {2}
    yard.hold_at_most_once()
    for name in ("a", "b"):
        assert yard.statuses(name) == {"succeeded": 6}
    yard.hold_empty_plan()
