"""States made by the commits that an apply makes: jobs, batches and answers, without a provider."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from batchops.store.changes import AnswerFile, Created, Creating, Fetched, Intend, Observed
from batchops.store.connection import open_memory, sql_text
from batchops.store.job_changes import JobRecord, RecordPlan
from batchops.store.lease import leased
from batchops.store.states import RequestState
from batchops.store.store import StateReader, StateStore

ENVIRONMENT = "default"
SUCCEEDED, REFUSED = 0, 10
TABLES = ("meta", "jobs", "rows", "requests", "submissions", "attempts", "outcomes", "answer_files", "events")


def digest(text: str) -> uuid.UUID:
    return uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16])


@contextmanager
def held(path: Path) -> Iterator[StateStore]:
    """The lease of this process on the state at `path`, which is made when it is not there."""
    with leased(path, project="reviews", environ={}) as store:
        yield store


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table, in an order of its own."""
    with StateReader(path).reading() as con:
        return {table: con.execute(f"FROM state.{table} ORDER BY ALL").fetchall() for table in TABLES}


def record(store: StateStore, address: str, keys: Sequence[str]) -> None:
    """A plan of one job was approved: every key asks for itself."""
    con = open_memory()
    con.execute(
        "CREATE TABLE changes AS SELECT unnest(?::VARCHAR[]) AS key, 1::UHUGEINT AS fingerprint,"
        " unnest(?::UUID[]) AS digest, 0::UTINYINT AS round, 'submit' AS action, true AS moves,"
        " unnest(range(?)) AS row",
        [list(keys), [digest(key) for key in keys], len(keys)],
    )
    job = JobRecord(
        environment=ENVIRONMENT,
        address=address,
        provider="local",
        is_simulated=True,
        render_id=digest("render"),
        parts={"prompt": "p"},
        spec={"key": ["id"], "key_types": ["VARCHAR"], "model": "gpt-5-mini"},
        protected=False,
        changes="changes",
    )
    store.commit(RecordPlan((job,), plan_id="plan"), con=con)
    con.close()


def intend(store: StateStore, number: int, address: str, keys: Sequence[str], attempt: int = 1) -> Intend:
    """Phase `intended`."""
    digests = ", ".join(f"'{digest(key)}'" for key in keys)
    change = Intend(
        submission_id=number,
        token=digest(f"token {number}"),
        address=address,
        environment=ENVIRONMENT,
        provider="local",
        endpoint="/v1/chat/completions",
        model="gpt-5-mini",
        fence=store.fence,
        sha256=b"shard",
        shard_bytes=100,
        est_tokens=10,
        requests=len(keys),
        manifest=f"(SELECT unnest(range({len(keys)})) AS line, unnest([{digests}]::UUID[]) AS digest, 0 AS round,"
        f" {attempt} AS attempt, NULL AS body_digest)",
        expect={},
    )
    store.commit(change)
    return change


def create(store: StateStore, number: int, address: str, keys: Sequence[str], attempt: int = 1) -> None:
    """Phase `created`."""
    intend(store, number, address, keys, attempt)
    store.commit(Creating(number, f"file-{number}", None, address))
    store.commit(Created(number, f"batch_{number}", {"status": "in_progress"}, address))


def fetch(
    store: StateStore,
    number: int,
    address: str,
    keys: Sequence[str],
    refused: Sequence[str] = (),
    file_no: int | None = None,
) -> None:
    """Phase `fetched`: every key is answered, but for those that were refused and given up."""
    con = open_memory()
    columns = ", ".join(f"NULL AS {name}" for name in
                        ("code", "finish", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens",
                         "cost_nano_usd", "due_at", "amendment"))  # fmt: skip
    con.execute(
        f"""CREATE TABLE judged AS SELECT *, 200 AS http, {columns}, true AS has_line, true AS counts FROM (
            SELECT unnest(range(?)) AS line, unnest(?::UUID[]) AS digest, 0 AS round,
                   unnest(?::UTINYINT[]) AS outcome, unnest(?::UTINYINT[]) AS state)""",
        [
            len(keys),
            [digest(key) for key in keys],
            [REFUSED if key in refused else SUCCEEDED for key in keys],
            [int(RequestState.GIVEN_UP if key in refused else RequestState.ANSWERED) for key in keys],
        ],
    )
    store.commit(Observed(number, {"status": "completed"}, ended=True, address=address))
    store.commit(Fetched(number, "judged", _answers(con, store, file_no or number), address), con=con)
    con.close()


def _answers(con: duckdb.DuckDBPyConnection, store: StateStore, number: int) -> AnswerFile:
    folder = store.folder / "answers"
    folder.mkdir(exist_ok=True)
    path = folder / f"{number:06d}.parquet"
    con.execute(f"COPY (SELECT line, digest FROM judged) TO {sql_text(str(path))} (FORMAT parquet)")
    content = path.read_bytes()
    return AnswerFile(number, f"answers/{path.name}", hashlib.sha256(content).digest(), len(content), 1)


def lived(path: Path) -> Path:
    """A state that has seen some life: `done` answered and once refused, `open` in flight, `new` never asked."""
    with held(path) as store:
        record(store, "done", ["a", "b", "c"])
        create(store, 1, "done", ["a", "b", "c"])
        fetch(store, 1, "done", ["a", "b", "c"], refused=["c"])
        record(store, "open", ["d"])
        create(store, 2, "open", ["d"])
        record(store, "new", ["e"])
    return path


def write(path: Path, *statements: str) -> None:
    """Change the file behind everybody's back."""
    con = duckdb.connect(path)
    for statement in statements:
        con.execute(statement)
    con.close()


def environment() -> dict[str, str]:
    """What a child process needs to import the package of this repository."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
