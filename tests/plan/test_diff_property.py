"""The SQL diff and its oracle agree on every state that can be drawn."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchops.plan import diff
from batchops.plan.decide import Decision, Desired, JobFlags, Recorded, choose_digest, decide
from batchops.plan.diff import DiffJob, RecordedJob, classify, find_open, ledger_digest
from batchops.plan.model import Action
from batchops.request.render import DIGEST_COLUMNS, SIMULATED
from batchops.store import migrations
from batchops.store.connection import open_memory

DIGESTS = [UUID(int=number) for number in range(1, 5)]
KEYS = ["a", "b", "c", "d"]
rounds = st.integers(0, 2)
ledgers = st.dictionaries(st.tuples(st.sampled_from(DIGESTS), rounds), st.integers(0, 5), max_size=8)
recorded_rows = st.dictionaries(st.sampled_from(KEYS), st.tuples(st.sampled_from(DIGESTS), rounds))
desired_rows = st.dictionaries(st.sampled_from(KEYS), st.tuples(st.sampled_from(DIGESTS), st.booleans()))
flags = st.builds(JobFlags, st.booleans(), st.booleans(), st.booleans())
MADE_UP = SIMULATED << 120


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = open_memory(threads=1)
    connection.execute("ATTACH ':memory:' AS state")
    migrations.perform(connection, migrations.STEPS)
    yield connection
    connection.close()


def _fill(
    con: duckdb.DuckDBPyConnection,
    desired: dict[str, tuple[UUID, bool]],
    recorded: dict[str, tuple[UUID, int]],
    ledger: dict[tuple[UUID, int], int],
    *,
    was_simulated: bool = False,
) -> None:
    con.execute("DELETE FROM state.rows; DELETE FROM state.requests")
    con.execute("CREATE OR REPLACE TABLE desired_0 (key VARCHAR, fingerprint UHUGEINT)")
    con.execute(f"CREATE OR REPLACE TABLE digests_0 ({DIGEST_COLUMNS})")
    for key, (digest, round_) in recorded.items():
        fingerprint = digest.int | (MADE_UP if was_simulated else 0)
        con.execute("INSERT INTO state.rows VALUES (7, ?, ?, ?, ?, NULL)", [key, fingerprint, digest, round_])
    for (digest, round_), state in ledger.items():
        con.execute(
            "INSERT INTO state.requests (digest, round, state, attempts, free_attempts) VALUES (?, ?, ?, 1, 0)",
            [digest, round_, state],
        )
    for key, (digest, _) in desired.items():
        con.execute("INSERT INTO desired_0 VALUES (?, ?)", [key, digest.int])


def _job(given_flags: JobFlags, *, is_new: bool = False) -> DiffJob:
    held = "by hand" if given_flags.is_held else None
    return DiffJob(
        number=0,
        parts={},
        is_simulated=False,
        salt=None,
        keeps_answers=given_flags.keeps_answers,
        forgets_removed=given_flags.forgets_removed,
        recorded=None if is_new else RecordedJob(7, "job", "openai", False, {}, {}, held=held),
    )


SALT = "job"


def _own(digest: UUID, key: str) -> UUID:
    """The digest of a row's own under `reuse: false`."""
    return ledger_digest(digest, key=key, is_simulated=False, salt=SALT)


OWN = [_own(digest, key) for digest in DIGESTS[:2] for key in KEYS[:2]]


