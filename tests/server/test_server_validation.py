"""Whole-file validation: every code with its exact message, parameter and line; several at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_desk import Desk, chat, jsonl, serving

from batchops.server.options import Limits
from batchops.server.validate import MAX_ERRORS, check_input

CHAT = "/v1/chat/completions"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with serving(tmp_path, models=frozenset({"gpt-4o-mini", "gpt-4o", "text-embedding-3-small"})) as desk:
        yield desk


def without(line: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in names}


def with_body(custom_id: str, url: str = CHAT, **body: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


MESSAGES = [{"role": "user", "content": "Hi"}]
CASES: list[tuple[str, Any, str, str, str | None]] = [
    ("not JSON", b"{oops\n", "invalid_json_line", "This line is not parseable as valid JSON.", None),
    ("blank line", b"\n", "invalid_json_line", "This line is not parseable as valid JSON.", None),
    ("no object", b"[1]\n", "invalid_json_line", "This line is not parseable as valid JSON.", None),
    ("bad UTF-8", b'{"custom_id":"\xff"}\n', "invalid_json_line", "This line is not parseable as valid JSON.", None),
    ("deep", b"[" * 100_000 + b"\n", "invalid_json_line", "This line is not parseable as valid JSON.", None),
    *(
        (
            f"no {name}",
            without(chat("x"), name),
            "missing_required_parameter",
            f"Missing required parameter: '{name}'.",
            name,
        )
        for name in ("custom_id", "method", "url", "body")
    ),
    (
        "custom_id of another type",
        {**chat("x"), "custom_id": 7},
        "invalid_type",
        "Invalid type for 'custom_id': expected a string, but got an integer instead.",
        "custom_id",
    ),
    (
        "body of another type",
        {**chat("x"), "body": "x"},
        "invalid_type",
        "Invalid type for 'body': expected an object, but got a string instead.",
        "body",
    ),
    (
        "other method",
        {**chat("x"), "method": "GET"},
        "invalid_value",
        "Invalid value: 'GET'. Supported values are: 'POST'.",
        "method",
    ),
    (
        "other url",
        {**chat("x"), "url": "/v1/embeddings"},
        "invalid_url",
        "The URL provided for this request does not match the batch endpoint.",
        "url",
    ),
    (
        "unknown model",
        with_body("x", model="gpt-9", messages=MESSAGES),
        "model_not_found",
        "The provided model 'gpt-9' is not supported by the Batch API.",
        "body.model",
    ),
    ("no model", with_body("x", messages=MESSAGES), "invalid_request", "Model parameter is required.", "body.model"),
    (
        "no messages",
        with_body("x", model="gpt-4o-mini"),
        "invalid_request",
        "Messages parameter is required.",
        "body.messages",
    ),
    (
        "streaming",
        chat("x", stream=True),
        "streaming_unsupported",
        "Chat Completions: Streaming is not supported in the Batch API.",
        "body.stream",
    ),
    (
        "duplicate custom_id",
        chat("first"),
        "duplicate_custom_id",
        "The custom_id 'first' for this request is a duplicate of another request. The custom_id parameter must be "
        "unique for each request in a batch.",
        "custom_id",
    ),
    (
        "another model",
        with_body("x", model="gpt-4o", messages=MESSAGES),
        "mismatched_model",
        "The model 'gpt-4o' for this request does not match the rest of the batch. Each batch must contain requests "
        "for a single model.",
        "body.model",
    ),
]


@pytest.mark.parametrize(("line", "code", "message", "param"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_bad_line_fails_the_batch_with_its_code_and_place(
    desk: Desk, line: Any, code: str, message: str, param: str | None
) -> None:
    second = line if isinstance(line, bytes) else jsonl([line])
    failed = desk.wait(desk.submit(jsonl([chat("first")]) + second + jsonl([chat("last")])))
    assert failed.status == "failed"
    assert failed.errors is not None
    assert failed.errors.to_dict() == {
        "object": "list",
        "data": [{"code": code, "line": 2, "message": message, "param": param}],
    }
    assert failed.request_counts is not None
    assert failed.request_counts.to_dict() == {"total": 0, "completed": 0, "failed": 0}
    assert (failed.failed_at is None, failed.output_file_id, failed.error_file_id) == (False, None, None)
    assert desk.ledger()["executed"] == 0


def test_all_bad_lines_are_reported_at_once(desk: Desk) -> None:
    bad = jsonl([chat("a"), {}]) + b"{oops\n" + jsonl([chat("a", stream=True)])
    failed = desk.wait(desk.submit(bad))
    assert failed.errors is not None
    assert [(problem.line, problem.code) for problem in failed.errors.data or []] == [
        (2, "missing_required_parameter"),
        (2, "missing_required_parameter"),
        (2, "missing_required_parameter"),
        (2, "missing_required_parameter"),
        (3, "invalid_json_line"),
        (4, "duplicate_custom_id"),
        (4, "streaming_unsupported"),
    ]


def test_blank_lines_at_the_end_are_no_matter(desk: Desk) -> None:
    done = desk.wait(desk.submit(jsonl([chat("a")]) + b"\n \r\n\n"))
    assert done.status == "completed"
    assert done.request_counts is not None
    assert done.request_counts.total == 1


def test_last_line_needs_no_newline_and_lines_may_end_as_on_windows(desk: Desk) -> None:
    content = jsonl([chat("a"), chat("b", "two\u2028\u0085lines")]).replace(b"\n", b"\r\n").rstrip()
    done = desk.wait(desk.submit(content))
    assert done.request_counts is not None
    assert done.request_counts.completed == 2


def test_line_of_ten_megabytes_is_answered(desk: Desk) -> None:
    done = desk.wait(desk.submit([chat("big", "x" * 10_000_000)]))
    assert done.status == "completed"
    assert done.usage is not None
    assert done.usage.input_tokens > 2_000_000


@pytest.mark.parametrize("url", ["/v1/embeddings", "/v1/completions", "/v1/moderations"])
def test_other_endpoints_require_their_own_parameter(tmp_path: Path, url: str) -> None:
    (tmp_path / "in").write_bytes(jsonl([with_body("a", url, model="m")]))
    name = "prompt" if url == "/v1/completions" else "input"
    [problem] = check_input(tmp_path / "in", endpoint=url, limits=Limits()).errors
    assert problem == {
        "code": "invalid_request",
        "line": 1,
        "message": f"{name.capitalize()} parameter is required.",
        "param": f"body.{name}",
    }


@pytest.mark.parametrize("purpose", ["user_data", "batch_output"])
def test_file_of_another_purpose_fails_the_batch(desk: Desk, purpose: str) -> None:
    if purpose == "batch_output":
        file_id = desk.wait(desk.submit([chat("a")])).output_file_id
    else:
        file_id = desk.sdk.files.create(file=("a.jsonl", jsonl([chat("a")])), purpose="user_data").id
    failed = desk.wait(desk.create(file_id or ""))
    assert failed.errors is not None
    message = f"The input file of a batch must have the purpose 'batch', but this one has '{purpose}'."
    problem = {"code": "invalid_request", "line": None, "message": message, "param": "file_id"}
    assert (failed.status, failed.errors.to_dict()["data"]) == ("failed", [problem])


def test_file_that_the_check_itself_fails_on_fails_the_batch(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("batchops.server.admission.check_input", fails)
    failed = desk.wait(desk.submit([chat("a")]))
    assert failed.errors is not None
    assert (failed.status, [problem.code for problem in failed.errors.data or []]) == ("failed", ["server_error"])


def test_disk_that_fails_during_the_check_delays_the_batch_and_no_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def fails_once(*given: Any, **named: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OSError
        return check_input(*given, **named)

    monkeypatch.setattr("batchops.server.admission.check_input", fails_once)
    batch = desk.submit([chat("a")])
    while tries < 2:
        desk.control("clock/advance", {"seconds": 10})
    assert desk.wait(batch).status == "completed"


def test_more_requests_than_allowed_fail_the_batch(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(jsonl([chat(f"r{n}") for n in range(4)]))
    [problem] = check_input(tmp_path / "in", endpoint=CHAT, limits=Limits(batch_requests=3)).errors
    assert problem["code"] == "too_many_tasks"


def test_more_embedding_inputs_than_allowed_fail_the_batch(tmp_path: Path) -> None:
    url = "/v1/embeddings"
    lines = [with_body("a", url, model="m", input=["x", "y"]), with_body("b", url, model="m", input=[1, 2, 3])]
    (tmp_path / "in").write_bytes(jsonl(lines))
    assert check_input(tmp_path / "in", endpoint=url, limits=Limits(embedding_inputs=3)).errors == []
    [problem] = check_input(tmp_path / "in", endpoint=url, limits=Limits(embedding_inputs=2)).errors
    assert (problem["code"], problem["param"]) == ("too_many_tasks", "body.input")


def test_larger_file_than_a_batch_may_have_fails_it(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(jsonl([chat("a")]))
    [problem] = check_input(tmp_path / "in", endpoint=CHAT, limits=Limits(batch_bytes=10)).errors
    assert problem["code"] == "invalid_request"
    assert problem["message"].startswith("The batch input file is larger than the 10 maximum")


def test_report_of_a_hopeless_file_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"{oops\n" * 5000)
    assert len(check_input(tmp_path / "in", endpoint=CHAT, limits=Limits()).errors) == MAX_ERRORS


def test_enqueued_tokens_of_a_model_are_limited_until_its_batches_end(tmp_path: Path) -> None:
    with serving(tmp_path, enqueued_tokens={"gpt-4o-mini": 1000}) as desk:
        desk.control("faults", {"rules": [{"on": "batch", "effect": "stall", "nth": 1}]})
        first = desk.submit([chat("a", "x" * 3000)])
        desk.wait(first, lambda seen: seen.status == "in_progress")
        refused = desk.wait(desk.submit([chat("b", "x" * 3000)]))
        assert refused.errors is not None
        assert refused.errors.to_dict()["data"] == [
            {
                "code": "token_limit_exceeded",
                "line": None,
                "message": "Enqueued token limit reached for gpt-4o-mini in organization org-batchops. Limit: 1,000 "
                "enqueued tokens. Please try again once some in_progress batches have been completed.",
                "param": None,
            }
        ]
        assert desk.wait(desk.submit([with_body("c", model="gpt-4o", messages=MESSAGES)])).status == "completed"
        desk.sdk.batches.cancel(first.id)
        desk.wait(first)
        assert desk.wait(desk.submit([chat("b", "x" * 3000)])).status == "completed"
