"""The local provider: a server that goes away is replaced, and no call is sent twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from rude_server import Rudeness, RudeServer, reply

from batchops.providers.local import LocalProvider
from batchops.providers.provider import ProviderContext, Uncertain, Unreachable
from batchops.settings import ProviderSettings

BATCH = {"id": "batch_1", "status": "completed"}


class Served:
    """A server that can be stopped, as an embedded one can be killed."""

    def __init__(self) -> None:
        self.rude = RudeServer()
        self._running = ExitStack()
        self._running.enter_context(self.rude)
        self.url = self.rude.url
        self.closed = 0

    def stop(self) -> None:
        self._running.close()

    def close(self) -> None:
        self.closed += 1
        self.stop()


class Embedded:
    """Starts servers and remembers them."""

    def __init__(self) -> None:
        self.served: list[Served] = []

    def __call__(self) -> Served:
        made = Served()
        made.rude.script("GET /v1/batches/b", reply(BATCH))
        made.rude.script("GET /v1/batches", reply({"data": [BATCH], "has_more": False}))
        made.rude.script("POST /v1/files", reply({"id": "file-1"}))
        self.served.append(made)
        return made


@pytest.fixture
def embedded() -> Embedded:
    return Embedded()


@pytest.fixture
def provider(embedded: Embedded, tmp_path: Path) -> Iterator[LocalProvider]:
    context = ProviderContext("local", ProviderSettings(kind="local", timeout=timedelta(seconds=0.3)), tmp_path, {})
    made = LocalProvider(context, embedded)
    yield made
    made.close()


def test_answers_are_labelled_simulated(provider: LocalProvider) -> None:
    assert provider.is_simulated
    assert provider.profile.delete_revokes


def test_server_that_went_away_is_replaced_and_the_call_repeated(
    embedded: Embedded, provider: LocalProvider, tmp_path: Path
) -> None:
    assert provider.retrieve("b").id == "batch_1"
    embedded.served[0].stop()
    (tmp_path / "shard").write_text("{}\n")
    assert provider.upload(tmp_path / "shard", "a.jsonl").id == "file-1"
    assert [batch.id for batch in provider.list_batches()] == ["batch_1"]
    assert len(embedded.served) == 2
    assert embedded.served[1].rude.count("POST /v1/files") == 1


def test_server_that_cannot_be_replaced_is_unreachable(embedded: Embedded, provider: LocalProvider) -> None:
    embedded.served[0].stop()
    gone = embedded.served[0]
    provider._serve = lambda: gone
    with pytest.raises(Unreachable):
        provider.retrieve("b")


def test_lost_reply_is_not_repeated(embedded: Embedded, provider: LocalProvider, tmp_path: Path) -> None:
    embedded.served[0].rude.script("POST /v1/files", Rudeness.RESET)
    (tmp_path / "shard").write_text("{}\n")
    with pytest.raises(Uncertain):
        provider.upload(tmp_path / "shard", "a.jsonl")
    assert len(embedded.served) == 1


def test_close_lets_go_of_every_server(embedded: Embedded, provider: LocalProvider) -> None:
    embedded.served[0].stop()
    provider.retrieve("b")
    provider.close()
    provider.close()
    assert [served.closed for served in embedded.served] == [1, 1]
