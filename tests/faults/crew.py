"""Real CLI processes, started without paying for the imports each time.

A server process has everything imported and no thread; for each command it forks a child that runs the command line as
`python -m batchops` would, in its own folder, with its own environment, and ends like any process: by exit or signal.
"""

from __future__ import annotations

import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PRELOADED = (
    "duckdb", "openai", "jsonschema_rs", "batchops.cli.apply", "batchops.cli.plan", "batchops.cli.results",
    "batchops.cli.signals", "batchops.engine.operations", "batchops.engine.project", "batchops.providers.openai",
    "batchops.results.answers", "batchops.results.sinks.jsonl", "batchops.views.outcome", "batchops.views.plan_json",
    "batchops.views.progress",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """One command as it ended; a signal's number is negative, as in `subprocess`."""

    code: int
    out: str
    err: str
    steps: tuple[str, ...]
    """The steps of the engine that it reached."""


class Command:
    """A command under way."""

    def __init__(self, line: socket.socket, folder: Path) -> None:
        self._line = line
        self._reader = line.makefile("r", encoding="utf-8")
        self._folder = folder
        self.pid = int(self._reader.readline())

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal. It may have ended already."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    @property
    def err(self) -> str:
        """What it has said on stderr so far."""
        return (self._folder / "err").read_text(encoding="utf-8")

    @property
    def out(self) -> str:
        return (self._folder / "out").read_text(encoding="utf-8")

    def wait(self, timeout: float = 120) -> Ended:
        """Wait for its end; raises TimeoutError when it takes too long, and ends it."""
        self._line.settimeout(timeout)
        try:
            code = int(self._reader.readline())
        except TimeoutError:
            self.kill()
            raise
        self.close()
        return Ended(code, self.out, self.err, tuple((self._folder / "steps").read_text().split()))

    def kill_after(self, seconds: float) -> None:
        """Kill it from outside, unless it ends sooner."""
        if not select.select([self._line], [], [], seconds)[0]:
            self.kill()

    def close(self) -> None:
        """End it, unless it has ended."""
        if self._line.fileno() >= 0:
            if select.select([self._line], [], [], 0) == ([], [], []):
                self.kill()
            self._reader.close()
            self._line.close()


class Crew:
    """The server process and the way to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._started: list[Command] = []
        self._short = tempfile.TemporaryDirectory(prefix="crew-")  # a socket's path must be
        self._path = f"{self._short.name}/line"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", __file__, self._path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def start(self, words: Sequence[str], *, cwd: Path, environ: Mapping[str, str], step: str = "") -> Command:
        """Start a command; `step` is where it dies."""
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        for name in ("out", "err", "steps"):
            (folder / name).touch()
        line = socket.socket(socket.AF_UNIX)
        line.connect(self._path)
        order = {"words": list(words), "cwd": str(cwd), "environ": dict(environ), "step": step, "folder": str(folder)}
        line.sendall(json.dumps(order).encode() + b"\n")
        command = Command(line, folder)
        self._started.append(command)
        return command

    def dismiss(self) -> None:
        """Let no command outlive the test that started it."""
        while self._started:
            self._started.pop().close()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._short.cleanup()


def _serve(path: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as selector:
        server.bind(path)
        server.listen(64)
        selector.register(server, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)  # closed when the tests end, however they end
        assert threading.active_count() == 1, "a process with threads must not fork"
        print("ready", flush=True)
        while all(key.fileobj is server for key, _ in selector.select()):
            line, _ = server.accept()
            if os.fork() == 0:
                _attend(line)
            line.close()


def _attend(line: socket.socket) -> None:
    """Start one command, tell its process id, then how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with line.makefile("r", encoding="utf-8") as reader:
        order = json.loads(reader.readline())
    child = os.fork()
    if child == 0:
        line.close()
        _perform(order)
    line.sendall(f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    line.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _perform(order: dict[str, Any]) -> None:
    folder = Path(order["folder"])
    for number, name in ((0, os.devnull), (1, folder / "out"), (2, folder / "err")):
        opened = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(order["environ"])
    os.chdir(order["cwd"])
    sys.argv = ["batchops", *order["words"]]
    from crash import arm  # noqa: PLC0415

    arm(order["step"], folder / "steps")
    from batchops.cli.main import run  # noqa: PLC0415

    code = run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    import importlib

    for _name in PRELOADED:
        importlib.import_module(_name)
    _serve(sys.argv[1])
