"""Fixtures: the OpenAI adapter before a server that misbehaves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai_bench import provider_at
from rude_server import RudeServer

from batchops.providers.openai import OpenAIProvider


@pytest.fixture
def server() -> Iterator[RudeServer]:
    with RudeServer() as rude:
        yield rude


@pytest.fixture
def pauses() -> list[float]:
    """The seconds that the adapter would have slept."""
    return []


@pytest.fixture
def provider(server: RudeServer, pauses: list[float]) -> Iterator[OpenAIProvider]:
    made = provider_at(server.url, pauses)
    yield made
    made.close()
