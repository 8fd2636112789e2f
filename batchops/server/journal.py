"""What a running batch has answered so far: an append-only file that a kill cannot make lie.

One entry a line: a flag, then the result line. An entry is written in one call as soon as its answer is there, so a
killed process loses at most the answers that were under way; a torn last entry is cut off when the journal is opened.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson

from batchops.server.lines import READ_BYTES


class Placement(NamedTuple):
    """Where an entry's line goes (file names, once or more) and whether it counts as completed or failed."""

    files: tuple[str, ...]
    is_completed: bool


PLACEMENTS: dict[bytes, Placement] = {
    b"O": Placement(("output",), True),
    b"E": Placement(("error",), False),
    b"D": Placement(("output", "output"), True),
    b"X": Placement((), True),
    b"W": Placement(("error",), True),
    b"V": Placement(("output",), False),
}
"""By flag. All but O and E are what a fault plan asks for: doubled, lost, or in the wrong file."""


@dataclass(slots=True)
class Tally:
    """Counts and tokens of what was answered."""

    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def add(self, flag: bytes, body: Any) -> None:
        if not PLACEMENTS[flag].is_completed:
            self.failed += 1
            return
        self.completed += 1
        usage = body.get("usage") if isinstance(body, dict) else None
        if isinstance(usage, dict):
            self._add_usage(usage)

    def _add_usage(self, usage: dict[str, Any]) -> None:
        self.input_tokens += _count(usage, "input_tokens") or _count(usage, "prompt_tokens")
        self.output_tokens += _count(usage, "output_tokens") or _count(usage, "completion_tokens")
        inputs = usage.get("input_tokens_details") or usage.get("prompt_tokens_details")
        outputs = usage.get("output_tokens_details") or usage.get("completion_tokens_details")
        self.cached_tokens += _count(inputs, "cached_tokens")
        self.reasoning_tokens += _count(outputs, "reasoning_tokens")


def _count(counts: Any, name: str) -> int:
    value = counts.get(name) if isinstance(counts, dict) else None
    return value if isinstance(value, int) else 0


class Entry(NamedTuple):
    flag: bytes
    custom_id: str
    body: Any
    line: bytes


class Journal:
    """The journal of one batch. `times` says how often each custom_id was executed."""

    def __init__(self, path: Path) -> None:
        self.times: dict[str, int] = {}
        self.tally = Tally()
        self._path = path
        end = self._recover()
        self._file = path.open("ab", buffering=0)
        self._file.truncate(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Make it durable and end writing; what it has counted can still be read."""
        if not self._file.closed:
            self.sync()
            self._file.close()

    def append(self, entries: Iterable[Entry]) -> None:
        """Write entries at once, then count them. After an OSError the journal is to be opened anew, which mends it."""
        written = list(entries)
        left = memoryview(b"".join(entry.flag + entry.line for entry in written))
        while left:  # a disk that is nearly full takes a part and says so only when it is asked for the rest
            left = left[self._file.write(left) :]
        for entry in written:
            self._count(entry.flag, entry.custom_id, entry.body)

    def sync(self) -> None:
        """Make what was appended outlive a loss of power."""
        os.fsync(self._file.fileno())

    def _count(self, flag: bytes, custom_id: str, body: Any) -> None:
        self.times[custom_id] = self.times.get(custom_id, 0) + 1
        self.tally.add(flag, body)

    def _recover(self) -> int:
        """Count what is there; returns where the last whole entry ends."""
        end = 0
        if not self._path.exists():
            return end
        with self._path.open("rb", READ_BYTES) as entries:
            for raw in entries:
                if not raw.endswith(b"\n") or raw[:1] not in PLACEMENTS:
                    break
                try:
                    line = orjson.loads(raw[1:])
                except orjson.JSONDecodeError:
                    break
                self._count(raw[:1], line["custom_id"], (line["response"] or {}).get("body"))
                end += len(raw)
        return end


def read_entries(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """(flag, offset of the line, its length) of every entry."""
    offset = 0
    with path.open("rb", READ_BYTES) as entries:
        for raw in entries:
            yield raw[:1], offset + 1, len(raw) - 1
            offset += len(raw)


def copy_lines(path: Path, places: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """The lines at these (offset, length) places, in this order, without holding the journal in memory."""
    if path.stat().st_size == 0:
        return
    with path.open("rb") as entries, mmap.mmap(entries.fileno(), 0, access=mmap.ACCESS_READ) as view:
        for offset, length in places:
            yield view[offset : offset + length]
