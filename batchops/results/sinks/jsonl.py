"""One JSON object a line, every field of every row."""

from __future__ import annotations

from batchops.results.answers import Answers
from batchops.results.records import json_line
from batchops.results.sinks import Target, write_lines


def write(answers: Answers, target: Target) -> int:
    """Write one object a line; see `records.json_line`."""
    return write_lines(answers, json_line(answers.job), target)
