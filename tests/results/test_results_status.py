"""The two axes of `status`, its document and its text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from result_states import ANSWERED, GIVEN_UP, HELD, START, State, every_state, the_job

from batchops.cli.main import run
from batchops.results.recorded import RecordedJob
from batchops.results.status import DesiredJob, Sync, compare, health, status_document
from batchops.store.snapshot import snapshot
from batchops.views.durations import in_words
from batchops.views.status import cost_text, render_status

PARTS = {"prompt": "p1", "model": "m1", "params": "a1", "schema": None}
NOW = START + timedelta(minutes=9)


def desired(address: str = "review-sentiment", parts: Mapping[str, Any] | None = PARTS, **more: Any) -> DesiredJob:
    return DesiredJob(address, more.pop("provider", "local"), "gpt-5-mini", True, parts=parts, **more)


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedJob:
    with snapshot(every_state(tmp_path / "s.duckdb").write()) as con:
        return the_job(con, "review-sentiment")


def test_sync_names_the_parts_of_the_spec_that_moved(recorded: RecordedJob) -> None:
    assert compare(recorded, desired(), has_unreadable=False) == Sync("Synced")
    moved = desired(parts={**PARTS, "prompt": "p2", "schema": "s"}, provider="openai")
    assert compare(recorded, moved, has_unreadable=False) == Sync("OutOfSync", ("prompt", "schema", "provider"))
    assert compare(recorded, desired("renamed"), has_unreadable=False) == Sync("OutOfSync", ("name",))


def test_sync_is_unknown_only_where_a_spec_cannot_be_read(recorded: RecordedJob) -> None:
    assert compare(recorded, desired(parts=None), has_unreadable=False) == Sync("Unknown")
    assert compare(recorded, None, has_unreadable=True) == Sync("Unknown")
    assert compare(recorded, None, has_unreadable=False) == Sync("Removed")
    assert compare(None, desired(), has_unreadable=True) == Sync("Missing")


def counts(**rows: int) -> dict[str, int]:
    states = dict.fromkeys(("pending", "in_flight", "answered", "waiting", "given_up", "held"), 0) | rows
    return {"total": sum(states.values()), **states}


@pytest.mark.parametrize(
    ("rows", "options", "expected"),
    [
        ({"answered": 9}, {}, "Healthy"),
        ({}, {}, "Healthy"),
        ({"answered": 9, "in_flight": 1}, {}, "Progressing"),
        ({"answered": 9, "waiting": 1}, {}, "Progressing"),
        ({"pending": 1}, {}, "Progressing"),
        ({"answered": 9, "given_up": 1, "in_flight": 5}, {}, "Degraded"),
        ({"answered": 9, "given_up": 1}, {"max_failed": 1}, "Healthy"),
        ({"answered": 9, "given_up": 1}, {"max_failed": 0.1}, "Healthy"),
        ({"answered": 9, "given_up": 1}, {"max_failed": 0.09}, "Degraded"),
        ({"held": 1, "given_up": 1}, {}, "Held"),
        ({"answered": 1}, {"is_held": True}, "Healthy"),
        ({"answered": 1, "pending": 1}, {"is_held": True}, "Held"),
        ({"waiting": 1}, {"is_held": True}, "Held"),
        ({"in_flight": 1}, {"is_held": True}, "Progressing"),
    ],
)
def test_health_is_the_gravest_of_what_its_rows_are(
    rows: dict[str, int], options: dict[str, Any], expected: str
) -> None:
    assert health(counts(**rows), **{"is_held": False, **options}) == expected


def document(path: Path, jobs: list[DesiredJob], **more: Any) -> dict[str, Any]:
    with snapshot(path, environment="default") as con:
        return status_document(con, jobs, project="reviews", environment="default", now=NOW, **more)


def test_status_document_of_every_kind_of_job(tmp_path: Path) -> None:
    state = every_state(tmp_path / "s.duckdb")
    gone = state.job("gone", held="quota_exhausted", is_simulated=False, provider="openai")
    found = state.row(gone, "x")
    state.request(found, HELD, outcome="quota_exhausted")
    assert document(state.write(), [desired(), desired("new"), desired("off", is_enabled=False)]) == {
        "format_version": "1.0",
        "project": "reviews",
        "environment": "default",
        "state": {"lineage": "0713f136-ea31-6c8f-3e27-4d55012e3bf1", "serial": 7},
        "refreshed": False,
        "jobs": [
            {
                "address": "gone",
                "provider": "openai",
                "model": "gpt-5-mini",
                "is_simulated": False,
                "sync": "Removed",
                "changed": [],
                "health": "Held",
                "held": "quota_exhausted",
                "rows": counts(held=1),
                "batches": [],
                "next_retry_at": None,
                "cost": {"spent_usd": 0.0, "unknown_requests": 0},
            },
            {
                "address": "new",
                "provider": "local",
                "model": "gpt-5-mini",
                "is_simulated": True,
                "sync": "Missing",
                "changed": [],
                "health": "Healthy",
                "held": None,
                "rows": counts(),
                "batches": [],
                "next_retry_at": None,
                "cost": {"spent_usd": 0.0, "unknown_requests": 0},
            },
            {
                "address": "review-sentiment",
                "provider": "local",
                "model": "gpt-5-mini",
                "is_simulated": True,
                "sync": "Synced",
                "changed": [],
                "health": "Held",
                "held": None,
                "rows": counts(pending=1, in_flight=1, answered=2, waiting=1, given_up=1, held=1),
                "batches": [
                    {
                        "batch_id": "batch_second",
                        "phase": "created",
                        "requests": 1,
                        "status": "in_progress",
                        "completed": 0,
                        "failed": 0,
                        "sent_at": "2026-11-22T10:05:00Z",
                        "age_seconds": 240,
                    }
                ],
                "next_retry_at": "2026-11-22T10:04:00Z",
                "cost": {"spent_usd": 0.000065, "unknown_requests": 0},
            },
        ],
        "diagnostics": [],
    }


def test_a_renamed_job_is_met_by_its_new_name_with_the_rows_of_the_old_one(tmp_path: Path) -> None:
    path = every_state(tmp_path / "s.duckdb").write()
    (job,) = document(path, [desired("renamed", moved_from="review-sentiment")])["jobs"]
    assert (job["address"], job["sync"], job["changed"], job["rows"]["total"]) == ("renamed", "OutOfSync", ["name"], 7)


def test_a_price_that_is_not_known_is_said_and_not_taken_for_nothing(tmp_path: Path) -> None:
    state = State(tmp_path / "s.duckdb")
    job = state.job("a")
    batch = state.submission(job, n=2)
    state.answered(job, "1", batch, 0, "x", cost_nano_usd=None)
    unpriced = document(state.write(), [])["jobs"][0]["cost"]
    assert (unpriced, cost_text(unpriced)) == ({"spent_usd": None, "unknown_requests": 1}, "unknown")
    state.path.unlink()
    state.answered(job, "2", batch, 1, "y")
    partly = document(state.write(), [])["jobs"][0]["cost"]
    assert (partly, cost_text(partly)) == ({"spent_usd": 0.0000325, "unknown_requests": 1}, "$0.000032 + unknown")


def test_rows_that_left_the_source_count_for_nothing(tmp_path: Path) -> None:
    state = State(tmp_path / "s.duckdb")
    job = state.job("a")
    state.request(state.row(job, "1", removed=True), GIVEN_UP)
    state.request(state.row(job, "2"), ANSWERED)
    (found,) = document(state.write(), [])["jobs"]
    assert (found["health"], found["rows"]) == ("Healthy", counts(answered=1))


def test_status_text_is_a_line_a_job_then_what_is_in_flight_and_what_comes_next(tmp_path: Path) -> None:
    path = every_state(tmp_path / "s.duckdb").write()
    moved = desired(parts={**PARTS, "prompt": "p2"})
    assert render_status(document(path, [moved, desired("new")]), width=None) == (
        "JOB               SYNC                HEALTH   ROWS  ANSWERED  IN FLIGHT  RETRY  FAILED  HELD  PENDING"
        "       COST  MODEL       PROVIDER\n"
        "────────────────  ──────────────────  ───────  ────  ────────  ─────────  ─────  ──────  ────  ───────"
        "  ─────────  ──────────  ─────────────────\n"
        "new               Missing             Healthy     0         0                                         "
        "             gpt-5-mini  local (simulated)\n"
        "review-sentiment  OutOfSync (prompt)  Held        7         2          1      1       1     1        1"
        "  $0.000065  gpt-5-mini  local (simulated)\n"
        "\n"
        "In flight, as last seen (the next apply or wait looks again):\n"
        "  batch_second  in_progress  0/1 done, sent 4 min ago  review-sentiment\n"
        "\n"
        "Next retry of review-sentiment: 2026-11-22T10:04:00Z"
    )
    assert render_status(document(tmp_path / "none.duckdb", []), width=80).startswith("No jobs:")


def test_spans_of_time_read_as_people_say_them() -> None:
    assert [in_words(s) for s in (-5, 0, 59, 60, 125, 3600, 3725, 90061, 172800)] == [
        "0 s", "0 s", "59 s", "1 min", "2 min 5 s", "1 h", "1 h 2 min", "1 d 1 h", "2 d",
    ]  # fmt: skip


SPEC = """
name: {name}
source: {{query: "SELECT 1 AS id, 'x' AS body", key: id}}
provider: local
model: gpt-5-mini
template: "{{{{ body }}}}"
"""


def test_status_of_a_project_reads_specs_and_state_and_no_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    every_state(tmp_path / "state" / "batchops.duckdb").write()
    (tmp_path / "jobs").mkdir()
    for name in ("review-sentiment", "new-job"):
        (tmp_path / "jobs" / f"{name}.yaml").write_text(SPEC.format(name=name), encoding="utf-8")
    assert run(["status", "--json"]) == 0
    found = {job["address"]: job["sync"] for job in json.loads(capfd.readouterr().out)["jobs"]}
    assert found == {"review-sentiment": "OutOfSync", "new-job": "Missing"}
    (tmp_path / "jobs" / "review-sentiment.yaml").write_text("name: [", encoding="utf-8")
    assert run(["status"]) == 0
    shown = capfd.readouterr()
    assert "Unknown" in shown.out
    assert shown.err == "1 problem(s) in specs; jobs that cannot be read are Unknown. See: batchops validate\n"
