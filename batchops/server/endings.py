"""What an ended batch leaves behind: the files of its answers and errors, made from its journal."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import orjson

from batchops.server.blobs import Blobs
from batchops.server.clock import Clock
from batchops.server.journal import PLACEMENTS, copy_lines, read_entries
from batchops.server.store import Batch, File

_OUTPUT_LIFE_SECONDS = 30 * 86400


class ResultFiles:
    """Makes the files of ended batches. `show` is the service's own form of a line; `seed` decides their order."""

    def __init__(self, blobs: Blobs, clock: Clock, *, seed: int, show: Callable[[Any], Any] | None) -> None:
        self._blobs, self._clock, self._seed, self._show = blobs, clock, seed, show

    def write(self, batch: Batch, kind: str, more: Iterator[bytes], *, keeps_empty: bool) -> File | None:
        """The lines of one kind in an order of their own; without any None, unless the service makes empty files."""
        journal = self._blobs.workspace(batch.id) / "journal"
        places = [
            (offset, length)
            for flag, offset, length in read_entries(journal)
            for target in PLACEMENTS[flag].files
            if target == kind
        ]
        Random(f"{self._seed} {batch.input_file_id}").shuffle(places)  # noqa: S311  an order, not a secret
        temporary = self._blobs.temporary()
        try:
            with temporary.open("wb") as target:
                target.writelines(self._shown(copy_lines(journal, places)))
                target.writelines(self._shown(more))
                size = target.tell()
            if size == 0 and not keeps_empty:
                return None
            file_id = f"file-{secrets.token_hex(12)}"
            self._blobs.keep(temporary, file_id)
        finally:
            temporary.unlink(missing_ok=True)  # a full disk is not to be filled by every try
        now = self._clock.seconds()
        life = batch.output_expires_seconds or _OUTPUT_LIFE_SECONDS
        name = f"{batch.id}_{kind}.jsonl"
        return File(file_id, batch.owner, name, "batch_output", size, now, now + life)

    def _shown(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        show = self._show
        return lines if show is None else (orjson.dumps(show(orjson.loads(line))) + b"\n" for line in lines)

    def drop(self, files: Sequence[File | None]) -> None:
        """Take back files that no row of the store names."""
        for file in files:
            if file is not None:
                self._blobs.drop(file.id)
