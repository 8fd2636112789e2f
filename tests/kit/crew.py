"""Real CLI processes, started without paying for the imports each time.

A crew is a server process that has everything imported and no thread. For each command it forks a child, which becomes
what `python -W error::ResourceWarning -m batchops WORDS…` would be: a process of its own with its own folder,
environment, search path and streams and no other open file, which ends as Python ends, by an exit code or a signal.
All that a command remembers it keeps on disk, so nothing can pass from one child to the next.

A child differs from a fresh process in what Python does before it runs our code, and tests of that start their own:
which modules a verb loads and in what order (test_cli_startup.py), the real entry points, one command line of every
verb (test_cli_entry.py), and what variables like PYTHONIOENCODING say, which Python reads as it starts. Children of one
crew also share the seed of Python's hashes; another run of the tests has another.
"""

from __future__ import annotations

import json
import os
import select
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn
from weakref import WeakSet

REPOSITORY = Path(__file__).parents[2]
_LOADED_LATE = (
    "anyio._backends._asyncio",
    "h11",
    "httpcore2",
    "openai.resources.batches",
    "openai.resources.files",
    "pytz",
    "truststore",
    "uvicorn.protocols.http.h11_impl",
)
"""What libraries import only when a client or a server of theirs is made."""


@dataclass(frozen=True)
class Ended:
    """One command as it ended; a signal's number is negative, as in `subprocess`."""

    code: int
    out: str
    err: str
    steps: tuple[str, ...]
    """The steps of the engine that it reached, for a command that was told a step to die at."""


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
        return self._said("err")

    @property
    def out(self) -> str:
        return self._said("out")

    def _said(self, stream: str) -> str:
        return (self._folder / stream).read_bytes().decode()

    def wait(self, timeout: float = 120) -> Ended:
        """Wait for its end; raises TimeoutError when it takes too long, and ends it."""
        self._line.settimeout(timeout)
        try:
            code = int(self._reader.readline())
        except TimeoutError:
            self.kill()
            raise
        ended = Ended(code, self.out, self.err, tuple(self._said("steps").split()))
        self.close()
        return ended

    def kill_after(self, seconds: float) -> None:
        """Kill it from outside, unless it ends sooner."""
        if not select.select([self._line], [], [], seconds)[0]:
            self.kill()

    def close(self) -> None:
        """End it at once, unless it has ended. What it said is gone then."""
        if self._line.fileno() >= 0:
            self._reader.close()
            self._line.close()
            shutil.rmtree(self._folder)


class Crew:
    """The server process and the way to it."""

    def __init__(self) -> None:
        self._count = 0
        self._started: WeakSet[Command] = WeakSet()
        self._folder = tempfile.TemporaryDirectory(prefix="crew-")  # short: the path of a socket must be
        self._path = f"{self._folder.name}/line"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", __file__, self._path],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def start(
        self,
        words: Sequence[str],
        *,
        cwd: Path,
        environ: Mapping[str, str],
        stdin: str = "",
        stderr: int | None = None,
        step: str | None = None,
    ) -> Command:
        """Start a command. It ends with this process, if it has not before.

        `stderr` is an open file or pipe that takes the place of `Command.err`. `step` is where the command dies, if it
        gets there (`crash.arm`).
        """
        self._count += 1
        folder = Path(self._folder.name, str(self._count))
        folder.mkdir()
        for name in ("out", "err", "steps"):
            (folder / name).touch()
        (folder / "in").write_text(stdin, encoding="utf-8")
        line = socket.socket(socket.AF_UNIX)
        line.connect(self._path)
        order = {"words": list(words), "cwd": str(cwd), "environ": dict(environ), "step": step, "folder": str(folder)}
        sent = json.dumps(order).encode() + b"\n"
        passed = socket.send_fds(line, [sent], [] if stderr is None else [stderr])
        line.sendall(sent[passed:])
        command = Command(line, folder)
        self._started.add(command)
        return command

    def run(
        self, words: Sequence[str], *, cwd: Path, environ: Mapping[str, str], stdin: str = "", timeout: float = 120
    ) -> Ended:
        """Run a command to its end. Raises TimeoutError when it takes too long."""
        return self.start(words, cwd=cwd, environ=environ, stdin=stdin).wait(timeout)

    def close(self) -> None:
        for command in list(self._started):
            command.close()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()


