"""The OpenAI adapter reads, lists and downloads: the real SDK over real HTTP to a server that misbehaves."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from openai_bench import BATCH, FILE
from rude_server import Heard, Reply, Rudeness, RudeServer, failure, page, reply

from batchops.providers.openai import OpenAIProvider
from batchops.providers.provider import (
    BatchStatus,
    Denied,
    Missing,
    ProviderError,
    Throttled,
    Uncertain,
)

pytest_plugins = ("openai_fixtures",)


class TestReads:
    def test_read_is_repeated_until_it_succeeds(
        self, server: RudeServer, provider: OpenAIProvider, pauses: list[float]
    ) -> None:
        wait = failure(429, headers={"retry-after": "3"})
        server.script("GET /v1/batches/b", failure(500), page(), Rudeness.RESET, wait, reply(BATCH))
        assert provider.retrieve("b").id == "batch_1"
        assert pauses == [0.25, 0.5, 1.0, 3.0]

    def test_page_instead_of_json_is_said_to_be_one_and_is_not_quoted(
        self, server: RudeServer, provider: OpenAIProvider
    ) -> None:
        server.script("GET /v1/batches/b", page())
        with pytest.raises(Uncertain) as caught:
            provider.retrieve("b")
        assert caught.value.message == (
            "No usable reply: a web page instead of JSON. "
            "Look at base_url: it ends with the version, as in https://api.openai.com/v1."
        )

    def test_read_that_never_succeeds_is_uncertain_after_five_tries(
        self, server: RudeServer, provider: OpenAIProvider
    ) -> None:
        server.script("GET /v1/batches/b", failure(500))
        with pytest.raises(Uncertain):
            provider.retrieve("b")
        assert server.count("GET /v1/batches/b") == 5

    def test_long_wait_is_not_sat_out(self, server: RudeServer, provider: OpenAIProvider, pauses: list[float]) -> None:
        server.script("GET /v1/batches/b", failure(429, headers={"retry-after": "3600"}))
        with pytest.raises(Throttled):
            provider.retrieve("b")
        assert pauses == []

    @pytest.mark.parametrize(("status", "expected"), [(401, Denied), (403, Denied), (404, Missing)])
    def test_definite_no_is_not_repeated(
        self, server: RudeServer, provider: OpenAIProvider, status: int, expected: type[ProviderError]
    ) -> None:
        server.script("GET /v1/batches/b", failure(status))
        with pytest.raises(expected):
            provider.retrieve("b")
        assert len(server.heard) == 1

    def test_batch_of_a_relative_is_normalised(self, server: RudeServer, provider: OpenAIProvider) -> None:
        odd = {"id": "1", "status": "COMPLETED", "output_file_id": "", "created_at": "2026-01-01T00:00:00Z"}
        server.script("GET /v1/batches/1", reply({**odd, "request_counts": None, "errors": {"data": None}}))
        found = provider.retrieve("1")
        assert (found.status, found.output_file_id, found.created_at) == (BatchStatus.COMPLETED, None, 1767225600)

    def test_find_file_matches_name_and_size_and_takes_the_newest(
        self, server: RudeServer, provider: OpenAIProvider
    ) -> None:
        others = [{**FILE, "filename": "b.jsonl"}, {**FILE, "id": "cut", "bytes": 3}]
        ours = [{**FILE, "id": "older", "created_at": 50}, {**FILE, "id": "newer", "created_at": 60}]
        server.script(
            "GET /v1/files", reply({"data": others, "has_more": True}), reply({"data": ours, "has_more": False})
        )
        found = provider.find_file("a.jsonl", 12)
        assert found is not None
        assert found.id == "newer"
        assert [heard.path for heard in server.heard] == [
            "/v1/files?purpose=batch",
            "/v1/files?after=cut&purpose=batch",
        ]

    def test_file_that_is_not_listed_is_none(self, server: RudeServer, provider: OpenAIProvider) -> None:
        server.script("GET /v1/files", reply({"data": []}))
        assert provider.find_file("a.jsonl", 12) is None

    def test_garbage_listing_is_never_an_empty_one(self, server: RudeServer, provider: OpenAIProvider) -> None:
        for said in (page(), reply({}), reply({"data": None}), reply({"data": [{"no": "id"}]}), reply({"data": ["x"]})):
            server.script("GET /v1/files", said)
            with pytest.raises(Uncertain):
                provider.find_file("a.jsonl", 12)


def listed(heard: Heard, *, count: int, step: int = 1) -> bytes:
    """`count` batches, newest first, created at count·10, …, 10; 100 a page, after the one that is asked for."""
    query = httpx2.URL(heard.path).params
    start = int(query["after"]) + step if "after" in query else 0
    numbers = range(start, min(start + 100, count))
    entries = [{**BATCH, "id": str(n), "created_at": (count - n) * 10} for n in numbers]
    return reply({"data": entries, "has_more": start + 100 < count})


class TestListing:
    def test_every_batch_is_listed_once_newest_first(self, server: RudeServer, provider: OpenAIProvider) -> None:
        server.script("GET /v1/batches", lambda heard: listed(heard, count=250))
        assert [batch.id for batch in provider.list_batches()] == [str(n) for n in range(250)]
        assert server.count("GET /v1/batches") == 3

    def test_listing_ends_with_the_first_page_that_reaches_back(
        self, server: RudeServer, provider: OpenAIProvider
    ) -> None:
        server.script("GET /v1/batches", lambda heard: listed(heard, count=250))
        times = [batch.created_at for batch in provider.list_batches(since=1_600)]
        assert min(t for t in times if t is not None) == 1_510
        assert server.count("GET /v1/batches") == 1

    def test_listing_in_another_order_is_read_to_its_end(self, server: RudeServer, provider: OpenAIProvider) -> None:
        ages = [{**BATCH, "id": str(n), "created_at": n} for n in (5, 900, 10)]
        rest = {"data": [{**BATCH, "id": "last", "created_at": 950}], "has_more": False}
        server.script("GET /v1/batches", reply({"data": ages, "has_more": True}), reply(rest))
        assert [batch.id for batch in provider.list_batches(since=800)] == ["5", "900", "10", "last"]

    def test_bare_array_is_a_whole_listing(self, server: RudeServer, provider: OpenAIProvider) -> None:
        server.script("GET /v1/batches", reply([BATCH]))
        assert [batch.id for batch in provider.list_batches()] == ["batch_1"]

    def test_listing_that_repeats_itself_is_uncertain(self, server: RudeServer, provider: OpenAIProvider) -> None:
        server.script("GET /v1/batches", reply({"data": [BATCH], "has_more": True}))
        with pytest.raises(Uncertain):
            list(provider.list_batches())

    def test_full_page_without_has_more_is_followed(self, server: RudeServer, provider: OpenAIProvider) -> None:
        first = [{**BATCH, "id": str(n)} for n in range(100)]
        server.script("GET /v1/batches", reply({"data": first}), reply({"data": [BATCH]}))
        assert len(list(provider.list_batches())) == 101


class TestDownload:
    CONTENT = b'{"custom_id":"a"}\n' * 10_000

    def serve(self, server: RudeServer, *replies: Reply, size: int | None = len(CONTENT)) -> None:
        server.script("GET /v1/files/out", reply({**FILE, "bytes": size}))
        server.script("GET /v1/files/out/content", *replies)

    def honest(self, **headers: str) -> bytes:
        return reply(self.CONTENT, kind="application/octet-stream", headers=headers)

    def close_delimited(self, content: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + content

    def test_download_brings_exact_bytes_and_leaves_nothing_beside(
        self, server: RudeServer, provider: OpenAIProvider, tmp_path: Path
    ) -> None:
        self.serve(server, self.honest())
        provider.download("out", tmp_path / "o.jsonl")
        assert (tmp_path / "o.jsonl").read_bytes() == self.CONTENT
        assert [path.name for path in tmp_path.iterdir()] == ["o.jsonl"]

    def test_cut_download_starts_again(self, server: RudeServer, provider: OpenAIProvider, tmp_path: Path) -> None:
        self.serve(
            server,
            self.honest()[:-1000],
            self.close_delimited(self.CONTENT[:500]),
            page(),
            failure(502),
            self.close_delimited(self.CONTENT),
        )
        provider.download("out", tmp_path / "o.jsonl")
        assert (tmp_path / "o.jsonl").read_bytes() == self.CONTENT
        assert server.count("GET /v1/files/out/content") == 5

    def test_download_that_is_always_cut_leaves_no_file(
        self, server: RudeServer, provider: OpenAIProvider, tmp_path: Path
    ) -> None:
        self.serve(server, self.close_delimited(self.CONTENT[:-1]))
        (tmp_path / "o.jsonl").write_text("what was there")
        with pytest.raises(Uncertain):
            provider.download("out", tmp_path / "o.jsonl")
        assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("o.jsonl", "what was there")]

    @pytest.mark.parametrize("size", [None, 0])
    def test_size_that_the_service_does_not_know_is_no_obstacle(
        self, server: RudeServer, provider: OpenAIProvider, tmp_path: Path, size: int | None
    ) -> None:
        self.serve(server, self.honest(), size=size)
        provider.download("out", tmp_path / "o.jsonl")
        assert (tmp_path / "o.jsonl").read_bytes() == self.CONTENT

    def test_empty_file_is_downloaded(self, server: RudeServer, provider: OpenAIProvider, tmp_path: Path) -> None:
        self.serve(server, reply(b"", kind="application/octet-stream"), size=0)
        provider.download("out", tmp_path / "o.jsonl")
        assert (tmp_path / "o.jsonl").read_bytes() == b""

    def test_expired_file_is_missing_at_once(
        self, server: RudeServer, provider: OpenAIProvider, tmp_path: Path
    ) -> None:
        self.serve(server, failure(404))
        with pytest.raises(Missing):
            provider.download("out", tmp_path / "o.jsonl")
        assert server.count("GET /v1/files/out/content") == 1
        assert list(tmp_path.iterdir()) == []

    def test_redirect_to_a_blob_store_is_followed(
        self, server: RudeServer, provider: OpenAIProvider, tmp_path: Path
    ) -> None:
        self.serve(server, reply(b"", 302, headers={"location": "/v1/blob"}))
        server.script("GET /v1/blob", self.honest())
        provider.download("out", tmp_path / "o.jsonl")
        assert (tmp_path / "o.jsonl").read_bytes() == self.CONTENT

    def test_full_disk_is_not_blamed_on_the_service(
        self, server: RudeServer, provider: OpenAIProvider, tmp_path: Path
    ) -> None:
        self.serve(server, self.honest())
        with pytest.raises(FileNotFoundError):
            provider.download("out", tmp_path / "no-folder" / "o.jsonl")
