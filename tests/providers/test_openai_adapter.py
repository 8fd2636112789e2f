"""The OpenAI adapter writes, deletes and connects: the real SDK over real HTTP to a server that misbehaves."""

from __future__ import annotations

import gc
import socket
import threading
from pathlib import Path

import httpx2
import openai
import pytest
from openai_bench import BATCH, FILE, KEY, WRITES, create, provider_at, write
from rude_server import Heard, Reply, Rudeness, RudeServer, failure, page, reply

from batchops.providers import connect
from batchops.providers.openai import FATES, OpenAIProvider, translate
from batchops.providers.provider import (
    BatchStatus,
    Denied,
    Missing,
    ProviderContext,
    ProviderError,
    ProviderRefusal,
    QuotaExhausted,
    Throttled,
    Uncertain,
    Unreachable,
)
from batchops.settings import ProviderSettings

pytest_plugins = ("openai_fixtures",)


class TestWrites:
    def test_upload_sends_name_purpose_and_exact_bytes(
        self, server: RudeServer, provider: OpenAIProvider, tmp_path: Path
    ) -> None:
        server.script("POST /v1/files", reply(FILE))
        found = write(provider, "POST /v1/files", tmp_path)
        body = server.heard[0].body
        assert (found.id, found.filename, found.bytes, found.created_at) == ("file-1", "a.jsonl", 12, 100)
        assert b'filename="a.jsonl"' in body
        assert b'name="purpose"\r\n\r\nbatch\r\n' in body
        assert b'\r\n\r\n{"a":"\xc3\xa9"}\n\r\n' in body

    def test_create_sends_what_it_was_given_and_nothing_else(
        self, server: RudeServer, provider: OpenAIProvider
    ) -> None:
        server.script("POST /v1/batches", reply(BATCH))
        found = create(provider, output_expires_after_seconds=3600)
        assert (found.id, found.status, found.input_file_id) == ("batch_1", BatchStatus.VALIDATING, "file-1")
        assert server.heard[0].json == {
            "input_file_id": "file-1",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"a": "b"},
            "output_expires_after": {"anchor": "created_at", "seconds": 3600},
        }
        assert server.heard[0].headers["authorization"] == f"Bearer {KEY}"

    def test_a_gateway_that_routes_by_model_is_told_it_and_no_other_service_is(
        self, server: RudeServer, tmp_path: Path
    ) -> None:
        server.script("POST /v1/files", reply(FILE))
        (tmp_path / "shard").write_bytes(b"{}\n")
        for profile in ("openai", "litellm"):
            provider = provider_at(server.url, [], profile=profile)
            provider.upload(tmp_path / "shard", "a.jsonl", model="house-model")
            provider.close()
        assert [heard.headers.get("x-litellm-model") for heard in server.heard] == [None, "house-model"]

    @pytest.mark.parametrize("line", WRITES)
    @pytest.mark.parametrize(
        ("said", "expected"),
        [
            (failure(500), Uncertain),
            (failure(500, headers={"x-should-retry": "true"}), Uncertain),
            (failure(503, headers={"retry-after": "1"}), Uncertain),
            (failure(409), Uncertain),
            (failure(408), Uncertain),
            (page(), Uncertain),
            (page(502), Uncertain),
            (reply({}), Uncertain),
            (reply([]), Uncertain),
            (reply({"id": ""}), Uncertain),
            (reply({"error": {"message": "no"}}), Uncertain),
            (reply(b"null"), Uncertain),
            (reply(b'{"id": "x'), Uncertain),
            (reply(b""), Uncertain),
            (b"garbage\r\n\r\n", Uncertain),
            (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n{", Uncertain),
            (reply(b"", 302, headers={"location": "/v1/elsewhere"}), Uncertain),
            (Rudeness.RESET, Uncertain),
            (Rudeness.CLOSE, Uncertain),
            (Rudeness.HANG, Uncertain),
            (reply(b"", 307, headers={"location": "/v1/elsewhere"}), ProviderRefusal),
            (failure(400), ProviderRefusal),
            (failure(413), ProviderRefusal),
            (failure(422), ProviderRefusal),
            (failure(401), Denied),
            (failure(403), Denied),
            (failure(404), Missing),
            (failure(429, "rate_limit_exceeded"), Throttled),
            (failure(400, "token_limit_exceeded"), Throttled),
            (failure(429, "insufficient_quota"), QuotaExhausted),
            (failure(429, "credit_balance_exhausted"), QuotaExhausted),
            (failure(429, "project_spend_limit_exceeded"), QuotaExhausted),
            (failure(429, "organization_usage_limit_exceeded"), QuotaExhausted),
            (failure(400, "billing_hard_limit_reached"), QuotaExhausted),
            (failure(402), QuotaExhausted),
        ],
    )
    def test_write_is_sent_once_and_told_apart(
        self,
        server: RudeServer,
        provider: OpenAIProvider,
        tmp_path: Path,
        line: str,
        said: Reply,
        expected: type[ProviderError],
    ) -> None:
        server.script(line, said)
        with pytest.raises(ProviderError) as caught:
            write(provider, line, tmp_path)
        assert type(caught.value) is expected
        assert caught.value.__cause__ is not None
        assert KEY not in str(caught.value)
        assert [heard.line for heard in server.heard] == [line]

    @pytest.mark.parametrize("line", WRITES)
    def test_refused_connection_is_a_definite_no(self, pauses: list[float], tmp_path: Path, line: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            url = f"http://127.0.0.1:{gone.getsockname()[1]}/v1"
        provider = provider_at(url, pauses)
        with pytest.raises(Unreachable):
            write(provider, line, tmp_path)
        provider.close()

    def test_name_that_does_not_resolve_is_a_definite_no(self, pauses: list[float], tmp_path: Path) -> None:
        provider = provider_at("http://nowhere.invalid/v1", pauses)
        with pytest.raises(Unreachable):
            create(provider)
        provider.close()

    def test_server_that_speaks_no_tls_is_a_definite_no(self, server: RudeServer, pauses: list[float]) -> None:
        provider = provider_at(server.url.replace("http:", "https:"), pauses)
        with pytest.raises(Unreachable):
            create(provider)
        provider.close()

    def test_refusal_carries_code_status_wait_and_no_key(self, server: RudeServer, provider: OpenAIProvider) -> None:
        server.script("POST /v1/batches", failure(429, "slow_down", f"Key {KEY}\nis slow.", {"retry-after": "7"}))
        with pytest.raises(Throttled) as caught:
            create(provider)
        error = caught.value
        assert (error.status, error.code, error.retry_after_seconds) == (429, "slow_down", 7)
        assert error.message == "HTTP 429: Key *** is slow."

    def test_unwritten_metadata_and_expiry_are_left_out(self, server: RudeServer, provider: OpenAIProvider) -> None:
        server.script("POST /v1/batches", reply(BATCH))
        provider.create(input_file_id="f", endpoint="/v1/embeddings", completion_window="7d", metadata={})
        assert server.heard[0].json == {"input_file_id": "f", "endpoint": "/v1/embeddings", "completion_window": "7d"}


class TestDeleteAndCancel:
    def test_delete_of_a_file_that_is_gone_is_done(self, server: RudeServer, provider: OpenAIProvider) -> None:
        server.script("DELETE /v1/files/f", failure(404))
        provider.delete_file("f")

    def test_delete_is_repeated_until_the_service_says_deleted(
        self, server: RudeServer, provider: OpenAIProvider
    ) -> None:
        done = reply({"id": "f", "object": "file", "deleted": True})
        server.script("DELETE /v1/files/f", page(), reply({"id": "f", "deleted": False}), Rudeness.RESET, done)
        provider.delete_file("f")
        assert server.count("DELETE /v1/files/f") == 4

    def test_unproven_delete_is_uncertain(self, server: RudeServer, provider: OpenAIProvider) -> None:
        server.script("DELETE /v1/files/f", page())
        with pytest.raises(Uncertain):
            provider.delete_file("f")

    @pytest.mark.parametrize("status", [400, 409])
    def test_cancel_of_an_ended_batch_returns_it_as_it_is(
        self, server: RudeServer, provider: OpenAIProvider, status: int
    ) -> None:
        server.script("POST /v1/batches/b/cancel", failure(status, message="Cannot cancel"))
        server.script("GET /v1/batches/b", reply({**BATCH, "status": "completed"}))
        assert provider.cancel("b").status is BatchStatus.COMPLETED
        assert server.count("POST /v1/batches/b/cancel") == 1

    def test_cancel_that_is_refused_for_another_reason_raises(
        self, server: RudeServer, provider: OpenAIProvider
    ) -> None:
        server.script("POST /v1/batches/b/cancel", failure(400))
        server.script("GET /v1/batches/b", reply(BATCH))
        with pytest.raises(ProviderRefusal):
            provider.cancel("b")

    def test_cancel_is_repeated(self, server: RudeServer, provider: OpenAIProvider) -> None:
        server.script("POST /v1/batches/b/cancel", Rudeness.RESET, reply({**BATCH, "status": "cancelling"}))
        assert provider.cancel("b").status is BatchStatus.CANCELLING


def subclasses(kind: type[Exception]) -> list[type[Exception]]:
    return [found for child in kind.__subclasses__() for found in (child, *subclasses(child))]


def bare(kind: type[Exception]) -> Exception:
    """An instance without its constructor, whose arguments differ."""
    made: Exception = Exception.__new__(kind)
    return made


class TestExceptionMap:
    def test_every_public_exception_of_the_sdk_is_mapped(self) -> None:
        public = [getattr(openai, name) for name in openai.__all__]
        errors = {kind for kind in public if type(kind) is type and issubclass(kind, Exception)}
        assert len(errors) >= 20
        assert errors <= set(FATES)

    def test_no_exception_of_the_sdk_escapes_the_map(self) -> None:
        for kind in subclasses(openai.OpenAIError):
            assert any(parent in FATES for parent in kind.__mro__), kind

    def test_every_exception_of_the_transport_is_told_apart(self) -> None:
        unsent = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol", "InvalidURL"}
        kinds = [kind for kind in (*subclasses(httpx2.HTTPError), httpx2.InvalidURL) if kind.__module__ == "httpx2"]
        assert len(kinds) > 15
        for kind in kinds:
            cause = bare(kind)
            wrapped = openai.APIConnectionError(request=httpx2.Request("POST", "http://x"))
            wrapped.__cause__ = cause
            expected = Unreachable if kind.__name__ in unsent else Uncertain
            assert type(translate(wrapped, secret="", now=0)) is expected, kind
            assert type(translate(cause, secret="", now=0)) is expected, kind

    @pytest.mark.parametrize("error", [AttributeError("x"), TypeError("x"), KeyError("x"), RecursionError()])
    def test_what_nobody_foresaw_is_uncertain_and_quotes_nothing(self, error: Exception) -> None:
        assert translate(error, secret="", now=0).message == f"No usable reply ({type(error).__name__})."


class TestConnection:
    def test_registered_adapter_honours_the_variables_of_the_sdk(self, server: RudeServer, tmp_path: Path) -> None:
        environ = {
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": server.url,
            "OPENAI_ORG_ID": "org-1",
            "OPENAI_PROJECT_ID": "p",
        }
        server.script("GET /v1/batches/b", reply(BATCH))
        provider = connect(ProviderContext("openai", ProviderSettings(kind="openai"), tmp_path, environ))
        provider.retrieve("b")
        provider.close()
        headers = server.heard[0].headers
        assert (headers["authorization"], headers["openai-organization"], headers["openai-project"]) == (
            f"Bearer {KEY}",
            "org-1",
            "p",
        )
        assert (provider.name, provider.is_simulated) == ("openai", False)

    def test_proxy_does_not_stand_before_a_service_on_this_machine(
        self, server: RudeServer, pauses: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        server.script("GET /v1/batches/b", reply(BATCH))
        provider = provider_at(server.url, pauses)
        assert provider.retrieve("b").id == "batch_1"
        provider.close()

    def test_settings_override_the_profile(self, pauses: list[float]) -> None:
        provider = provider_at("http://127.0.0.1:9/v1", pauses, max_requests=7, max_bytes="1KB")
        assert (provider.profile.max_requests, provider.profile.max_bytes) == (7, 1000)
        provider.close()

    def test_close_may_be_repeated_and_leaves_no_socket(self, server: RudeServer, pauses: list[float]) -> None:
        server.script("GET /v1/batches/b", reply(BATCH))
        provider = provider_at(server.url, pauses)
        provider.retrieve("b")
        provider.close()
        provider.close()
        del provider
        gc.collect()

    def test_uploads_run_side_by_side(self, server: RudeServer, provider: OpenAIProvider, tmp_path: Path) -> None:
        together = threading.Barrier(4, timeout=10)

        def answer(heard: Heard) -> bytes:
            together.wait()
            return reply({**FILE, "id": f"file-{len(heard.body)}"})

        server.script("POST /v1/files", answer)
        found: set[str] = set()

        def upload(number: int) -> None:
            (tmp_path / f"{number}").write_bytes(b"x" * number)
            found.add(provider.upload(tmp_path / f"{number}", "a.jsonl").id)

        threads = [threading.Thread(target=upload, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