@cache
def shared_crew() -> Crew:
    """The crew of this test process, hired when it is first needed."""
    return Crew()


def dismiss_shared_crew() -> None:
    """The end of the test process."""
    if shared_crew.cache_info().currsize:
        shared_crew().close()
        shared_crew.cache_clear()


def _serve(path: str) -> dict[str, Any]:
    """Fork a child for each order; returns the order, in the child. The server itself ends with its stdin."""
    with socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as selector:
        server.bind(path)
        server.listen(64)
        selector.register(server, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)  # closed when the tests end, however they end
        assert threading.active_count() == 1, "a process with threads must not fork"
        print("ready", flush=True)
        while True:
            if any(key.fileobj is sys.stdin for key, _ in selector.select()):
                _reap(0)
                _end(0)
            line, _ = server.accept()
            with line:
                if os.fork() == 0:
                    return _attend(line)
            _reap()


def _reap(options: int = os.WNOHANG) -> None:
    """Let the processor time of those who have ended count as ours."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, options)[0]:
            pass


def _attend(line: socket.socket) -> dict[str, Any]:
    """Start one command, tell its process id, then how it ended. Returns its order, in the process of the command."""
    text, passed, _, _ = socket.recv_fds(line, 65536, 1)
    while not text.endswith(b"\n"):
        text += line.recv(65536)
    order: dict[str, Any] = json.loads(text)
    if (child := os.fork()) == 0:
        order["stderr"] = passed
        return order
    line.sendall(f"{child}\n".encode())
    for number in passed:
        os.close(number)
    with suppress(BrokenPipeError):  # nobody waits for it any more
        line.sendall(f"{_ending(child, line)}\n".encode())
    os._exit(0)


def _ending(child: int, line: socket.socket) -> int:
    """Wait for the exit code of a process, and kill it when its orderer closes the line."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if line.fileno() in select.select([line.fileno(), reader], [], [])[0]:
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.read(reader, 64)


def _become(order: dict[str, Any]) -> None:
    """Make this process the fresh one that was ordered."""
    folder = Path(order["folder"])
    for number, name, flags in ((0, "in", os.O_RDONLY), (1, "out", os.O_WRONLY), (2, "err", os.O_WRONLY)):
        opened = os.open(folder / name, flags)
        os.dup2(opened, number)
        os.close(opened)
    for opened in order["stderr"]:
        os.dup2(opened, 2)
        os.close(opened)
    _, path = os.environ.pop("PYTHONPATH"), sys.path[2:]
    os.environ.clear()
    os.environ.update(order["environ"])
    os.chdir(order["cwd"])
    sys.path[:] = [order["cwd"], *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *path]
    sys.argv = ["batchops", *order["words"]]
    time.tzset()
    tempfile.tempdir = None
    if order["step"] is not None:
        arm(order["step"], folder / "steps")


def _end(code: int) -> NoReturn:
    """End as Python does: threads are waited for, exit handlers run, what was left open is found, streams are flushed.

    Only the modules are not taken down: Python would do that for all that is loaded here, needed or not.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # what Py_Finalize calls
    atexit._run_exitfuncs()
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _preload() -> None:
    """Import every module of batchops that a command may need."""
    for module in pkgutil.walk_packages(batchops.__path__, "batchops."):
        if not module.name.startswith("batchops.__main__"):
            importlib.import_module(module.name)
    for name in _LOADED_LATE:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # no collection in a child walks through it, or copies its pages


if __name__ == "__main__":
    import atexit
    import gc
    import importlib
    import pkgutil
    import threading

    from crash import arm

    import batchops
    from batchops.__main__ import main

    _preload()
    _become(_serve(sys.argv[1]))
    try:
        main()
    except SystemExit as done:
        _end(int(done.code or 0))
    _end(0)
