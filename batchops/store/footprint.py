"""How much room a state takes: its file and its answer files, apart, in bytes and in bytes a row."""

from __future__ import annotations

from dataclasses import dataclass

from batchops.store.store import StateReader


@dataclass(frozen=True)
class Footprint:
    """Bytes on disk. `rows` counts the rows on record in every environment, `answers` the lines in answer files."""

    state_bytes: int
    answer_bytes: int
    rows: int
    answers: int

    @property
    def state_bytes_per_row(self) -> float | None:
        return self.state_bytes / self.rows if self.rows else None

    @property
    def answer_bytes_per_answer(self) -> float | None:
        return self.answer_bytes / self.answers if self.answers else None


def footprint(reader: StateReader) -> Footprint:
    """The room that a state takes now; answer files that wait to be removed are not counted."""
    found = reader.rows(
        """SELECT (SELECT count(*) FROM state.rows) AS rows, coalesce(sum(n), 0)::BIGINT AS answers,
                  coalesce(sum(bytes), 0)::BIGINT AS answer_bytes
           FROM state.answer_files WHERE dropped_at IS NULL"""
    )[0]
    return Footprint(reader.path.stat().st_size, found["answer_bytes"], found["rows"], found["answers"])
