"""The real SDK in front of a running server, with the few calls that every test makes."""

from __future__ import annotations

import functools
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx2
from openai import APIStatusError, OpenAI
from openai.types import Batch

from batchops.server.embedded import ServerOptions, serve

TERMINAL = {"completed", "failed", "expired", "cancelled"}


class Desk:
    """A client of one server, with the few calls that every test makes."""

    def __init__(self, url: str, http: httpx2.Client, key: str = "any") -> None:
        self.url = url
        self.sdk = OpenAI(base_url=url, api_key=key, max_retries=0, timeout=20, http_client=http)

    def raw(self, method: str, path: str, **kwargs: Any) -> Any:
        """A call as it is, on the connection of the SDK: the answer, whatever its status."""
        return self.sdk._client.request(method, urljoin(self.url, path), **kwargs)

    def control(self, path: str, body: Mapping[str, Any]) -> Any:
        answered = self.raw("POST", f"/_batchops/{path}", json=body)
        assert answered.status_code == 200, answered.text
        return answered.json()

    def plan(self, *rules: Mapping[str, Any]) -> None:
        """Have these faults, and no others."""
        assert self.control("faults", {"rules": list(rules)}) == {"rules": len(rules)}

    def ledger(self, batch_id: str | None = None) -> dict[str, Any]:
        query = f"?batch_id={batch_id}" if batch_id else ""
        answered: dict[str, Any] = self.raw("GET", f"/_batchops/ledger{query}").json()
        return answered

    def upload(self, lines: list[Any] | bytes, name: str = "shard.jsonl") -> str:
        content = lines if isinstance(lines, bytes) else jsonl(lines)
        return self.sdk.files.create(file=(name, content), purpose="batch").id

    def create(self, file_id: str, endpoint: str = "/v1/chat/completions", **more: Any) -> Batch:
        return self.sdk.batches.create(
            input_file_id=file_id,
            endpoint=endpoint,  # type: ignore[arg-type]  # wrong ones are tested too
            completion_window="24h",
            **more,
        )

    def submit(self, lines: list[Any] | bytes, endpoint: str = "/v1/chat/completions", **more: Any) -> Batch:
        return self.create(self.upload(lines), endpoint, **more)

    def wait(self, batch: Batch | str, until: Callable[[Batch], bool] | None = None, timeout: float = 20) -> Batch:
        """Poll until the batch has ended, or until a condition holds."""
        batch_id = batch if isinstance(batch, str) else batch.id
        deadline = time.monotonic() + timeout
        while True:
            seen = self.sdk.batches.retrieve(batch_id)
            if until(seen) if until else seen.status in TERMINAL:
                return seen
            assert time.monotonic() < deadline, f"still {seen.status}"
            time.sleep(0.003)

    def lines(self, file_id: str | None) -> list[dict[str, Any]]:
        """The lines of a result file; none if there is no file."""
        if file_id is None:
            return []
        return [json.loads(line) for line in self.sdk.files.content(file_id).read().splitlines()]


@functools.cache
def _tls() -> ssl.SSLContext:
    """Reading the certificates of the machine takes a tenth of a second; no test needs them twice."""
    return ssl.create_default_context()


@contextmanager
def at(url: str, *, key: str = "any") -> Iterator[Desk]:
    """A desk at a server that runs already."""
    with httpx2.Client(verify=_tls(), timeout=20) as http:
        yield Desk(url, http, key)


@contextmanager
def serving(folder: Path, *, key: str = "any", **options: Any) -> Iterator[Desk]:
    """A desk at a server that runs as long as the block."""
    with serve(folder, options=ServerOptions(**options)) as server, at(server.url, key=key) as desk:
        yield desk


def at_once(act: Callable[[int], object], times: int = 8) -> list[int]:
    """What each of several calls of the same moment was answered with: 200, or the status of its refusal."""
    together = threading.Barrier(times)

    def answered(number: int) -> int:
        together.wait(20)
        try:
            act(number)
        except APIStatusError as refused:
            return refused.status_code
        return 200

    with ThreadPoolExecutor(times) as pool:
        return sorted(pool.map(answered, range(times)))


def jsonl(lines: list[Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def chat(custom_id: str, text: str = "Hello.", **more: Any) -> dict[str, Any]:
    """A line for chat completions."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
