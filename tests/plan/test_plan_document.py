"""A plan and its document say the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchops.diagnostics import BatchopsError, Location, Position, error
from batchops.plan.document import (
    empty_summary,
    plan_document,
    plan_from_document,
    read_plan_document,
    summary_document,
    write_plan_document,
)
from batchops.plan.model import Action, BatchAction, Estimate, JobPlan, Plan, Reason, Sample

COUNTS = st.integers(1, 10**9)
COSTS = st.one_of(st.none(), st.floats(0, 1e9))
MOMENTS = st.datetimes(timezones=st.just(UTC))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)
BODIES = st.dictionaries(st.text(), VALUES, max_size=3)
JOBS = st.builds(
    JobPlan,
    address=st.text(min_size=1),
    provider=st.text(),
    model=st.text(),
    is_simulated=st.booleans(),
    rows=st.dictionaries(st.sampled_from(Action), COUNTS),
    batches=st.dictionaries(st.sampled_from(BatchAction), COUNTS),
    reasons=st.dictionaries(st.sampled_from(Reason), COUNTS),
    cost=st.builds(Estimate, COSTS, COSTS, st.integers(0, 10**12)),
    sync=st.sampled_from(["Synced", "OutOfSync"]),
    health=st.sampled_from(["Healthy", "Degraded"]),
    diff=st.text(),
    samples=st.lists(st.builds(Sample, BODIES, st.one_of(st.none(), BODIES), BODIES), max_size=2).map(tuple),
    waves=st.integers(1, 99),
    is_protected=st.booleans(),
    due_at=st.one_of(st.none(), MOMENTS),
)
PLANS = st.builds(
    Plan,
    plan_id=st.uuids().map(str),
    created_at=MOMENTS,
    project=st.text(),
    environment=st.text(),
    lineage=st.one_of(st.none(), st.uuids().map(str)),
    serial=st.integers(0, 10**9),
    jobs=st.lists(JOBS, max_size=3).map(tuple),
    limit_usd=COSTS,
    reused_usd=COSTS,
    unknown_models=st.lists(st.text(), max_size=2).map(tuple),
    drift=st.lists(BODIES, max_size=2).map(tuple),
    policies=st.lists(BODIES, max_size=2).map(tuple),
    diagnostics=st.just((error("x", "X.", "y", location=Location("f", Position(1, 2), Position(1, 3)), fixes=["z"]),)),
)


@given(PLANS)
def test_a_plan_comes_back_from_its_document_through_json(plan: Plan) -> None:
    assert plan_from_document(json.loads(json.dumps(plan_document(plan)))) == plan


@given(PLANS)
def test_summary_has_every_key_and_counts_the_jobs(plan: Plan) -> None:
    summary = summary_document(plan)
    assert {name: list(kind) for name, kind in summary.items()} == {
        name: list(kind) for name, kind in empty_summary().items()
    }
    for action in Action:
        assert summary["rows"][action] == sum(job.rows.get(action, 0) for job in plan.jobs)
    assert plan.has_changes == any(
        count for kind in summary.values() for name, count in kind.items()
        if name not in {"in_flight", "unchanged", "failed", "held"}
    )  # fmt: skip


@given(PLANS)
def test_a_total_is_known_exactly_when_every_part_is(plan: Plan) -> None:
    lows = [job.cost.low_usd for job in plan.jobs]
    total = plan.cost.low_usd
    assert (total is None) == (None in lows)
    if total is not None:
        assert total == pytest.approx(sum(low for low in lows if low is not None), abs=1e-6)


PLAN = Plan("p", datetime(2026, 8, 1, tzinfo=UTC), "reviews", "default", None, 0, ())


def test_a_plan_file_is_written_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep/plan.json"
    write_plan_document(plan_document(PLAN), path)
    assert plan_from_document(read_plan_document(path)) == PLAN
    assert [found.name for found in path.parent.iterdir()] == ["plan.json"]


def test_keys_that_a_later_minor_version_adds_are_passed_over() -> None:
    document = plan_document(PLAN) | {"format_version": "1.9", "digests": ["abc"]}
    assert plan_from_document(document) == PLAN


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "plan_unreadable"),
        ("no json", "not_a_plan"),
        ("[1]", "not_a_plan"),
        ('{"format_version": "1.0"}', "not_a_plan"),
        ('{"format_version": "1.0", "plan_id": "x"}', "not_a_plan"),
        ('{"format_version": "2.0", "plan_id": "x"}', "plan_format"),
    ],
)
def test_what_is_no_plan_is_refused_with_its_own_sentence(tmp_path: Path, text: str | None, code: str) -> None:
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BatchopsError) as caught:
        plan_from_document(read_plan_document(path))
    assert caught.value.diagnostics[0].code == code


def test_a_plan_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BatchopsError) as caught:
        write_plan_document(plan_document(PLAN), tmp_path / "file/plan.json")
    assert caught.value.diagnostics[0].code == "plan_unwritable"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
