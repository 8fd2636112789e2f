"""Measures commands as fresh processes, and prints the table that all benches share: every line a ratio to a floor.

A floor is the least work anything could do for the same result (a plain copy, `python -c pass`), measured in the same
run, for machines are noisy and differ.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
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


def measure(command: Sequence[str], folder: Path, *, env: Mapping[str, str] | None = None) -> Measured:
    """Run the command once in a fresh process; RuntimeError, with what it said, when it fails."""
    words = [sys.executable, "-S", str(Path(__file__).with_name("one_run.py")), *command]
    ended = subprocess.run(words, cwd=folder, env=env, stdout=subprocess.PIPE, check=True)
    found = json.loads(ended.stdout)
    if found["code"]:
        raise RuntimeError(f"{' '.join(command)} exited {found['code']}: {found['said']}")
    return Measured(found["seconds"], found["cpu_seconds"], found["peak_mb"])


def repeats_for(rows: int) -> int:
    """How often to run what takes so many rows: once where that is minutes."""
    return REPEATS if rows <= 1_000_000 else 1


def about_runs(what: str) -> str:
    """The first line of a table: what it is about, on which machine and versions, and how often it was run."""
    versions = f"Python {sys.version.split()[0]}, DuckDB {importlib.metadata.version('duckdb')}"
    return f"{what}: {os.cpu_count()} CPUs, {versions}, medians of {REPEATS}; one run of more than 1,000,000 rows"


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


HEADING = f"{'':54} {'rows/s':>10} {'seconds':>9} {'× floor':>8} {'× script':>8} {'work':>9} {'× floor':>8} {'peak':>9}"


@dataclass(frozen=True)
class Against:
    """What the lines of a table are held against: a floor, and the script that people write, over so many rows."""

    floor: Measured | None = None
    script: Measured | None = None
    rows: int | None = None

    def tell(self, what: str, measured: Measured) -> None:
        """Print a line below `HEADING`: seconds and work of all cores, also as multiples, and memory."""
        columns = (
            f"{self.rows / measured.seconds:>10,.0f}" if self.rows else f"{'-':>10}",
            f"{measured.seconds:>7.2f} s",
            _multiple(measured, self.floor, attrgetter("seconds")),
            _multiple(measured, self.script, attrgetter("seconds")),
            f"{measured.cpu_seconds:>7.2f} s",
            _multiple(measured, self.floor, attrgetter("cpu_seconds")),
            f"{measured.peak_mb:>6.0f} MB",
        )
        print(f"{what:54} {' '.join(columns)}", flush=True)


def _multiple(measured: Measured, of: Measured | None, column: Callable[[Measured], float]) -> str:
    return f"{column(measured) / column(of):>6.2f} ×" if of else f"{'-':>8}"


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    """Add to a list how long the block took."""
    started = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - started)
