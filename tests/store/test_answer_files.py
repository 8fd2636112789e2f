"""Answer files: long lines in little memory, no name twice, and nothing under a name before it is whole."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from batchops.store.answerfiles import FAST, write_answers
from batchops.store.changes import PhaseConflict
from batchops.store.connection import open_memory
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
        written = write_answers(con, relation, reader, lines=LINES, level=FAST)
    path = reader.folder / written.path
    assert (written.lines, written.size_bytes) == (LINES, path.stat().st_size)
    with duckdb.connect() as con:
        found = con.execute(f"SELECT count(DISTINCT line), min(strlen(raw) / strlen(answer)) FROM '{path}'").fetchall()
    assert found == [(LINES, 2)]


def test_another_file_gets_another_name_and_a_part_of_one_gets_none(reader: StateReader) -> None:
    with open_memory() as con:
        first, second = (write_answers(con, "range(3)", reader, lines=3, level=FAST) for _ in range(2))
        with pytest.raises(PhaseConflict, match="of 4"):
            write_answers(con, "range(3)", reader, lines=4, level=FAST)
    assert [first.path, second.path] == ["answers/000001.parquet", "answers/000002.parquet"]
    assert sorted(path.name for path in (reader.folder / "answers").iterdir()) == ["000001.parquet", "000002.parquet"]
