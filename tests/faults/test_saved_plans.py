"""Saved plans: exactly what was reviewed, stale when that moved, and nothing twice however often they are applied."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from yard import Yard, job, query

pytest_plugins = ("yard_fixtures",)
ROWS = 5


def saved(yard: Yard, *words: str, name: str = "plan.json") -> str:
    yard.run("plan", "--out", name, *words)
    return name


def applied(yard: Yard, name: str, *, code: int | None = 0) -> Any:
    return yard.run("apply", name, "--wait", "--json", code=code)


@pytest.fixture
def planned(yard: Yard) -> Yard:
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    saved(yard)
    return yard


def test_what_is_no_file_is_not_replaced_by_a_plan(yard: Yard) -> None:
    """As /dev/null must not be, which root could."""
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    pipe, link = yard.root / "pipe", yard.root / "link"
    os.mkfifo(pipe)
    link.symlink_to(yard.root / "kept.json")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        saved(yard, name="pipe")
        assert json.loads(os.read(reader, 1_000_000))["plan_id"]
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    saved(yard, name="link")
    assert link.is_symlink()
    assert json.loads((yard.root / "kept.json").read_text())["plan_id"]


def test_a_saved_plan_is_applied_without_a_question_and_only_once(planned: Yard) -> None:
    done = applied(planned, "plan.json").lines
    assert done[-1]["summary"]["rows"]["submit"] == ROWS
    document = json.loads((planned.root / "plan.json").read_text())
    assert {line["plan_id"] for line in done if line["type"] == "apply_start"} == {document["plan_id"]}
    applied(planned, "plan.json")
    assert len(planned.batches()) == 1
    planned.hold_laws(rows=ROWS)


def test_new_rows_do_not_make_it_stale_and_are_not_asked(planned: Yard) -> None:
    planned.write({"jobs/chat.yaml": job(rows=ROWS + 3)})
    applied(planned, "plan.json")
    assert sum(planned.executed().values()) == ROWS
    assert planned.plan("--detailed-exitcode", code=2)["summary"]["rows"]["submit"] == 3


def test_words_about_a_job_do_not_make_it_stale(planned: Yard) -> None:
    planned.write({"jobs/chat.yaml": job(rows=ROWS, description="What people say", owner="us", tags=["weekly"])})
    applied(planned, "plan.json")
    planned.hold_laws(rows=ROWS)


def test_fetching_and_another_job_do_not_make_it_stale(yard: Yard) -> None:
    yard.write({"jobs/other.yaml": job("other", rows=2, template="Rate: {{ body }}")})
    yard.run("apply", "--auto-approve")
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    saved(yard, "--select", "chat")
    yard.run("wait")
    yard.write({"jobs/other.yaml": job("other", rows=3, template="Rate: {{ body }}")})
    yard.apply("--select", "other")
    applied(yard, "plan.json")
    yard.hold_laws(rows=ROWS, requests=ROWS + 3)


def test_fetching_of_its_own_job_does_not_make_it_stale(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.run("apply", "--auto-approve")
    yard.write({"jobs/chat.yaml": job(rows=ROWS + 2)})
    saved(yard)
    yard.run("wait")
    applied(yard, "plan.json")
    yard.hold_laws(rows=ROWS + 2)


def changed_row(yard: Yard) -> None:
    text = query(ROWS).replace("'review ' || i", "CASE i WHEN 3 THEN 'other' ELSE 'review ' || i END")
    yard.write({"jobs/chat.yaml": job(source={"query": text, "key": "id"})})


def lost_row(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(rows=ROWS - 1)})


def changed_spec(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(rows=ROWS, template="Judge: {{ body }}")})


def other_retry(yard: Yard) -> None:
    rule = {"when": "refused", "do": "retry", "model": "gpt-5"}
    yard.write({"jobs/chat.yaml": job(rows=ROWS, retry={"rules": [rule]})})


def another_apply(yard: Yard) -> None:
    yard.apply("--limit", "2")


def lost_job(yard: Yard) -> None:
    (yard.root / "jobs/chat.yaml").unlink()
    yard.write({"jobs/other.yaml": job("other", rows=1)})


@pytest.mark.parametrize("move", [changed_row, lost_row, changed_spec, other_retry, another_apply, lost_job])
def test_it_is_stale_when_what_was_reviewed_has_moved(planned: Yard, move: Any) -> None:
    """The code is stale_plan."""
    move(planned)
    before = sum(planned.executed().values())
    ran = applied(planned, "plan.json", code=10)
    told = [line["diagnostic"] for line in ran.lines if line["type"] == "diagnostic"]
    assert [(problem["code"], problem["address"]) for problem in told] == [("stale_plan", "chat")]
    assert sum(planned.executed().values()) == before


FULL = [pytest.param(step, marks=pytest.mark.full) for step in ("after_intent", "after_created", "after_answers")]


@pytest.mark.parametrize("step", ["after_record", "after_create", *FULL])
def test_after_a_kill_the_same_plan_goes_on_and_pays_nothing_twice(planned: Yard, step: str) -> None:
    command = planned.start("apply", "plan.json", "--wait", "--json", step=step)
    assert command.wait().code == -9
    applied(planned, "plan.json")
    planned.hold_laws(rows=ROWS)


def test_a_plan_that_replaces_pays_once_more_however_often_it_is_applied(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.apply()
    saved(yard, "--replace", "chat@2")
    for _ in range(2):
        applied(yard, "plan.json")
    assert sorted(yard.executed().values()) == [1] * (ROWS - 1) + [2]
    yard.hold_at_most_once()
    yard.hold_empty_plan()


def test_a_plan_of_another_environment_or_another_state_is_refused(planned: Yard) -> None:
    """The codes are wrong_environment and stale_plan."""
    settings = (planned.root / "batchops.toml").read_text() + "[environments.dev]\nlimit = 2\n"
    planned.write({"batchops.toml": settings})
    assert "wrong_environment" in planned.run("apply", "plan.json", "--env", "dev", "--json", code=64).out
    planned.apply("--limit", "1", "--env", "dev")
    saved(planned, name="second.json")
    document = json.loads((planned.root / "second.json").read_text())
    document["state"]["lineage"] = "00000000-0000-4000-8000-000000000000"
    (planned.root / "other.json").write_text(json.dumps(document))
    assert "lineage" in applied(planned, "other.json", code=10).out
