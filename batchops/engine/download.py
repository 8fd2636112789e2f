"""The result files of ended batches: downloaded wholly or not, one batch ahead, waited for where they come late."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from batchops.engine.project import Project
from batchops.engine.steps import reached
from batchops.engine.work import new_work_folder
from batchops.providers.normalise import epoch
from batchops.providers.provider import BatchStatus, Missing, Provider, RemoteBatch

LATE_FILE_LOOKS: Final = 10
"""How often a batch that ended without the files it should have is looked at again before it is believed."""

LATE_FILE_SECONDS: Final = 86_400


@dataclass
class ResultFiles:
    """Those that are here, and what was said of those that are gone, by `output` and `error`."""

    paths: list[Path] = field(default_factory=list)
    gone: dict[str, str] = field(default_factory=dict)


class Downloads:
    """Downloads batches one by one, and the next one already while the last is judged. Close it.

    `upcoming`: the batches, each with the name of its provider, in the order in which they will be taken. Others may be
    taken too, and are downloaded then.
    """

    def __init__(self, project: Project, upcoming: Sequence[tuple[str, RemoteBatch]] = ()) -> None:
        self.project, self.upcoming = project, list(upcoming)
        self._ahead: _Download | None = None

    def take(self, provider: str, remote: RemoteBatch) -> tuple[ResultFiles, Path]:
        """The files of a batch and the folder that they are in, which is the caller's now. Raises as `download`."""
        taken, self._ahead = self._ahead, None
        if taken is not None and not taken.is_of(provider, remote):
            taken.abandon()
            taken = None
        taken = taken or _Download(self.project, provider, remote)
        try:
            files = taken.result()
        except BaseException:
            taken.abandon()
            raise
        self._begin_next(taken)
        return files, taken.folder

    def _begin_next(self, taken: _Download) -> None:
        places = [place for place, known in enumerate(self.upcoming) if taken.is_of(*known)]
        if places and places[0] + 1 < len(self.upcoming):
            self._ahead = _Download(self.project, *self.upcoming[places[0] + 1])

    def close(self) -> None:
        """Let go of a download that nobody took; nobody waits for its end."""
        if self._ahead is not None:
            self._ahead.abandon()


class _Download:
    """The download of one batch, in a thread of its own, which a process that ends does not wait for."""

    def __init__(self, project: Project, provider: str, remote: RemoteBatch) -> None:
        self._name, self._remote = provider, remote
        self._provider = project.provider(provider)
        self.folder = new_work_folder(project)
        self._files: ResultFiles | None = None
        self._problem: BaseException | None = None
        self._is_abandoned = False
        self._thread = threading.Thread(target=self._run, name="batchops-download", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._files = download(self._provider, self._remote, self.folder)
        except BaseException as problem:
            self._problem = problem
        if self._is_abandoned:
            shutil.rmtree(self.folder, ignore_errors=True)

    def is_of(self, provider: str, remote: RemoteBatch) -> bool:
        return (self._name, self._remote.id) == (provider, remote.id)

    def result(self) -> ResultFiles:
        """Wait for the files. Raises as `download`."""
        self._thread.join()
        if self._files is None:
            assert self._problem is not None
            raise self._problem
        return self._files

    def abandon(self) -> None:
        """Leave nothing behind, whenever the download ends."""
        self._is_abandoned = True
        shutil.rmtree(self.folder, ignore_errors=True)


def download(provider: Provider, remote: RemoteBatch, folder: Path) -> ResultFiles:
    """Download both files of a batch into `folder`; the file of answers first."""
    files = ResultFiles()
    for name, file_id in (("output", remote.output_file_id), ("error", remote.error_file_id)):
        if file_id is None:
            continue
        path = folder / f"{name}.jsonl"
        reached("before_download")
        try:
            provider.download(file_id, path)
        except Missing as problem:
            files.gone[name] = problem.message
        else:
            reached("after_download")
            files.paths.append(path)
    return files


def may_still_come(remote: RemoteBatch, files: ResultFiles, *, looks: int, now: datetime) -> bool:
    """Whether lines that are in no file may be in one that is named, or found, later; `looks` were in vain so far.

    Of a batch that ended long ago nothing comes any more: its files are deleted after 30 days.
    """
    if remote.status is BatchStatus.FAILED or looks >= LATE_FILE_LOOKS:
        return False
    if files.gone:
        ended_at = epoch(remote.raw.get(f"{remote.status}_at"))
        return ended_at is None or now.timestamp() - ended_at < LATE_FILE_SECONDS
    owes_errors = remote.error_file_id is None and (remote.failed or 0) > 0
    owes_answers = remote.output_file_id is None and (remote.completed or 0) > 0
    return not files.paths or owes_errors or owes_answers