@given(
    desired=st.dictionaries(st.sampled_from(KEYS[:2]), st.tuples(st.sampled_from(DIGESTS[:2]), st.booleans())),
    recorded=st.dictionaries(st.sampled_from(KEYS[:2]), st.tuples(st.sampled_from([*DIGESTS[:2], *OWN]), rounds)),
    ledger=st.dictionaries(st.tuples(st.sampled_from([*DIGESTS[:2], *OWN]), rounds), st.integers(0, 5), max_size=12),
    chosen=flags,
)
def test_rows_of_a_job_that_had_reuse_false_are_decided_under_the_digest_that_does_best(
    con: duckdb.DuckDBPyConnection,
    desired: dict[str, tuple[UUID, bool]],
    recorded: dict[str, tuple[UUID, int]],
    ledger: dict[tuple[UUID, int], int],
    chosen: JobFlags,
) -> None:
    _fill(con, desired, recorded, ledger)
    con.execute("UPDATE state.rows SET fingerprint = 0")  # so that all are digested
    found = _classified(con, replace(_job(chosen), earlier_salts=(SALT,)), desired)
    named = {(str(digest), round_): state for (digest, round_), state in ledger.items()}
    for key, (digest, is_replaced) in desired.items():
        known = Recorded(str(recorded[key][0]), recorded[key][1]) if key in recorded else None
        best = choose_digest([str(digest), str(_own(digest, key))], known, named)
        action, found_digest, round_, _ = found[key]
        assert Decision(Action(action), str(found_digest), round_) == decide(
            Desired(best, is_replaced), known, named, chosen
        )


def _classified(
    con: duckdb.DuckDBPyConnection, job: DiffJob, desired: dict[str, tuple[UUID, bool]]
) -> dict[str, tuple[str, UUID, int, bool]]:
    """What the diff makes of each row: the same, whether rows in flight are settled before it or not."""
    found = [_found(con, job, desired, settles_flight=settles_flight) for settles_flight in (False, True)]
    assert found[0] == found[1]
    return found[0]


def _found(
    con: duckdb.DuckDBPyConnection, job: DiffJob, desired: dict[str, tuple[UUID, bool]], *, settles_flight: bool
) -> dict[str, tuple[str, UUID, int, bool]]:
    replaced = {key for key, (_, is_replaced) in desired.items() if is_replaced}
    find_open(con, job, replaced, settles_flight=settles_flight)
    con.execute("DELETE FROM digests_0")
    for (key,) in con.execute("FROM unmatched_0").fetchall():
        con.execute("INSERT INTO digests_0 VALUES (?, 0, ?, 10, 2, 1, NULL, NULL)", [key, desired[key][0]])
    classify(con, job)
    rows = con.execute("SELECT key, action, digest, round, moves FROM changes_0").fetchall() + _settled(con)
    assert len({row[0] for row in rows}) == len(rows), "a row is in more than one class"
    return {key: (action, digest, round_, moves) for key, action, digest, round_, moves in rows}


def _settled(con: duckdb.DuckDBPyConnection) -> list[tuple[str, str, UUID, int, bool]]:
    """The rows that were set apart before anything was rendered, as the diff would have classified them."""
    rows = con.execute(
        """SELECT d.key, CASE q.state WHEN 1 THEN 'in_flight' ELSE 'unchanged' END, r.digest, r.round, false
           FROM desired_0 d ANTI JOIN open_0 o USING (key) JOIN state.rows r ON r.key = d.key AND r.job_id = 7
           JOIN state.requests q USING (digest, round)"""
    ).fetchall()
    counts = Counter(row[1] for row in rows)
    told = dict(con.execute("FROM settled_0").fetchall())
    assert told == {"in_flight": counts["in_flight"], "unchanged": counts["unchanged"]}
    return [(str(key), str(action), digest, int(round_), bool(moves)) for key, action, digest, round_, moves in rows]


@given(desired=desired_rows, recorded=recorded_rows, ledger=ledgers, chosen=flags, was_simulated=st.booleans())
def test_sql_diff_decides_as_the_oracle_does(
    con: duckdb.DuckDBPyConnection,
    desired: dict[str, tuple[UUID, bool]],
    recorded: dict[str, tuple[UUID, int]],
    ledger: dict[tuple[UUID, int], int],
    chosen: JobFlags,
    was_simulated: bool,
) -> None:
    _fill(con, desired, recorded, ledger, was_simulated=was_simulated)
    found = _classified(con, _job(chosen), desired)
    named = {(str(digest), round_): state for (digest, round_), state in ledger.items()}
    for key in set(desired) | set(recorded):
        wanted = Desired(str(desired[key][0]), desired[key][1]) if key in desired else None
        known = Recorded(str(recorded[key][0]), recorded[key][1], was_simulated) if key in recorded else None
        expected = decide(wanted, known, named, chosen)
        if expected is None:
            assert key not in found
            continue
        action, digest, round_, _ = found[key]
        assert Decision(Action(action), str(digest), round_) == expected


