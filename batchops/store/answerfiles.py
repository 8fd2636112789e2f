"""Answer files: drafted, named once, as no other in the state or on the disk, and synced before anything names them."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from batchops.store.changes import AnswerFile, PhaseConflict
from batchops.store.connection import file_text, sql_text
from batchops.store.copies import to_disk
from batchops.store.recognise import Unwritable
from batchops.store.store import StateReader

_GROUPS: Final = "ROW_GROUP_SIZE 10240, ROW_GROUP_SIZE_BYTES '16MB'"
"""A group is in memory, more than once, until it is written: without the second bound 2,048 embeddings of 3,072 numbers
take 1 GB, with it a fifth of that and two thirds of the time (measured, 2026-11)."""

FAST, SMALL = 1, 3
"""Levels of compression. In groups of this size the first is as small as the second in groups of 122,880 rows."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer file that has no number yet."""

    path: Path
    sha256: bytes
    lines: int


def draft_answers(con: duckdb.DuckDBPyConnection, relation: str, path: Path, *, lines: int, level: int) -> Draft:
    """Write the answers of `relation`, SQL over `con`, which must not keep an order. PhaseConflict unless so many."""
    con.execute(
        f"COPY (FROM {relation}) TO {sql_text(str(path))}"
        f" (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL {level}, {_GROUPS})"
    )
    written = con.execute(f"SELECT count(*) FROM read_parquet({file_text(path)})").fetchone()
    if written != (lines,):
        path.unlink()
        raise PhaseConflict(f"{written} answers of {lines} were written")
    with path.open("rb") as file:
        return Draft(path, hashlib.file_digest(file, "sha256").digest(), lines)


def name_answers(reader: StateReader, draft: Draft) -> AnswerFile:
    """Put a draft on disk under its final name. `answers` may lie on another disk than the draft.

    Unwritable where it cannot be put there; then no part of it is.
    """
    folder = reader.folder / "answers"
    try:
        number, final = _next_file(reader, folder)
        _put(draft.path, final)
    except OSError as problem:
        raise Unwritable(folder, problem.strerror or str(problem)) from problem
    return AnswerFile(number, f"answers/{final.name}", draft.sha256, final.stat().st_size, draft.lines)


def _next_file(reader: StateReader, folder: Path) -> tuple[int, Path]:
    """A number that neither the state nor the disk has: files stay of a state that was pushed over, and of a kill."""
    folder.mkdir(exist_ok=True)
    rows = reader.rows("SELECT coalesce(max(file_no), 0) + 1 AS next FROM state.answer_files")
    number = int(rows[0]["next"])
    while (path := folder / f"{number:06d}.parquet").exists():
        number += 1
    return number, path


def _put(path: Path, final: Path) -> None:
    arrived = final.with_name(f"{final.name}.new")
    try:
        shutil.move(path, arrived, copy_function=shutil.copyfile)  # a disk may have bytes, and no modes to copy
        to_disk(arrived)
        arrived.rename(final)
    except OSError:
        with suppress(OSError):
            arrived.unlink()
        raise
    to_disk(final.parent)
