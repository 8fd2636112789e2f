"""Where answers go: one module a format, loaded when it is used."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from batchops.diagnostics import UsageProblem, error
from batchops.results.answers import Answers

SINKS = {
    "jsonl": "batchops.results.sinks.jsonl:write",
    "csv": "batchops.results.sinks.csv:write",
    "parquet": "batchops.results.sinks.parquet:write",
    "table": "batchops.results.sinks.table:write",
}
NEEDS_FILE = frozenset({"parquet"})
"""Formats that cannot be written to a stream."""

SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet", ".txt": "table"}


@dataclass(frozen=True)
class Target:
    """An open binary stream; `path` when it is a file; `width` of the terminal in columns, None without one."""

    stream: IO[bytes]
    path: Path | None = None
    width: int | None = None


class Sink(Protocol):
    def __call__(self, answers: Answers, target: Target) -> int:
        """Write every selected row to the target, in order, in bounded memory; returns how many there were."""


def sink(name: str) -> Sink:
    """The sink that `name`, a key of SINKS, stands for."""
    module, _, function = SINKS[name].partition(":")
    found: Sink = getattr(importlib.import_module(module), function)
    return found


def output_needed() -> UsageProblem:
    """What to say where a format of NEEDS_FILE should go to a stream."""
    detail = "Parquet is written to a file, not through a pipe or a device: -o FILE.parquet"
    return UsageProblem(error("output_needed", "An output file is needed.", detail))


def write_lines(answers: Answers, line: str, target: Target) -> int:
    """Write one line a row: `line` is SQL for its text. Returns how many there were."""
    count = 0
    for batch in answers.batches(f"{line} AS line"):
        target.stream.write("".join(f"{text}\n" for (text,) in batch).encode())
        count += len(batch)
    return count
