"""Events as lines, as JSON, and what an apply says it did."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import get_args

import pytest
from sample_plans import MIXED

from batchops.diagnostics import warning
from batchops.plan.document import empty_summary, summary_document
from batchops.plan.events import (
    ApplyComplete,
    ApplyStart,
    BatchCreated,
    BatchFetched,
    BatchProgress,
    DiagnosticFound,
    Event,
    RowFailures,
    Version,
)
from batchops.views.outcome import render_outcome
from batchops.views.progress import JsonLines, PlainLines, event_document, event_line

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)
EACH: list[tuple[Event, str]] = [
    (Version("0.3.0"), ""),
    (ApplyStart("5f0c", "reviews", "default", empty_summary()), ""),
    (BatchCreated("labels", "batch_1", 1200, "openai"), "labels: batch_1 created, 1,200 rows"),
    (BatchCreated("labels", "batch_1", 1, "local", True), "labels: batch_1 created, 1 row, simulated answers"),
    (BatchProgress("labels", "batch_1", "validating"), "labels: batch_1 validating"),
    (BatchProgress("labels", "batch_1", "in_progress", 1200, 400, 2), "labels: batch_1 in_progress, 402 of 1,200"),
    (
        BatchFetched("labels", "batch_1", 1200, {"succeeded": 1198, "truncated": 2}, 0.519),
        "labels: batch_1 fetched, 1,200 rows (1,198 succeeded, 2 truncated); $0.52",
    ),
    (BatchFetched("labels", "batch_1", 3), "labels: batch_1 fetched, 3 rows"),
    (
        RowFailures("labels", "batch_1", {"truncated": 2, "refused": 1}, retry=2, given_up=1),
        "labels: batch_1 left rows unanswered (2 truncated, 1 refused): 2 to retry, 1 given up",
    ),
    (DiagnosticFound(warning("slow", "Slow.", "Very.")), "warning: Slow. Very. [slow]"),
    (ApplyComplete(empty_summary(), 0), ""),
]


@pytest.mark.parametrize(("event", "line"), EACH)
def test_an_event_is_one_line_or_none(event: Event, line: str) -> None:
    assert event_line(event, color=False) == line


def test_every_kind_of_event_is_covered_here() -> None:
    assert {type(event) for event, _ in EACH} == set(get_args(Event))


@pytest.mark.parametrize("event", [event for event, _ in EACH])
def test_an_event_is_one_json_object_with_its_type_and_time(event: Event) -> None:
    said: list[str] = []
    JsonLines(said.append, lambda: NOW)(event)
    [line] = said
    document = json.loads(line)
    assert "\n" not in line
    assert document["type"] == event.type
    assert document["at"] == "2026-08-01T12:00:00Z"
    assert not any(name.startswith("is_") for name in document)


def test_the_last_line_is_the_summary_of_a_plan_document_and_the_exit_code() -> None:
    document = event_document(ApplyComplete(summary_document(MIXED), 6), NOW)
    assert document == {
        "type": "apply_complete",
        "at": "2026-08-01T12:00:00Z",
        "summary": summary_document(MIXED),
        "exit_code": 6,
    }


def test_a_batch_that_only_moves_on_is_heard_of_every_ten_seconds_at_most() -> None:
    said: list[str] = []
    clock = iter([0.0, 1.0, 2.0, 11.9, 12.1, 13.0])
    printer = PlainLines(said.append, lambda: next(clock), color=False)
    for status, done in (
        ("validating", None), ("in_progress", 1), ("in_progress", 2), ("in_progress", 3), ("in_progress", 4),
        ("completed", 5),
    ):  # fmt: skip
        printer(BatchProgress("labels", "batch_1", status, 5, done, 0))
    assert said == [
        "labels: batch_1 validating, 0 of 5",
        "labels: batch_1 in_progress, 1 of 5",
        "labels: batch_1 in_progress, 3 of 5",
        "labels: batch_1 completed, 5 of 5",
    ]


def test_batches_are_told_apart() -> None:
    said: list[str] = []
    printer = PlainLines(said.append, lambda: 0.0, color=False)
    for batch in ("batch_1", "batch_2", "batch_1"):
        printer(BatchProgress("labels", batch, "in_progress"))
    assert len(said) == 2


def test_the_outcome_says_what_was_done_and_what_is_left() -> None:
    assert render_outcome(summary_document(MIXED)) == (
        "Done: 1,200 submitted, 9,000 resubmitted, 14 retried, 40 reused, 40 forgotten;"
        " 2 batches created, 2 batches fetched, 1 batch cancelled.\n"
        "In flight: 1 batch. To wait for them: batchops apply --wait\n"
        "Given up: 3 rows. To see why: batchops status\n"
        "Answered: 8,800 rows."
    )
    assert render_outcome(empty_summary()) == "Nothing to do."
    assert render_outcome(empty_summary(), has_failed=True) == "Nothing was done."
