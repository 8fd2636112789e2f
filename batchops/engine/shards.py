"""Rows → input files: the requests of one job, rendered and packed under the provider's limits.

A shard is written and fsynced before anything is recorded of it. Requests of one shard share their model, and retries
keep to shards of their own.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
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


def write_shards(
    gathered: Gathered, wanted: WantedJob, limits: ShardLimits, now: datetime, profile: Profile
) -> Iterator[Shard]:
    """Render what is due and yield each input file as soon as it is full and fsynced. Never holds more than one."""
    folder = gathered.folder / "shards"
    folder.mkdir(exist_ok=True)
    manifest = Manifest(gathered, wanted, now, profile)
    with ExitStack() as stack:
        writers = [
            stack.enter_context(line_writer(gathered.con, wanted.table.loaded, group.request, tail=TAIL))
            for group in manifest.groups
        ]
        for cut in manifest.cuts(limits):
            yield _written(manifest, cut, writers, folder)


def _written(manifest: Manifest, cut: Cut, writers: list[LineWriter], folder: Path) -> Shard:
    token, hashed = uuid.uuid4(), hashlib.sha256()
    path = folder / f"{token}.jsonl"
    with path.open("wb") as file:
        for group, piece in manifest.pieces(cut):
            for block in writers[group.number].write(piece):
                file.write(block)
                hashed.update(block)
        file.flush()
        os.fsync(file.fileno())
        assert file.tell() == cut.bytes, "every piece was measured when it was written"
    return Shard(
        token=token,
        path=path,
        model=cut.model,
        is_retry=cut.is_retry,
        manifest=manifest.of(cut),
        requests=cut.last - cut.first + 1,
        shard_bytes=cut.bytes,
        est_tokens=cut.tokens,
        sha256=hashed.digest(),
    )
