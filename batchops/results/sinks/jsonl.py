"""One JSON object a line, every field of every row."""

from __future__ import annotations

from batchops.results.answers import Answers
from batchops.results.records import json_lines
from batchops.results.sinks import Target


def write(answers: Answers, target: Target) -> int:
    """Write one object a line; see `records.json_lines`."""
    count = 0
    for line in json_lines(answers):
        target.stream.write(line + b"\n")
        count += 1
    return count
