"""`batchops serve` as a process of its own, with a fault plan and a ledger of what it executed."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crew import Command, shared_crew
from workshop import Workshop


@dataclass
class Service:
    """A Files+Batches API on loopback that nobody in the client knows anything about but its URL."""

    url: str
    data: Path
    process: Command
    key: str = "sk-canary-5f1e0c"
    """Where the service asks for keys, each has files, batches and a ledger of its own."""

    @property
    def environ(self) -> dict[str, str]:
        """What makes the `openai` provider talk to it."""
        return {"OPENAI_BASE_URL": self.url, "OPENAI_API_KEY": self.key}

    def ledger(self) -> dict[str, Any]:
        found: dict[str, Any] = self._call("GET", "ledger")
        return found

    def executions(self) -> Counter[str]:
        """How often each request was executed, by digest and round, whichever batch it was in."""
        counted: Counter[str] = Counter()
        for row in self.ledger()["executions"]:
            counted[row["custom_id"]] += row["count"]
        return counted

    def calls(self, call: str) -> int:
        return int(self.ledger()["calls"].get(call, 0))

    def faults(self, *rules: Mapping[str, Any]) -> None:
        """Replace the fault plan."""
        self._call("POST", "faults", {"rules": list(rules)})

    def fired(self) -> Counter[str]:
        """How often the rules of the fault plan have fired, by their names."""
        counted: Counter[str] = Counter()
        for rule in self._call("GET", "faults")["rules"]:
            counted[rule["name"]] += rule["fired"]
        return counted

    def advance(self, seconds: float) -> None:
        """Let the service's clock jump."""
        self._call("POST", "clock/advance", {"seconds": seconds})

    def get(self, path: str) -> Any:
        """A reply of the API itself, as any client would get it."""
        return json.loads(self._read(path))

    def lines(self, file_id: str) -> list[dict[str, Any]]:
        """The lines of a file."""
        return [json.loads(line) for line in self._read(f"/files/{file_id}/content").split(b"\n") if line]

    def _read(self, path: str) -> bytes:
        request = urllib.request.Request(f"{self.url}{path}", headers=self._access)
        with urllib.request.urlopen(request, timeout=20) as reply:
            found: bytes = reply.read()
        return found

    def _call(self, method: str, path: str, body: object = None) -> Any:
        base = self.url.removesuffix("/v1")
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **self._access}
        request = urllib.request.Request(f"{base}/_batchops/{path}", data=data, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as reply:
            return json.load(reply)

    @property
    def _access(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@contextmanager
def serving(
    data: Path, *words: str, cwd: Path | None = None, environ: dict[str, str] | None = None
) -> Iterator[Service]:
    """Serve on a free port for the length of the block."""
    reader, writer = os.pipe()
    process = shared_crew().start(
        ["serve", "--port", "0", "--data", str(data), *words],
        cwd=cwd or data.parent,
        environ={**Workshop(data).environment(), **(environ or {})},
        stderr=writer,
    )
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as said:
        line = said.readline()
        assert "http://" in line, line + said.read()
        try:
            yield Service("http://" + line.split("http://")[1].split()[0], data, process)
        finally:
            process.kill(signal.SIGTERM)
            process.wait(timeout=20)
