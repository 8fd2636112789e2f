"""The result files of ended batches: downloaded wholly or not, and waited for where they come late."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from batchops.engine.steps import reached
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
