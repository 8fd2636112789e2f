"""The server in the shape of other services: what a client of each sees on the wire."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openai
import pytest
from batch_desk import TERMINAL, Desk, at_once, chat, jsonl, serving

from batchops.profiles import PROFILES
from batchops.server.modes import MODES
from batchops.server.options import Limits

SPOILED = {"on": "line", "effect": "error", "status": 400, "code": "bad", "message": "No.", "contains": "Spoil"}


@contextmanager
def like(name: str, folder: Path, **options: Any) -> Iterator[Desk]:
    with serving(folder, profile=name, **options) as desk:
        yield desk


def limit(monkeypatch: pytest.MonkeyPatch, name: str, **limits: Any) -> None:
    """Servers that are like a service allow less than it does, so that a test comes to the end of it."""
    monkeypatch.setattr("batchops.server.service.MODES", {**MODES, name: replace(MODES[name], **limits)})


def finished(desk: Desk, lines: list[Any], **more: Any) -> dict[str, Any]:
    """The batch as the service wrote it, once it has ended."""
    batch = desk.submit(lines, **more)
    desk.wait(batch, lambda seen: seen.status in TERMINAL)
    found: dict[str, Any] = desk.sdk.batches.with_raw_response.retrieve(batch.id).http_response.json()
    return found


def azure(desk: Desk, **options: Any) -> openai.AzureOpenAI:
    version = options.pop("api_version", "2024-10-21")
    return openai.AzureOpenAI(
        azure_endpoint=desk.url, api_version=version, api_key="k", http_client=desk.sdk._client, max_retries=0
    )


def test_every_profile_has_a_mode_and_none_has_two() -> None:
    assert list(MODES) == list(PROFILES)


def test_azure_says_empty_text_for_null_and_keeps_an_empty_error_file(tmp_path: Path) -> None:
    with like("azure", tmp_path) as desk:
        desk.sdk = azure(desk)
        line = {**chat("a"), "url": "/chat/completions"}
        file_id = desk.upload([line])
        created = desk.sdk.batches.with_raw_response.create(
            input_file_id=file_id,
            endpoint="/chat/completions",  # type: ignore[arg-type]  # Azure's own name for it
            completion_window="24h",
        ).http_response
        assert created.status_code == 201
        young = created.json()
        assert (young["output_file_id"], young["error_file_id"], young["request_counts"]) == ("", "", None)
        done = desk.wait(young["id"])
        assert desk.sdk.files.retrieve(done.error_file_id or "").bytes == 0
        assert [line["custom_id"] for line in desk.lines(done.output_file_id)] == ["a"]


def test_azure_is_found_under_its_two_surfaces_and_the_classic_one_needs_a_version(tmp_path: Path) -> None:
    with like("azure", tmp_path) as desk:
        answers = [
            desk.raw("GET", path).status_code
            for path in ("/openai/batches", "/openai/batches?api-version=2024-10-21", "/openai/v1/batches")
        ]
    assert answers == [404, 200, 200]


def test_azure_keeps_files_for_two_weeks_at_least(tmp_path: Path) -> None:
    with like("azure", tmp_path) as desk:
        parts = {"file": ("a.jsonl", jsonl([chat("a")])), "purpose": (None, "batch")}
        for seconds, status in ((3600, 400), (1_209_600, 200)):
            policy = {"expires_after[anchor]": (None, "created_at"), "expires_after[seconds]": (None, str(seconds))}
            assert desk.raw("POST", "/openai/v1/files", files={**parts, **policy}).status_code == status


def test_azure_keeps_files_that_were_given_no_expiry_but_not_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, "azure", max_lasting_files=2)
    with like("azure", tmp_path) as desk:
        parts = {"file": ("a.jsonl", jsonl([chat("a")])), "purpose": (None, "batch")}
        policy = {"expires_after[anchor]": (None, "created_at"), "expires_after[seconds]": (None, "1209600")}
        kept = [desk.raw("POST", "/openai/v1/files", files=parts).json() for _ in range(2)]
        assert [file["expires_at"] for file in kept] == [None, None]
        refused = desk.raw("POST", "/openai/v1/files", files=parts)
        assert refused.status_code == 400
        assert refused.json()["error"]["message"] == "The quota for files without expiry is reached. The maximum is 2."
        assert desk.raw("POST", "/openai/v1/files", files={**parts, **policy}).status_code == 200
        desk.raw("DELETE", f"/openai/v1/files/{kept[0]['id']}")
        assert desk.raw("POST", "/openai/v1/files", files=parts).status_code == 200


@pytest.mark.parametrize("name", ["azure", "litellm"])
def test_relative_reads_no_more_of_a_body_than_it_may_have(name: str, tmp_path: Path) -> None:
    with like(name, tmp_path) as desk:
        answered = desk.raw("POST", "/v1/batches", content=b'{"input_file_id":"' + b"x" * 3_000_000 + b'"}')
        assert answered.status_code == 413
        deep = b'{"input_file_id":"x","metadata":' + b"[" * 400 + b"]" * 400 + b"}"
        assert desk.raw("POST", "/v1/batches", content=deep).status_code == 400


def test_azure_goes_on_when_the_window_has_passed(tmp_path: Path) -> None:
    plan = tmp_path / "faults.json"
    plan.write_text('{"rules": [{"on": "batch", "effect": "stall", "seconds": 200000}]}')
    with like("azure", tmp_path / "data", faults=str(plan)) as desk:
        desk.sdk = azure(desk)
        batch = desk.submit([chat("a")])
        desk.wait(batch, lambda seen: seen.status == "in_progress")  # the stall is counted from here
        desk.control("clock/advance", {"seconds": 100_000})
        assert desk.sdk.batches.retrieve(batch.id).status not in TERMINAL
        desk.control("clock/advance", {"seconds": 200_000})
        assert desk.wait(batch).status == "completed"


def test_ogx_writes_bodies_as_text_and_errors_without_response(tmp_path: Path) -> None:
    with like("ogx", tmp_path) as desk:
        desk.control("faults", {"rules": [SPOILED]})
        found = finished(desk, [chat("good"), chat("bad", "Spoil this.")])
        [good] = desk.lines(found["output_file_id"])
        [bad] = desk.lines(found["error_file_id"])
        assert isinstance(good["response"]["body"], str)
        assert bad == {"id": bad["id"], "custom_id": "bad", "error": {"type": "request_failed", "message": "No."}}
        assert found["usage"] is found["expires_at"] is found["in_progress_at"] is None
        with pytest.raises(openai.BadRequestError):
            desk.submit([chat("a")], "/v1/responses")


def test_ogx_loses_what_a_cancelled_batch_had_answered(tmp_path: Path) -> None:
    with like("ogx", tmp_path) as desk:
        desk.control("faults", {"rules": [{"on": "batch", "effect": "cancel", "at": 0.5}]})
        found = finished(desk, [chat("a"), chat("b")])
    assert (found["status"], found["output_file_id"], found["error_file_id"]) == ("cancelled", None, None)


def test_doubleword_makes_ids_of_its_own_and_changes_metadata(tmp_path: Path) -> None:
    with like("doubleword", tmp_path) as desk:
        found = finished(desk, [chat("a"), chat("b", model="another")], metadata={"mine": "yes"})
        assert found["metadata"]["mine"] == "yes"
        assert found["metadata"]["request_source"] == "api"
        ids = [found[name] for name in ("id", "input_file_id", "output_file_id")]
        assert ids == [str(uuid.UUID(given)) for given in ids]
        assert [batch.id for batch in desk.sdk.batches.list(after=desk.submit([chat("c")]).id)] == [found["id"]]
        assert found["request_counts"]["completed"] == 2  # of two models


def test_doubleword_refuses_a_bad_file_when_it_is_uploaded(tmp_path: Path) -> None:
    with like("doubleword", tmp_path) as desk:
        with pytest.raises(openai.BadRequestError, match="Line 2: This line is not parseable as valid JSON"):
            desk.upload(jsonl([chat("a")]) + b"{oops\n")
        assert list(desk.sdk.files.list()) == []


def test_doubleword_refuses_a_first_line_that_was_too_long_to_be_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchops.server.parameters._FIRST_LINE_BYTES", 1000)
    with like("doubleword", tmp_path) as desk, pytest.raises(openai.BadRequestError) as refused:
        desk.upload(b'{"custom_id":"' + b"x" * 2000)
    assert refused.value.code == "invalid_json_line"


def test_dashscope_keeps_its_own_metadata_alone_and_takes_two_weeks(tmp_path: Path) -> None:
    with like("dashscope", tmp_path) as desk:
        file_id = desk.upload([{**chat("a", model="batch-test-model"), "url": "/v1/chat/ds-test"}])
        asked = {"input_file_id": file_id, "endpoint": "/v1/chat/ds-test", "completion_window": "336h"}
        batch = desk.raw(
            "POST", "/compatible-mode/v1/batches", json={**asked, "metadata": {"ds_name": "n", "mine": "x"}}
        )
        assert batch.json()["metadata"] == {"ds_name": "n"}
        assert batch.json()["expires_at"] - batch.json()["created_at"] == 336 * 3600
        assert desk.wait(batch.json()["id"]).status == "completed"
        assert desk.raw("POST", "/v1/batches", json={**asked, "completion_window": "400h"}).status_code == 400


def test_dashscope_lists_what_is_asked_for(tmp_path: Path) -> None:
    with like("dashscope", tmp_path) as desk:
        names = ("spring prices", "autumn prices", "reviews")
        made = {name: desk.wait(desk.submit([chat("a")], metadata={"ds_name": name})) for name in names}
        failed = desk.wait(desk.submit([{}]))

        def listed(**query: str) -> list[str]:
            return [batch.id for batch in desk.sdk.batches.list(extra_query=query)]

        spring, autumn, reviews = (made[name] for name in names)
        assert listed() == [failed.id, reviews.id, autumn.id, spring.id]
        assert listed(ds_name="prices") == [autumn.id, spring.id]
        assert listed(ds_name="prices", limit="1") == [autumn.id, spring.id]  # a page each
        assert listed(status="failed") == [failed.id]
        assert listed(status="failed,completed", ds_name="spring") == [spring.id]
        assert listed(input_file_ids=f"{spring.input_file_id},{reviews.input_file_id}") == [reviews.id, spring.id]
        assert listed(ds_name="prices", after=autumn.id) == [spring.id]


def test_dashscope_lists_by_time_and_nothing_older_than_thirty_days(tmp_path: Path) -> None:
    with like("dashscope", tmp_path) as desk:
        old = desk.wait(desk.submit([chat("a")]))
        desk.control("clock/advance", {"seconds": 20 * 86_400})
        young = desk.wait(desk.submit([chat("a")]))

        def listed(**query: int) -> list[str]:
            written = {name: f"{datetime.fromtimestamp(at, UTC):%Y%m%d%H%M%S}" for name, at in query.items()}
            return [batch.id for batch in desk.sdk.batches.list(extra_query=written)]

        between = old.created_at + 86_400
        assert listed() == [young.id, old.id]
        assert listed(create_after=between) == [young.id]
        assert listed(create_before=between) == [old.id]
        assert listed(create_after=between, create_before=between + 86_400) == []
        desk.control("clock/advance", {"seconds": 11 * 86_400})
        assert listed() == listed(create_after=old.created_at) == [young.id]
        assert desk.sdk.batches.retrieve(old.id).status == "completed"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("status=done", "status"),
        ("status=completed,COMPLETED", "status"),
        ("create_after=2026-11-26", "create_after"),
        ("create_before=20260230000000", "create_before"),
        ("input_file_ids=" + ",".join(f"file-{number}" for number in range(21)), "input_file_ids"),
    ],
)
def test_dashscope_refuses_a_listing_that_it_cannot_read(tmp_path: Path, query: str, param: str) -> None:
    with like("dashscope", tmp_path) as desk:
        refused = desk.raw("GET", f"/v1/batches?{query}")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    with serving(tmp_path) as desk:
        assert desk.raw("GET", f"/v1/batches?{query}").status_code == 200  # OpenAI knows none of them


def test_limits_on_what_a_key_may_keep_are_those_of_the_service() -> None:
    kept = {
        name: (mode.max_files, mode.max_batch_files, mode.max_lasting_files, mode.max_open_batches)
        for name, mode in MODES.items()
        if name in ("azure", "dashscope", "moonshot", "nebius")
    }
    assert kept == {
        "azure": (None, None, 500, None),
        "dashscope": (10_000, None, None, None),
        "nebius": (None, None, None, 500),
        "moonshot": (None, 1_000, None, None),
    }
    assert MODES["dashscope"].limits(Limits()).storage_bytes == 100_000_000_000
    assert MODES["dashscope"].limits(Limits(storage_bytes=7)).storage_bytes == 7


def test_files_beyond_those_that_a_key_may_have_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = ("a.txt", b"a")
    limit(monkeypatch, "dashscope", max_files=2)
    with like("dashscope", tmp_path / "dashscope") as desk:
        kept = [desk.upload([chat("a")]), desk.sdk.files.create(file=other, purpose="user_data").id]
        for upload in (lambda: desk.upload([chat("b")]), lambda: desk.sdk.files.create(file=other, purpose="vision")):
            with pytest.raises(
                openai.BadRequestError, match=r"quota for files is reached\. The maximum is 2"
            ) as refused:
                upload()
            assert refused.value.code == "file_quota_exceeded"
        desk.sdk.files.delete(kept[0])
        desk.upload([chat("b")])
    limit(monkeypatch, "moonshot", max_batch_files=1)
    with like("moonshot", tmp_path / "moonshot") as desk:
        kept = [desk.upload([chat("a")])]
        with pytest.raises(openai.BadRequestError, match=r"quota for batch files is reached\. The maximum is 1"):
            desk.upload([chat("b")])
        desk.sdk.files.create(file=other, purpose="user_data")
        desk.sdk.files.delete(kept[0])
        desk.upload([chat("b")])


def test_batches_beyond_those_that_may_be_under_way_are_told_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, "nebius", max_open_batches=2)
    with like("nebius", tmp_path) as desk:
        desk.control("faults", {"rules": [{"on": "batch", "effect": "stall", "times": 2}]})
        first, _ = (desk.submit([chat("a")]) for _ in range(2))
        file_id = desk.upload([chat("b")])
        with pytest.raises(openai.RateLimitError, match="limit of 2 batches") as refused:
            desk.create(file_id)
        assert refused.value.code == "batch_quota_exceeded"
        assert len(list(desk.sdk.batches.list())) == 2
        desk.sdk.batches.cancel(first.id)
        desk.wait(first)
        assert desk.wait(desk.create(file_id)).status == "completed"


def test_batches_of_the_same_moment_share_the_number_there_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, "nebius", max_open_batches=3)
    with like("nebius", tmp_path) as desk:
        desk.control("faults", {"rules": [{"on": "batch", "effect": "stall"}]})
        file_id = desk.upload([chat("a")])
        assert at_once(lambda _: desk.create(file_id)) == [200] * 3 + [429] * 5


def test_litellm_has_long_ids_and_lists_no_result_files(tmp_path: Path) -> None:
    with like("litellm", tmp_path) as desk:
        found = finished(desk, [chat("a")])
        assert base64.urlsafe_b64decode(found["output_file_id"] + "==").startswith(b"litellm_proxy:")
        assert len(desk.lines(found["output_file_id"])) == 1
        assert [file.id for file in desk.sdk.files.list()] == [found["input_file_id"]]
        assert desk.sdk.files.delete(found["input_file_id"]).id == found["input_file_id"]


@pytest.mark.parametrize("name", ["groq", "nebius", "moonshot", "parasail"])
def test_services_without_usage_leave_the_key_out(name: str, tmp_path: Path) -> None:
    with like(name, tmp_path) as desk:
        found = finished(desk, [chat("a")])
    assert "usage" not in found
    assert found["status"] == "completed"
    assert desk.url.endswith("/openai/v1" if name == "groq" else "/v1")


def test_ids_that_are_none_of_the_services_are_not_found(tmp_path: Path) -> None:
    for name in ("litellm", "doubleword"):
        with like(name, tmp_path / name) as desk:
            for wrong in ("file-x", "%2e%2e", "a" * 300):
                assert desk.raw("GET", f"/v1/files/{wrong}").status_code == 404
