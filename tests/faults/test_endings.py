"""Every ending of a batch and of a line: what becomes of the rows, and what is asked again."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from yard import RETRY, Yard, codes, job

pytest_plugins = ("yard_fixtures",)

MOOD = {
    "title": "mood",
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}},
    "required": ["mood"],
    "additionalProperties": False,
}
MARKED = {"query": "SELECT i AS id, 'row <' || i || '>' AS body FROM range(16) t(i)", "key": "id"}
"""Rows whose text a line fault can find: `<3>`."""


def line(row: int, effect: str, **more: Any) -> dict[str, Any]:
    """A line fault for one row, once."""
    return {"on": "line", "effect": effect, "contains": f"<{row}>", "times": 1, **more}


def sent(yard: Yard, batch: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines of a batch's input file."""
    found: list[dict[str, Any]] = yard.service.lines(batch["input_file_id"])
    return found


@pytest.mark.parametrize(("effect", "status"), [("expire", "expired"), ("cancel", "cancelled")])
def test_a_batch_that_ends_half_done_is_harvested_and_only_the_rest_is_asked_again(
    yard: Yard, effect: str, status: str
) -> None:
    yard.write({"jobs/chat.yaml": job(rows=12)})
    yard.service.faults({"on": "batch", "effect": effect, "at": 0.5, "nth": 1})
    done = yard.apply().lines
    fetched = [event["outcomes"] for event in done if event["type"] == "batch_fetched"]
    assert fetched == [{"succeeded": 6, status: 6}, {"succeeded": 6}]
    assert {row["attempts"] for row in yard.results("chat")} == {1}
    yard.hold_laws(rows=12)


def test_a_batch_tells_what_it_cost_though_some_of_its_lines_failed(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(template="{{ body }}", source=MARKED)})
    yard.service.faults(line(3, "error", status=500))
    first, second = (event["cost_usd"] for event in yard.apply().lines if event["type"] == "batch_fetched")
    spent = sum(row["cost_usd"] for row in yard.results("chat"))
    assert first > second > 0
    assert first + second == pytest.approx(spent)


def test_a_line_the_service_names_is_given_up_and_the_rows_beside_it_are_asked_again(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(rows=6)})
    yard.service.faults(
        {"on": "batch", "effect": "fail", "nth": 1, "code": "invalid_request", "line": 3, "param": "body.messages",
         "message": "Messages parameter is required."}
    )  # fmt: skip
    ran = yard.apply(code=6)
    assert yard.statuses() == {"succeeded": 5, "bad_request": 1}
    assert sum(yard.executed().values()) == 5
    bad = next(row for row in yard.results("chat") if row["status"] == "bad_request")
    assert bad["error"]["code"] == "invalid_request"
    told = next(event["diagnostic"] for event in ran.lines if event["type"] == "diagnostic")
    assert told["code"] == "batch_failed"
    assert told["address"] == "chat"
    assert told["range"]["filename"] == "jobs/chat.yaml"
    assert f"chat@{bad['key']['id']}" in told["detail"]
    yard.hold_empty_plan()


def test_a_full_queue_burns_no_attempt_and_the_wait_doubles(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(rows=4)})
    yard.service.faults({"on": "batch", "effect": "fail", "times": 2})
    for minutes in (5, 10):
        yard.run("apply", "--auto-approve")
        yard.wait_ended()
        before = datetime.now(UTC)
        yard.run("apply", "--auto-approve")
        plan = yard.plan("--detailed-exitcode", code=2)
        assert plan["summary"]["rows"]["retry"] == 4
        assert plan["summary"]["batches"]["create"] == 0
        due = datetime.fromisoformat(plan["jobs"][0]["due_at"]) - before
        assert timedelta(minutes=minutes) * 0.89 < due < timedelta(minutes=minutes, seconds=60)
        yard.let_due()
    yard.converge()
    assert {row["attempts"] for row in yard.results("chat")} == {1}
    yard.hold_laws(rows=4)


