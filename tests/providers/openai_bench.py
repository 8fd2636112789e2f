"""An OpenAI adapter that waits for nobody, and the calls that tests make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batchops.providers.credentials import Credentials
from batchops.providers.openai import OpenAIProvider
from batchops.providers.patience import Patience
from batchops.settings import ProviderSettings

KEY = "sk-canary-7f3a"
FILE = {"id": "file-1", "object": "file", "bytes": 12, "created_at": 100, "filename": "a.jsonl", "purpose": "batch"}
BATCH = {
    "id": "batch_1",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "input_file_id": "file-1",
    "completion_window": "24h",
    "status": "validating",
    "created_at": 100,
}


def provider_at(url: str, pauses: list[float], **settings: Any) -> OpenAIProvider:
    given = ProviderSettings(kind="openai", **{"timeout": "300ms", **settings})
    return OpenAIProvider("openai", given, Credentials(url, KEY), patience=Patience(sleep=pauses.append))


def create(provider: OpenAIProvider, **more: Any) -> Any:
    return provider.create(
        input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}, **more
    )


def write(provider: OpenAIProvider, line: str, folder: Path) -> Any:
    """One of the two calls that must go out exactly once."""
    if line == "POST /v1/batches":
        return create(provider)
    (folder / "shard").write_bytes(b'{"a":"\xc3\xa9"}\n')
    return provider.upload(folder / "shard", "a.jsonl")


WRITES = ["POST /v1/files", "POST /v1/batches"]
