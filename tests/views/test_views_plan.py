"""Laws of what a plan shows, on plans that no golden holds."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_plans import MIXED, NOW, body, job, plan

from batchops.plan.model import Action, BatchAction, Estimate, JobPlan, Plan, Reason, Sample
from batchops.terminal import cells
from batchops.units import format_usd
from batchops.views.plan_markdown import LIMIT, cut_middle, render_markdown
from batchops.views.plan_table import cost_range, due, entries, reading_order, summary
from batchops.views.plan_text import render_plan
from batchops.views.sample_text import body_lines, sample_lines

COUNTS = st.integers(0, 10**6)
COSTS = st.one_of(st.none(), st.floats(0, 10**6))
JOBS = st.builds(
    lambda address, rows, batches, reasons, low, high: job(
        address, rows, batches=batches, reasons=reasons, cost=Estimate(low, high, 1)
    ),
    st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True),
    st.dictionaries(st.sampled_from(Action), COUNTS),
    st.dictionaries(st.sampled_from(BatchAction), COUNTS),
    st.dictionaries(st.sampled_from(Reason), COUNTS),
    COSTS,
    COSTS,
)
ANY_PLAN = st.builds(lambda jobs: plan(*jobs), st.lists(JOBS, max_size=5, unique_by=lambda made: made.address))


@given(ANY_PLAN, st.integers(1, 200))
def test_every_step_of_every_job_has_its_line_and_no_address_is_cut(made: Plan, width: int) -> None:
    text = render_plan(made, color=False, width=width)
    steps = [entry for entry in entries(made) if entry.count]
    assert len(steps) == sum(
        1 for one in made.jobs for step, count in (*one.rows.items(), *one.batches.items())
        if count and step in {e.step for e in steps}
    )  # fmt: skip
    for entry in steps:
        assert re.search(rf"^  {re.escape(entry.symbol):<2} *{re.escape(entry.address)} ", text, re.MULTILINE)


@given(ANY_PLAN)
def test_no_changes_is_said_exactly_when_there_are_none(made: Plan) -> None:
    assert summary(made).startswith("No changes.") is not made.has_changes


@given(ANY_PLAN)
def test_reasons_never_explain_more_rows_than_there_are(made: Plan) -> None:
    for entry in entries(made):
        counts = [int(count.replace(",", "")) for count in re.findall(r"\(([\d,]+)\)", entry.reason)]
        assert sum(counts) <= entry.count


def test_rows_to_retry_are_said_to_be_asked_for_where_all_that_failed_stay_as_they_are() -> None:
    def why(rows: dict[Action, int], reasons: dict[Reason, int]) -> list[str]:
        return [entry.reason for entry in entries(plan(job("a", rows, reasons=reasons)))]

    failed, asked = Reason.ROW_FAILED, Reason.REQUESTED
    assert why({Action.RETRY: 1, Action.HELD: 5}, {failed: 5, asked: 1}) == ["requested"]
    assert why({Action.RETRY: 3, Action.FAILED: 5}, {failed: 7, asked: 1}) == ["rows failed (2), requested (1)"]
    assert sorted(why({Action.RETRY: 6, Action.RESUBMIT: 2}, {failed: 6, asked: 2})) == ["requested", "rows failed"]


@given(ANY_PLAN)
def test_the_cost_of_a_job_stands_on_one_line(made: Plan) -> None:
    priced = [entry.address for entry in entries(made) if entry.cost is not None]
    assert len(priced) == len(set(priced))


def test_paying_again_comes_before_discarding_nothing_and_the_dear_before_the_cheap() -> None:
    cheap = job("a", {Action.SUBMIT: 1}, cost=Estimate(0, 1))
    dear = job("b", {Action.SUBMIT: 1}, cost=Estimate(0, 9))
    unknown = job("c", {Action.SUBMIT: 1}, cost=Estimate(None, None))
    again = job("d", {Action.RESUBMIT: 1}, cost=Estimate(0, 0.1))
    gone = job("e", {Action.FORGET: 1})
    ordered = [found.address for found in reading_order([cheap, gone, dear, unknown, again])]
    assert ordered == ["d", "e", "c", "b", "a"]


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0, "$0.00"),
        (0.0042, "$0.0042"),
        (0.009999, "$0.01"),
        (0.01, "$0.01"),
        (1.1, "$1.10"),
        (12345.678, "$12,345.68"),
    ],
)
def test_money_is_readable_at_every_size(usd: float, text: str) -> None:
    assert format_usd(usd) == text


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        (Estimate(1.1, 1.62), "$1.10–$1.62"),
        (Estimate(1.101, 1.102), "$1.10"),
        (Estimate(None, 2.0), "cost unknown"),
        (Estimate(1.0, None), "$1.00 or more"),
    ],
)
def test_unknown_cost_is_never_made_up(cost: Estimate, text: str) -> None:
    assert cost_range(cost) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "now"),
        (0, "now"),
        (20, "in 20 s"),
        (61, "in 2 min"),
        (240, "in 4 min"),
        (7200, "in 2 h"),
        (200000, "in 3 d"),
    ],
)
def test_due_times_are_rounded_up(seconds: int, text: str) -> None:
    assert due(NOW + timedelta(seconds=seconds), NOW) == text


def test_a_sample_shows_control_characters_and_cannot_move_the_cursor() -> None:
    hostile = Sample({"id": "\x1b[2J\n"}, None, body("\x1b]0;owned\x07", "a\rb\u202e"))
    text = render_plan(plan(job("a", {Action.SUBMIT: 1}, samples=(hostile,))), color=False, width=80)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "\\x1b]0;owned\\x07" in text


def test_a_long_sample_is_cut_and_shown_whole_on_demand() -> None:
    long = Sample({"id": 1}, None, body("s", "\n".join(f"line {number} {'x' * 200}" for number in range(50))))
    made = plan(job("a", {Action.SUBMIT: 1}, samples=(long,)))
    text = render_plan(made, color=False, width=80)
    assert "more lines; -v shows all" in text
    assert all(cells(line) <= 80 for line in text.split("\n"))
    assert "line 49 " + "x" * 200 in render_plan(made, color=False, width=80, verbose=1)


def test_a_changed_sample_shows_what_changed() -> None:
    lines = sample_lines(Sample({"id": 1}, body("old", "text"), body("new", "text")))
    assert "-    content: old" in lines
    assert "+    content: new" in lines
    same = sample_lines(Sample({"id": 1}, body("a", "b"), body("a", "b")))
    assert same == ["(the bodies print alike)"]


def test_a_body_is_outlined_with_every_kind_of_value() -> None:
    lines = body_lines(
        {"a": None, "b": True, "c": [], "d": {}, "e": [[1, 2], {"f": "x\ny", "g": 1.5}], "h": "one\ntwo"}
    )
    assert lines == [
        "a: null", "b: true", "c: []", "d: {}",
        "e:", "  -", "    - 1", "    - 2", "  - f: |", "      x", "      y", "    g: 1.5",
        "h: |", "  one", "  two",
    ]  # fmt: skip


def big(jobs: int, lines: int) -> Plan:
    def one(number: int) -> JobPlan:
        texts = "\n".join(f"+word {index} ``` {'x' * 60}" for index in range(lines))
        sample = Sample({"id": number}, None, body("s", texts))
        return job(f"job-{number}", {Action.RESUBMIT: 1}, diff=texts, samples=(sample,) * 3, cost=Estimate(1, 1))

    return plan(*(one(number) for number in range(jobs)))


@pytest.mark.parametrize(("jobs", "lines"), [(1, 5000), (5, 2000), (100, 100), (3000, 10)])
def test_markdown_fits_into_a_comment_with_head_and_tail_kept(jobs: int, lines: int) -> None:
    text = render_markdown(big(jobs, lines))
    assert len(text) <= LIMIT
    assert text.startswith("### Plan: ")
    assert text.endswith("environment `default`.</sub>")
    assert text.count("<details>") == text.count("</details>")
    assert "left out" in text or "more lines" in text
    assert "job-0" in text


def test_every_job_that_pays_stays_in_the_table_of_a_hundred() -> None:
    text = render_markdown(big(100, 200))
    assert all(f"`job-{number}`" in text for number in range(100))


def test_nothing_in_a_diff_closes_its_fence() -> None:
    text = render_markdown(plan(job("a", {Action.RESUBMIT: 1}, diff="+```\n+````\n+</details>")))
    fence = re.search(r"^(`+)diff$", text, re.MULTILINE)
    assert fence is not None
    assert len(fence[1]) == 5
    assert text.count(fence[1]) == 2


def test_markdown_of_hostile_words_makes_no_mention_and_no_tag() -> None:
    made = plan(*MIXED.jobs, drift=({"note": "@all <img src=x> #1 [a](b) | *b*"},))
    text = render_markdown(made)
    assert "<img" not in text
    assert "@all" not in text
    assert "\\[a\\](b) \\| \\*b\\*" in text


@given(st.lists(st.text(max_size=30), max_size=60), st.integers(0, 400))
def test_cutting_the_middle_keeps_head_and_tail_within_the_room(lines: list[str], room: int) -> None:
    cut = cut_middle(lines, room)
    if cut == lines:
        return
    notice = next(index for index, line in enumerate(cut) if "left out" in line and line not in lines[:1])
    head, tail = cut[:notice], cut[notice + 1 :]
    assert lines[: len(head)] == head
    assert not tail or lines[-len(tail) :] == tail
    assert sum(len(line) + 1 for line in (*head, *tail)) <= room
