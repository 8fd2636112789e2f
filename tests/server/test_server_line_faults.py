"""Fault plans for lines: another answer, or one that goes astray."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_desk import Desk, chat, serving


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with serving(tmp_path) as desk:
        yield desk


def outcome(desk: Desk, rule: dict[str, Any], **more: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The output and error lines of a batch of one good line and one that a rule meets."""
    desk.plan({"on": "line", "custom_id": "bad*", **rule})
    done = desk.wait(desk.submit([chat("good", **more), chat("bad", **more)]))
    assert done.status == "completed"
    met = [desk.lines(file_id) for file_id in (done.output_file_id, done.error_file_id)]
    assert any(line["custom_id"] == "good" for line in met[0])
    output, errors = ([line for line in lines if line["custom_id"] == "bad"] for lines in met)
    return output, errors


def test_line_is_answered_with_an_http_error(desk: Desk) -> None:
    rule = {"effect": "error", "status": 429, "code": "rate_limit_exceeded", "message": "Slow down.", "type": "tokens"}
    output, [line] = outcome(desk, rule)
    assert (output, line["error"]) == ([], None)
    assert line["response"]["status_code"] == 429
    assert line["response"]["body"] == {
        "error": {"message": "Slow down.", "type": "tokens", "param": None, "code": "rate_limit_exceeded"}
    }


@pytest.mark.parametrize(
    ("effect", "content", "refusal", "finish"),
    [
        ("length", r"Simulated answer [0-9a-f]*", None, "length"),
        ("refusal", None, r"I'm sorry.*", "stop"),
        ("content_filter", r"", None, "content_filter"),
        ("empty", r"", None, "stop"),
    ],
)
def test_line_is_answered_with_a_spoiled_success(
    desk: Desk, effect: str, content: str | None, refusal: str | None, finish: str
) -> None:
    [line], errors = outcome(desk, {"effect": effect})
    [choice] = line["response"]["body"]["choices"]
    assert errors == []
    assert choice["finish_reason"] == finish
    for wanted, got in ((content, choice["message"]["content"]), (refusal, choice["message"]["refusal"])):
        assert got is None if wanted is None else re.fullmatch(wanted, got)


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
SHAPE = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}


def test_line_is_answered_with_broken_json(desk: Desk) -> None:
    [line], _ = outcome(desk, {"effect": "invalid_json"}, response_format=SHAPE)
    with pytest.raises(json.JSONDecodeError):
        json.loads(line["response"]["body"]["choices"][0]["message"]["content"])


def test_line_is_answered_off_its_schema(desk: Desk) -> None:
    [line], _ = outcome(desk, {"effect": "schema_mismatch"}, response_format=SHAPE)
    assert "a" not in json.loads(line["response"]["body"]["choices"][0]["message"]["content"])


def test_answer_of_a_line_is_lost(desk: Desk) -> None:
    assert outcome(desk, {"effect": "missing"}) == ([], [])
    assert {row["custom_id"]: row["count"] for row in desk.ledger()["executions"]} == {"good": 1, "bad": 1}


def test_answer_of_a_line_comes_twice(desk: Desk) -> None:
    [first, second], errors = outcome(desk, {"effect": "duplicate"})
    assert (first, errors) == (second, [])


def test_answer_of_a_line_is_in_the_wrong_file(desk: Desk) -> None:
    output, [line] = outcome(desk, {"effect": "wrong_file"})
    assert (output, line["response"]["status_code"]) == ([], 200)


def test_line_has_status_zero_in_the_output_file(desk: Desk) -> None:
    [line], errors = outcome(desk, {"effect": "status_0"})
    assert errors == []
    assert (line["response"]["status_code"], line["response"]["body"]) == (0, None)


def test_line_timed_out_without_a_response(desk: Desk) -> None:
    output, [line] = outcome(desk, {"effect": "timeout"})
    assert output == []
    assert (line["response"], line["error"]["code"]) == (None, "request_timeout")


@pytest.mark.parametrize("text", ["needle", 'quo"te', "é\n"])
def test_line_rule_looks_into_the_request(desk: Desk, text: str) -> None:
    desk.plan({"on": "line", "contains": text, "effect": "error"})
    done = desk.wait(desk.submit([chat("a", f"hay {text} hay"), chat("b", "hay")]))
    assert [line["custom_id"] for line in desk.lines(done.error_file_id)] == ["a"]


def test_line_rule_picks_by_turn(desk: Desk) -> None:
    desk.plan({"on": "line", "nth": [2, 3], "effect": "error"})
    done = desk.wait(desk.submit([chat(f"r{n}") for n in range(5)]))
    assert sorted(line["custom_id"] for line in desk.lines(done.error_file_id)) == ["r1", "r2"]
