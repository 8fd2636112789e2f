"""Answer files: long lines in little memory, no name twice, and nothing under a name before it is whole."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import duckdb
import pytest

from batchops.store.answerfiles import FAST, Draft, draft_answers, name_answers
from batchops.store.changes import PhaseConflict
from batchops.store.connection import open_memory
from batchops.store.recognise import Unwritable
from batchops.store.store import StateReader

LINES, NUMBERS = 2_200, 1_500


@pytest.fixture
def reader(tmp_path: Path) -> StateReader:
    (tmp_path / "state").mkdir()
    return StateReader(tmp_path / "state" / "batchops.duckdb")


def spooled(path: Path) -> str:
    """SQL of so many embeddings, as they lie on disk once they are judged: 190 MB."""
    numbers = ", ".join(str((number * 7919 % 10007) / 10007) for number in range(NUMBERS))
    with path.open("w") as file:
        for line in range(LINES):
            answer = f"[{line}, {numbers}]"
            file.write(json.dumps({"line": line, "answer": answer, "raw": answer * 2}) + "\n")
    columns = "{line: 'UINTEGER', answer: 'VARCHAR', raw: 'VARCHAR'}"
    return f"read_json('{path}', format = 'newline_delimited', columns = {columns})"


def test_long_lines_are_written_in_little_memory(reader: StateReader, tmp_path: Path) -> None:
    relation = spooled(tmp_path / "spool.jsonl")
    with open_memory(memory_limit="250MB", temp_directory=tmp_path) as con:
        draft = draft_answers(con, relation, tmp_path / "draft.parquet", lines=LINES, level=FAST)
    written = name_answers(reader, draft)
    path = reader.folder / written.path
    assert (written.lines, written.size_bytes) == (LINES, path.stat().st_size)
    with duckdb.connect() as con:
        found = con.execute(f"SELECT count(DISTINCT line), min(strlen(raw) / strlen(answer)) FROM '{path}'").fetchall()
    assert found == [(LINES, 2)]


def test_another_file_gets_another_name_and_a_part_of_one_gets_none(reader: StateReader, tmp_path: Path) -> None:
    path = tmp_path / "draft.parquet"
    with open_memory() as con:
        first, second = (
            name_answers(reader, draft_answers(con, "range(3)", path, lines=3, level=FAST)) for _ in range(2)
        )
        with pytest.raises(PhaseConflict, match="of 4"):
            draft_answers(con, "range(3)", path, lines=4, level=FAST)
    assert [first.path, second.path] == ["answers/000001.parquet", "answers/000002.parquet"]
    assert sorted(path.name for path in (reader.folder / "answers").iterdir()) == ["000001.parquet", "000002.parquet"]
    assert not path.exists()


@pytest.fixture
def other_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers lie on another disk than drafts, which has no modes."""
    rename = os.rename

    def of_one_disk(source: Path, target: Path) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.rename", of_one_disk)
    monkeypatch.setattr("os.chmod", refused)


def drafted(path: Path) -> Draft:
    with open_memory() as con:
        return draft_answers(con, "range(3)", path, lines=3, level=FAST)


@pytest.mark.usefixtures("other_disk")
def test_answers_may_lie_on_another_disk_than_drafts(reader: StateReader, tmp_path: Path) -> None:
    named = name_answers(reader, drafted(tmp_path / "draft.parquet"))
    assert hashlib.sha256((reader.folder / named.path).read_bytes()).digest() == named.sha256
    assert [path.name for path in (reader.folder / "answers").iterdir()] == ["000001.parquet"]


def full(_: Path, target: Path | None = None) -> None:
    if target is not None:
        target.write_bytes(b"PAR1")
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.usefixtures("other_disk")
@pytest.mark.parametrize("failing", ["shutil.copyfile", "batchops.store.answerfiles.to_disk"])
def test_a_folder_that_takes_no_more_answers_is_told_of_and_keeps_no_part_of_them(
    reader: StateReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    draft = drafted(tmp_path / "draft.parquet")
    monkeypatch.setattr(failing, full)
    with pytest.raises(Unwritable, match=f"{reader.folder / 'answers'}: No space left on device"):
        name_answers(reader, draft)
    assert list((reader.folder / "answers").iterdir()) == []


def test_a_folder_of_answers_that_cannot_be_made_is_told_of(reader: StateReader, tmp_path: Path) -> None:
    (reader.folder / "answers").write_text("in its place")
    with pytest.raises(Unwritable, match="File exists"):
        name_answers(reader, drafted(tmp_path / "draft.parquet"))
