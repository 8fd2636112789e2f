"""The shards of one job: each is begun when there is room for it, the next while the last is taken."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeAlias

from batchops.engine.admission import Room
from batchops.engine.manifest import Cut
from batchops.engine.shards import Shard, ShardWriter
from batchops.plan.estimate import ShardLimits

_Begun: TypeAlias = tuple[Cut, "Future[Shard]"]


class Outgoing:
    """What of one job is sent now, under `limits`; one shard at most where it is a canary.

    `may_begin` is asked before each shard, besides the room.
    """

    def __init__(
        self, writer: ShardWriter, room: Room, limits: ShardLimits, may_begin: Callable[[], bool], *, is_canary: bool
    ) -> None:
        self._writer, self._room, self._may_begin = writer, room, may_begin
        self._cuts = writer.cuts(limits)
        self._most: Final = 1 if is_canary else None
        self._count = 0
        self.is_cut_short = False
        """Something due was left."""

    def shards(self, wait_for_turn: Callable[[], bool]) -> Generator[Shard, None, None]:
        """Each shard once it is written and `wait_for_turn` says yes; after a no its file is gone.

        Whoever takes one records its intent before taking the next; that one is written meanwhile. Raises NotAsPlanned.
        """
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batchops-write") as pool:
            begun = self._begin(pool)
            while begun is not None:
                cut, future = begun
                shard, begun = future.result(), None
                if not wait_for_turn():
                    shard.path.unlink()
                    self.is_cut_short = True
                    return
                begun = self._begin(pool)
                yield shard
                self._room.note_recorded(cut)

    def _begin(self, pool: ThreadPoolExecutor) -> _Begun | None:
        cut = next(self._cuts, None)
        if cut is None:
            return None
        if self._count == self._most or not self._may_begin() or not self._room.has(cut):
            self.is_cut_short = True
            return None
        self._count += 1
        self._room.take(cut)
        return cut, pool.submit(self._writer.write, cut)
