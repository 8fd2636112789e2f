"""A commit that did not reach the disk: what is said, and the note that is left beside the state.

Nothing needs a copy of the change to be safe: before each effect its intent is on record, and what came of it is found
at the provider again. The one thing worth a note is the id of a batch that was just made: with it the state is put
right by one command, without looking for the batch.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

import orjson

from batchops.store.recognise import Unwritable


@runtime_checkable
class MadeBatch(Protocol):
    """A change that records the id of a batch which exists at the provider from now on."""

    @property
    def address(self) -> str: ...

    @property
    def batch_id(self) -> str: ...


def with_note(problem: Unwritable, state_path: Path, changes: Iterable[object], now: datetime) -> Unwritable:
    """`problem`, with a note beside the state where that helps, and the command that makes up for the commit."""
    change = next((change for change in changes if isinstance(change, MadeBatch)), None)
    if change is None:
        return problem
    command = f"batchops import {shlex.quote(change.address)} {change.batch_id}"
    note = {"at": now.isoformat(), "address": change.address, "batch_id": change.batch_id, "restore": command}
    path = state_path.with_name("errored.jsonl")
    try:
        with path.open("ab") as file:
            file.write(orjson.dumps(note) + b"\n")
    except OSError:
        kept = ""
    else:
        kept = f" The batch's id is kept in {path}."
    return Unwritable(state_path, problem.reason, kept=kept, fixes=(command,))
