"""Batches: shapes, the state machine, listing, cancelling; what is refused and in which words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from batch_desk import Desk, chat, serving


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with serving(tmp_path) as desk:
        yield desk


def test_created_batch_has_the_shape_of_the_service(desk: Desk) -> None:
    file_id = desk.upload([chat("a")])
    made = desk.create(file_id, metadata={"team": "insights"})
    assert made.to_dict() == {
        "id": made.id,
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "model": None,
        "errors": None,
        "input_file_id": file_id,
        "completion_window": "24h",
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": made.created_at,
        "in_progress_at": None,
        "expires_at": made.created_at + 86400,
        "finalizing_at": None,
        "completed_at": None,
        "failed_at": None,
        "expired_at": None,
        "cancelling_at": None,
        "cancelled_at": None,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "usage": {
            "input_tokens": 0,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 0,
        },
        "metadata": {"team": "insights"},
    }


def test_batch_completes_through_every_state_with_its_time(desk: Desk) -> None:
    done = desk.wait(desk.submit([chat(f"r{n}") for n in range(20)]))
    assert done.status == "completed"
    assert done.model == "gpt-4o-mini"
    assert done.created_at <= done.in_progress_at <= done.finalizing_at <= done.completed_at  # type: ignore[operator]
    assert (done.failed_at, done.expired_at, done.cancelled_at) == (None, None, None)
    assert done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": 20, "completed": 20, "failed": 0}
    assert done.error_file_id is None


def test_output_names_every_request_once_in_an_order_of_its_own(desk: Desk) -> None:
    asked = [f"r{n}" for n in range(50)]
    done = desk.wait(desk.submit([chat(custom_id) for custom_id in asked]))
    lines = desk.lines(done.output_file_id)
    assert sorted(line["custom_id"] for line in lines) == sorted(asked)
    assert [line["custom_id"] for line in lines] != asked
    assert all(line["error"] is None and line["response"]["status_code"] == 200 for line in lines)
    assert len({line["id"] for line in lines}) == 50


def test_usage_of_the_batch_is_the_sum_over_its_lines(desk: Desk) -> None:
    done = desk.wait(desk.submit([chat(f"r{n}", "word " * n) for n in range(1, 9)]))
    used = [line["response"]["body"]["usage"] for line in desk.lines(done.output_file_id)]
    assert done.usage is not None
    assert done.usage.input_tokens == sum(usage["prompt_tokens"] for usage in used) > 0
    assert done.usage.output_tokens == sum(usage["completion_tokens"] for usage in used) > 0
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens


def test_result_files_are_listed_with_their_names_and_lives(desk: Desk) -> None:
    batch = desk.submit([chat("a")], output_expires_after={"anchor": "created_at", "seconds": 7200})
    done = desk.wait(batch)
    assert done.output_file_id is not None
    file = desk.sdk.files.retrieve(done.output_file_id)
    assert (file.filename, file.purpose) == (f"{batch.id}_output.jsonl", "batch_output")
    assert file.expires_at == file.created_at + 7200


def test_one_file_serves_many_batches(desk: Desk) -> None:
    file_id = desk.upload([chat("a")])
    first, second = desk.wait(desk.create(file_id)), desk.wait(desk.create(file_id))
    assert first.id != second.id
    assert first.output_file_id != second.output_file_id


def test_batch_without_its_input_file_is_created_and_then_fails_unpaid(desk: Desk) -> None:
    file_id = desk.upload([chat("a")])
    desk.sdk.files.delete(file_id)
    failed = desk.wait(desk.create(file_id))
    assert failed.status == "failed"
    assert failed.errors is not None
    assert failed.errors.to_dict() == {
        "object": "list",
        "data": [
            {
                "code": "invalid_request",
                "line": None,
                "message": f"Cannot find file {file_id}, or organization org-batchops does not have access to it.",
                "param": "file_id",
            }
        ],
    }
    assert failed.failed_at is not None
    assert (failed.output_file_id, failed.error_file_id) == (None, None)
    assert desk.ledger()["executed"] == 0


def test_file_deleted_before_execution_fails_the_batch_unpaid(desk: Desk) -> None:
    desk.control("faults", {"rules": [{"on": "batch", "effect": "stall", "status": "validating", "seconds": 60}]})
    file_id = desk.upload([chat("a")])
    batch = desk.create(file_id)
    desk.sdk.files.delete(file_id)
    desk.control("clock/advance", {"seconds": 61})
    assert desk.wait(batch).status == "failed"
    assert desk.ledger()["executed"] == 0


def test_file_deleted_during_execution_takes_nothing_from_the_batch(desk: Desk) -> None:
    desk.control("faults", {"rules": [{"on": "batch", "effect": "stall", "at": 0.5, "seconds": 60}]})
    file_id = desk.upload([chat("a"), chat("b")])
    batch = desk.create(file_id)
    desk.wait(batch, lambda seen: seen.request_counts is not None and seen.request_counts.completed == 1)
    desk.sdk.files.delete(file_id)
    desk.control("clock/advance", {"seconds": 61})
    assert len(desk.lines(desk.wait(batch).output_file_id)) == 2


def test_listing_is_newest_first_and_pages(desk: Desk) -> None:
    file_id = desk.upload([chat("a")])
    made = [desk.create(file_id).id for _ in range(5)]
    assert [batch.id for batch in desk.sdk.batches.list(limit=2)] == made[::-1]
    page = desk.raw("GET", f"/v1/batches?limit=2&after={made[4]}").json()
    assert [batch["id"] for batch in page["data"]] == [made[3], made[2]]
    assert (page["object"], page["first_id"], page["last_id"], page["has_more"]) == ("list", made[3], made[2], True)


def test_listing_gives_twenty_unless_told(desk: Desk) -> None:
    file_id = desk.upload([chat("a")])
    for _ in range(21):
        desk.create(file_id)
    page = desk.raw("GET", "/v1/batches").json()
    assert (len(page["data"]), page["has_more"]) == (20, True)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "integer_below_min_value"),
        ("limit=-1", "integer_below_min_value"),
        ("limit=101", "integer_above_max_value"),
        *((f"limit={written}", "invalid_type") for written in ("", "%D9%A3", "1_0", "%2B5", "%205", "5.0", "9" * 40)),
    ],
)
def test_listing_refuses_a_limit_out_of_range(desk: Desk, query: str, code: str) -> None:
    answered = desk.raw("GET", f"/v1/batches?{query}")
    assert (answered.status_code, answered.json()["error"]["code"]) == (400, code)


def test_unknown_batch_is_not_found(desk: Desk) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        desk.sdk.batches.retrieve("batch_nowhere")
    assert unknown.value.body == {
        "message": "No batch found with id 'batch_nowhere'.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


BAD_CREATES: list[tuple[dict[str, Any], str | None, str | None, str]] = [
    (
        {"input_file_id": None},
        "input_file_id",
        "missing_required_parameter",
        "Missing required parameter: 'input_file_id'.",
    ),
    (
        {"endpoint": None},
        "endpoint",
        "missing_required_parameter",
        "Missing required parameter: 'endpoint'.",
    ),
    (
        {"endpoint": "/v1/party"},
        "endpoint",
        "invalid_value",
        "Invalid value: '/v1/party'. Supported values are: '/v1/responses', '/v1/chat/completions', '/v1/embeddings', "
        "'/v1/completions', '/v1/moderations', '/v1/images/generations', '/v1/images/edits', '/v1/videos'.",
    ),
    (
        {"completion_window": "48h"},
        "completion_window",
        "invalid_value",
        "Invalid value: '48h'. Supported values are: '24h'.",
    ),
    (
        {"metadata": {"tags": ["a"]}},
        "metadata.tags",
        "invalid_type",
        "Invalid type for 'metadata.tags': expected a string, but got an array instead.",
    ),
    (
        {"metadata": {str(n): "" for n in range(17)}},
        "metadata",
        "object_above_max_properties",
        "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got an object "
        "with 17 properties instead.",
    ),
    (
        {"metadata": {"k": "x" * 513}},
        "metadata.k",
        "string_above_max_length",
        "Invalid 'metadata.k': string too long. Expected a string with maximum length 512, but got a string with "
        "length 513 instead.",
    ),
    (
        {"metadata": {"k" * 65: "x"}},
        "metadata",
        "string_above_max_length",
        "Invalid 'metadata': key string too long. Expected a string with maximum length 64, but got a string with "
        "length 65 instead.",
    ),
    (
        {"output_expires_after": {"anchor": "created_at", "seconds": 3599}},
        "output_expires_after.seconds",
        "integer_below_min_value",
        "Invalid 'output_expires_after.seconds': integer below minimum value. Expected a value >= 3600, but got 3599 "
        "instead.",
    ),
    (
        {"output_expires_after": {"anchor": "completed_at", "seconds": 3600}},
        "output_expires_after.anchor",
        "invalid_value",
        "Invalid value: 'completed_at'. Supported values are: 'created_at'.",
    ),
]


@pytest.mark.parametrize(("change", "param", "code", "message"), BAD_CREATES)
def test_create_with_a_wrong_parameter_is_refused_at_once(
    desk: Desk, change: dict[str, Any], param: str | None, code: str | None, message: str
) -> None:
    good = {"input_file_id": "file-x", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    body = {key: value for key, value in {**good, **change}.items() if value is not None}
    answered = desk.raw("POST", "/v1/batches", json=body)
    assert answered.status_code == 400
    assert answered.json()["error"] == {
        "message": message,
        "type": "invalid_request_error",
        "param": param,
        "code": code,
    }
    assert list(desk.sdk.batches.list()) == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_create_with_a_body_that_is_no_object_is_refused(desk: Desk, body: bytes) -> None:
    assert desk.raw("POST", "/v1/batches", content=body).status_code == 400


def test_create_with_an_endless_body_is_refused(desk: Desk) -> None:
    answered = desk.raw("POST", "/v1/batches", content=b'{"metadata":"' + b"x" * 2_000_000 + b'"}')
    assert answered.status_code == 413


def test_metadata_at_its_limits_is_kept(desk: Desk) -> None:
    pairs = {f"{n:064}": "é" * 512 for n in range(16)}
    assert desk.submit([chat("a")], metadata=pairs).metadata == pairs


# Cancelling


def _stalled(desk: Desk, **more: Any) -> None:
    desk.control("faults", {"rules": [{"on": "batch", "effect": "stall", **more}]})


def test_cancelled_batch_keeps_what_was_answered_and_names_what_was_not(desk: Desk) -> None:
    _stalled(desk, at=0.5)
    batch = desk.submit([chat(f"r{n}") for n in range(8)])
    desk.wait(batch, lambda seen: seen.request_counts is not None and seen.request_counts.completed == 4)
    cancelling = desk.sdk.batches.cancel(batch.id)
    assert cancelling.status == "cancelling"
    assert cancelling.cancelling_at is not None
    done = desk.wait(batch)
    assert done.status == "cancelled"
    assert done.cancelled_at is not None
    assert done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": 8, "completed": 4, "failed": 0}
    answered, unanswered = desk.lines(done.output_file_id), desk.lines(done.error_file_id)
    assert len(answered) == len(unanswered) == 4
    assert {line["custom_id"] for line in answered + unanswered} == {f"r{n}" for n in range(8)}
    assert [(line["response"], line["error"]["code"]) for line in unanswered] == [(None, "batch_cancelled")] * 4


def test_batch_is_cancelled_while_it_is_validating(desk: Desk) -> None:
    _stalled(desk, status="validating")
    batch = desk.submit([chat("a")])
    assert desk.sdk.batches.cancel(batch.id).status == "cancelling"
    done = desk.wait(batch)
    assert done.status == "cancelled"
    assert (done.output_file_id, done.error_file_id) == (None, None)
    assert desk.ledger()["executed"] == 0


def test_cancelling_a_cancelled_batch_changes_nothing(desk: Desk) -> None:
    _stalled(desk)
    batch = desk.submit([chat("a")])
    desk.sdk.batches.cancel(batch.id)
    done = desk.wait(batch)
    assert desk.sdk.batches.cancel(batch.id) == done


@pytest.mark.parametrize(("lines", "status"), [([chat("a")], "completed"), ([chat("a"), chat("a")], "failed")])
def test_ended_batch_cannot_be_cancelled(desk: Desk, lines: list[Any], status: str) -> None:
    done = desk.wait(desk.submit(lines))
    with pytest.raises(openai.ConflictError, match=f"Cannot cancel a batch with status '{status}'."):
        desk.sdk.batches.cancel(done.id)


def test_cancelling_an_unknown_batch_is_not_found(desk: Desk) -> None:
    with pytest.raises(openai.NotFoundError):
        desk.sdk.batches.cancel("batch_nowhere")


# Time


def test_batch_expires_when_its_window_has_passed(desk: Desk) -> None:
    _stalled(desk, at=0.25)
    batch = desk.submit([chat(f"r{n}") for n in range(8)])
    desk.wait(batch, lambda seen: seen.request_counts is not None and seen.request_counts.completed == 2)
    desk.control("clock/advance", {"seconds": 86_401})
    done = desk.wait(batch)
    assert (done.status, done.expired_at is None) == ("expired", False)
    assert done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": 8, "completed": 2, "failed": 0}
    assert len(desk.lines(done.output_file_id)) == 2
    unanswered = desk.lines(done.error_file_id)
    assert len(unanswered) == 6
    assert unanswered[0]["error"] == {
        "code": "batch_expired",
        "message": "This request could not be executed before the completion window expired.",
    }


# Other surfaces


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/v1/batches"), ("PATCH", "/v1/files/x"), ("GET", "/v1/batches/x/cancel")]
)
def test_method_that_is_not_offered_is_405(desk: Desk, method: str, path: str) -> None:
    answered = desk.raw(method, path)
    assert (answered.status_code, answered.json()["error"]["type"]) == (405, "invalid_request_error")


def test_unknown_path_is_404_in_the_shape_of_the_service(desk: Desk) -> None:
    answered = desk.raw("GET", "/v1/party")
    assert (answered.status_code, answered.json()["error"]["message"]) == (404, "Invalid URL (GET /v1/party)")


def test_every_answer_says_that_it_is_simulated(desk: Desk) -> None:
    headers = desk.raw("GET", "/v1/batches").headers
    assert headers["x-batchops-simulated"] == "true"
    assert headers["server"].startswith("batchops/")
    assert headers["x-request-id"].startswith("req_")
