"""Surgery on the state as a whole: move, forget, repair. Each makes a backup first, under the lease."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from batchops.diagnostics import BatchopsError, Diagnostic, UsageProblem, error
from batchops.engine.project import Project
from batchops.engine.surgery import committed, recorded_addresses, unknown_job
from batchops.providers.provider import ProviderError
from batchops.store.changes import Withdrawn
from batchops.store.copies import backup
from batchops.store.integrity import find_damage, lost_files
from batchops.store.recognise import refuse_absent
from batchops.store.store import StateReader, StateStore
from batchops.store.surgery import FetchAgain, ForgetRows, Mend, MoveJobs

NO_PATIENCE = timedelta(0)


@dataclass(frozen=True)
class Moved:
    """Which jobs are called otherwise now."""

    moves: tuple[tuple[str, str], ...]
    backup: Path


def move(project: Project, source: str, target: str, *, lock_timeout: timedelta = NO_PATIENCE) -> Moved:
    """Call a job on record otherwise; it keeps its answers. A name without matrix values moves every instance."""
    refuse_absent(project.state_path)
    with project.leased(lock_timeout) as store:
        known = recorded_addresses(store, project.environment)
        instances = [found for found in known if found.startswith(f"{source}[")]
        chosen = [source] if source in known else instances
        if not chosen:
            raise UsageProblem(unknown_job(source, known))
        moves = tuple((found, target + found.removeprefix(source)) for found in chosen)
        _refuse_taken(store, project.environment, moves)
        kept = backup(store.path, "mv")
        store.commit(MoveJobs(project.environment, moves))
    return Moved(moves, kept)


def _refuse_taken(store: StateReader, environment: str, moves: tuple[tuple[str, str], ...]) -> None:
    """An address that has a record keeps it. One that was forgotten, rows and all, is free again."""
    rows = store.rows(
        """SELECT address FROM state.jobs j WHERE environment = ?
           AND (removed_at IS NULL OR EXISTS (FROM state.rows r WHERE r.job_id = j.job_id))""",
        [environment],
    )
    taken = {row["address"] for row in rows}
    for _, target in moves:
        if target in taken:
            raise BatchopsError(
                error(
                    "address_taken",
                    "The address is taken.",
                    f"{target} is on record, with rows of its own. To forget them first (their answers stay paid):",
                    fixes=[f"batchops state rm {target}"],
                )
            )


@dataclass(frozen=True)
class Forgotten:
    """How many rows no longer stand on a request."""

    address: str
    rows: int
    backup: Path


def forget(
    project: Project, address: str, key: str | None = None, *, lock_timeout: timedelta = NO_PATIENCE
) -> Forgotten:
    """Forget the rows of a job, or one row of it. Paid answers stay in the ledger and are used again."""
    refuse_absent(project.state_path)
    with project.leased(lock_timeout) as store:
        known = recorded_addresses(store, project.environment)
        if address not in known:
            raise UsageProblem(unknown_job(address, known))
        if key is not None and not _has_row(store, project.environment, address, key):
            raise BatchopsError(
                error("unknown_row", "Unknown row.", f'{address} has no row "{key}" on record.', address=address)
            )
        kept = backup(store.path, "rm")
        serial = store.commit(ForgetRows(project.environment, address, None if key is None else (key,)))
        return Forgotten(address, committed(store, serial)["rows"], kept)


def _has_row(store: StateReader, environment: str, address: str, key: str) -> bool:
    return bool(
        store.rows(
            "SELECT 1 FROM state.rows JOIN state.jobs USING (job_id) WHERE environment = ? AND address = ? AND key = ?",
            [environment, address, key],
        )
    )


@dataclass(frozen=True)
class Repair:
    """What was put right, which batches will be fetched again, and what is still wrong. No backup: all was sound."""

    backup: Path | None = None
    mended: Mapping[str, int] | None = None
    fetch_again: tuple[str, ...] = ()
    left: tuple[Diagnostic, ...] = ()


def repair(project: Project, *, lock_timeout: timedelta = NO_PATIENCE) -> Repair:
    """Put right what can be put right without guessing; batches whose answers are lost here are fetched again.

    Asks a provider only when answers are lost, whether it still has them.
    """
    refuse_absent(project.state_path)
    with project.leased(lock_timeout) as store:
        if not find_damage(store):
            return Repair()
        kept = backup(store.path, "repair")
        detail = committed(store, store.commit(Mend()))
        batches, gone = _fetch_again(project, store)
        return Repair(kept, detail, batches, (*gone, *find_damage(store)))


_JUDGED_BADLY = """
SELECT a.submission_id FROM state.attempts a LEFT JOIN state.outcomes o USING (submission_id, line)
WHERE a.submission_id IN (SELECT submission_id FROM state.submissions WHERE phase = 'fetched')
GROUP BY a.submission_id HAVING count(o.outcome) <> count(DISTINCT a.line)
"""


def _fetch_again(project: Project, store: StateStore) -> tuple[tuple[str, ...], list[Diagnostic]]:
    """Reopen the batches whose answers are lost or incomplete here and still at the provider."""
    lost = [file.file_no for file in lost_files(store)]
    rows = store.rows(
        f"""SELECT s.submission_id, s.provider, s.batch_id, j.address,
                   (SELECT list(DISTINCT answer_file) FROM state.outcomes o
                    WHERE o.submission_id = s.submission_id AND list_contains(?::UINTEGER[], o.answer_file)) AS files
            FROM state.submissions s LEFT JOIN state.jobs j USING (job_id)
            WHERE s.phase = 'fetched' AND (len(files) > 0 OR s.submission_id IN ({_JUDGED_BADLY}))
            ORDER BY s.submission_id""",
        [lost],
    )
    gone: list[Diagnostic] = []
    found, kept_files = [], defaultdict[int, int](int)
    for row in rows:
        problem = _why_gone(project, row)
        if problem is None:
            found.append(row)
        else:
            gone.append(problem)
            for number in row["files"] or ():
                kept_files[number] += 1
    if found:
        files = sorted({number for row in found for number in row["files"] or () if number not in kept_files})
        store.commit(FetchAgain([row["submission_id"] for row in found], files))
    return tuple(row["batch_id"] for row in found), gone


def _why_gone(project: Project, row: Mapping[str, Any]) -> Diagnostic | None:
    """None when the provider still has the batch and every result file of it."""
    try:
        provider = project.provider(row["provider"])
        batch = provider.retrieve(row["batch_id"])
        files = [file_id for file_id in (batch.output_file_id, batch.error_file_id) if file_id]
        for file_id in files:
            provider.retrieve_file(file_id)
        why = None if files else "it has no result file"
    except ProviderError as problem:
        why = problem.message
    except BatchopsError as problem:
        why = str(problem)
    if why is None:
        return None
    return error(
        "answers_gone",
        "Answers that are lost here cannot be fetched again.",
        f"{row['provider']} about {row['batch_id']}: {why}. Its rows still count as answered, so that nothing is paid"
        " twice unasked. To pay for them again:",
        address=row["address"],
        fixes=[f"batchops apply --replace {row['address']}"],
    )


@dataclass(frozen=True)
class Absent:
    """A submission of which a person said that it never became a batch."""

    token: str
    address: str
    requests: int
    backup: Path


def declare_absent(project: Project, token: str, *, lock_timeout: timedelta = NO_PATIENCE) -> Absent:
    """Record that the batch of an unsettled submission does not exist: its requests may be asked again."""
    refuse_absent(project.state_path)
    with project.leased(lock_timeout) as store:
        rows = store.rows(
            """SELECT s.submission_id, s.token::VARCHAR AS token, s.n, s.phase, j.address
               FROM state.submissions s JOIN state.jobs j USING (job_id) WHERE j.environment = ?
               AND s.phase IN ('intended', 'creating', 'revoking') ORDER BY s.submission_id""",
            [project.environment],
        )
        found = next((row for row in rows if row["token"] == _canonical(token)), None)
        if found is None:
            raise BatchopsError(_not_unsettled(token, [f"{row['token']} ({row['address']})" for row in rows]))
        kept = backup(store.path, "absent")
        store.commit(Withdrawn(found["submission_id"], "absent", reason="a person looked, and found no batch"))
        return Absent(found["token"], found["address"], found["n"], kept)


def _canonical(token: str) -> str:
    try:
        return str(UUID(token))
    except ValueError:
        return token


def _not_unsettled(token: str, unsettled: list[str]) -> Diagnostic:
    known = f"Unsettled are: {', '.join(unsettled)}." if unsettled else "Every submission is settled."
    return error(
        "not_unsettled", "No such submission is unsettled.", f'"{token}" is no submission of unknown fate. {known}'
    )
