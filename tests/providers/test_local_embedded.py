"""The local provider on the real embedded server: what survives, what is revoked, who serves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchops.engine.judge import Expectation, judge, read_lines
from batchops.providers import connect
from batchops.providers.provider import BatchStatus, Missing, Provider, ProviderContext, RemoteBatch
from batchops.settings import ProviderSettings
from batchops.spec.job import Outcome

pytest.importorskip("batchops.server.embedded")

URL = "/v1/chat/completions"


def connected(root: Path) -> Provider:
    return connect(ProviderContext("local", ProviderSettings(kind="local"), root, {}))


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Provider]:
    made = connected(tmp_path)
    yield made
    made.close()


def shard(folder: Path, texts: list[str]) -> Path:
    path = folder / "shard.jsonl"
    bodies = [{"model": "gpt-5-mini", "messages": [{"role": "user", "content": text}]} for text in texts]
    lines = [{"custom_id": str(n), "method": "POST", "url": URL, "body": body} for n, body in enumerate(bodies)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def create(provider: Provider, file_id: str) -> RemoteBatch:
    return provider.create(
        input_file_id=file_id, endpoint=URL, completion_window="24h", metadata={"batchops_submission": "s"}
    )


def ended(provider: Provider, batch_id: str) -> RemoteBatch:
    deadline = time.monotonic() + 20
    while not (found := provider.retrieve(batch_id)).status.is_terminal:
        assert time.monotonic() < deadline
    return found


def test_batch_comes_back_answered_through_the_port_alone(provider: Provider, tmp_path: Path) -> None:
    path = shard(tmp_path, ["a", "b\u2028c", '"', "\U0001f600"])
    uploaded = provider.upload(path, "job-1.jsonl")
    assert provider.find_file("job-1.jsonl", path.stat().st_size) == uploaded
    batch = ended(provider, create(provider, uploaded.id).id)
    assert [(b.id, b.metadata["batchops_submission"]) for b in provider.list_batches(since=0)] == [(batch.id, "s")]
    assert batch.output_file_id is not None
    provider.download(batch.output_file_id, tmp_path / "out.jsonl")
    lines = [line for _, line in read_lines(tmp_path / "out.jsonl")]
    assert {judge(line, Expectation(URL)).outcome for line in lines} == {Outcome.SUCCEEDED}
    assert sorted(line["custom_id"] for line in lines if line) == ["0", "1", "2", "3"]
    assert provider.cancel(batch.id).status is BatchStatus.COMPLETED


def test_create_after_the_input_file_is_deleted_fails_unpaid(provider: Provider, tmp_path: Path) -> None:
    uploaded = provider.upload(shard(tmp_path, ["a"]), "job-1.jsonl")
    provider.delete_file(uploaded.id)
    provider.delete_file(uploaded.id)
    with pytest.raises(Missing):
        provider.retrieve_file(uploaded.id)
    batch = ended(provider, create(provider, uploaded.id).id)
    assert provider.profile.delete_revokes
    assert (batch.status, batch.output_file_id) == (BatchStatus.FAILED, None)


def test_batch_survives_the_process_that_served_it(provider: Provider, tmp_path: Path) -> None:
    second = connected(tmp_path)
    batch = ended(provider, create(provider, provider.upload(shard(tmp_path, ["a"]), "job-1.jsonl").id).id)
    assert second.retrieve(batch.id).status is BatchStatus.COMPLETED
    provider.close()
    assert second.retrieve(batch.id).status is BatchStatus.COMPLETED
    second.close()
