"""Measures commands as fresh processes: wall-clock seconds and peak memory. What a bench prints is a ratio to a floor.

A floor is the least work anything could do for the same result (a plain copy, `python -c pass`), measured in the same
run, for machines are noisy and differ. Knows nothing of batchops.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPEATS = 5


@dataclass(frozen=True)
class Measured:
    """One run of a command, or several in one: see `middle`. A megabyte is 10**6 bytes."""

    seconds: float
    peak_mb: float

    def ratio(self, floor: Measured) -> float:
        """How many times as long as the floor it took."""
        return self.seconds / floor.seconds


def measure(command: Sequence[str], folder: Path, *, env: Mapping[str, str] | None = None) -> Measured:
    """Run the command once in a fresh process; RuntimeError, with what it said, when it fails."""
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        peak_mb = reap(process)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} exited {process.returncode}: {said.decode(errors='replace')}")
    return Measured(time.perf_counter() - started, peak_mb)


def reap(process: subprocess.Popen[bytes]) -> float:
    """Wait for the end of a process; the most memory it ever held, in MB. Sets its returncode."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    scale = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return usage.ru_maxrss * scale / 1e6


def peak_mb(pid: int) -> float:
    """The most memory that a process which still runs has held so far, in MB; NaN where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return math.nan
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def middle(runs: Sequence[Measured]) -> Measured:
    """The median of the seconds and the greatest of the peaks: memory that was needed once is needed."""
    return Measured(statistics.median(run.seconds for run in runs), max(run.peak_mb for run in runs))


def median(
    command: Sequence[str], folder: Path, *, repeats: int = REPEATS, env: Mapping[str, str] | None = None
) -> Measured:
    """`middle` of so many runs of one command, each a fresh process."""
    return middle([measure(command, folder, env=env) for _ in range(repeats)])


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    """Add to a list how long the block took."""
    started = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - started)
