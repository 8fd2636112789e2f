"""What the server offers to tests takes no plan that it cannot keep, and no plan breaks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_desk import Desk, chat, serving


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with serving(tmp_path) as desk:
        yield desk


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"on": "line", "effect": "error", "times": "1"}, "times: Input should be a valid integer"),
        ({"on": "line", "effect": "error", "nth": [0]}, "nth.0: Input should be greater than or equal to 1"),
        ({"on": "line", "effect": "error", "nth": True}, "nth.0: Input should be a valid integer"),
        ({"on": "line", "effect": "error", "probability": "0.5"}, "probability: Input should be a valid number"),
        ({"on": "* /**", "effect": "truncate", "quiet": 1}, "quiet: Input should be a valid boolean"),
        ({"on": "* /**", "effect": "slow", "seconds": 1e11}, "seconds: Input should be less than or equal to"),
        (
            {"on": "* /**", "effect": "garbage", "content_type": "a\r\nb: c"},
            "content_type: String should match pattern",
        ),
        ({"on": "GET /\x85", "effect": "truncate"}, "on: String should match pattern"),
        ({"on": "GET /ä", "effect": "truncate"}, "on: String should match pattern"),
        ({"on": "batch", "effect": "fail", "line": -1}, "line: Input should be greater than or equal to 1"),
    ],
)
def test_rule_with_a_value_of_another_kind_is_refused(desk: Desk, rule: dict[str, Any], said: str) -> None:
    answered = desk.raw("POST", "/_batchops/faults", json={"rules": [rule]})
    assert answered.status_code == 400
    assert answered.json()["error"]["message"].startswith(f"Invalid fault plan: rule 1: {said}")


def test_number_without_a_fraction_is_whole(desk: Desk) -> None:
    rule = {"on": "GET /**", "effect": "error_before", "status": 503.0, "nth": 2.0, "times": 1.0}
    desk.control("faults", {"rules": [rule]})
    assert [desk.raw("GET", "/v1/files").status_code for _ in range(3)] == [200, 503, 200]


@pytest.mark.parametrize("path", ["/v1/files", "/v1/files/{id}/content", "/v1/models", "/v1/files/{id}"])
def test_hiding_from_lists_leaves_a_reply_that_makes_nothing_as_it_is(desk: Desk, path: str) -> None:
    path = path.replace("{id}", desk.upload([chat("a")]))
    before = desk.raw("GET", path)
    desk.control("faults", {"rules": [{"on": "GET /**", "effect": "hide_from_list", "times": 1}]})
    after = desk.raw("GET", path)
    assert (after.status_code, after.content) == (before.status_code, before.content)
    assert len(desk.sdk.files.list().data) == 1


def test_long_wait_is_asked_for_in_whole_digits(desk: Desk) -> None:
    desk.control("faults", {"rules": [{"on": "GET /**", "effect": "throttle", "retry_after": 5_000_000}]})
    assert desk.raw("GET", "/v1/files").headers["retry-after"] == "5000000"
