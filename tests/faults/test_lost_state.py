"""A state that was lost or rolled back never pays first: it stops before the first create and offers to adopt."""

from __future__ import annotations

import shlex
import shutil

from yard import Yard, codes, job

pytest_plugins = ("yard_fixtures",)
ROWS = 4


def test_a_lost_state_stops_before_the_first_create_and_can_adopt_what_is_there(yard: Yard) -> None:
    """The code is unknown_batches."""
    yard.write({"jobs/chat.yaml": job(rows=ROWS, batch={"max_requests": 2})})
    yard.apply()
    shutil.rmtree(yard.root / "state")
    ran = yard.apply(code=1)
    assert codes(ran) == ["unknown_batches"]
    offered = next(line["diagnostic"]["fixes"] for line in ran.lines if line["type"] == "diagnostic")
    assert sorted(offered) == sorted(f"batchops import chat {batch['id']}" for batch in yard.batches())
    assert len(yard.batches()) == 2
    for command in offered:
        yard.run(*shlex.split(command)[1:])
    yard.converge()
    assert len(yard.batches()) == 2
    yard.hold_laws(rows=ROWS)


def test_a_rolled_back_state_stops_before_the_first_create(yard: Yard) -> None:
    """The code is unknown_batches: what was submitted after the copy was made is known to the service alone."""
    state = yard.root / "state" / "batchops.duckdb"
    yard.write({"jobs/chat.yaml": job(rows=2)})
    yard.apply()
    copy = state.with_suffix(".copy")
    shutil.copy(state, copy)
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.apply()
    shutil.copy(copy, state)
    assert codes(yard.apply(code=1)) == ["unknown_batches"]
    assert len(yard.batches()) == 2
    assert sum(yard.executed().values()) == ROWS


def test_a_plan_and_an_apply_that_pay_nothing_are_not_stopped(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.apply()
    shutil.rmtree(yard.root / "state")
    (yard.root / "jobs/chat.yaml").unlink()
    yard.write({"jobs/other.yaml": job("other", enabled=False)})
    yard.apply()


def test_another_environment_is_not_held_up(yard: Yard) -> None:
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.apply()
    shutil.rmtree(yard.root / "state")
    settings = (yard.root / "batchops.toml").read_text() + "[environments.dev]\nlimit = 2\n"
    yard.write({"batchops.toml": settings})
    yard.apply("--env", "dev")
    assert len(yard.batches()) == 2
