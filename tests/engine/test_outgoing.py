"""The shards of one job on their way out: one is written ahead, none without room, and nothing stays of one unsent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from batchops.engine.manifest import Cut
from batchops.engine.outgoing import Outgoing
from batchops.engine.shards import Shard
from batchops.plan.estimate import ShardLimits

PATIENCE_SECONDS = 60
LIMITS = ShardLimits(max_requests=1, max_bytes=1, max_inputs=1)


@dataclass(frozen=True)
class File:
    """What stands for a shard."""

    path: Path


class Writer:
    """Writes a file for each of `lines` cuts; those that the test keeps wait for it."""

    def __init__(self, folder: Path, lines: int) -> None:
        self.folder, self.lines = folder, lines
        self.begun = [threading.Event() for _ in range(lines)]
        self.problem: Exception | None = None

    def cuts(self, limits: ShardLimits) -> Iterator[Cut]:
        assert limits is LIMITS
        for line in range(self.lines):
            yield Cut(line, line, "m", is_retry=False, bytes=1, inputs=1, tokens=1)

    def write(self, cut: Cut) -> File:
        self.begun[cut.first].set()
        if self.problem is not None:
            raise self.problem
        path = self.folder / f"{cut.first}.jsonl"
        path.touch()
        return File(path)


@dataclass
class Room:
    """Room for so many shards that are not on record."""

    size: int = 100
    begun: list[int] = field(default_factory=list)
    recorded: list[int] = field(default_factory=list)

    def has(self, cut: Cut) -> bool:
        return len(self.begun) < self.size

    def take(self, cut: Cut) -> None:
        self.begun.append(cut.first)

    def note_recorded(self, cut: Cut) -> None:
        self.recorded.append(cut.first)


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path, lines=3)


def outgoing(
    writer: Writer, room: Room, *, may_begin: Callable[[], bool] = lambda: True, is_canary: bool = False
) -> Outgoing:
    return Outgoing(cast(Any, writer), cast(Any, room), LIMITS, may_begin, is_canary=is_canary)


def names(shards: Iterator[Shard]) -> list[str]:
    return [shard.path.stem for shard in shards]


def test_the_next_is_written_while_the_last_is_taken(writer: Writer) -> None:
    room = Room()
    sending = outgoing(writer, room)
    with closing(sending.shards(lambda: True)) as shards:
        assert next(shards).path.stem == "0"
        assert writer.begun[1].wait(PATIENCE_SECONDS)
        assert not writer.begun[2].is_set(), "one ahead is enough"
        assert (room.begun, room.recorded) == ([0, 1], [])
        assert names(shards) == ["1", "2"]
    assert (room.begun, room.recorded, sending.is_cut_short) == ([0, 1, 2], [0, 1, 2], False)


def test_without_room_none_is_written(writer: Writer) -> None:
    sending = outgoing(writer, Room(size=2))
    assert names(sending.shards(lambda: True)) == ["0", "1"]
    assert sending.is_cut_short
    assert not writer.begun[2].is_set()


def test_a_canary_goes_alone(writer: Writer) -> None:
    sending = outgoing(writer, Room(), is_canary=True)
    assert (names(sending.shards(lambda: True)), sending.is_cut_short) == (["0"], True)
    alone = outgoing(Writer(writer.folder, lines=1), Room(), is_canary=True)
    assert (names(alone.shards(lambda: True)), alone.is_cut_short) == (["0"], False)


def test_one_whose_turn_does_not_come_leaves_no_file(writer: Writer) -> None:
    turns = iter([True, False])
    sending = outgoing(writer, Room())
    assert names(sending.shards(lambda: next(turns))) == ["0"]
    assert sending.is_cut_short
    assert [path.stem for path in writer.folder.iterdir()] == ["0"], "that one belongs to who took it"


def test_after_a_stop_none_is_begun(writer: Writer) -> None:
    sending = outgoing(writer, Room(), may_begin=lambda: False)
    assert (names(sending.shards(lambda: True)), sending.is_cut_short) == ([], True)
    assert not writer.begun[0].is_set()


def test_what_went_wrong_while_writing_is_raised(writer: Writer) -> None:
    writer.problem = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        names(outgoing(writer, Room()).shards(lambda: True))
