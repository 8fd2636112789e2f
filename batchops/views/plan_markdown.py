"""A plan → markdown for a pull request: verdict, table and warnings in sight, diffs and samples folded away.

A comment may hold 65,536 characters on the forges (2026-08), so `LIMIT` keeps clear of it: long folds lose their
middle, then the table does; head and tail always stay.
"""

from __future__ import annotations

import html
import re

from batchops.plan.model import JobPlan, Plan
from batchops.terminal import visible
from batchops.views.diagnostics import render_text
from batchops.views.plan_table import Entry, cost_range, counted, entries, legend, notes, reading_order, summary
from batchops.views.sample_text import sample_lines, sample_title

LIMIT = 60_000
_HEAD_LIMIT = 24_000
_LEAST_FOLD = 400


def render_markdown(plan: Plan) -> str:
    """The plan as one comment of at most `LIMIT` characters."""
    head, foot = _head(plan), _foot(plan)
    jobs = [job for job in reading_order(plan.jobs) if job.diff or job.samples]
    return "\n\n".join([head, *_folds(jobs, LIMIT - len(head) - len(foot) - 4), foot])


def _head(plan: Plan) -> str:
    shown = entries(plan)
    said = [f"- {_prose(note)}" for note in notes(plan)]
    problems = render_text(plan.diagnostics, color=False)
    drift = [f"- Drift: {_prose(_facts(found))}" for found in plan.drift]
    policies = [f"- Policy: {_prose(_facts(found))}" for found in plan.policies]
    parts = [
        f"### {_prose(summary(plan))}",
        _table(shown),
        f"`{legend(shown)}`" if shown else "",
        _fenced("\n".join(cut_middle(problems.split("\n"), _HEAD_LIMIT // 2)), "") if problems else "",
        "\n".join(cut_middle([*said, *policies, *drift], _HEAD_LIMIT // 2)),
    ]
    return "\n\n".join(part for part in parts if part)


def _table(shown: list[Entry]) -> str:
    if not shown:
        return ""
    rows = [
        f"| `{entry.symbol}` | {_cell(_code(entry.address))} | {entry.amount} | {_prose(entry.reason)} |"
        f" {'' if entry.cost is None else cost_range(entry.cost)} |"
        for entry in shown
    ]
    head = ["| | Job | | Why | Estimate |", "|---|---|---:|---|---:|"]
    return "\n".join([*head, *cut_middle(rows, _HEAD_LIMIT, notice="| … | {} more lines | | | |")])


def _folds(jobs: list[JobPlan], room: int) -> list[str]:
    """One fold a job, each with its share of the room; jobs that find none are counted."""
    folds: list[str] = []
    for index, job in enumerate(jobs):
        share = (room - 80) // (len(jobs) - index)
        fold = _fold(job, share)
        if share < _LEAST_FOLD or len(fold) + 2 > room - 80:
            return [*folds, f"… diffs and samples of {counted(len(jobs) - index, 'job')} left out."]
        folds.append(fold)
        room -= len(fold) + 2
    return folds


def _fold(job: JobPlan, room: int) -> str:
    parts = []
    if job.diff:
        parts.append(("", visible(job.diff.rstrip("\n")).split("\n"), "diff"))
    for sample in job.samples:
        parts.append(
            (f"Sample {_code(sample_title(sample))}", sample_lines(sample), "diff" if sample.before else "yaml")
        )
    what = " and ".join(
        word
        for word in ("prompt diff" if job.diff else "", counted(len(job.samples), "sample") if job.samples else "")
        if word
    )
    title = f"<details><summary><code>{html.escape(visible(job.address))}</code>: {what}</summary>"
    each = max(0, room - len(title) - 40) // max(1, len(parts)) - 60
    texts = [
        "\n\n".join(text for text in (caption, _fenced("\n".join(cut_middle(lines, each)), language)) if text)
        for caption, lines, language in parts
    ]
    return "\n\n".join([title, *texts, "</details>"])


def _foot(plan: Plan) -> str:
    return f"<sub>Plan {_code(plan.plan_id)} of {_code(plan.project)}, environment {_code(plan.environment)}.</sub>"


def cut_middle(lines: list[str], room: int, *, notice: str = "… {} lines left out …") -> list[str]:
    """`lines` within `room` characters: the middle is left out and counted, head and tail stay."""
    if sum(len(line) + 1 for line in lines) <= room:
        return lines
    left = max(0, room - len(notice) - 12) // 2
    head, tail = _first_that_fit(lines, left), _first_that_fit(lines[::-1], left)
    return [*head, notice.format(f"{len(lines) - len(head) - len(tail):,}"), *tail[::-1]]


def _first_that_fit(lines: list[str], room: int) -> list[str]:
    kept = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return kept


def _fenced(text: str, language: str) -> str:
    """A code block that nothing in `text` can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _code(text: str) -> str:
    """Inline code that nothing in `text` can close."""
    text = visible(text).replace("\n", " ")
    ticks = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    space = " " if "`" in text else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def _cell(code: str) -> str:
    """A bar ends a table cell even inside of code."""
    return code.replace("|", "\\|")


def _prose(text: str) -> str:
    """Words that cannot start a link, a mention, a tag or a table cell."""
    text = html.escape(visible(text).replace("\n", " "), quote=False)
    return re.sub(r"([@#])", "\\1\u2060", re.sub(r"([\\*_\[\]|~])", r"\\\1", text))


def _facts(found: object) -> str:
    pairs = found.items() if isinstance(found, dict) else ()
    return " ".join(f"{name}={value}" for name, value in pairs)
