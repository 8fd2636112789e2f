"""One service and one crew for all tests of a process; each test has a key, and so a service, of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from crew import Crew, shared_crew
from service import Service, serving
from yard import SETTINGS, Yard

KEYS = 2000
_number = count()


@pytest.fixture(scope="session")
def crew() -> Crew:
    return shared_crew()


@pytest.fixture(scope="session")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    names = [f"FAULTS_KEY_{number}" for number in range(KEYS)]
    words = [word for name in names for word in ("--key", f"env:{name}")]
    environ = {name: f"sk-{name}" for name in names}
    with serving(tmp_path_factory.mktemp("served") / "data", *words, environ=environ) as found:
        yield found


@pytest.fixture
def service(shared_service: Service) -> Service:
    found = replace(shared_service, key=f"sk-FAULTS_KEY_{next(_number)}")
    found.faults()
    return found


@pytest.fixture
def yard(tmp_path: Path, service: Service, crew: Crew) -> Iterator[Yard]:
    found = Yard(tmp_path / "project", crew=crew, service=service)
    found.write({"batchops.toml": SETTINGS})
    yield found
    found.dismiss()
