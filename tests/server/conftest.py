"""A running server and the real SDK in front of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batchops.server.embedded import EmbeddedServer, ServerOptions, serve

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

TERMINAL = {"completed", "failed", "expired", "cancelled"}


class Desk:
    """A client of one server, with the few calls that every test makes."""

    def __init__(self, server: EmbeddedServer, key: str = "any") -> None:
        from openai import OpenAI

        self.server = server
        self.url = server.url
        self.sdk: OpenAI = OpenAI(base_url=server.url, api_key=key, max_retries=0, timeout=20)

    def close(self) -> None:
        self.sdk.close()

    def raw(self, method: str, path: str, **kwargs: Any) -> Any:
        """A call as it is, on the connection of the SDK: the answer, whatever its status."""
        root = self.url.removesuffix("/v1")
        return self.sdk._client.request(method, f"{root}{path}", **kwargs)

    def control(self, path: str, body: Mapping[str, Any]) -> Any:
        answered = self.raw("POST", f"/_batchops/{path}", json=body)
        assert answered.status_code == 200, answered.text
        return answered.json()

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


def jsonl(lines: list[Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def chat(custom_id: str, text: str = "Hello.", **more: Any) -> dict[str, Any]:
    """A line for chat completions."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


Serving = Callable[..., Desk]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """Start servers: `serving(faults=…)`. All are closed when the test ends."""
    opened: list[Desk] = []

    def start(data_dir: Path | None = None, *, key: str = "any", **options: Any) -> Desk:
        server = serve(data_dir or tmp_path / f"data{len(opened)}", options=ServerOptions(**options))
        opened.append(Desk(server, key))
        return opened[-1]

    yield start
    for desk in opened:
        desk.close()
        desk.server.close()


@pytest.fixture
def desk(serving: Serving) -> Desk:
    return serving()
