"""The search through every state of handing over a request: safe as built, and a way to pay twice without any part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import duckdb
import pytest
from interleavings import Search, hopeless, search
from submission_model import MOVES, Assumed, is_lost, is_paid_twice

from batchops.engine.ledger import OPEN_PHASES
from batchops.store import migrations
from batchops.store.changes import Created, Creating, Fetched, Intend, Observed, PhaseConflict, Revoking
from batchops.store.changes import Withdrawn as Gone
from batchops.store.connection import open_memory
from batchops.store.store import Change

Record = Callable[[str, object], None]


def _tell(record: Record, found: Search, what: str) -> None:
    record("reached", f"protocol, {what}: {len(found.reached):,} states, {found.steps:,} steps")


@pytest.fixture(scope="module")
def as_built() -> Search:
    return search(Assumed(), lambda world: is_paid_twice(world) or is_lost(world))


def test_no_request_is_ever_paid_twice_and_no_paid_answer_given_up(as_built: Search, record_property: Record) -> None:
    _tell(record_property, as_built, "as built, safe")
    assert as_built.bad is None, as_built.told()
    assert len(as_built.reached) > 10_000, "the search has lost sight of something"


def test_from_every_state_a_way_leads_to_paid_once_and_answered_if_nobody_dies_any_more(as_built: Search) -> None:
    assert hopeless(as_built) == set()


WEAKENED = {
    "without deleting the input file": Assumed(revokes=False),
    "with a single look after the delete": Assumed(looks_after=False),
    "without a grace": Assumed(grace=0),
    "when listings lag longer than the grace": Assumed(grace=1, lag=2),
    "when deleting the file does not stop a late create": Assumed(delete_revokes=False),
    "when a commit checks neither fence nor phase": Assumed(commits_check=False),
}
NO_LATE_CREATES = Assumed(creates_come_late=False, lease_is_kept=True, delete_spares_running=False)
"""A world kinder in one way, unkinder in another: a create lands at once or never, a delete kills a running batch."""


@pytest.mark.parametrize("why", WEAKENED)
def test_a_request_can_be_paid_twice(why: str, record_property: Record) -> None:
    found = search(WEAKENED[why])
    _tell(record_property, found, f"{why}, paid twice")
    print(f"Paid twice {why}:\n{found.told()}")
    assert found.bad is not None
    assert found.told().count("PAID") == 2


def test_the_way_to_pay_twice_without_the_delete_reads_as_a_story() -> None:
    assert search(WEAKENED["without deleting the input file"]).told().splitlines() == [
        "  1. A starts and takes the lease",
        "  2. A commits Intend of #0",
        "  3. A uploads the file of #0",
        "  4. A commits Creating of #0",
        "  5. A sends the create of #0",
        "  6. A * gets no reply to the create of #0, and settles it",
        "  7. time passes",
        "  8. A has not found a batch of #0 over the whole grace",
        "  9. A commits Withdrawn(absent) of #0",
        " 10. A commits Intend of #1",
        " 11. A uploads the file of #1",
        " 12. A commits Creating of #1",
        " 13. A sends the create of #1",
        " 14. the create of #0 lands",
        " 15. the service executes #0: PAID",
        " 16. the create of #1 lands",
        " 17. the service executes #1: PAID",
    ]


def test_looking_only_after_the_delete_pays_twice_where_a_delete_kills_a_running_batch(
    record_property: Record,
) -> None:
    """Why the looks come first: a batch whose reply was lost is found and left alone, not killed and paid again."""
    assert search(NO_LATE_CREATES).bad is None
    found = search(Assumed(**{**vars(NO_LATE_CREATES), "looks_before": False}))
    _tell(record_property, found, "looking only after the delete, paid twice")
    print(found.told())
    assert found.bad is not None


# The model and the code


def _changes() -> dict[str, Change]:
    token, digest, now = UUID(int=1), UUID(int=2), datetime.now(UTC)
    intend = Intend(1, token, "chat", "default", "openai", "/v1/chat/completions", "gpt-5-mini", 1, b"", 1, 1,
                    [digest], [0], [1], [None], {})  # fmt: skip
    return {
        "Intend": intend,
        "Creating": Creating(1, "file-1", now, "chat"),
        "Created": Created(1, "batch_1", {}, "chat"),
        "Revoking": Revoking(1),
        "Withdrawn(abandoned)": Gone(1, "abandoned"),
        "Withdrawn(absent)": Gone(1, "absent"),
        "Observed(ended)": Observed(1, {}, ended=True, address="chat"),
        "Fetched": Fetched(1, "judged", None, "chat"),
    }


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """A state with one job, and a judged line of its one request."""
    con = open_memory(threads=1)
    con.execute("ATTACH ':memory:' AS state")
    migrations.perform(con, migrations.STEPS)
    con.execute("INSERT INTO state.jobs (job_id, environment, address) VALUES (1, 'default', 'chat')")
    con.execute(
        """CREATE TABLE judged AS SELECT 0 AS line, ?::UUID AS digest, 0 AS round, 0 AS outcome, NULL AS http,
               NULL AS code, NULL AS finish, 0 AS input_tokens, 0 AS cached_tokens, 0 AS output_tokens,
               0 AS reasoning_tokens, 0 AS cost_nano_usd, false AS has_line, 2 AS state, true AS counts,
               NULL::TIMESTAMPTZ AS due_at, NULL::VARCHAR AS amendment""",
        [UUID(int=2)],
    )
    yield con
    con.close()


def _put_into(con: duckdb.DuckDBPyConnection, phase: str) -> None:
    """One request, pending where `phase` is empty, else in flight in a submission of that phase."""
    con.execute("DELETE FROM state.requests; DELETE FROM state.submissions")
    con.execute(
        "INSERT INTO state.requests (digest, round, state, attempts, free_attempts, submission_id)"
        " VALUES (?, 0, ?, 0, 0, ?)",
        [UUID(int=2), 1 if phase else 0, 1 if phase else None],
    )
    if phase:
        con.execute("INSERT INTO state.submissions (submission_id, job_id, phase) VALUES (1, 1, ?)", [phase])


PHASES = sorted({phase for before, after in MOVES.values() for phase in {*before, after}})


@pytest.mark.parametrize("name", MOVES)
def test_a_change_moves_a_submission_from_the_phases_that_the_model_says_and_no_other(
    con: duckdb.DuckDBPyConnection, name: str
) -> None:
    before, after = MOVES[name]
    moved = {}
    for phase in PHASES:
        _put_into(con, phase)
        con.execute("BEGIN")
        with suppress(PhaseConflict):
            _changes()[name].perform(con, datetime.now(UTC))
            moved[phase] = con.execute("SELECT phase FROM state.submissions ORDER BY intent_at").fetchone()
        con.execute("ROLLBACK")
    assert moved == dict.fromkeys(before, (after,))


def test_the_model_knows_every_phase() -> None:
    assert {*OPEN_PHASES, "fetched", "absent", "abandoned", ""} == set(PHASES)
