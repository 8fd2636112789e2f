"""Error replies: codes, sentences, waits."""

from __future__ import annotations

import pytest

from batchops.providers.refusals import error_in, is_quota_code, refusal, retry_after_seconds


@pytest.mark.parametrize(("status", "is_hinted"), [(404, True), (405, True), (403, False), (502, False)])
def test_a_page_where_the_api_should_be_leads_to_base_url(status: int, is_hinted: bool) -> None:
    message = refusal(status, None, {}, secret="", now=0).message
    assert message.startswith(f"HTTP {status}: no error in JSON.")
    assert ("Look at base_url" in message) is is_hinted


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"code": "c", "type": "t", "message": "m"}}, ("c", "m")),
        ({"error": {"code": None, "type": "t", "message": "m"}}, ("t", "m")),
        ({"error": {"code": 429, "message": "m"}}, ("429", "m")),
        ({"code": "c", "message": "m"}, ("c", "m")),
        ({"error": "m"}, (None, "m")),
        ({"detail": "m"}, (None, "m")),
        ({"detail": [{"loc": "x"}]}, (None, "")),
        ("<html>", (None, "")),
        (None, (None, "")),
    ],
)
def test_error_body_gives_code_and_sentence(body: object, expected: tuple[str | None, str]) -> None:
    assert error_in(body) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:01 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_wait_is_seconds_from_now(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_seconds(headers, now=60) == expected


def test_long_sentence_is_cut_and_flattened() -> None:
    found = refusal(400, {"error": {"message": "a\n b" * 1000}}, {}, secret="", now=0)
    assert len(found.message) == len("HTTP 400: ") + 400 + len("…")
    assert "\n" not in found.message


def test_moved_service_says_where_it_went() -> None:
    found = refusal(308, None, {"location": "https://x/v1"}, secret="", now=0)
    assert found.message == "HTTP 308: the service has moved to https://x/v1; write that as base_url."


@pytest.mark.parametrize("code", ["insufficient_quota", "project_spend_limit_exceeded"])
def test_quota_code_is_known(code: str) -> None:
    assert is_quota_code(code)


@pytest.mark.parametrize("code", [None, "", "rate_limit_exceeded", "spend"])
def test_passing_code_is_no_quota_code(code: str | None) -> None:
    assert not is_quota_code(code)


@pytest.mark.parametrize("said", ["No", "No.", "No!", "", "  ", "No\n"])
def test_message_is_a_sentence_with_its_full_stop(said: str) -> None:
    message = refusal(400, {"message": said}, {}, secret="", now=0).message
    assert message[-1] in ".!"
    assert message[-2] not in ".! "
