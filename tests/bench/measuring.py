"""Measures commands as fresh processes: wall-clock seconds and peak memory. What a bench prints is a ratio to a floor.

A floor is the least work anything could do for the same result (a plain copy, `python -c pass`), measured in the same
run, for machines are noisy and differ.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPEATS = 5


def command_line(about: str | None) -> argparse.ArgumentParser:
    """The parser of a bench's arguments; `--help` shows the first paragraph of `about`, its docstring."""
    shown = " ".join((about or "").partition("\n\n")[0].split()).replace("%", "%%")
    return argparse.ArgumentParser(description=shown)


def sizes_asked(about: str | None, default: Sequence[int], *, what: str = "ROWS") -> list[int]:
    """The sizes that a bench was asked for, else `default`. Ends the process for `--help` and for what is no size."""
    parser = command_line(about)
    add_sizes(parser, what.lower(), default, metavar=what)
    return list(getattr(parser.parse_args(), what.lower())) or list(default)


def size_asked(about: str | None, default: int, *, what: str = "ROWS") -> int:
    """`sizes_asked`, of a bench that takes one."""
    parser = command_line(about)
    parser.add_argument(
        what.lower(), nargs="?", type=count, default=default, metavar=what, help=f"default: {default:,}"
    )
    return int(getattr(parser.parse_args(), what.lower()))


def add_sizes(parser: argparse.ArgumentParser, name: str, default: Sequence[int], *, metavar: str = "ROWS") -> None:
    """Let the parser take any number of sizes; an empty list is left where none is given."""
    told = " ".join(f"{each:,}" for each in default)
    parser.add_argument(name, nargs="*", type=count, default=[], metavar=metavar, help=f"default: {told}")


def count(text: str) -> int:
    """A whole number above zero; ValueError for another text."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


@dataclass(frozen=True)
class Measured:
    """One run of a command, or several in one: see `middle`. A megabyte is 10**6 bytes.

    `cpu_seconds` is the work of all cores, children that were waited for included: other programs disturb it least.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float

    def ratio(self, floor: Measured) -> float:
        """How many times as long as the floor it took."""
        return self.seconds / floor.seconds

    def cpu_ratio(self, floor: Measured) -> float:
        """How many times as much work as the floor it was."""
        return self.cpu_seconds / floor.cpu_seconds


def measure(command: Sequence[str], folder: Path, *, env: Mapping[str, str] | None = None) -> Measured:
    """Run the command once in a fresh process; RuntimeError, with what it said, when it fails."""
    words = [sys.executable, "-S", str(Path(__file__).with_name("one_run.py")), *command]
    ended = subprocess.run(words, cwd=folder, env=env, stdout=subprocess.PIPE, check=True)
    found = json.loads(ended.stdout)
    if found["code"]:
        raise RuntimeError(f"{' '.join(command)} exited {found['code']}: {found['said']}")
    return Measured(found["seconds"], found["cpu_seconds"], found["peak_mb"])


def peak_mb(pid: int) -> float:
    """The most memory that a process which still runs has held so far, in MB; NaN where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return math.nan
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def middle(runs: Sequence[Measured]) -> Measured:
    """The medians of the seconds and the greatest of the peaks: memory that was needed once is needed."""
    seconds, cpu_seconds = (
        statistics.median(column) for column in zip(*((run.seconds, run.cpu_seconds) for run in runs), strict=True)
    )
    return Measured(seconds, cpu_seconds, max(run.peak_mb for run in runs))


def median(
    command: Sequence[str], folder: Path, *, repeats: int = REPEATS, env: Mapping[str, str] | None = None
) -> Measured:
    """`middle` of so many runs of one command, each a fresh process."""
    return middle([measure(command, folder, env=env) for _ in range(repeats)])


def batchops(*words: str) -> list[str]:
    """The command line under test, as a process of this interpreter."""
    return [sys.executable, "-m", "batchops", *words]


def tell(what: str, measured: Measured, floor: Measured) -> None:
    """Print one line of a table: seconds and work, each also as a multiple of the floor's, and memory."""
    print(
        f"{what:52} {measured.seconds:8.2f} s {measured.ratio(floor):6.2f} ×"
        f" {measured.cpu_seconds:8.2f} cpu s {measured.cpu_ratio(floor):6.2f} × {measured.peak_mb:7.0f} MB",
        flush=True,
    )


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    """Add to a list how long the block took."""
    started = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - started)