@given(desired=desired_rows, ledger=ledgers, keeps=st.booleans(), forgets=st.booleans())
def test_rows_of_a_new_job_are_decided_as_the_oracle_does(
    con: duckdb.DuckDBPyConnection,
    desired: dict[str, tuple[UUID, bool]],
    ledger: dict[tuple[UUID, int], int],
    keeps: bool,
    forgets: bool,
) -> None:
    chosen = JobFlags(keeps_answers=keeps, forgets_removed=forgets, is_held=False)
    _fill(con, desired, {}, ledger)
    found = _classified(con, _job(chosen, is_new=True), desired)
    assert set(found) == set(desired)
    named = {(str(digest), round_): state for (digest, round_), state in ledger.items()}
    for key, (digest, is_replaced) in desired.items():
        action, found_digest, round_, moves = found[key]
        expected = decide(Desired(str(digest), is_replaced), None, named, chosen)
        assert Decision(Action(action), str(found_digest), round_) == expected
        assert moves, "every row of it goes on record"


@given(desired=desired_rows, recorded=recorded_rows, ledger=ledgers)
def test_a_plan_after_all_it_asked_was_answered_is_empty(
    con: duckdb.DuckDBPyConnection,
    desired: dict[str, tuple[UUID, bool]],
    recorded: dict[str, tuple[UUID, int]],
    ledger: dict[tuple[UUID, int], int],
) -> None:
    desired = {key: (digest, False) for key, (digest, _) in desired.items()}
    _fill(con, desired, recorded, ledger)
    first = _classified(con, _job(JobFlags()), desired)
    standing = {key: (digest, round_) for key, (_, digest, round_, _) in first.items()}
    stuck = {pair for pair, state in ledger.items() if state in {4, 5}}
    answered = {**ledger, **{pair: 2 for pair in standing.values() if pair not in stuck}}
    _fill(con, desired, standing, answered)
    again = _classified(con, _job(JobFlags()), desired)
    assert {action for action, *_ in again.values()} <= {"unchanged", "failed", "held", "reuse"}
    assert all(action == "unchanged" for key, (action, *_) in again.items() if standing[key] not in stuck)


@given(digest=st.uuids(), key=st.text(), salt=st.none() | st.text(), is_simulated=st.booleans())
def test_sql_and_python_salt_a_digest_alike(digest: UUID, key: str, salt: str | None, is_simulated: bool) -> None:
    if "\x00" in key or "\x00" in (salt or ""):
        return
    con = open_memory(threads=1)
    try:
        con.execute("ATTACH ':memory:' AS state")
        migrations.perform(con, migrations.STEPS)
        con.execute("CREATE TABLE desired_0 AS SELECT ?::VARCHAR AS key, 1::UHUGEINT AS fingerprint", [key])
        job = DiffJob(0, {}, is_simulated, salt, False, False, None)
        find_open(con, job)
        con.execute(
            f"CREATE TABLE digests_0 ({DIGEST_COLUMNS}); INSERT INTO digests_0 VALUES (?, 0, ?, 1, 1, 1, NULL, NULL)",
            [key, digest],
        )
        classify(con, job)
        row = con.execute("SELECT digest FROM changes_0").fetchone()
    finally:
        con.close()
    assert row == (ledger_digest(digest, key=key, is_simulated=is_simulated, salt=salt),)


