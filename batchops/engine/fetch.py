"""Fetch: an ended batch becomes outcomes, verdicts and a file of answers, in one commit.

The truth is in the lines: which file one is in, and what the counts say, does not matter. Whatever was sent and is in
neither file is expired, cancelled, never executed or missing, by how the batch ended. Batches are downloaded and judged
ahead (ahead.py); here, in one thread and in their order, they are recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import duckdb
import orjson

from batchops.diagnostics import Diagnostic, error
from batchops.engine.ahead import Ahead, EndedBatch
from batchops.engine.download import ResultFiles, may_still_come
from batchops.engine.endings import describe_failure, is_full_queue
from batchops.engine.judging import Judging, Totals
from batchops.engine.ledger import Submission
from batchops.engine.run import Run
from batchops.engine.steps import reached
from batchops.engine.work import THREADS, Scratch
from batchops.plan.events import BatchFetched, RowFailures
from batchops.plan.prices import price
from batchops.providers.provider import RemoteBatch
from batchops.spec.job import Outcome, Retry
from batchops.store.answerfiles import FAST, write_answers
from batchops.store.changes import Fetched, Observed, RequestState

_ENGINE_THREADS = 1
"""Of each engine where two are at work: it takes a quarter less work than with two threads for tables whose rows keep
their order, as those of a result file do (measured, 2026-11)."""


class Fetching:
    """The fetches of one look at the provider, with the next ones under way. Close it.

    `upcoming`: the batches that will be fetched, in order; others may be, too.
    """

    def __init__(self, run: Run, upcoming: Sequence[EndedBatch] = ()) -> None:
        self.run = run
        self._scratch = Scratch(run.project, threads=_ENGINE_THREADS if len(upcoming) > 1 else THREADS)
        self._ahead = Ahead(run.project, self._judged, upcoming)

    def close(self) -> None:
        self._ahead.close()
        self._scratch.close()

    @contextmanager
    def _judged(
        self, ended: EndedBatch, files: ResultFiles, folder: Path, is_wanted: Callable[[], bool]
    ) -> Iterator[Judging]:
        """The lines of a batch, judged; runs in another thread, and only reads the state."""
        with self._scratch.lent() as con, closing(_judging(self.run, ended, folder, con, is_wanted)) as judging:
            judging.judge_files(files.paths)
            yield judging

    def fetch(self, ended: EndedBatch) -> bool:
        """Fetch one batch. False when its files are not there yet; then the next look tries again."""
        run, found, remote = self.run, ended.found, ended.remote
        with self._ahead.taken(ended) as (files, judging):
            looks = int(found.remote.get("batchops_looks", 0))
            if judging.unseen and may_still_come(remote, files, looks=looks, now=run.now):
                _note_look(run, found, remote, looks + 1)
                return False
            judging.judge_unseen()
            _commit(run, found, remote, judging)
        if is_full_queue(remote) and judging.next_due_at is not None:
            run.full_until[found.provider, found.model] = judging.next_due_at
        run.tell(*_problems(run, ended, files))
        return True


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


def _problems(run: Run, ended: EndedBatch, files: ResultFiles) -> list[Diagnostic]:
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
    failure = describe_failure(ended.remote, found.address, found.provider, ended.job, partial(_row_at, run, found))
    return [*told, failure] if failure is not None else told


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


def _note_look(run: Run, found: Submission, remote: RemoteBatch, looks: int) -> None:
    reached("before_observed")
    run.store.commit(
        Observed(found.submission_id, {**remote.raw, "batchops_looks": looks}, ended=False, address=found.address)
    )
    reached("after_observed")


def _commit(run: Run, found: Submission, remote: RemoteBatch, judging: Judging) -> None:
    """Put the answers on disk, fsynced under their final name, and only then commit what names them."""
    totals = judging.finish()
    reached("before_answers")
    answer_file = None
    if totals.answers:
        answer_file = write_answers(judging.con, "answers", run.store, lines=totals.answers, level=FAST)
    reached("after_answers")
    counts = {outcome.value: count for outcome, count in totals.outcomes.items()}
    ended = Observed(found.submission_id, remote.raw, ended=True, address=found.address)
    fetched = Fetched(
        found.submission_id, "judged", answer_file, found.address, held_because=judging.held_because, counts=counts
    )
    reached("before_fetched")
    run.store.commit(*([ended] if found.phase == "created" else []), fetched, con=judging.con)
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
