"""What must hold in every state, checked by reading: the tables have no keys, so commits keep these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from batchops.diagnostics import Diagnostic, error
from batchops.store.store import StateReader


@dataclass(frozen=True)
class Invariant:
    """A sentence about the state, and a query that counts what breaks it."""

    says: str
    breaks: str


INVARIANTS = (
    Invariant("meta has one row", "SELECT abs(count(*) - 1) FROM state.meta"),
    Invariant("the lease has one row at most", "SELECT greatest(count(*) - 1, 0) FROM state.lease"),
    Invariant(
        "a job is recorded once by environment and address",
        "SELECT count(*) - count(DISTINCT (environment, address)) FROM state.jobs WHERE removed_at IS NULL",
    ),
    Invariant("job numbers are unique", "SELECT count(*) - count(DISTINCT job_id) FROM state.jobs"),
    Invariant("a row of a job is recorded once", "SELECT count(*) - count(DISTINCT (job_id, key)) FROM state.rows"),
    Invariant(
        "a request is in the ledger once by digest and round",
        "SELECT count(*) - count(DISTINCT (digest, round)) FROM state.requests",
    ),
    Invariant(
        "every row stands on a request of the ledger",
        "SELECT count(*) FROM state.rows ANTI JOIN state.requests USING (digest, round)",
    ),
    Invariant(
        "submission numbers are unique",
        "SELECT count(*) - count(DISTINCT submission_id) FROM state.submissions",
    ),
    Invariant(
        "a line of a submission carries one request",
        "SELECT count(*) - count(DISTINCT (submission_id, line)) FROM state.attempts",
    ),
    Invariant(
        "a line of a submission is judged once",
        "SELECT count(*) - count(DISTINCT (submission_id, line)) FROM state.outcomes",
    ),
    Invariant(
        "what is judged was sent",
        "SELECT count(*) FROM state.outcomes ANTI JOIN state.attempts USING (submission_id, line)",
    ),
    Invariant(
        "every answered request has its outcome",
        """SELECT count(*) FROM (SELECT submission_id, line FROM state.requests WHERE state = 2)
           ANTI JOIN state.outcomes USING (submission_id, line)""",
    ),
    Invariant(
        "a request in flight belongs to an open submission",
        """SELECT count(*) FROM (SELECT submission_id FROM state.requests WHERE state = 1)
           ANTI JOIN (SELECT submission_id FROM state.submissions WHERE phase NOT IN ('fetched', 'absent', 'abandoned'))
           USING (submission_id)""",
    ),
    Invariant(
        "the answer file of every outcome is known",
        """SELECT count(*) FROM (SELECT answer_file AS file_no FROM state.outcomes WHERE answer_file IS NOT NULL)
           ANTI JOIN state.answer_files USING (file_no)""",
    ),
)


def find_damage(reader: StateReader) -> tuple[Diagnostic, ...]:
    """Everything that is not as it must be; empty for a sound state, and for one that does not exist yet."""
    if not reader.exists:
        return ()
    return (*_broken(reader), *_lost_files(reader))


def _broken(reader: StateReader) -> Iterator[Diagnostic]:
    with reader.reading() as con:
        for invariant in INVARIANTS:
            row = con.execute(invariant.breaks).fetchone()
            if row and row[0]:
                detail = f"It should hold that {invariant.says}; {row[0]:,} do not. Nothing was changed."
                yield error("state_inconsistent", "The state is inconsistent.", detail)


def _lost_files(reader: StateReader) -> Iterator[Diagnostic]:
    for file in reader.rows("SELECT path, bytes FROM state.answer_files WHERE dropped_at IS NULL ORDER BY path"):
        path = reader.folder / file["path"]
        if not path.is_file():
            found = "is not there"
        elif path.stat().st_size != file["bytes"]:
            found = f"has {path.stat().st_size:,} bytes instead of {file['bytes']:,}"
        else:
            continue
        detail = f"{path} {found}. It holds paid answers: restore it from a backup."
        yield error("answers_lost", "An answer file is damaged.", detail)