@pytest.mark.parametrize(("rows", "is_temporary"), [(2, True), (3, False)])
def test_changes_lie_in_memory_only_where_they_are_few(
    con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch, rows: int, is_temporary: bool
) -> None:
    monkeypatch.setattr(diff, "MOST_TEMPORARY", 2)
    desired = {f"k{number}": (UUID(int=number + 1), False) for number in range(rows)}
    for is_new in (True, False):
        _fill(con, desired, {}, {})
        job = _job(JobFlags(), is_new=is_new)
        _classified(con, job, desired)
        con.execute("DROP TABLE changes_0")
        classify(con, job, is_temporary=True)
        assert con.execute("SELECT count(*) FROM changes_0").fetchone() == (rows,)
        found = con.execute("SELECT temporary FROM duckdb_tables() WHERE table_name = 'changes_0'").fetchall()
        assert found == [(is_temporary,)]
        con.execute("DROP TABLE changes_0")


@pytest.mark.parametrize("chosen", [JobFlags(*bits) for bits in itertools.product([False, True], repeat=3)])
def test_thousands_of_rows_are_each_decided_as_the_oracle_does(
    con: duckdb.DuckDBPyConnection, chosen: JobFlags
) -> None:
    draw = random.Random(repr(chosen))
    digests = [UUID(int=number) for number in range(1, 1500)]
    ledger = {(digest, round_): draw.randrange(6) for digest in digests for round_ in range(draw.randrange(4))}
    keys = [f"k{number}" for number in range(2500)]
    desired = {key: (draw.choice(digests), draw.random() < 0.05) for key in keys if draw.random() < 0.9}
    recorded = {
        key: (desired[key][0] if key in desired and draw.random() < 0.5 else draw.choice(digests), draw.randrange(3))
        for key in keys
        if draw.random() < 0.8
    }
    _fill(con, {}, {}, {})
    _bulk(con, "state.rows SELECT 7, unnest(?), unnest(?::UHUGEINT[]), unnest(?::UUID[]), unnest(?), NULL",
          [(key, digest.int, digest, round_) for key, (digest, round_) in recorded.items()])  # fmt: skip
    _bulk(con, "state.requests (digest, round, state, attempts, free_attempts)"
          " SELECT unnest(?::UUID[]), unnest(?), unnest(?), 1, 0",
          [(digest, round_, state) for (digest, round_), state in ledger.items()])  # fmt: skip
    _bulk(con, "desired_0 SELECT unnest(?), unnest(?::UHUGEINT[])", [(k, d.int) for k, (d, _) in desired.items()])
    job = _job(chosen)
    replaced = {key for key, (_, is_replaced) in desired.items() if is_replaced}
    find_open(con, job, replaced, settles_flight=draw.random() < 0.5)
    unmatched = [key for (key,) in con.execute("FROM unmatched_0").fetchall()]
    _bulk(con, "digests_0 SELECT unnest(?), 0, unnest(?::UUID[]), 1, 1, 1, NULL, NULL",
          [(key, desired[key][0]) for key in unmatched])  # fmt: skip
    classify(con, job)
    classified = con.execute("SELECT key, action, digest, round FROM changes_0").fetchall()
    found = {row[0]: row[1:] for row in classified + _settled(con)}
    by_digest: dict[str, dict[tuple[str, int], int]] = {}
    for (digest, round_), state in ledger.items():
        by_digest.setdefault(str(digest), {})[str(digest), round_] = state
    for key in keys:
        wanted = Desired(str(desired[key][0]), desired[key][1]) if key in desired else None
        known = Recorded(str(recorded[key][0]), recorded[key][1]) if key in recorded else None
        if wanted is None and known is None:
            continue
        near = {
            **by_digest.get(wanted.digest if wanted else "", {}),
            **by_digest.get(known.digest if known else "", {}),
        }
        expected = decide(wanted, known, near, chosen)
        decided = found.get(key)
        assert (Decision(Action(decided[0]), str(decided[1]), decided[2]) if decided else None) == expected


def _bulk(con: duckdb.DuckDBPyConnection, statement: str, rows: list[tuple[object, ...]]) -> None:
    if rows:
        con.execute(f"INSERT INTO {statement}", [list(column) for column in zip(*rows, strict=True)])
