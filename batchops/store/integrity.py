"""What must hold in every state, checked by reading: the tables have no keys, so commits keep these."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
    Invariant(
        "the serial is that of the latest event",
        "SELECT count(*) FROM state.events WHERE serial > (SELECT max(serial) FROM state.meta)",
    ),
    Invariant("job numbers are unique", "SELECT count(*) - count(DISTINCT job_id) FROM state.jobs"),
    Invariant("a row of a job is recorded once", "SELECT count(*) - count(DISTINCT (job_id, key)) FROM state.rows"),
    Invariant(
        "every row and submission belongs to a job",
        """SELECT count(*) FROM (SELECT job_id FROM state.rows UNION ALL SELECT job_id FROM state.submissions)
           ANTI JOIN state.jobs USING (job_id)""",
    ),
    Invariant(
        "a request is in the ledger once by digest and round",
        "SELECT count(*) - count(DISTINCT (digest, round)) FROM state.requests",
    ),
    Invariant(
        "every row stands on a request of the ledger",
        "SELECT count(*) FROM state.rows ANTI JOIN state.requests USING (digest, round)",
    ),
    Invariant(
        "every request that was sent is in the ledger",
        "SELECT count(*) FROM state.attempts ANTI JOIN state.requests USING (digest, round)",
    ),
    Invariant(
        "submission numbers are unique",
        "SELECT count(*) - count(DISTINCT submission_id) FROM state.submissions",
    ),
    Invariant(
        "a submission has as many lines as it sent, those that were dropped counted",
        """SELECT count(*) FROM state.submissions s WHERE s.n <>
           (SELECT count(*) FROM state.attempts a WHERE a.submission_id = s.submission_id)
           + (SELECT coalesce(sum(d.lines), 0) FROM state.dropped d WHERE d.submission_id = s.submission_id)""",
    ),
    Invariant(
        "no try of a request is in two batches",
        """SELECT coalesce(sum(tries - 1), 0)::BIGINT FROM (
               SELECT count(*) AS tries FROM state.attempts JOIN state.submissions USING (submission_id)
               WHERE phase NOT IN ('absent', 'abandoned') GROUP BY digest, round, attempt HAVING count(*) > 1)""",
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
        "every line of a fetched submission is judged",
        """SELECT count(*) FROM (SELECT submission_id, line FROM state.attempts JOIN state.submissions
           USING (submission_id) WHERE phase = 'fetched') ANTI JOIN state.outcomes USING (submission_id, line)""",
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


@dataclass(frozen=True)
class LostFile:
    """An answer file that is gone, or is not what was written."""

    file_no: int
    path: Path
    why: str


def find_damage(reader: StateReader) -> tuple[Diagnostic, ...]:
    """Everything that is not as it must be; empty for a sound state, and for one that does not exist yet.

    Reads and hashes every answer file.
    """
    if not reader.exists:
        return ()
    return (*_broken(reader), *(_lost(file) for file in lost_files(reader)))


def _broken(reader: StateReader) -> Iterator[Diagnostic]:
    with reader.reading() as con:
        for invariant in INVARIANTS:
            row = con.execute(invariant.breaks).fetchone()
            if row and row[0]:
                detail = f"It should hold that {invariant.says}; {row[0]:,} do not. Nothing was changed. To repair it:"
                yield error("state_inconsistent", "The state is inconsistent.", detail, fixes=["batchops state repair"])


def lost_files(reader: StateReader) -> tuple[LostFile, ...]:
    """The answer files that are not on disk as they were recorded."""
    recorded = reader.rows(
        "SELECT file_no, path, bytes, sha256 FROM state.answer_files WHERE dropped_at IS NULL ORDER BY file_no"
    )
    found = ((file, what_is_wrong(reader.folder / file["path"], file["bytes"], file["sha256"])) for file in recorded)
    return tuple(LostFile(file["file_no"], reader.folder / file["path"], why) for file, why in found if why)


def what_is_wrong(path: Path, size_bytes: int | None, sha256: bytes | None) -> str | None:
    """How an answer file differs from what was recorded of it; None where it does not. Reads and hashes it."""
    if not path.is_file():
        return "is not there"
    size = path.stat().st_size
    if size_bytes is not None and size != size_bytes:
        return f"has {size:,} bytes instead of {size_bytes:,}"
    if sha256 is None:
        return None
    with path.open("rb") as file:
        return None if hashlib.file_digest(file, "sha256").digest() == sha256 else "is not what was written"


def _lost(file: LostFile) -> Diagnostic:
    detail = (
        f"{file.path} {file.why}. It holds paid answers: restore it from a copy, or fetch them again while the provider"
        " keeps them:"
    )
    return error("answers_lost", "An answer file is damaged.", detail, fixes=["batchops state repair"])
