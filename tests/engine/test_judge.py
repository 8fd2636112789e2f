"""Result lines → outcomes: what the line says decides."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest

from batchops.engine.judge import Expectation, Judged, judge, read_lines
from batchops.request.answers import READERS, Usage
from batchops.spec.job import Outcome

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
SCHEMA = jsonschema_rs.validator_for(
    {
        "type": "object",
        "properties": {"label": {"enum": ["pos", "neg"]}, "scores": {"type": "array", "items": {"type": "number"}}},
        "required": ["label"],
        "additionalProperties": False,
    }
)
PLAIN, STRUCTURED = Expectation(CHAT), Expectation(CHAT, schema=SCHEMA)
TOOLS = Expectation(CHAT, tools={"label": SCHEMA, "free": None})


def line(body: object, status: Any = 200, error: object = None) -> dict[str, Any]:
    response = {"status_code": status, "request_id": "r", "body": body}
    return {"id": "batch_req_1", "custom_id": "c", "response": response, "error": error}


def no_reply(code: str | None = None, **error: str) -> dict[str, Any]:
    told = {"code": code, "message": "m", **error} if code or error else None
    return {"id": "batch_req_1", "custom_id": "c", "response": None, "error": told}


def http_error(status: int, code: str | None = None) -> dict[str, Any]:
    return line({"error": {"message": "m", "type": "t", "param": None, "code": code}}, status)


def chat(content: Any = "hello", finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    return {"object": "chat.completion", "model": "gpt-5-mini-2025-08-07", "choices": [choice], "usage": usage}


def called(name: str, arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return chat(None, "tool_calls", tool_calls=[{"id": "1", "type": "function", "function": function}])


def response(*output: Any, status: str = "completed", **more: Any) -> dict[str, Any]:
    return {"object": "response", "model": "gpt-5", "status": status, "output": list(output), "error": None, **more}


def failed(code: str) -> dict[str, Any]:
    return response(status="failed", error={"code": code, "message": "m"})


def said(text: str, kind: str = "output_text") -> dict[str, Any]:
    part = {"type": kind, "text" if kind == "output_text" else "refusal": text}
    return {"type": "message", "role": "assistant", "content": [part]}


def test_answered_line_gives_all_that_is_known() -> None:
    assert judge(line(chat()), PLAIN) == Judged(
        Outcome.SUCCEEDED,
        answer="hello",
        http=200,
        finish="stop",
        model="gpt-5-mini-2025-08-07",
        usage=Usage(input_tokens=10, cached_tokens=4, output_tokens=5, reasoning_tokens=2),
    )


@pytest.mark.parametrize(
    ("given", "expect", "outcome", "code"),
    [
        (None, PLAIN, Outcome.MISSING, "missing"),
        # No reply: the error's code says why.
        (no_reply("batch_expired"), PLAIN, Outcome.EXPIRED, "batch_expired"),
        (no_reply("batch_cancelled"), PLAIN, Outcome.CANCELLED, "batch_cancelled"),
        (no_reply("request_timeout"), PLAIN, Outcome.TIMED_OUT, "request_timeout"),
        (no_reply("insufficient_quota"), PLAIN, Outcome.QUOTA_EXHAUSTED, "insufficient_quota"),
        (no_reply("something_new"), PLAIN, Outcome.SERVER_ERROR, "something_new"),
        (no_reply(), PLAIN, Outcome.SERVER_ERROR, "no_response"),
        (line(None, 0, {"code": "batch_expired", "message": "m"}), PLAIN, Outcome.EXPIRED, "batch_expired"),
        ({"error": {"type": "request_failed", "message": "m"}}, PLAIN, Outcome.SERVER_ERROR, "request_failed"),
        ({"custom_id": "c"}, PLAIN, Outcome.SERVER_ERROR, "no_response"),
        # A reply with an error status.
        (http_error(400, "context_length_exceeded"), PLAIN, Outcome.BAD_REQUEST, "context_length_exceeded"),
        (http_error(400), PLAIN, Outcome.BAD_REQUEST, "t"),
        (http_error(400, "content_filter"), PLAIN, Outcome.CONTENT_FILTERED, "content_filter"),
        (http_error(400, "content_policy_violation"), PLAIN, Outcome.CONTENT_FILTERED, "content_policy_violation"),
        (http_error(401), PLAIN, Outcome.BAD_REQUEST, "t"),
        (http_error(402), PLAIN, Outcome.QUOTA_EXHAUSTED, "t"),
        (http_error(403), PLAIN, Outcome.BAD_REQUEST, "t"),
        (http_error(404, "model_not_found"), PLAIN, Outcome.NOT_FOUND, "model_not_found"),
        (http_error(408), PLAIN, Outcome.TIMED_OUT, "t"),
        (http_error(409), PLAIN, Outcome.SERVER_ERROR, "t"),
        (http_error(422), PLAIN, Outcome.BAD_REQUEST, "t"),
        (http_error(429, "rate_limit_exceeded"), PLAIN, Outcome.RATE_LIMITED, "rate_limit_exceeded"),
        (http_error(429, "slow_down"), PLAIN, Outcome.RATE_LIMITED, "slow_down"),
        (http_error(429, "insufficient_quota"), PLAIN, Outcome.QUOTA_EXHAUSTED, "insufficient_quota"),
        (http_error(429, "org_spend_limit_exceeded"), PLAIN, Outcome.QUOTA_EXHAUSTED, "org_spend_limit_exceeded"),
        (http_error(500, "server_error"), PLAIN, Outcome.SERVER_ERROR, "server_error"),
        (http_error(502), PLAIN, Outcome.SERVER_ERROR, "t"),
        (http_error(503, "server_is_overloaded"), PLAIN, Outcome.SERVER_ERROR, "server_is_overloaded"),
        (http_error(504), PLAIN, Outcome.TIMED_OUT, "t"),
        (line(None, 0), PLAIN, Outcome.SERVER_ERROR, None),
        (line("<html>", 502), PLAIN, Outcome.SERVER_ERROR, None),
        (line(None, None), PLAIN, Outcome.SERVER_ERROR, None),
        # Status 200 and no answer.
        (line({}), PLAIN, Outcome.SERVER_ERROR, "no_answer"),
        (line(None), PLAIN, Outcome.SERVER_ERROR, "no_answer"),
        (line("not json"), PLAIN, Outcome.SERVER_ERROR, "no_answer"),
        (line({"choices": None}), PLAIN, Outcome.SERVER_ERROR, "no_answer"),
        (line({"choices": []}), PLAIN, Outcome.SERVER_ERROR, "no_answer"),
        (line({"error": {"code": "slow_down", "message": "m"}}), PLAIN, Outcome.RATE_LIMITED, "slow_down"),
        (line({}), Expectation(RESPONSES), Outcome.SERVER_ERROR, "no_answer"),
        (line({"data": []}), Expectation("/v1/embeddings"), Outcome.SERVER_ERROR, "no_answer"),
        # Status 200 and an answer that is not wanted.
        (line(chat("cut", "length")), PLAIN, Outcome.TRUNCATED, "truncated"),
        (line(chat('{"label":"pos"}', "length")), STRUCTURED, Outcome.TRUNCATED, "truncated"),
        (line(chat("", "stop")), PLAIN, Outcome.TRUNCATED, "empty_answer"),
        (line(chat(None, "stop")), PLAIN, Outcome.TRUNCATED, "empty_answer"),
        (line(chat("", "length")), STRUCTURED, Outcome.TRUNCATED, "truncated"),
        (line(chat("", "content_filter")), PLAIN, Outcome.CONTENT_FILTERED, "content_filter"),
        (line(chat(None, "stop", refusal="I cannot.")), STRUCTURED, Outcome.REFUSED, "refusal"),
        (line(chat([{"type": "refusal", "refusal": "No."}])), PLAIN, Outcome.REFUSED, "refusal"),
        (line(chat("no json")), STRUCTURED, Outcome.INVALID_JSON, "invalid_json"),
        (line(chat('{"label":"pos"')), STRUCTURED, Outcome.INVALID_JSON, "invalid_json"),
        (line(chat('{"label":NaN}')), STRUCTURED, Outcome.INVALID_JSON, "invalid_json"),
        (line(chat('{"label":"maybe"}')), STRUCTURED, Outcome.SCHEMA_MISMATCH, "schema_mismatch"),
        (line(chat("[]")), STRUCTURED, Outcome.SCHEMA_MISMATCH, "schema_mismatch"),
        # Tools.
        (line(chat("I would rather talk.")), TOOLS, Outcome.SCHEMA_MISMATCH, "no_tool_call"),
        (line(called("other", "{}")), TOOLS, Outcome.SCHEMA_MISMATCH, "unknown_tool"),
        (line(called("label", "{}")), PLAIN, Outcome.SCHEMA_MISMATCH, "unknown_tool"),
        (line(called("label", '{"label":')), TOOLS, Outcome.INVALID_JSON, "invalid_json"),
        (line(called("label", None)), TOOLS, Outcome.INVALID_JSON, "invalid_json"),
        (line(called("label", '{"label":"maybe"}')), TOOLS, Outcome.SCHEMA_MISMATCH, "schema_mismatch"),
        # Responses.
        (
            line(response(said("cut"), status="incomplete", incomplete_details={"reason": "max_output_tokens"})),
            Expectation(RESPONSES),
            Outcome.TRUNCATED,
            "truncated",
        ),
        (
            line(response(status="incomplete", incomplete_details={"reason": "content_filter"})),
            Expectation(RESPONSES),
            Outcome.CONTENT_FILTERED,
            "content_filter",
        ),
        (line(response(said("No.", "refusal"))), Expectation(RESPONSES), Outcome.REFUSED, "refusal"),
        (line(response({"type": "reasoning"})), Expectation(RESPONSES), Outcome.TRUNCATED, "empty_answer"),
        *(
            (line(failed(code)), Expectation(RESPONSES), outcome, code)
            for code, outcome in {
                "server_error": Outcome.SERVER_ERROR,
                "rate_limit_exceeded": Outcome.RATE_LIMITED,
                "vector_store_timeout": Outcome.TIMED_OUT,
                "invalid_prompt": Outcome.BAD_REQUEST,
                "bio_policy": Outcome.BAD_REQUEST,
                "data_residency_mismatch": Outcome.BAD_REQUEST,
                "image_too_large": Outcome.BAD_REQUEST,
                "failed_to_download_image": Outcome.BAD_REQUEST,
                "of_tomorrow": Outcome.SERVER_ERROR,
            }.items()
        ),
        (line(response(status="cancelled")), Expectation(RESPONSES), Outcome.CANCELLED, "cancelled"),
        (line(response(status="in_progress")), Expectation(RESPONSES), Outcome.SERVER_ERROR, "in_progress"),
    ],
)  # fmt: skip
def test_line_has_its_outcome(given: Any, expect: Expectation, outcome: Outcome, code: str | None) -> None:
    found = judge(given, expect)
    assert (found.outcome, found.code, found.answer) == (outcome, code, None)
    assert found.message


@pytest.mark.parametrize(
    ("body", "expect", "answer"),
    [
        (chat("hello"), PLAIN, "hello"),
        (chat(" "), PLAIN, " "),
        (chat([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), PLAIN, "ab"),
        (chat('{"label":"pos"}', None), PLAIN, '{"label":"pos"}'),
        (chat(' {"label": "pos"}\n'), STRUCTURED, {"label": "pos"}),
        (called("label", '{"label":"neg"}'), TOOLS, {"name": "label", "arguments": {"label": "neg"}}),
        (called("label", {"label": "neg"}), TOOLS, {"name": "label", "arguments": {"label": "neg"}}),
        (called("free", "[1]"), TOOLS, {"name": "free", "arguments": [1]}),
        (chat('{"label":"pos"}'), Expectation(CHAT, SCHEMA, {"label": None}), {"label": "pos"}),
        (
            chat(None, "function_call", function_call={"name": "free", "arguments": "{}"}),
            TOOLS,
            {"name": "free", "arguments": {}},
        ),
        (response({"type": "reasoning"}, said("a"), said("b")), Expectation(RESPONSES), "ab"),
        ({"status": "completed", "output_text": "a"}, Expectation(RESPONSES), "a"),
        (response(said('{"label":"pos"}')), Expectation(RESPONSES, SCHEMA), {"label": "pos"}),
        (
            response({"type": "function_call", "name": "free", "arguments": "{}", "call_id": "c"}),
            Expectation(RESPONSES, tools={"free": None}),
            {"name": "free", "arguments": {}},
        ),
        (
            response({"type": "custom_tool_call", "name": "free", "input": "SELECT 1"}),
            Expectation(RESPONSES, tools={"free": None}),
            {"name": "free", "arguments": "SELECT 1"},
        ),
        ({"choices": [{"text": "a", "finish_reason": "stop"}]}, Expectation("/v1/completions"), "a"),
        ({"data": [{"index": 0, "embedding": [0.5, 1]}]}, Expectation("/v1/embeddings"), [0.5, 1]),
        (
            {"data": [{"index": 0, "embedding": base64.b64encode(struct.pack("<2f", 0.5, -1)).decode()}]},
            Expectation("/v1/embeddings"),
            [0.5, -1.0],
        ),
        (
            {"data": [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1]}]},
            Expectation("/v1/embeddings", is_list=True),
            [[1], [2]],
        ),
        ({"data": [{"index": 0, "embedding": [1]}]}, Expectation("/v1/embeddings", is_list=True), [[1]]),
        ({"results": [{"flagged": False}]}, Expectation("/v1/moderations"), {"flagged": False}),
        ({"results": [{"flagged": False}]}, Expectation("/v1/moderations", is_list=True), [{"flagged": False}]),
    ],
)
def test_answer_has_the_form_of_its_endpoint(body: dict[str, Any], expect: Expectation, answer: Any) -> None:
    for given in (line(body), line(orjson.dumps(body).decode()), line(body, None)):
        found = judge(given, expect)
        assert (found.outcome, found.answer, found.code) == (Outcome.SUCCEEDED, answer, None)
        orjson.dumps(found.answer)


def test_misfit_names_place_and_rule_and_not_the_words() -> None:
    found = judge(line(chat('{"label":"pos","scores":[1,"canary"]}')), STRUCTURED)
    assert found.message == 'The answer does not fit the schema at $.scores[1]: "type".'


def test_broken_vector_is_no_answer() -> None:
    for broken in ("@@", "AAA=", None, [], ["x"]):
        body = {"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": broken}]}
        assert judge(line(body), Expectation("/v1/embeddings")).outcome is Outcome.SERVER_ERROR


@pytest.mark.parametrize("junk", [None, 7, "x", [], {}, [[]], {"a": None}])
def test_no_junk_makes_the_judge_stumble(junk: Any) -> None:
    for endpoint in READERS:
        expect = Expectation(endpoint, SCHEMA, {"a": None})
        lists = ("choices", "output", "data", "results")
        bodies: list[Any] = [dict.fromkeys((*lists, "usage", "model", "status", "error"), junk)]
        bodies += [{key: [junk] for key in lists}]
        bodies += [{"choices": [{"message": {"content": junk, "tool_calls": junk, "refusal": junk}}]}]
        bodies += [{"output": [{"type": "message", "content": junk}], "incomplete_details": junk, "usage": junk}]
        for body in [*bodies, junk]:
            assert isinstance(judge(line(body), expect), Judged)
        assert isinstance(judge({"response": junk, "error": junk}, expect), Judged)
        assert isinstance(judge(line(None, junk, junk), expect), Judged)


class TestReadLines:
    def read(self, tmp_path: Path, content: bytes) -> list[tuple[bytes, Any]]:
        (tmp_path / "out.jsonl").write_bytes(content)
        return list(read_lines(tmp_path / "out.jsonl"))

    def test_line_ends_at_newline_alone(self, tmp_path: Path) -> None:
        text = "a\u2028b\u2029c\u0085d\x0be\x0cf"
        raw = b'{"t":"' + text.encode().replace(b"\x0b", b"\\u000b").replace(b"\x0c", b"\\f") + b'"}'
        assert self.read(tmp_path, raw + b"\n" + raw) == [(raw, {"t": text}), (raw, {"t": text})]

    def test_mark_blank_lines_and_carriage_returns_are_passed_over(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, b'\xef\xbb\xbf{"a":1}\r\n\n  \n{"a":2}\n\n') == [
            (b'{"a":1}', {"a": 1}),
            (b'{"a":2}', {"a": 2}),
        ]

    def test_torn_last_line_does_not_lose_the_others(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, b'{"a":1}\n{"a":"x') == [(b'{"a":1}', {"a": 1}), (b'{"a":"x', None)]

    def test_what_is_no_object_is_none(self, tmp_path: Path) -> None:
        assert [found for _, found in self.read(tmp_path, b"[1]\n1\nnull\nx\n")] == [None] * 4

    def test_empty_file_has_no_lines(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, b"") == []
        assert self.read(tmp_path, b"\xef\xbb\xbf") == []

    @pytest.mark.parametrize(
        ("raw", "expected"),
        [
            (b'{"a":"x\xff"}', {"a": "x\ufffd"}),
            (b'{"a":"\\ud800"}', {"a": "?"}),
            (b'{"a":NaN}', {"a": None}),
        ],
    )
    def test_paid_line_that_is_not_quite_json_is_kept(self, tmp_path: Path, raw: bytes, expected: object) -> None:
        assert self.read(tmp_path, raw) == [(raw, expected)]

    def test_line_of_absurd_depth_is_none(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, b"[" * 100_000 + b"\n{}")[-1] == (b"{}", {})
