"""Creates that land when nobody expects them any more, at the real engine and over HTTP.

The test itself plays the proxy that a create was stuck in: it sends it at a named step of the settling.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from service import Service, serving

from batchops.engine import steps
from batchops.engine.operations import apply
from batchops.engine.project import open_project
from batchops.plan.events import Event, StopFlag
from batchops.settings import load_settings

SETTINGS = '[poll]\ninitial = "10ms"\n[submit]\nsettle_grace = "400ms"\n'
JOB = {
    "name": "chat",
    "source": {"query": "SELECT i AS id FROM range(3) t(i)", "key": "id"},
    "model": "gpt-5-mini",
    "retry": {"backoff": {"initial": "10ms"}},
}
LOST = {"on": "POST /v1/batches", "effect": "drop_before", "times": 1}
LISTED_LATE = {"on": "POST /v1/batches", "effect": "hide_from_list", "seconds": 0.2, "times": 1}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("late") / "served") as found:
        yield found


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    root = tmp_path / f"project-{tmp_path.name}"  # a project of its own at the shared service
    (root / "jobs").mkdir(parents=True)
    (root / "batchops.toml").write_text(SETTINGS)
    requests_of_its_own = {**JOB, "template": f"Row {{{{ id }}}} of {tmp_path.name}"}
    (root / "jobs" / "chat.yaml").write_text(json.dumps(requests_of_its_own))
    monkeypatch.chdir(root)
    yield root
    steps.install(None)


class Proxy:
    """Holds the first create back, and sends it at a step of its sender's later work."""

    def __init__(self, service: Service, step: str) -> None:
        self._service = service
        self._step = step
        self._file_id = ""
        self.has_sent = False

    def __call__(self, step: str) -> None:
        if step == "before_create" and not self._file_id:
            self._file_id = self._service.get("/files?purpose=batch")["data"][0]["id"]
        elif step == self._step and self._file_id and not self.has_sent:
            self.has_sent = True
            self._create()

    def _create(self) -> None:
        body = {"input_file_id": self._file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        request = urllib.request.Request(
            f"{self._service.url}/batches", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as reply:
            assert reply.status == 200


def _apply(root: Path, service: Service) -> list[Event]:
    events: list[Event] = []
    with open_project(root, load_settings(root, environ={**os.environ, **service.environ})) as project:
        done = apply(project, approve=lambda _: True, emit=events.append, stop=StopFlag(), wait=True)
    assert done.exit_code == 0, done.diagnostics
    return events


@pytest.mark.parametrize(
    "step", ["before_revoking", "after_revoking", "after_delete", "after_settle", "before_intent", "after_created"]
)
def test_a_create_that_lands_late_is_never_paid_twice(root: Path, service: Service, step: str) -> None:
    """Listed late, too: by less than the grace."""
    service.faults(LOST, LISTED_LATE)
    before = service.executions()
    proxy = Proxy(service, step)
    steps.install(proxy)
    _apply(root, service)
    assert proxy.has_sent, f"never came to {step}"
    assert sorted((service.executions() - before).values()) == [1, 1, 1]
