"""`lifecycle.reuse` switched while rows move: an answer that a row was paid for is found again."""

from __future__ import annotations

from typing import Any

import pytest
from yard import Yard, job

pytest_plugins = ("yard_fixtures",)
ROWS = 3
A, B = "First: {{ body }}", "Second: {{ body }}"


def spec(template: str, *, reuse: bool, name: str = "chat", **keys: Any) -> dict[str, str]:
    return {f"jobs/{name}.yaml": job(name, rows=ROWS, template=template, lifecycle={"reuse": reuse}, **keys)}


def counts(yard: Yard, *words: str) -> dict[str, int]:
    rows = yard.plan("--samples", "0", *words)["summary"]["rows"]
    return {action: count for action, count in rows.items() if count}


def ask(yard: Yard, *templates: str, reuse: bool) -> None:
    for template in templates:
        yard.write(spec(template, reuse=reuse))
        yard.apply()


def paid(yard: Yard) -> int:
    return sum(yard.executed().values())


def test_an_answer_made_under_reuse_false_is_reused_by_its_row_once_reuse_is_true(yard: Yard) -> None:
    ask(yard, A, B, reuse=False)
    yard.write(spec(A, reuse=True))
    assert counts(yard) == {"reuse": ROWS}
    yard.apply()
    assert paid(yard) == 2 * ROWS
    assert counts(yard) == {"unchanged": ROWS}
    yard.write(spec(B, reuse=True))
    yard.apply()
    assert paid(yard) == 2 * ROWS


def test_what_is_in_flight_under_reuse_false_is_waited_for_once_reuse_is_true(yard: Yard) -> None:
    yard.service.faults({"on": "batch", "effect": "stall", "seconds": 1000})
    for template in (A, B):
        yard.write(spec(template, reuse=False))
        yard.run("apply", "--auto-approve")
    yard.write(spec(A, reuse=True))
    assert counts(yard) == {"in_flight": ROWS}
    yard.run("apply", "--auto-approve")
    yard.service.advance(2000)
    yard.apply()
    assert paid(yard) == 2 * ROWS
    assert counts(yard) == {"unchanged": ROWS}


def test_a_row_that_stands_unasked_takes_the_answer_that_another_row_got(yard: Yard) -> None:
    yard.service.faults({"on": "POST /v1/batches", "effect": "error_before", "status": 400})
    yard.write(spec(A, reuse=False))
    yard.run("apply", "--auto-approve", code=1)
    yard.service.faults()
    yard.write(spec(A, reuse=True, name="other"))
    yard.apply("--select", "other")
    yard.write(spec(A, reuse=True))
    assert counts(yard) == {"reuse": ROWS, "unchanged": ROWS}
    yard.apply()
    assert paid(yard) == ROWS


def test_reuse_false_takes_no_answer_that_another_row_may_have_asked_for(yard: Yard) -> None:
    ask(yard, A, B, reuse=True)
    yard.write(spec(A, reuse=False))
    assert counts(yard) == {"resubmit": ROWS}


@pytest.mark.parametrize("words", [(), ("--replace", "chat")], ids=["plain", "replaced"])
def test_replacing_a_row_that_may_reuse_an_earlier_answer_asks_it_again(yard: Yard, words: tuple[str, ...]) -> None:
    ask(yard, A, B, reuse=False)
    yard.write(spec(A, reuse=True))
    yard.apply(*words)
    assert paid(yard) == (3 if words else 2) * ROWS
    assert counts(yard) == {"unchanged": ROWS}
