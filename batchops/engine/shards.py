"""Rows → input files: the requests of one job, rendered and packed under the provider's limits.

A shard is written before anything is recorded of it. It is not synced: only the process that wrote it ever reads it,
and one that died is never sent. Requests of one shard share their model, and retries keep to shards of their own.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from uuid import UUID

from batchops.engine.gather import Gathered
from batchops.engine.manifest import TAIL, Cut, Manifest
from batchops.engine.sources import WantedJob
from batchops.plan.estimate import ShardLimits
from batchops.profiles import Profile
from batchops.request.lines import LineWriter, line_writer


@dataclass(frozen=True)
class Shard:
    """An input file on disk.

    `manifest` is a relation of the work database, a row for each line: line, digest, round, attempt, body_digest.
    """

    token: UUID
    path: Path
    model: str
    is_retry: bool
    manifest: str
    requests: int
    shard_bytes: int
    est_tokens: int
    sha256: bytes


def custom_id(digest: UUID, round_: int, attempt: int) -> str:
    """`<digest>-<round>-<attempt>`: tells the request of any line, even where the state was lost."""
    return f"{digest.hex}-{round_}-{attempt}"


def parse_custom_id(text: str) -> tuple[UUID, int, int] | None:
    """The digest, round and attempt of a `custom_id` of ours; None for anybody else's."""
    digest, _, rest = text.partition("-")
    round_, _, attempt = rest.partition("-")
    if len(digest) != 32 or not round_.isdigit() or not attempt.isdigit():
        return None
    try:
        return UUID(digest), int(round_), int(attempt)
    except ValueError:
        return None


@contextmanager
def shard_writer(gathered: Gathered, wanted: WantedJob, now: datetime, profile: Profile) -> Iterator[ShardWriter]:
    """Write what is due by then for one job; whatever helps to render it ends with the block.

    It has a connection of its own: files may be written while that of `gathered` is used.
    """
    folder = gathered.folder / "shards"
    folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        con = stack.enter_context(gathered.con.cursor())
        manifest = Manifest(con, wanted, now, profile)
        writers = [
            stack.enter_context(line_writer(con, wanted.table.loaded, group.request, tail=TAIL))
            for group in manifest.groups
        ]
        yield ShardWriter(manifest, writers, folder)


class ShardWriter:
    """What one job sends: first cut into files, then each file written when it may be sent."""

    def __init__(self, manifest: Manifest, writers: list[LineWriter], folder: Path) -> None:
        self._manifest, self._writers, self._folder = manifest, writers, folder

    def cuts(self, limits: ShardLimits) -> Iterator[Cut]:
        """The files, none of them written, in the order in which they are sent."""
        return self._manifest.cuts(limits)

    def write(self, cut: Cut) -> Shard:
        """Render one file. Raises NotAsPlanned."""
        token, hashed = uuid.uuid4(), hashlib.sha256()
        path = self._folder / f"{token}.jsonl"
        with path.open("wb") as file:
            for block in self._blocks(cut):
                file.write(block)
                hashed.update(block)
            assert file.tell() == cut.bytes, "every piece was measured when it was written"
        return Shard(
            token=token,
            path=path,
            model=cut.model,
            is_retry=cut.is_retry,
            manifest=self._manifest.of(cut),
            requests=cut.requests,
            shard_bytes=cut.bytes,
            est_tokens=cut.tokens,
            sha256=hashed.digest(),
        )

    def _blocks(self, cut: Cut) -> Iterator[bytes | memoryview]:
        for number, pieces in groupby(self._manifest.pieces(cut), key=lambda piece: piece[0].number):
            yield from self._writers[number].write(piece for _, piece in pieces)