@pytest.mark.parametrize(
    "fault",
    [
        {"on": "batch", "effect": "fail", "code": "billing_hard_limit_reached", "message": "Pay.", "times": 1},
        {"on": "POST /v1/batches", "effect": "error_before", "status": 429, "code": "insufficient_quota", "times": 1},
        {"on": "line", "effect": "error", "status": 429, "code": "credit_balance_exhausted", "times": 4},
    ],
    ids=["of the batch", "of the create", "of each line"],
)
def test_an_empty_account_holds_the_job_until_it_is_told_to_go_on(yard: Yard, fault: dict[str, Any]) -> None:
    yard.write({"jobs/chat.yaml": job(rows=4)})
    yard.service.faults(fault)
    yard.apply(code=6)
    assert len(yard.batches()) == (0 if fault["on"].startswith("POST") else 1)
    plan = yard.plan()
    assert plan["summary"]["rows"]["held"] == 4
    assert plan["jobs"][0]["health"] == "Held"
    yard.apply(code=6)
    assert len(yard.batches()) == (0 if fault["on"].startswith("POST") else 1)
    yard.run("retry", "chat")
    yard.converge()
    assert yard.statuses() == {"succeeded": 4}
    assert {row["attempts"] for row in yard.results("chat")} == {1}


def test_file_ids_that_come_late_are_waited_for(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(rows=4)})
    yard.service.faults({"on": "batch", "effect": "late_file_ids", "looks": 4})
    yard.apply()
    yard.hold_laws(rows=4)


def test_a_batch_that_completed_without_any_answer_is_retried_and_then_given_up(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(rows=4)})
    yard.service.faults({"on": "line", "effect": "error", "status": 500})
    done = yard.apply(code=6).lines[-1]
    assert done["summary"]["rows"]["failed"] == 4
    assert [batch["output_file_id"] for batch in yard.batches()] == [None, None, None]
    assert {(row["status"], row["attempts"]) for row in yard.results("chat")} == {("server_error", 3)}
    yard.hold_at_most_once()
    yard.apply(code=6)
    assert len(yard.batches()) == 3
    yard.write({"jobs/chat.yaml": job(rows=4, retry={**RETRY, "max_failed": "100%"})})
    yard.apply(code=0)


LINES: dict[str, tuple[dict[str, Any], str, int]] = {
    "wrong file": (line(0, "wrong_file"), "succeeded", 1),
    "twice": (line(1, "duplicate"), "succeeded", 1),
    "missing": (line(2, "missing"), "succeeded", 2),
    "status 0": (line(3, "status_0"), "succeeded", 2),
    "timeout": (line(4, "timeout"), "succeeded", 2),
    "429": (line(5, "error", status=429, code="rate_limit_exceeded"), "succeeded", 2),
    "invalid json": (line(6, "invalid_json"), "succeeded", 2),
    "schema mismatch": (line(7, "schema_mismatch"), "succeeded", 2),
    "truncated": (line(8, "length"), "succeeded", 2),
    "empty": (line(9, "empty"), "succeeded", 2),
    "refusal": (line(10, "refusal"), "refused", 1),
    "content filter": (line(11, "content_filter"), "content_filtered", 1),
    "400": (line(12, "error", status=400, code="invalid_prompt"), "bad_request", 1),
    "404": (line(13, "error", status=404, code="model_not_found"), "not_found", 1),
}
"""What happens to the line of each row, what becomes of the row, and how many attempts it takes."""


def test_every_ending_of_a_line_has_its_class_and_its_place_on_the_ladder(yard: Yard) -> None:
    spec = job(source=MARKED, schema=MOOD, params={"max_completion_tokens": 500}, retry={**RETRY, "max_failed": 4})
    yard.write({"jobs/chat.yaml": spec})
    yard.service.faults(*(fault for fault, _, _ in LINES.values()))
    yard.apply()
    found = {row["key"]["id"]: (row["status"], row["attempts"]) for row in yard.results("chat")}
    wanted = {number: (status, attempts) for number, (_, status, attempts) in enumerate(LINES.values())}
    assert found == {**dict.fromkeys(range(16), ("succeeded", 1)), **wanted}
    yard.hold_at_most_once()
    caps = Counter(entry["body"]["max_completion_tokens"] for batch in yard.batches() for entry in sent(yard, batch))
    assert caps == {500: 16 + 6, 1000: 2}, "a truncated answer, and an empty one, are asked again with twice the cap"
    yard.hold_empty_plan()


def test_a_refused_row_is_asked_again_on_request_and_keeps_its_digest(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(source=MARKED)})
    yard.service.faults(line(3, "refusal"))
    yard.apply(code=6)
    before = {row["key"]["id"]: row["digest"] for row in yard.results("chat")}
    yard.run("retry", "chat")
    assert yard.plan("--detailed-exitcode", code=2)["summary"]["rows"]["retry"] == 1
    yard.converge()
    assert {row["key"]["id"]: row["digest"] for row in yard.results("chat")} == before
    assert Counter(yard.executed().values()) == {1: 15, 2: 1}
    yard.hold_at_most_once()


