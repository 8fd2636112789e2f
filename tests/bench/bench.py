"""Times the command line against floors taken in the same run: `make bench`, or `bench.py ROWS…` for other sizes.

Every line is the median of a few fresh processes: seconds, the ratio to its floor, peak memory.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

REPEATS = 5
TEXT = "'Row ' || i || ' says \"hello\", \u00e9\u00e8 and goes on. ' || repeat(md5(i::VARCHAR), 14)"
"""About 500 bytes of text with quotes and accents, different in each row."""

SETTINGS = 'project = "bench"\nprovider = "local"\n'
JOB = """\
name: bench
source:
  query: SELECT id, text FROM read_parquet('data/rows.parquet')
  key: id
model: gpt-5-mini
template:
  - {role: system, content: You label texts.}
  - {role: user, content: "{{ text }}"}
params: {max_completion_tokens: 100}
"""
FLOOR = """\
import duckdb
print(duckdb.execute('''
  SELECT count(DISTINCT sha256(
    concat('{"model":"gpt-5-mini","messages":[{"role":"user","content":', to_json(text), '}]}')))
  FROM read_parquet('data/rows.parquet')''').fetchone())
"""


@dataclass(frozen=True)
class Measured:
    seconds: float
    peak_mb: float


def measure(command: Sequence[str], folder: Path) -> Measured:
    """Run the command once in a fresh process; RuntimeError when it fails."""
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} exited {process.returncode}: {said.decode()}")
    scale = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return Measured(time.perf_counter() - started, usage.ru_maxrss * scale / 1e6)


def median(command: Sequence[str], folder: Path, *, repeats: int = REPEATS) -> Measured:
    runs = [measure(command, folder) for _ in range(repeats)]
    return Measured(statistics.median(r.seconds for r in runs), max(r.peak_mb for r in runs))


def batchops(*words: str) -> list[str]:
    return [sys.executable, "-m", "batchops", *words]


def line(what: str, measured: Measured, floor: Measured) -> None:
    ratio = measured.seconds / floor.seconds
    print(f"{what:44} {measured.seconds:8.3f} s {ratio:7.1f} × floor {measured.peak_mb:8.0f} MB", flush=True)


def make_project(folder: Path, rows: int) -> None:

    for name in ("jobs", "data"):
        (folder / name).mkdir()
    (folder / "batchops.toml").write_text(SETTINGS)
    (folder / "jobs" / "bench.yaml").write_text(JOB)
    target = folder / "data" / "rows.parquet"
    duckdb.execute(f"COPY (SELECT i AS id, {TEXT} AS text FROM range({rows}) t(i)) TO '{target}' (FORMAT parquet)")


def start_up(folder: Path) -> None:
    floor = median([sys.executable, "-c", "pass"], folder)
    line("python -c pass (floor)", floor, floor)
    for words in (["--version"], ["--help"], ["validate"]):
        line(f"batchops {' '.join(words)}", median(batchops(*words), folder), floor)


def planning(folder: Path, rows: int) -> None:
    floor = median([sys.executable, "-c", FLOOR], folder)
    line(f"DuckDB text and hash, {rows:,} rows (floor)", floor, floor)
    line(f"plan, first time, {rows:,} rows", median(batchops("plan", "--offline"), folder), floor)
    applied = measure(batchops("apply", "--auto-approve", "--wait"), folder)
    line(f"apply --wait, simulated, {rows:,} rows (once)", applied, floor)
    line(f"plan, nothing changed, {rows:,} rows", median(batchops("plan", "--offline"), folder), floor)


def main(sizes: Sequence[int]) -> None:
    print(f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}, medians of {REPEATS}")
    for number, rows in enumerate(sizes):
        with tempfile.TemporaryDirectory(prefix="batchops-bench-") as name:
            folder = Path(name)
            make_project(folder, rows)
            if number == 0:
                start_up(folder)
            planning(folder, rows)


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [1_000, 10_000])
