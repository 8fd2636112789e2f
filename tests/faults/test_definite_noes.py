"""A definite no of the service, at each call: what is said, what is kept, and that nothing is paid twice afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from yard import Yard, codes, job

from batchops.diagnostics import BatchopsError
from batchops.store.connection import attached, open_memory
from batchops.store.store import ensure_state

pytest_plugins = ("yard_fixtures",)
ROWS = 4
CREATE = {"on": "POST /v1/batches", "effect": "error_before"}


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({**CREATE, "status": 401}, "provider_denied"),
        ({**CREATE, "status": 403}, "provider_denied"),
        ({"on": "GET /v1/batches", "effect": "error_before", "status": 401}, "provider_denied"),
        ({**CREATE, "status": 400, "code": "invalid_value"}, "batch_refused"),
        ({**CREATE, "status": 429, "code": "insufficient_quota"}, "quota_exhausted"),
        ({"on": "POST /v1/files", "effect": "error_before", "status": 400}, "batch_refused"),
        ({"on": "POST /v1/files", "effect": "error_before", "status": 401}, "provider_denied"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value['on']}-{value['status']}",
)
def test_a_refused_submission_is_told_burns_nothing_and_is_made_good(
    yard: Yard, fault: dict[str, Any], code: str
) -> None:
    """The codes are provider_denied, batch_refused and quota_exhausted."""
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.service.faults(fault)
    assert codes(yard.apply(code=6 if code == "quota_exhausted" else 1)) == [code]
    assert yard.executed() == {}
    yard.service.faults()
    if code == "quota_exhausted":
        assert yard.plan()["summary"]["rows"]["held"] == ROWS
        yard.run("retry", "chat")
    yard.converge()
    yard.hold_laws(rows=ROWS)


def test_rows_that_the_provider_had_no_room_for_were_never_asked_and_are_told(yard: Yard) -> None:
    """The code is provider_full."""
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.service.faults({"on": "POST /v1/batches", "effect": "throttle", "retry_after": 300})
    assert "Nothing was done." in yard.run("apply", "--auto-approve", "--select", "chat").out
    yard.write({"jobs/chat.yaml": job(rows=ROWS, template="In a word: {{ body }}")})
    ran = yard.run("apply", "--auto-approve", "--json")
    assert codes(ran) == ["provider_full"]
    tried = yard.service.calls("POST /v1/batches")
    planned = yard.plan("--detailed-exitcode", code=2)
    assert {action: count for action, count in planned["summary"]["rows"].items() if count} == {"submit": ROWS}
    (found,) = planned["jobs"]
    assert (found["reasons"], found["health"], found["due_at"] is None) == ({"new_row": ROWS}, "Healthy", False)
    assert "  +  chat  4 rows  due in " in yard.run("plan").out
    told = yard.run("explain", "chat@1").out
    assert "Not asked yet." in told
    assert "The next apply from " in told
    assert codes(yard.run("apply", "--auto-approve", "--json")) == []
    assert yard.service.calls("POST /v1/batches") == tried
    assert yard.executed() == {}


def test_a_service_without_a_list_of_batches_is_used_with_a_warning(yard: Yard) -> None:
    """The code is batches_not_listed."""
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.service.faults({"on": "GET /v1/batches", "effect": "error_before", "status": 404})
    assert codes(yard.apply()) == ["batches_not_listed"]
    yard.service.faults()
    yard.hold_laws(rows=ROWS)


def test_a_result_file_that_cannot_be_read_is_fetched_by_the_next_apply(yard: Yard) -> None:
    """The code is batch_not_fetched."""
    yard.write({"jobs/chat.yaml": job(rows=ROWS)})
    yard.service.faults({"on": "GET /v1/files/*/content", "effect": "error_before", "status": 403})
    assert "batch_not_fetched" in codes(yard.apply(code=1))
    yard.service.faults()
    yard.converge()
    yard.hold_laws(rows=ROWS)


def test_a_protected_job_is_not_paid_again_unless_that_is_allowed(yard: Yard) -> None:
    """The code is protected; deleting the key does not lift it, saying false does."""
    yard.write({"jobs/chat.yaml": job(rows=ROWS, lifecycle={"protect": True})})
    yard.converge()
    yard.write({"jobs/chat.yaml": job(rows=ROWS, template="Other: {{ body }}")})
    assert codes(yard.apply(code=5)) == ["protected"]
    assert yard.run("plan", "--json", code=5).json["diagnostics"][0]["code"] == "protected"
    assert sum(yard.executed().values()) == ROWS
    done = yard.apply("--allow-protected", "chat").lines[-1]
    assert done["summary"]["rows"]["resubmit"] == ROWS
    yard.write({"jobs/chat.yaml": job(rows=ROWS, template="Third: {{ body }}", lifecycle={"protect": False})})
    yard.apply()
    assert sum(yard.executed().values()) == 3 * ROWS


def test_a_state_that_another_process_keeps_open_is_said_to_be_busy(tmp_path: Path) -> None:
    """The code is state_busy."""
    path = tmp_path / "state" / "batchops.duckdb"
    ensure_state(path, project="demo")
    holder = "import duckdb, sys; con = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "held\n"
        con = open_memory()
        with pytest.raises(BatchopsError) as caught, attached(con, path, read_only=True, patience_seconds=0.05):
            pass
        con.close()
        process.stdin.close()
    assert [found.code for found in caught.value.diagnostics] == ["state_busy"]
    assert str(process.pid) in caught.value.diagnostics[0].detail
