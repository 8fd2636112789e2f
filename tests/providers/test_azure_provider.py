"""Azure: the SDK's own client on the classic surface, the plain one on the newer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rude_server import RudeServer, reply

from batchops.providers import connect
from batchops.providers.provider import ProviderContext
from batchops.settings import ProviderSettings


@pytest.fixture
def server() -> Iterator[RudeServer]:
    with RudeServer() as rude:
        yield rude


def looked(server: RudeServer, path: str, environ: dict[str, str] | None = None, **settings: Any) -> tuple[str, str]:
    """The path and the key of the one call that a look at the batches made."""
    base = server.url.removesuffix("/v1") + path
    given = ProviderSettings(kind="azure", base_url=base, **settings)
    provider = connect(ProviderContext("azure", given, Path(), {"AZURE_OPENAI_API_KEY": "az-key", **(environ or {})}))
    try:
        list(provider.list_batches())
    finally:
        provider.close()
    [heard] = server.heard
    return heard.path, heard.headers.get("api-key") or heard.headers["authorization"]


@pytest.mark.parametrize(
    ("environ", "settings", "version"),
    [
        ({}, {}, "2024-10-21"),
        ({"OPENAI_API_VERSION": "2025-03-01-preview"}, {}, "2025-03-01-preview"),
        ({"OPENAI_API_VERSION": "2025-03-01-preview"}, {"api_version": "2025-04-01"}, "2025-04-01"),
    ],
)
@pytest.mark.parametrize("path", ["", "/", "/openai"])
def test_classic_calls_name_their_version(
    server: RudeServer, path: str, environ: dict[str, str], settings: dict[str, str], version: str
) -> None:
    server.script("GET /openai/batches", reply({"object": "list", "data": [], "has_more": False}))
    target, key = looked(server, path, environ, **settings)
    assert target.startswith("/openai/batches?")
    assert f"api-version={version}" in target
    assert key == "az-key"


def test_the_newer_surface_is_spoken_plainly(server: RudeServer) -> None:
    server.script("GET /openai/v1/batches", reply({"object": "list", "data": [], "has_more": False}))
    target, key = looked(server, "/openai/v1")
    assert target == "/openai/v1/batches?limit=100"
    assert key == "Bearer az-key"
