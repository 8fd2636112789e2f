"""Contents on disk: files by id, one working folder for each running batch, uploads in the making.

Every name is an id that this server made; nothing a client wrote becomes part of a path.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path


def fsync_directory(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Blobs:
    """The content store under one data folder."""

    def __init__(self, root: Path) -> None:
        self._files = root / "files"
        self._work = root / "work"
        self._temporary = root / "tmp"
        for folder in (self._files, self._work, self._temporary):
            folder.mkdir(parents=True, exist_ok=True)

    def path(self, file_id: str) -> Path:
        return self._files / file_id

    def workspace(self, batch_id: str) -> Path:
        return self._work / batch_id

    def temporary(self) -> Path:
        """A new empty file for content that is on its way in."""
        descriptor, name = tempfile.mkstemp(dir=self._temporary)
        os.close(descriptor)
        return Path(name)

    def keep(self, temporary: Path, file_id: str) -> None:
        """Give content its id, durably: a crash leaves either nothing or all of it."""
        with temporary.open("rb") as content:
            os.fsync(content.fileno())
        temporary.rename(self.path(file_id))
        fsync_directory(self._files)

    def lend(self, file_id: str, batch_id: str) -> Path:
        """The batch's own link to its input: deleting the file later takes nothing from a running batch.

        Raises FileNotFoundError.
        """
        workspace = self.workspace(batch_id)
        workspace.mkdir(exist_ok=True)
        lent = workspace / "input.jsonl"
        if not lent.exists():
            try:
                os.link(self.path(file_id), lent)
            except FileNotFoundError:
                raise
            except OSError:  # a file system without hard links
                shutil.copyfile(self.path(file_id), workspace / "input.part")
                (workspace / "input.part").rename(lent)
        return lent

    def drop(self, file_id: str) -> None:
        self.path(file_id).unlink(missing_ok=True)

    def clear(self, batch_id: str) -> None:
        shutil.rmtree(self.workspace(batch_id), ignore_errors=True)

    def sweep(self, file_ids: Collection[str], batch_ids: Collection[str]) -> None:
        """Remove what a crash left: half uploads, contents no file names, folders of batches that have ended."""
        for leftover in self._temporary.iterdir():
            leftover.unlink(missing_ok=True)
        for stored in self._files.iterdir():
            if stored.name not in file_ids:
                stored.unlink(missing_ok=True)
        for workspace in self._work.iterdir():
            if workspace.name not in batch_ids:
                shutil.rmtree(workspace, ignore_errors=True)