def test_another_round_of_a_truncated_answer_goes_on_with_the_next_cap(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(source=MARKED, params={"max_completion_tokens": 500})})
    yard.service.faults(line(3, "length", times=4), line(5, "refusal"))
    yard.apply(code=6)
    assert yard.statuses() == {"succeeded": 14, "truncated": 1, "refused": 1}
    yard.run("retry", "chat")
    assert yard.plan()["summary"]["rows"]["retry"] == 2
    yard.apply()
    yard.hold_at_most_once()
    rounds = [entry for batch in yard.batches() for entry in sent(yard, batch)]
    caps = {text: sorted(entry["body"]["max_completion_tokens"] for entry in rounds if text in str(entry["body"]))
            for text in ("<3>", "<5>")}  # fmt: skip
    assert caps == {"<3>": [500, 1000, 2000, 4000, 8000], "<5>": [500, 500]}
    yard.hold_empty_plan()


def test_a_plan_prices_a_try_by_the_cap_and_the_model_that_it_goes_with(yard: Yard) -> None:
    rules = [{"when": "refused", "do": "retry", "model": "gpt-5"}]
    once = {**RETRY, "max_attempts": 1, "rules": rules}
    yard.write({"jobs/chat.yaml": job(source=MARKED, params={"max_completion_tokens": 500}, retry=once)})
    spec = yard.plan()["jobs"][0]["cost"]["estimate_usd"]["high"] / 16
    yard.service.faults(line(3, "length"))
    yard.apply(code=6)
    yard.run("retry", "chat")
    larger = yard.plan()["jobs"][0]["cost"]["estimate_usd"]["high"]
    assert larger == pytest.approx(2 * spec, rel=0.05), "nearly all of the price is of the output"
    yard.write({"jobs/chat.yaml": job(source=MARKED, params={"max_completion_tokens": 500, "seed": 1},
                                      retry={**once, "max_attempts": 2, "backoff": {"initial": "1h"}})})  # fmt: skip
    yard.service.faults(line(5, "refusal"))
    yard.run("apply", "--auto-approve")
    yard.wait_ended()
    yard.run("apply", "--auto-approve")
    assert yard.plan()["summary"]["rows"]["retry"] == 1
    assert yard.plan()["jobs"][0]["cost"]["estimate_usd"]["high"] == pytest.approx(5 * spec, rel=0.05)


def test_without_a_cap_a_truncated_answer_is_given_up_at_once(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(source=MARKED)})
    yard.service.faults(line(3, "length"))
    yard.apply(code=6)
    assert yard.statuses() == {"succeeded": 15, "truncated": 1}
    assert len(yard.batches()) == 1


def test_a_rule_of_the_user_changes_the_model_and_the_words_of_a_retry(yard: Yard) -> None:
    rules = [{"when": "refused", "do": "retry", "model": "gpt-5", "set": {"reasoning_effort": "low"}}]
    yard.write({"jobs/chat.yaml": job(source=MARKED, retry={**RETRY, "rules": rules})})
    yard.service.faults(line(3, "refusal"))
    yard.apply()
    retried, first = yard.batches()
    assert [entry["body"]["model"] for entry in sent(yard, retried)] == ["gpt-5"]
    assert [entry["body"]["reasoning_effort"] for entry in sent(yard, retried)] == ["low"]
    assert {entry["body"]["model"] for entry in sent(yard, first)} == {"gpt-5-mini"}
    yard.hold_empty_plan()


@pytest.mark.parametrize("quiet", [False, True], ids=["the connection breaks", "it looks complete"])
def test_a_download_that_is_cut_short_starts_again_and_is_never_half_recorded(yard: Yard, quiet: bool) -> None:
    yard.write({"jobs/chat.yaml": job(rows=8)})
    yard.service.faults({"on": "GET /v1/files/*/content", "effect": "truncate", "nth": [1, 2], "quiet": quiet})
    yard.apply()
    yard.hold_laws(rows=8)


@pytest.mark.full
def test_answers_that_the_service_deleted_are_looked_for_then_told_and_asked_again(yard: Yard) -> None:
    """The code is result_file_gone."""
    yard.write({"jobs/chat.yaml": job(rows=3)})
    yard.run("apply", "--auto-approve")
    yard.wait_ended()
    yard.service.advance(40 * 86400)
    assert codes(yard.apply(code=1)) == ["result_file_gone"]
    yard.converge()
    assert yard.statuses() == {"succeeded": 3}
    assert set(yard.executed().values()) == {2}
    yard.hold_at_most_once()
