"""How long `apply --wait` and `wait` go on, and what ends them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from service import Service, serving
from workshop import Workshop

SETTINGS = 'project = "waiting"\n[poll]\ninitial = "20ms"\nmax = "60s"\n[submit]\nsettle_grace = "200ms"\n'


def job(name: str) -> str:
    source = {"query": "SELECT i AS id FROM range(3) t(i)", "key": "id"}
    return json.dumps({"name": name, "source": source, "model": "gpt-5-mini", "template": name + " {{ id }}"})


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path / "served") as found:
        yield found


@pytest.fixture
def shop(service: Service, tmp_path: Path) -> Workshop:
    workshop = Workshop(tmp_path / "project", environ=service.environ)
    workshop.write({"batchops.toml": SETTINGS, "jobs/a.yaml": job("a"), "jobs/b.yaml": job("b")})
    return workshop


def test_the_trouble_of_one_job_does_not_end_the_wait_for_another(shop: Workshop, service: Service) -> None:
    service.faults({"on": "POST /v1/batches", "effect": "error_before", "status": 403, "nth": 1})
    events = shop.apply(code=1).lines
    assert [event["address"] for event in events if event["type"] == "batch_fetched"] == ["b"]
    assert events[-1]["summary"]["rows"]["unchanged"] == 3
    shop.apply()
    assert sum(service.executions().values()) == 6


def test_a_retry_whose_words_cannot_be_rendered_stops_its_own_job_alone(shop: Workshop, service: Service) -> None:
    rule = {"when": "refused", "do": "retry", "template": "{{ 6 // (id - 1) }}"}
    for name in "ab":
        retry = {"backoff": {"initial": "10ms"}, "rules": [rule] if name == "a" else []}
        shop.write({f"jobs/{name}.yaml": json.dumps({**json.loads(job(name)), "retry": retry})})
    service.faults(
        {"on": "line", "effect": "refusal", "contains": "a 1"},
        {"on": "line", "effect": "error", "status": 500, "contains": "b 2", "custom_id": "*-1"},
    )
    events = shop.apply(code=1).lines
    (problem,) = [event["diagnostic"] for event in events if event["type"] == "diagnostic"]
    assert (problem["address"], problem["severity"]) == ("a", "error")
    assert "a@1" in problem["detail"]
    assert [row["status"] for row in shop.results("b")] == ["succeeded"] * 3
    assert sum(service.executions().values()) == 3 + 4


def test_a_wait_looks_once_more_when_its_time_is_up(shop: Workshop, service: Service) -> None:
    slow = SETTINGS.replace('initial = "20ms"', 'initial = "60s"')
    shop.write({"batchops.toml": slow})
    shop.apply("--timeout", "8s")
    assert sum(service.executions().values()) == 6
