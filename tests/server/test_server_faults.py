"""Fault plans: each effect does what it says, once, where it was asked to."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from batch_desk import Desk, chat, jsonl, serving

from batchops.diagnostics import BatchopsError
from batchops.server.faults import Faults, load_rules, parse_rules

CREATE = "POST /v1/batches"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with serving(tmp_path) as desk:
        yield desk


def created(desk: Desk) -> int:
    return len(list(desk.sdk.batches.list()))


def test_who_looks_into_a_plan_that_is_replaced_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = Faults(parse_rules({"rules": [{"on": "line", "effect": "error", "name": str(n)} for n in range(3)]}))

    def meets(*_: object) -> bool:
        faults.replace(())
        return True

    monkeypatch.setattr("batchops.server.faults._meets_line", meets)
    rule = faults.for_line("dice", "id", {})
    assert rule is not None
    assert rule.name == "0"
    assert faults.report() == []


# Calls


@pytest.mark.parametrize(("effect", "batches"), [("drop_before", 0), ("drop_after", 1)])
def test_connection_is_cut_before_or_after_the_batch_is_made(desk: Desk, effect: str, batches: int) -> None:
    file_id = desk.upload([chat("a")])
    desk.plan({"on": CREATE, "nth": 1, "effect": effect})
    with pytest.raises(openai.APIConnectionError):
        desk.create(file_id)
    assert created(desk) == batches
    desk.create(file_id)
    assert created(desk) == batches + 1


def test_sdk_that_retries_a_lost_reply_pays_three_times(desk: Desk) -> None:
    file_id = desk.upload([chat("a")])
    desk.plan({"on": CREATE, "times": 2, "effect": "drop_after"})
    patient = desk.sdk.with_options(max_retries=2)
    patient.batches.create(input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h")
    assert created(desk) == 3
    assert desk.ledger()["calls"][CREATE] == 3


@pytest.mark.parametrize(("effect", "batches"), [("error_before", 0), ("error_after", 1)])
def test_error_is_answered_before_or_after_the_batch_is_made(desk: Desk, effect: str, batches: int) -> None:
    file_id = desk.upload([chat("a")])
    desk.plan({"on": CREATE, "times": 1, "effect": effect, "status": 503, "code": "overloaded", "message": "Later."})
    with pytest.raises(openai.InternalServerError) as refused:
        desk.create(file_id)
    assert refused.value.status_code == 503
    assert refused.value.body == {"message": "Later.", "type": "server_error", "param": None, "code": "overloaded"}
    assert created(desk) == batches


def test_cancel_is_answered_with_a_conflict_when_planned(desk: Desk) -> None:
    desk.plan(
        {"on": "batch", "effect": "stall"},
        {"on": "POST /v1/batches/*/cancel", "times": 1, "effect": "error_before", "status": 409},
    )
    batch = desk.submit([chat("a")])
    with pytest.raises(openai.ConflictError):
        desk.sdk.batches.cancel(batch.id)
    assert desk.sdk.batches.cancel(batch.id).status == "cancelling"


def test_throttled_call_says_when_to_come_again(desk: Desk) -> None:
    desk.plan({"on": "POST /v1/files", "times": 1, "effect": "throttle", "retry_after": 7})
    with pytest.raises(openai.RateLimitError) as throttled:
        desk.upload([chat("a")])
    assert throttled.value.response.headers["retry-after"] == "7"
    assert list(desk.sdk.files.list()) == []


def test_garbage_comes_with_200_after_the_batch_is_made(desk: Desk) -> None:
    file_id = desk.upload([chat("a")])
    desk.plan({"on": CREATE, "times": 1, "effect": "garbage"})
    body = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    answered = desk.raw("POST", "/v1/batches", json=body)
    assert (answered.status_code, answered.headers["content-type"]) == (200, "text/html")
    assert "Bad Gateway" in answered.text
    assert created(desk) == 1


@pytest.mark.parametrize("quiet", [False, True])
def test_content_is_cut_short(desk: Desk, quiet: bool) -> None:
    content = jsonl([chat(f"r{n}") for n in range(100)])
    file_id = desk.upload(content)
    rule = {"on": "GET /v1/files/*/content", "times": 1, "effect": "truncate", "share": 0.25, "quiet": quiet}
    desk.plan(rule)
    if quiet:
        assert desk.sdk.files.content(file_id).read() == content[: len(content) // 4]
    else:
        with pytest.raises(openai.APIConnectionError):
            desk.sdk.files.content(file_id)
    assert desk.sdk.files.content(file_id).read() == content


def test_slow_answer_comes_after_the_batch_is_made(desk: Desk) -> None:
    file_id = desk.upload([chat("a")])
    desk.plan({"on": CREATE, "times": 1, "effect": "slow", "seconds": 0.2})
    hasty = desk.sdk.with_options(timeout=0.05)
    with pytest.raises(openai.APITimeoutError):
        hasty.batches.create(input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h")
    assert created(desk) == 1
    desk.plan({"on": "GET /v1/batches", "times": 1, "effect": "slow", "seconds": 0.2})
    with pytest.raises(openai.APITimeoutError):
        hasty.batches.list()


def test_new_batch_is_hidden_from_lists_for_some_looks(desk: Desk) -> None:
    file_id = desk.upload([chat("a")])
    desk.plan({"on": CREATE, "times": 1, "effect": "hide_from_list", "looks": 2})
    batch = desk.create(file_id)
    assert desk.sdk.batches.retrieve(batch.id).id == batch.id
    assert [created(desk) for _ in range(4)] == [0, 0, 1, 1]


def test_new_file_is_hidden_from_lists_for_some_time(desk: Desk) -> None:
    desk.plan({"on": "POST /v1/files", "times": 1, "effect": "hide_from_list", "seconds": 30})
    desk.upload([chat("a")])
    assert list(desk.sdk.files.list()) == []
    desk.control("clock/advance", {"seconds": 31})
    assert len(list(desk.sdk.files.list())) == 1


def test_calls_are_counted_by_kind(desk: Desk) -> None:
    desk.wait(desk.submit([chat("a")]))
    calls = desk.ledger()["calls"]
    assert (calls["POST /v1/files"], calls[CREATE]) == (1, 1)
    assert calls["GET /v1/batches/*"] >= 1


# Batches


def test_batch_expires_with_part_of_its_answers(desk: Desk) -> None:
    desk.plan({"on": "batch", "effect": "expire", "at": 0.5})
    done = desk.wait(desk.submit([chat(f"r{n}") for n in range(10)]))
    assert done.status == "expired"
    assert done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": 10, "completed": 5, "failed": 0}
    assert len(desk.lines(done.output_file_id)) == 5
    assert {line["error"]["code"] for line in desk.lines(done.error_file_id)} == {"batch_expired"}
    assert desk.ledger(done.id)["executed"] == 5


@pytest.mark.parametrize(("at", "answered"), [(0.0, 0), (1.0, 4)])
def test_batch_may_expire_before_anything_or_after_everything_was_answered(
    desk: Desk, at: float, answered: int
) -> None:
    desk.plan({"on": "batch", "effect": "expire", "at": at})
    done = desk.wait(desk.submit([chat(f"r{n}") for n in range(4)]))
    assert done.status == "expired"
    assert (len(desk.lines(done.output_file_id)), len(desk.lines(done.error_file_id))) == (answered, 4 - answered)


def test_batch_is_cancelled_by_somebody_else(desk: Desk) -> None:
    desk.plan({"on": "batch", "effect": "cancel", "at": 0.25})
    done = desk.wait(desk.submit([chat(f"r{n}") for n in range(4)]))
    assert done.status == "cancelled"
    assert (done.cancelling_at is None, done.cancelled_at is None) == (False, False)
    assert (len(desk.lines(done.output_file_id)), len(desk.lines(done.error_file_id))) == (1, 3)


def test_batch_fails_with_the_token_limit_in_the_words_of_the_service(desk: Desk) -> None:
    desk.plan({"on": "batch", "effect": "fail", "times": 1})
    file_id = desk.upload([chat("a")])
    failed = desk.wait(desk.create(file_id))
    assert failed.errors is not None
    [problem] = failed.errors.data or []
    assert problem.code == "token_limit_exceeded"
    assert re.match(r"Enqueued token limit reached for gpt-4o-mini in organization .*", problem.message or "")
    assert desk.wait(desk.create(file_id)).status == "completed"


def test_batch_fails_with_any_code(desk: Desk) -> None:
    desk.plan({"on": "batch", "effect": "fail", "code": "billing_hard_limit_reached", "message": "No money."})
    failed = desk.wait(desk.submit([chat("a")]))
    assert failed.errors is not None
    assert [(error.code, error.message) for error in failed.errors.data or []] == [
        ("billing_hard_limit_reached", "No money.")
    ]


def test_file_ids_come_late(desk: Desk) -> None:
    desk.plan({"on": "batch", "effect": "late_file_ids", "looks": 2})
    batch = desk.submit([chat("a")])
    seen = [desk.wait(batch).output_file_id for _ in range(4)]
    assert seen[:2] == [None, None]
    assert None not in seen[2:]


@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing"])
def test_batch_stays_in_a_state_until_it_is_let_go(desk: Desk, status: str) -> None:
    desk.plan({"on": "batch", "effect": "stall", "status": status, "seconds": 100})
    batch = desk.submit([chat(f"r{n}") for n in range(4)])
    desk.wait(batch, lambda seen: seen.status == status)
    desk.control("clock/advance", {"seconds": 50})
    assert desk.sdk.batches.retrieve(batch.id).status == status
    desk.control("clock/advance", {"seconds": 51})
    done = desk.wait(batch)
    assert (done.status, len(desk.lines(done.output_file_id))) == ("completed", 4)
    assert {row["count"] for row in desk.ledger()["executions"]} == {1}


def test_batch_rule_picks_by_metadata_and_by_turn(desk: Desk) -> None:
    desk.plan({"on": "batch", "effect": "fail", "metadata": {"job": "re*"}, "nth": [2]})
    file_id = desk.upload([chat("a")])
    jobs = ["reviews", "other", "reviews", "reviews"]
    assert [desk.wait(desk.create(file_id, metadata={"job": job})).status for job in jobs] == [
        "completed",
        "completed",
        "failed",
        "completed",
    ]


# Chance


def test_probability_falls_on_about_its_share_and_the_same_lines_for_the_same_seed() -> None:
    rules = parse_rules({"rules": [{"on": "line", "effect": "error", "probability": 0.3}]})

    def met(seed: int) -> list[int]:
        faults = Faults(rules, seed=seed)
        return [n for n in range(1000) if faults.for_line("1", f"r{n}", {})]

    assert 240 < len(met(1)) < 360
    assert met(1) == met(1) != met(2)


def test_calls_with_a_probability_are_met_anew_each_time() -> None:
    rules = parse_rules({"rules": [{"on": "GET /v1/**", "effect": "error_before", "probability": 0.5}]})
    faults = Faults(rules)
    met = Counter(faults.for_call("GET", "/v1/files/file-a/content") is not None for _ in range(400))
    assert 140 < met[True] < 260


# The file


def test_plan_is_read_from_toml_and_from_json(tmp_path: Path) -> None:
    rule = {"name": "lost", "on": CREATE, "nth": 1, "effect": "drop_after"}
    (tmp_path / "plan.json").write_text(json.dumps({"rules": [rule]}))
    (tmp_path / "plan.toml").write_text(f'[[rules]]\nname = "lost"\non = "{CREATE}"\nnth = 1\neffect = "drop_after"\n')
    assert load_rules(tmp_path / "plan.json") == load_rules(tmp_path / "plan.toml")


def test_server_starts_with_the_plan_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text('[[rules]]\non = "batch"\neffect = "fail"\n')
    with serving(tmp_path / "data", faults=str(tmp_path / "plan.toml")) as desk:
        assert desk.wait(desk.submit([chat("a")])).status == "failed"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules = 3", "a fault plan has one key, `rules`: a list"),
        ('[[rules]]\non = "line"\neffect = "explode"', "rule 1: effect: Input should be 'error'"),
        ('[[rules]]\non = "POST"\neffect = "slow"', "rule 1: on: String should match pattern"),
        ('[[rules]]\non = "batch"\neffect = "fail"\nwhen = 3', "rule 1: when: Extra inputs are not permitted"),
        ("[[rules]]", "rule 1: on: Field required"),
        ("[[rules", "Expected ']]'"),
    ],
)
def test_wrong_plan_is_refused_with_the_rule_and_the_reason(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(BatchopsError) as refused:
        load_rules(tmp_path / "plan.toml")
    [problem] = refused.value.diagnostics
    assert problem.code == "invalid_fault_plan"
    assert said in problem.detail


def test_wrong_plan_at_run_time_changes_nothing(desk: Desk) -> None:
    desk.plan({"on": "batch", "effect": "fail"})
    answered = desk.raw("POST", "/_batchops/faults", json={"rules": [{"on": "line"}]})
    assert (answered.status_code, "rule 1" in answered.json()["error"]["message"]) == (400, True)
    assert desk.wait(desk.submit([chat("a")])).status == "failed"


def test_the_plan_tells_how_often_each_rule_saw_its_call_and_fired(desk: Desk) -> None:
    desk.plan({"on": CREATE, "nth": 2, "effect": "drop_before", "name": "second"}, {"on": "line", "effect": "missing"})
    file_id = desk.upload([chat("a")])
    desk.create(file_id)
    with pytest.raises(openai.APIConnectionError):
        desk.create(file_id)
    first, second = desk.raw("GET", "/_batchops/faults").json()["rules"]
    assert first == {"name": "second", "on": CREATE, "effect": "drop_before", "seen": 2, "fired": 1}
    assert second["on"] == "line"
