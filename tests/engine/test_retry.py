"""Outcome × policy → verdict."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchops.engine.retry import MAX_FREE_ATTEMPTS, RULES, Cause, Verdict, amended, verdict
from batchops.spec.job import Outcome, Retry

MINUTE = timedelta(minutes=1)
CHAT = "/v1/chat/completions"
BODY = {"model": "gpt-5-mini", "messages": [], "max_completion_tokens": 400}
FAILURES = [outcome for outcome in Outcome if outcome is not Outcome.SUCCEEDED]


def tried(outcome: Outcome, retry: dict[str, Any] | None = None, **known: Any) -> Verdict:
    usual: dict[str, Any] = {"attempts": 0, "free_attempts": 0, "body": BODY, "url": CHAT}
    return verdict(Retry.model_validate(retry or {}), outcome, **{**usual, **known})


@pytest.mark.parametrize(
    ("outcome", "state", "counts"),
    [
        (Outcome.RATE_LIMITED, "waiting", True),
        (Outcome.SERVER_ERROR, "waiting", True),
        (Outcome.TIMED_OUT, "waiting", True),
        (Outcome.EXPIRED, "waiting", False),
        (Outcome.CANCELLED, "waiting", False),
        (Outcome.MISSING, "waiting", True),
        (Outcome.TRUNCATED, "waiting", True),
        (Outcome.INVALID_JSON, "waiting", True),
        (Outcome.SCHEMA_MISMATCH, "waiting", True),
        (Outcome.REFUSED, "given_up", True),
        (Outcome.CONTENT_FILTERED, "given_up", True),
        (Outcome.BAD_REQUEST, "given_up", True),
        (Outcome.NOT_FOUND, "given_up", True),
        (Outcome.QUOTA_EXHAUSTED, "held", False),
    ],
)
def test_default_policy_for_each_outcome(outcome: Outcome, state: str, counts: bool) -> None:
    found = tried(outcome)
    assert (found.state, found.counts) == (state, counts)
    assert found.delay == (MINUTE if state == "waiting" else timedelta())
    assert found.rule.startswith(f"default rule: {outcome} → ")


def test_only_a_rule_that_says_hold_stops_the_job() -> None:
    hold = {"rules": [{"when": ["server_error"], "do": "hold"}]}
    assert tried(Outcome.SERVER_ERROR, hold).stops_job
    assert tried(Outcome.QUOTA_EXHAUSTED).stops_job
    assert not tried(Outcome.EXPIRED, free_attempts=MAX_FREE_ATTEMPTS).stops_job
    assert not tried(Outcome.REFUSED).stops_job


def test_every_failure_is_in_exactly_one_default_rule() -> None:
    assert sorted(outcome for rule in RULES for outcome in rule.when) == sorted(FAILURES)


def test_success_needs_no_verdict() -> None:
    with pytest.raises(ValueError, match="succeeded"):
        tried(Outcome.SUCCEEDED)


def test_attempts_are_used_up_with_the_first_try_included() -> None:
    assert [tried(Outcome.SERVER_ERROR, attempts=n).state for n in range(4)] == [
        "waiting",
        "waiting",
        "given_up",
        "given_up",
    ]
    assert tried(Outcome.SERVER_ERROR, {"max_attempts": 1}).rule.endswith("; 1 of 1 attempts used")


def test_delay_doubles_to_its_maximum() -> None:
    policy = {"max_attempts": 100, "backoff": {"initial": "1m", "multiplier": 2, "max": "10m"}}
    delays = [tried(Outcome.SERVER_ERROR, policy, attempts=n).delay / MINUTE for n in (0, 1, 2, 3, 4, 98)]
    assert delays == [1, 2, 4, 8, 10, 10]


def test_absurd_multiplier_ends_at_the_maximum() -> None:
    policy = {"max_attempts": 100, "backoff": {"multiplier": 1e300}}
    assert tried(Outcome.SERVER_ERROR, policy, attempts=50).delay == timedelta(hours=1)


def test_jitter_takes_at_most_a_tenth_and_is_the_same_for_a_seed() -> None:
    delays = [tried(Outcome.SERVER_ERROR, jitter_seed=f"batch {n}").delay for n in range(50)]
    assert all(MINUTE * 0.9 <= delay <= MINUTE for delay in delays)
    assert len(set(delays)) > 25
    assert delays == [tried(Outcome.SERVER_ERROR, jitter_seed=f"batch {n}").delay for n in range(50)]


@pytest.mark.parametrize(
    ("outcome", "cause"),
    [
        (Outcome.EXPIRED, Cause.EXECUTED),
        (Outcome.CANCELLED, Cause.EXECUTED),
        (Outcome.MISSING, Cause.NEVER_EXECUTED),
        (Outcome.RATE_LIMITED, Cause.TOKEN_LIMIT),
    ],
)
def test_try_that_was_not_executed_burns_no_attempt_and_is_held_after_ten(outcome: Outcome, cause: Cause) -> None:
    found = [tried(outcome, attempts=2, free_attempts=n, cause=cause) for n in range(MAX_FREE_ATTEMPTS)]
    assert [each.state for each in found] == ["waiting"] * 9 + ["held"]
    assert not any(each.counts for each in found)


def test_full_queue_is_tried_again_after_5_10_20_40_and_80_minutes() -> None:
    delays = [tried(Outcome.RATE_LIMITED, free_attempts=n, cause=Cause.TOKEN_LIMIT).delay / MINUTE for n in range(6)]
    assert delays == [5, 10, 20, 40, 80, 80]


class TestCaps:
    @pytest.mark.parametrize(
        ("url", "body", "later"),
        [
            (CHAT, {"max_completion_tokens": 400}, {"max_completion_tokens": 800}),
            (CHAT, {"max_tokens": 100}, {"max_tokens": 200}),
            ("/v1/responses", {"max_output_tokens": 16}, {"max_output_tokens": 32}),
            ("/v1/completions", {"max_tokens": 1}, {"max_tokens": 2}),
        ],
    )
    def test_truncated_answer_is_asked_again_with_twice_the_cap(
        self, url: str, body: dict[str, Any], later: dict[str, Any]
    ) -> None:
        found = tried(Outcome.TRUNCATED, url=url, body=body)
        assert (found.state, found.amendment) == ("waiting", {"set": later})

    @pytest.mark.parametrize("body", [{}, {"max_completion_tokens": None}, {"max_completion_tokens": "400"}])
    def test_truncated_answer_without_a_cap_is_given_up(self, body: dict[str, Any]) -> None:
        found = tried(Outcome.TRUNCATED, body=body)
        assert (found.state, found.amendment) == ("given_up", None)
        assert found.rule.endswith("; no output cap in the body to raise")

    def test_cap_is_never_the_same_again(self) -> None:
        policy = {"max_attempts": 9}
        amendment, caps = None, []
        for attempt in range(4):
            found = tried(Outcome.TRUNCATED, policy, attempts=attempt, amendment=amendment)
            amendment = found.amendment
            caps.append(amended(BODY, amendment)["max_completion_tokens"])
        assert caps == [800, 1600, 3200, 6400]

    def test_another_round_begins_with_the_next_cap(self) -> None:
        earlier = {"set": {"max_completion_tokens": 1600}}
        found = tried(Outcome.TRUNCATED, {"max_attempts": 3}, attempts=2, amendment=earlier)
        assert (found.state, found.amendment) == ("given_up", {"set": {"max_completion_tokens": 3200}})

    def test_body_may_be_amended_already(self) -> None:
        amendment = {"set": {"max_completion_tokens": 800}}
        given_body = amended(BODY, amendment)
        assert tried(Outcome.TRUNCATED, body=given_body, amendment=amendment) == tried(
            Outcome.TRUNCATED, amendment=amendment
        )

    def test_factor_that_raises_nothing_is_given_up(self) -> None:
        policy = {"rules": [{"when": "truncated", "do": "retry", "cap": "x1"}]}
        assert tried(Outcome.TRUNCATED, policy).state == "given_up"

    def test_broken_factor_rounds_up(self) -> None:
        policy = {"rules": [{"when": "truncated", "do": "retry", "cap": "x1.5"}]}
        found = tried(Outcome.TRUNCATED, policy, body={"max_completion_tokens": 3})
        assert found.amendment == {"set": {"max_completion_tokens": 5}}


class TestUsersRules:
    def test_they_stand_before_the_defaults_and_the_first_match_wins(self) -> None:
        rules = [{"when": ["refused"], "do": "retry", "model": "gpt-5"}, {"when": ["refused"], "do": "hold"}]
        found = tried(Outcome.REFUSED, {"rules": rules})
        assert (found.state, found.counts, found.amendment) == ("waiting", True, {"model": "gpt-5"})
        assert found.rule == "rule 1: refused → retry, model gpt-5"
        assert tried(Outcome.SERVER_ERROR, {"rules": rules}).rule == "default rule: server_error → retry"

    def test_hold_burns_no_attempt(self) -> None:
        found = tried(Outcome.BAD_REQUEST, {"rules": [{"when": "bad_request", "do": "hold"}]})
        assert (found.state, found.counts) == ("held", False)

    def test_expired_row_may_be_given_up(self) -> None:
        found = tried(Outcome.EXPIRED, {"rules": [{"when": "expired", "do": "give_up"}]})
        assert (found.state, found.counts) == ("given_up", False)

    def test_amendments_accumulate(self) -> None:
        rules = [
            {"when": "invalid_json", "do": "retry", "set": {"temperature": 0}, "template": "Only JSON: {{ text }}"},
            {"when": "schema_mismatch", "do": "retry", "set": {"seed": 1}, "model": "gpt-5"},
        ]
        first = tried(Outcome.INVALID_JSON, {"rules": rules})
        second = tried(Outcome.SCHEMA_MISMATCH, {"rules": rules}, attempts=1, amendment=first.amendment)
        third = tried(Outcome.TRUNCATED, {"rules": rules, "max_attempts": 9}, amendment=second.amendment)
        assert first.amendment == {"set": {"temperature": 0}, "template": "Only JSON: {{ text }}"}
        assert third.amendment == {
            "set": {"temperature": 0, "seed": 1, "max_completion_tokens": 800},
            "template": "Only JSON: {{ text }}",
            "model": "gpt-5",
        }
        assert amended(BODY, third.amendment)["model"] == "gpt-5"

    def test_template_of_messages_or_of_a_file_is_kept_as_json(self) -> None:
        for template, expected in (
            ([{"role": "user", "content": "{{ a }}"}], [{"role": "user", "content": "{{ a }}"}]),
            ({"file": "prompts/other.md"}, {"file": "prompts/other.md"}),
        ):
            rules = [{"when": "refused", "do": "retry", "template": template}]
            assert tried(Outcome.REFUSED, {"rules": rules}).amendment == {"template": expected}

    def test_earlier_amendment_stays_when_the_row_is_given_up(self) -> None:
        assert tried(Outcome.REFUSED, amendment={"model": "gpt-5"}).amendment == {"model": "gpt-5"}


@given(
    outcome=st.sampled_from(FAILURES),
    attempts=st.integers(0, 20),
    free=st.integers(0, 20),
    most=st.integers(1, 20),
    cause=st.sampled_from(Cause),
)
def test_every_row_comes_to_rest(outcome: Outcome, attempts: int, free: int, most: int, cause: Cause) -> None:
    """However it starts, a row that always fails the same way is waiting for at most max_attempts + 10 more tries."""
    amendment: Any = None
    for _ in range(most + MAX_FREE_ATTEMPTS + 1):
        found = tried(
            outcome, {"max_attempts": most}, attempts=attempts, free_attempts=free, cause=cause, amendment=amendment
        )
        if found.state != "waiting":
            return
        attempts, free, amendment = attempts + found.counts, free + (not found.counts), found.amendment
    raise AssertionError("still waiting")
