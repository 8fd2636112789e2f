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


def test_a_wait_looks_once_more_when_its_time_is_up(shop: Workshop, service: Service) -> None:
    slow = SETTINGS.replace('initial = "20ms"', 'initial = "60s"')
    shop.write({"batchops.toml": slow})
    shop.apply("--timeout", "8s")
    assert sum(service.executions().values()) == 6
