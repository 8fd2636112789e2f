"""Compact: drop what nobody needs, merge small answer files, write the state anew. Under the lease, after a backup.

A kill at any moment leaves a state that is sound: each step is a commit or a rename, and the next compaction does what
is left. Only the last one replaces the file.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from batchops.engine.project import Project
from batchops.engine.surgery import committed
from batchops.engine.work import new_work_folder, sweep_work
from batchops.exhaustion import work_told
from batchops.store.copies import backup, copy_file
from batchops.store.footprint import Footprint, footprint
from batchops.store.merging import merge, sweep_answers
from batchops.store.recognise import refuse_absent
from batchops.store.retention import Trim
from batchops.store.store import StateStore


@dataclass(frozen=True)
class Compacted:
    """How much room the state took and takes, and what was dropped, merged and removed."""

    before: Footprint
    after: Footprint
    requests: int
    attempts: int
    events: int
    merged_files: int
    leavings: int
    backup: Path


def compact(
    project: Project,
    *,
    keep_attempts: timedelta | None = None,
    keep_events: timedelta | None = None,
    lock_timeout: timedelta = timedelta(0),
) -> Compacted:
    """Write the state anew without what nobody needs, and sweep what killed commands left beside it.

    `keep_attempts` and `keep_events` are ages; by default those of the settings, and without one nothing goes by age.
    """
    refuse_absent(project.state_path)
    settings = project.settings.state
    with work_told(project.work_folder.parent), project.leased(lock_timeout) as store:
        before = footprint(store)
        kept = backup(store.path, "compact")
        trim = Trim(
            tries_before=_before(store, keep_attempts if keep_attempts is not None else settings.keep_attempts),
            events_before=_before(store, keep_events if keep_events is not None else settings.keep_events),
        )
        detail = committed(store, store.commit(trim))
        merged = _merge(project, store)
        copy_file(store.path, store.path)
        sweep_work(project)
        leavings = _sweep_drafts(store.path) + sweep_answers(store)
        return Compacted(
            before, footprint(store), detail["requests"], detail["attempts"], detail["events"], merged, leavings, kept
        )


def _before(store: StateStore, age: timedelta | None) -> datetime | None:
    return None if age is None else store.clock() - age


def _merge(project: Project, store: StateStore) -> int:
    """How many answer files are in others now."""
    folder = new_work_folder(project)
    try:
        done = 0
        for change in merge(store, folder):
            store.commit(change)
            done += len(change.old)
        return done
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep_drafts(state_path: Path) -> int:
    """Remove half-made files of killed commands; under the lease nobody is making one."""
    folder = state_path.parent
    drafts = [
        *folder.glob(f"{state_path.name}.*.new*"),
        *(folder / "backups").glob("*.new*"),
        *(folder / "answers").glob("*.new"),
    ]
    for draft in drafts:
        draft.unlink(missing_ok=True)
    return len(drafts)
