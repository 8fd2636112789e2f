"""Every relative of the Batch API: a job planned, applied and read back against a server that behaves like it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urljoin

import pytest
from crew import Crew
from service import Service
from yard import Yard, codes, job

from batchops.profiles import PROFILES
from batchops.server.embedded import ServerOptions, serve

pytest_plugins = ("yard_fixtures",)

KEY = "sk-canary-5f1e0c"
ROWS = 4
MARKED = {"query": "SELECT i AS id, 'row <' || i || '>' AS body FROM range(4) t(i)", "key": "id"}
"""Rows whose text a line fault can find: `<3>`."""
SETTINGS = """\
project = "demo"
provider = "relative"
[poll]
initial = "20ms"
max = "200ms"
[submit]
settle_grace = "200ms"
[providers.relative]
kind = "{kind}"
base_url = "{url}"
profile = "{name}"
api_key = "env:RELATIVE_KEY"
"""


@pytest.fixture
def relative(name: str, tmp_path: Path, crew: Crew) -> Iterator[Yard]:
    """A project at a server that behaves like the service `name`."""
    with serve(tmp_path / "served", options=ServerOptions(profile=name, keys=(KEY,))) as server:
        service = Service(urljoin(server.url, "/v1"), tmp_path, cast(Any, None), key=KEY)
        yard = Yard(tmp_path / "project", crew=crew, service=service, environ={"RELATIVE_KEY": KEY})
        kind = "azure" if name == "azure" else "openai"
        yard.write({"batchops.toml": SETTINGS.format(kind=kind, url=server.url, name=name)})
        yield yard
        yard.dismiss()


@pytest.mark.parametrize("name", PROFILES)
def test_a_job_is_answered_and_settled_as_at_any_service(relative: Yard, name: str) -> None:
    """The reply to its create is lost and a line fails once: what is odd about a service must not show."""
    relative.write({"jobs/chat.yaml": job(source=MARKED)})
    relative.service.faults(
        {"on": "POST /v1/batches", "effect": "drop_after", "nth": 1},
        {"on": "line", "effect": "error", "status": 503, "contains": "<2>", "times": 1},
    )
    assert relative.plan()["summary"]["batches"]["create"] == 1
    relative.apply()
    assert relative.statuses() == {"succeeded": ROWS}
    assert sorted(relative.executed().values()) == [1, 1, 1, 2]
    assert relative.service.calls("POST /v1/batches") == 2
    assert all(len(row["answer"]) > 0 and row["usage"]["output_tokens"] > 0 for row in relative.results("chat"))
    relative.hold_at_most_once()
    relative.hold_empty_plan()


@pytest.mark.parametrize("name", [name for name, profile in PROFILES.items() if not profile.delete_revokes][:1])
def test_where_a_deleted_file_may_not_stop_a_late_create_nothing_is_asked_again(relative: Yard, name: str) -> None:
    relative.write({"jobs/chat.yaml": job(source=MARKED)})
    relative.service.faults({"on": "POST /v1/batches", "effect": "drop_before", "nth": 1})
    assert "unsettled_submission" in codes(relative.apply(code=1))
    assert "unsettled_submission" in codes(relative.apply(code=1))
    assert relative.service.calls("POST /v1/batches") == 1
    assert not relative.executed()


@pytest.mark.parametrize("name", ["azure"])
def test_classic_azure_is_asked_on_its_own_paths_and_its_batch_can_be_imported(relative: Yard, name: str) -> None:
    relative.write({"jobs/chat.yaml": job(source=MARKED)})
    relative.apply()
    [batch] = relative.batches()
    lines = relative.service.lines(batch["input_file_id"])
    assert {line["url"] for line in lines} == {"/chat/completions"}
    assert relative.service.lines(batch["error_file_id"]) == []
    (relative.root / "state" / "batchops.duckdb").unlink()
    relative.run("import", "chat", batch["id"])
    relative.apply()
    assert relative.statuses() == {"succeeded": ROWS}
    assert relative.service.calls("POST /v1/batches") == 1


@pytest.mark.parametrize("name", ["dashscope"])
def test_the_free_model_of_dashscope_is_asked_on_its_own_path(relative: Yard, name: str) -> None:
    relative.write({"jobs/chat.yaml": job(source=MARKED, model="batch-test-model", batch={"completion_window": "14d"})})
    relative.apply()
    [batch] = relative.batches()
    assert {line["url"] for line in relative.service.lines(batch["input_file_id"])} == {"/v1/chat/ds-test"}
    assert batch["metadata"] is None
    assert batch["completion_window"] == "14d"
    assert relative.statuses() == {"succeeded": ROWS}
