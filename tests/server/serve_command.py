"""`batchops serve` as a process of its own, to be signalled and killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_URL = re.compile(r"http://\S+/v1")


class Serve:
    """A started command; `url` is what it said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self.process = process
        self.said = process.stderr.readline()
        found = _URL.search(self.said)
        self.url = found[0] if found else ""

    def end(self, number: int) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(10)


@contextmanager
def started(data_dir: Path, *flags: str, env: Mapping[str, str] = {}, cwd: Path | None = None) -> Iterator[Serve]:
    """`batchops serve --port 0`; killed at the end of the block if it still runs."""
    command = [sys.executable, "-m", "batchops", "serve", "--port", "0", "--data", str(data_dir), *flags]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), **env}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment, cwd=cwd
    ) as process:
        try:
            yield Serve(process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
