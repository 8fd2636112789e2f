"""Who sees what: bearer keys, files and batches apart by key, and web pages kept out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from batch_desk import Desk, at, at_once, chat, jsonl, serving

from batchops.server.options import Limits, ServerOptions


@pytest.fixture
def alice(tmp_path: Path) -> Iterator[Desk]:
    with serving(tmp_path, key="sk-alice", keys=("sk-alice", "sk-bob")) as desk:
        yield desk


@pytest.fixture
def bob(alice: Desk) -> Iterator[Desk]:
    with at(alice.url, key="sk-bob") as desk:
        yield desk


def test_call_without_a_good_key_is_refused(alice: Desk) -> None:
    for headers in ({}, {"authorization": "Bearer sk-eve"}, {"authorization": "sk-alice"}, {"api-key": "x"}):
        for method, path in (("GET", "/v1/files"), ("POST", "/v1/batches"), ("GET", "/_batchops/ledger")):
            answered = alice.raw(method, path, headers=headers)
            assert answered.status_code == 401
            assert "sk-" not in answered.text


def test_key_is_taken_from_either_header(alice: Desk) -> None:
    for headers in ({"authorization": "bearer sk-alice"}, {"api-key": "sk-alice"}):
        assert alice.raw("GET", "/v1/files", headers=headers).status_code == 200


def test_health_asks_for_no_key(alice: Desk) -> None:
    assert alice.raw("GET", "/_batchops/health").status_code == 200


def test_nobody_sees_the_files_and_batches_of_another_key(alice: Desk, bob: Desk) -> None:
    file_id = alice.upload([chat("a")])
    done = alice.wait(alice.create(file_id))
    assert list(bob.sdk.files.list()) == []
    assert list(bob.sdk.batches.list()) == []
    for call in (bob.sdk.files.retrieve, bob.sdk.files.content, bob.sdk.files.delete):
        for held in (file_id, str(done.output_file_id)):
            with pytest.raises(openai.NotFoundError):
                call(held)
    for act in (bob.sdk.batches.retrieve, bob.sdk.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            act(done.id)
    auth = {"authorization": "Bearer sk-bob"}
    assert bob.raw("GET", "/_batchops/ledger", headers=auth).json()["executions"] == []
    assert len(alice.raw("GET", "/_batchops/ledger", headers={"api-key": "sk-alice"}).json()["executions"]) == 1


def test_file_of_another_key_is_no_input(alice: Desk, bob: Desk) -> None:
    failed = bob.wait(bob.create(alice.upload([chat("a")])))
    assert failed.errors is not None
    assert [error.param for error in failed.errors.data or []] == ["file_id"]


@pytest.mark.parametrize(
    "headers", [{"origin": "https://evil.example"}, {"host": "evil.example"}, {"origin": "null"}, {"host": ""}]
)
def test_web_page_cannot_call_a_server_on_loopback(tmp_path: Path, headers: dict[str, str]) -> None:
    with serving(tmp_path) as desk:
        assert desk.raw("GET", "/v1/files", headers=headers).status_code == 403
        assert desk.raw("GET", "/v1/files", headers={"origin": "http://localhost:3000"}).status_code == 200


def test_calls_beyond_the_rate_of_the_service_wait_for_their_time(tmp_path: Path) -> None:
    limits = Limits(uploads_per_minute=2, batches_per_hour=1)
    keys = ("sk-alice", "sk-bob")
    with serving(tmp_path, key="sk-alice", keys=keys, rate_limits=True, limits=limits) as desk:
        auth = {"authorization": "Bearer sk-alice"}
        first, second = desk.upload([chat("a")]), desk.upload([chat("b")])
        refused = too_many(desk.upload, [chat("c")])
        assert refused.code == "rate_limit_exceeded"
        assert 0 < int(refused.response.headers["retry-after"]) <= 60
        with at(desk.url, key="sk-bob") as other:
            other.upload([chat("a")])
        desk.create(first)
        assert 60 < int(too_many(desk.create, second).response.headers["retry-after"]) <= 3600
        for seconds, allowed in ((61, desk.upload), (3600, lambda _: desk.create(second))):
            assert desk.raw("POST", "/_batchops/clock/advance", json={"seconds": seconds}, headers=auth).is_success
            allowed([chat("c")])


def too_many(call: Callable[[Any], Any], given: Any) -> openai.RateLimitError:
    with pytest.raises(openai.RateLimitError) as refused:
        call(given)
    return refused.value


def test_rates_are_not_enforced_unless_asked_for(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(uploads_per_minute=1, batches_per_hour=1)) as desk:
        assert len({desk.create(desk.upload([chat("a")])).id for _ in range(2)}) == 2


def test_files_of_a_key_take_no_more_room_than_they_may(tmp_path: Path) -> None:
    content = jsonl([chat("a")])
    with serving(tmp_path, limits=Limits(storage_bytes=2 * len(content) - 1)) as desk:
        kept = desk.upload(content)
        with pytest.raises(openai.BadRequestError) as refused:
            desk.upload(content)
        assert refused.value.code == "storage_quota_exceeded"
        assert list((tmp_path / "tmp").iterdir()) == []
        desk.sdk.files.delete(kept)
        desk.upload(content)


def test_options_never_show_their_secrets() -> None:
    shown = repr(ServerOptions(keys=("sk-1",), upstream_key="sk-2", webhook_secret="whsec_3"))
    assert not any(secret in shown for secret in ("sk-1", "sk-2", "whsec_3"))


def test_uploads_of_the_same_moment_share_the_room_there_is(tmp_path: Path) -> None:
    content = jsonl([chat("a")])
    with serving(tmp_path, limits=Limits(storage_bytes=3 * len(content))) as desk:
        assert at_once(lambda _: desk.upload(content)) == [200] * 3 + [400] * 5
        assert len(desk.sdk.files.list().data) == len(list((tmp_path / "files").iterdir())) == 3
