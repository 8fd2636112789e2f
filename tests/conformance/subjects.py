"""The servers that the suite is run over: each a process of its own that can be killed and started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from batch_desk import Desk, at
from realtime import CHAT_MODEL, EMBEDDING_MODEL, MODELS, OTHER_MODEL, Realtime

_ROOT = Path(__file__).parents[2]
_START_SECONDS = 300.0
_QUIET = {"OGX_LOGGING": "all=critical", "OGX_LOG_FORMAT": "json"}
"""OGX draws every refused call as a page of traceback, which takes it longer than all else."""
CROWDED = "crowded"
"""A model whose queue is small, where a server knows queues."""


class Subject(ABC):
    """A server under test in front of `upstream`; `desk` is a client of it."""

    name: ClassVar[str]
    prefix: ClassVar[str] = ""
    """What the server puts before the names of models."""
    held_at_once: ClassVar[int]
    """How many of the requests that are held are under way at once, behind four that are answered."""
    has_queues: ClassVar[bool] = False
    """It limits how many tokens may wait for a model; that of `CROWDED` is 10."""

    def __init__(self, folder: Path, upstream: Realtime) -> None:
        self.folder, self.upstream = folder, upstream
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._process: subprocess.Popen[bytes] | None = None

    desk: Desk

    @property
    def chat_model(self) -> str:
        return f"{self.prefix}{CHAT_MODEL}"

    @property
    def other_model(self) -> str:
        return f"{self.prefix}{OTHER_MODEL}"

    @property
    def embedding_model(self) -> str:
        return f"{self.prefix}{EMBEDDING_MODEL}"

    @abstractmethod
    def _command(self) -> list[str]:
        """What starts the server on `port`, with its data under `folder`."""

    @abstractmethod
    def advance(self, seconds: float) -> bool:
        """Let the server's clock jump; False if it has none that a test could turn."""

    @abstractmethod
    def faults(self, *rules: dict[str, Any]) -> bool:
        """Make the server misbehave as a fault plan says; False if it knows none."""

    def start(self) -> None:
        """Raises AssertionError, with what the server said, when it does not come up."""
        self.folder.mkdir(parents=True, exist_ok=True)
        said = self.folder / "said.txt"
        with said.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), cwd=self.folder, env=self._environment(), stdout=log, stderr=log
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            came = self._process.poll() is None and time.monotonic() < deadline
            assert came, f"{self.name} did not come up:\n{said.read_text(errors='replace')[-4000:]}"
            time.sleep(0.05)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(_ROOT)}

    def _answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.url}/files?limit=1", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def end(self, number: int = signal.SIGTERM) -> None:
        """Send the process a signal and wait until it is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(15)

    def kill_and_start(self) -> None:
        self.end(signal.SIGKILL)
        self.start()


class Batchops(Subject):
    """`batchops serve` as a user starts it."""

    name = "batchops"
    held_at_once = 8
    has_queues = True

    def _command(self) -> list[str]:
        words = ["serve", "--port", str(self.port), "--data", str(self.folder / "data"), "--upstream"]
        known = [word for name in (*MODELS, CROWDED) for word in ("--model", name)]
        queue = ["--enqueued-tokens", f"{CROWDED}=10"]
        return [sys.executable, "-m", "batchops", *words, self.upstream.url, *known, *queue]

    def advance(self, seconds: float) -> bool:
        self.desk.control("clock/advance", {"seconds": seconds})
        return True

    def faults(self, *rules: dict[str, Any]) -> bool:
        self.desk.control("faults", {"rules": list(rules)})
        return True


class LikeOgx(Batchops):
    """`batchops serve` in the shape of OGX."""

    has_queues = False

    def _command(self) -> list[str]:
        return [*super()._command(), "--profile", "ogx"]


class Ogx(Subject):
    """OGX with its own files and batches providers. `OGX` is the path of its command."""

    name = "OGX"
    held_at_once = 4  # it takes eight lines, and the next when all eight are done
    prefix = "local/"

    def _command(self) -> list[str]:
        config = self.folder / "config.yaml"
        config.write_text(json.dumps(self._config(), indent=1))  # JSON is YAML
        return [_ogx_command(), "run", str(config), "--port", str(self.port), "--insecure"]

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return {**kept, "OTEL_SDK_DISABLED": "true", "OGX_DISABLE_VERSION_CHECK": "1", **_QUIET}

    def _config(self) -> dict[str, Any]:
        state = self.folder / "state"
        upstream = {"base_url": self.upstream.url, "api_key": "none"}
        files = {"storage_dir": str(state / "files"), "metadata_store": {"table_name": "files", "backend": "sql"}}
        batches = {
            "sqlstore": {"table_name": "batches", "backend": "sql"},
            "max_concurrent_batches": 8,
            "max_concurrent_requests_per_batch": 8,
        }
        tables = ("conversations", "prompts", "connectors")
        return {
            "version": 2,
            "distro_name": "conformance",
            "apis": ["batches", "files", "inference"],
            "providers": {
                "inference": [{"provider_id": "local", "provider_type": "remote::openai", "config": upstream}],
                "files": [{"provider_id": "files", "provider_type": "inline::localfs", "config": files}],
                "batches": [{"provider_id": "batches", "provider_type": "inline::reference", "config": batches}],
            },
            "storage": {
                "backends": {
                    "kv": {"type": "kv_sqlite", "db_path": str(state / "kv.db")},
                    "sql": {"type": "sql_sqlite", "db_path": str(state / "sql.db")},
                },
                "stores": {
                    "metadata": {"namespace": "registry", "backend": "kv"},
                    "inference": {"table_name": "inference", "backend": "sql", "enabled": False},
                    **{name: {"table_name": name, "backend": "sql"} for name in tables},
                },
            },
            "registered_resources": {"models": [_model(name) for name in MODELS]},
            "server": {"host": "127.0.0.1", "port": self.port},
        }

    def advance(self, seconds: float) -> bool:
        return False

    def faults(self, *rules: dict[str, Any]) -> bool:
        return not rules


def installed_ogx() -> str:
    """The version of OGX that `OGX` is the command of."""
    python = Path(_ogx_command()).with_name("python")
    asked = "import importlib.metadata as m; print(m.version('ogx'))"
    return subprocess.run([str(python), "-c", asked], check=True, capture_output=True, text=True).stdout.strip()


def _ogx_command() -> str:
    command = os.environ.get("OGX")
    assert command, "OGX is not there: run `make conformance`, which installs it"
    return command


def _model(name: str) -> dict[str, Any]:
    kind, about = "llm", {}
    if name == EMBEDDING_MODEL:
        kind, about = "embedding", {"embedding_dimension": 1536}
    return {"model_id": name, "provider_id": "local", "provider_model_id": name, "model_type": kind, "metadata": about}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


@contextmanager
def running(subject: Subject) -> Iterator[Subject]:
    """The subject started, with a client, for the length of the block."""
    with ExitStack() as opened:
        opened.callback(subject.end)
        subject.start()
        subject.desk = opened.enter_context(at(subject.url))
        yield subject
