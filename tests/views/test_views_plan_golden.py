"""Plans as text, markdown and JSON, whole. `UPDATE_GOLDEN=1` writes the files anew: read the diff."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from sample_plans import PLANS

from batchops.plan.document import plan_document
from batchops.plan.model import Action, BatchAction, Plan
from batchops.views.plan_markdown import render_markdown
from batchops.views.plan_table import entries, legend, summary
from batchops.views.plan_text import render_plan

GOLDEN = Path(__file__).parent / "golden"
EACH = pytest.mark.parametrize("name", PLANS)


def golden(name: str, text: str) -> str:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").removesuffix("\n")


def numbers(text: str) -> dict[str, int]:
    """`Plan: 1,200 to submit, 2 batches to fetch` → {"submit": 1200, "fetch": 2}."""
    found = re.findall(r"([\d,]+)(?: batch(?:es)?)? to (\w+)", text)
    return {verb: int(count.replace(",", "")) for count, verb in found}


def assert_summary_counts_what_jobs_do(plan: Plan) -> None:
    said = numbers(summary(plan))
    done: dict[str, int] = {}
    for entry in entries(plan):
        done[str(entry.step)] = done.get(str(entry.step), 0) + entry.count
    assert said == done


@EACH
def test_text_is_exactly_this(name: str) -> None:
    text = render_plan(PLANS[name], color=False, width=100)
    assert text == golden(f"{name}.txt", text)
    assert "\x1b" not in text
    assert_summary_counts_what_jobs_do(PLANS[name])


@EACH
def test_verbose_text_is_exactly_this(name: str) -> None:
    text = render_plan(PLANS[name], color=False, width=60, verbose=1)
    assert text == golden(f"{name}.verbose.txt", text)
    assert all(job.address in text for job in PLANS[name].jobs)


@EACH
def test_markdown_is_exactly_this(name: str) -> None:
    text = render_markdown(PLANS[name])
    assert text == golden(f"{name}.md", text)
    outside = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
    assert numbers(outside) == numbers(summary(PLANS[name]))
    assert text.count("<details>") == text.count("</details>")


@EACH
def test_json_is_exactly_this(name: str) -> None:
    document = plan_document(PLANS[name])
    assert document == json.loads(golden(f"{name}.json", json.dumps(document, indent=1, ensure_ascii=False)))
    rows, batches = document["summary"]["rows"], document["summary"]["batches"]
    assert list(rows) == [str(action) for action in Action]
    assert list(batches) == [str(action) for action in BatchAction]
    assert rows == {action: sum(job["rows"].get(action, 0) for job in document["jobs"]) for action in rows}
    assert batches == {action: sum(job["batches"].get(action, 0) for job in document["jobs"]) for action in batches}


@EACH
def test_colour_changes_no_character_that_is_seen(name: str) -> None:
    coloured = render_plan(PLANS[name], color=True, width=100)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render_plan(PLANS[name], color=False, width=100)


@EACH
def test_the_legend_has_the_symbols_that_occur_and_no_others(name: str) -> None:
    shown = entries(PLANS[name])
    assert {pair.split(" ")[0] for pair in legend(shown).split("  ") if pair} == {entry.symbol for entry in shown}
