"""Fetch: an ended batch becomes outcomes, verdicts and a file of answers, in one commit.

The truth is in the lines: which file one is in, and what the counts say, does not matter. Whatever was sent and is in
neither file is expired, cancelled, never executed or missing, by how the batch ended. Batches are downloaded and judged
ahead, one file at a time (ahead.py); here, in one thread and in their order, they are recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import duckdb
import orjson

from batchops.diagnostics import Diagnostic, error, warning
from batchops.engine.ahead import Ahead, EndedBatch
from batchops.engine.download import ResultFiles, may_still_come
from batchops.engine.endings import describe_failure, is_full_queue
from batchops.engine.judging import Judging, Totals
from batchops.engine.ledger import Submission
from batchops.engine.run import Run
from batchops.engine.steps import reached
from batchops.engine.work import Scratch
from batchops.plan.events import BatchFetched, RowFailures
from batchops.plan.prices import price
from batchops.providers.provider import RemoteBatch
from batchops.spec.job import Outcome, Retry
from batchops.store.answerfiles import FAST, Draft, draft_answers, name_answers
from batchops.store.changes import Fetched, Observed
from batchops.store.connection import AS_WRITTEN, file_text, sql_text
from batchops.store.states import RequestState


class Fetching:
    """The fetches of one look at the provider, with the next ones under way. Close it.

    `upcoming`: the batches that will be fetched, in order; others may be, too.
    """

    def __init__(self, run: Run, upcoming: Sequence[EndedBatch] = ()) -> None:
        self.run = run
        self._scratch = Scratch(run.project)
        self._ahead = Ahead(run.project, self._judged, upcoming)

    def close(self) -> None:
        self._ahead.close()
        self._scratch.close()

    def _judged(
        self, ended: EndedBatch, files: ResultFiles, folder: Path, is_wanted: Callable[[], bool]
    ) -> _Judged | None:
        """A batch, judged; None where its files are not there yet. Runs in another thread, and only reads the state."""
        with self._scratch.lent() as con, closing(_judging(self.run, ended, folder, con, is_wanted)) as judging:
            judging.judge_files(files.paths)
            if judging.unseen and may_still_come(ended.remote, files, looks=_looks(ended.found), now=self.run.now):
                return None
            judging.judge_unseen()
            return _written(judging, folder)

    def fetch(self, ended: EndedBatch) -> bool:
        """Fetch one batch. False when its files are not there yet; then the next look tries again."""
        run, found, remote = self.run, ended.found, ended.remote
        with self._ahead.taken(ended) as (files, judged):
            if judged is None:
                _note_look(run, found, remote)
                return False
            _commit(run, found, remote, judged)
        if is_full_queue(remote) and judged.next_due_at is not None:
            run.full_until[found.provider, found.model] = judged.next_due_at
        run.tell(*_problems(run, ended, files, judged))
        return True


@dataclass(frozen=True)
class _Judged:
    """A batch ready to be recorded; what is large of it is in files. `lines`: SQL of the relation `judged`."""

    lines: str
    totals: Totals
    answers: Draft | None
    strays: int
    held_because: str | None
    next_due_at: datetime | None

    @property
    def without_line(self) -> int:
        """How many rows are in no line of the result files."""
        return sum(self.totals.outcomes.values()) - self.totals.answers


def _written(judging: Judging, folder: Path) -> _Judged:
    totals = judging.finish()
    path = folder / "judged.parquet"
    judging.con.execute(f"COPY judged TO {sql_text(str(path))} (FORMAT parquet)")
    lines = f"read_parquet({file_text(path)}, {AS_WRITTEN})"
    reached("before_answers")
    answers = None
    if totals.answers:
        draft = folder / "answers.parquet"
        answers = draft_answers(judging.con, "answers", draft, lines=totals.answers, level=FAST)
    return _Judged(lines, totals, answers, judging.strays, judging.held_because, judging.next_due_at)


def _looks(found: Submission) -> int:
    """How often this batch was looked at in vain."""
    return int(found.remote.get("batchops_looks", 0))


def _judging(
    run: Run, ended: EndedBatch, folder: Path, con: duckdb.DuckDBPyConnection, is_wanted: Callable[[], bool]
) -> Judging:
    found = ended.found
    settings = run.project.provider_settings(found.provider).models.get(found.model)
    return Judging(
        run.project.reader,
        found,
        ended.remote,
        ended.job.spec.retry if ended.job else Retry(),
        price(found.model, settings.price if settings else None),
        con=con,
        folder=folder,
        now=run.now,
        is_wanted=is_wanted,
    )


def _problems(run: Run, ended: EndedBatch, files: ResultFiles, judged: _Judged) -> list[Diagnostic]:
    """What to tell of a batch that was fetched."""
    found = ended.found
    told = [
        error(
            "result_file_gone",
            "A result file no longer exists at the provider.",
            f"The {name} file of {found.batch_id} at {found.provider}: {message} Its rows count as missing, and the"
            " next plan asks them again; result files are kept for 30 days by default.",
            address=found.address,
        )
        for name, message in files.gone.items()
    ]
    if judged.strays and judged.without_line:
        told.append(_strays(ended, judged))
    failure = describe_failure(ended.remote, found.address, found.provider, ended.job, partial(_row_at, run, found))
    return [*told, failure] if failure is not None else told


def _strays(ended: EndedBatch, judged: _Judged) -> Diagnostic:
    found, remote = ended.found, ended.remote
    files = " and ".join(filter(None, (remote.output_file_id, remote.error_file_id)))
    return warning(
        "result_lines_unread",
        "Lines of a result file could not be read, or name no row of their batch.",
        f"{judged.strays:,} of them in {files} of {found.batch_id} at {found.provider}; {judged.without_line:,} rows"
        " are in no line, and the retry policy says whether they are asked again. Look into the file before the"
        " provider deletes it: these lines may be paid answers.",
        address=found.address,
    )


def _row_at(run: Run, found: Submission, line: int) -> str | None:
    """The address of the row that a line (0-based) asks for; None where its key is sensitive."""
    rows = run.project.reader.rows(
        """SELECT r.key, j.address, j.spec FROM state.attempts a JOIN state.rows r USING (digest, round)
           JOIN state.jobs j ON j.job_id = r.job_id
           WHERE a.submission_id = ? AND a.line = ? ORDER BY j.address = ? DESC, r.key LIMIT 1""",
        [found.submission_id, line, found.address],
    )
    if not rows:
        return None
    spec = orjson.loads(rows[0]["spec"])
    is_sensitive = set(spec.get("key", ())) & set(spec.get("sensitive", ()))
    return None if is_sensitive else f"{rows[0]['address']}@{rows[0]['key']}"


def _note_look(run: Run, found: Submission, remote: RemoteBatch) -> None:
    said = {**remote.raw, "batchops_looks": _looks(found) + 1}
    reached("before_observed")
    run.store.commit(Observed(found.submission_id, said, ended=False, address=found.address))
    reached("after_observed")


def _commit(run: Run, found: Submission, remote: RemoteBatch, judged: _Judged) -> None:
    """Put the answers on disk, fsynced under their final name, and only then commit what names them."""
    totals = judged.totals
    answer_file = name_answers(run.store, judged.answers) if judged.answers else None
    reached("after_answers")
    counts = {outcome.value: count for outcome, count in totals.outcomes.items()}
    ended = Observed(found.submission_id, remote.raw, ended=True, address=found.address)
    fetched = Fetched(
        found.submission_id, judged.lines, answer_file, found.address, held_because=judged.held_because, counts=counts
    )
    reached("before_fetched")
    run.store.commit(*([ended] if found.phase == "created" else []), fetched)
    reached("after_fetched")
    _announce(run, found, totals, counts)


def _announce(run: Run, found: Submission, totals: Totals, counts: Mapping[str, int]) -> None:
    batch_id = found.batch_id or ""
    run.emit(
        BatchFetched(
            address=found.address,
            batch_id=batch_id,
            rows=sum(counts.values()),
            outcomes=counts,
            cost_usd=None if totals.cost_nano_usd is None else totals.cost_nano_usd / 1e9,
        )
    )
    failed = {name: count for name, count in counts.items() if name != Outcome.SUCCEEDED}
    if failed:
        run.emit(
            RowFailures(
                address=found.address,
                batch_id=batch_id,
                outcomes=failed,
                retry=totals.states.get(RequestState.WAITING, 0),
                given_up=totals.states.get(RequestState.GIVEN_UP, 0),
                held=totals.states.get(RequestState.HELD, 0),
            )
        )
