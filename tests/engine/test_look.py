"""A look at what is open: many batches at a time, and in vain only once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from made_states import create, held, record

from batchops.engine.look import look
from batchops.engine.project import Project, open_project
from batchops.providers.normalise import batch_from
from batchops.providers.provider import Provider, RemoteBatch, Uncertain, Unreachable
from batchops.settings import load_settings

BATCHES = 20
PATIENCE_SECONDS = 60


class Service:
    """A `Provider` as far as a look needs one."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Callable[[str], RemoteBatch] = shown

    def retrieve(self, batch_id: str) -> RemoteBatch:
        self.asked.append(batch_id)
        return self.answer(batch_id)

    def close(self) -> None:
        """Nothing is held."""


def shown(batch_id: str) -> RemoteBatch:
    return batch_from({"id": batch_id, "object": "batch", "status": "in_progress", "created_at": 100})


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def project(tmp_path: Path, service: Service) -> Iterator[Project]:
    """A project with many batches in flight."""
    (tmp_path / "batchops.toml").write_text('project = "reviews"\n')
    keys = [f"row {number}" for number in range(BATCHES)]
    with held(tmp_path / "state" / "batchops.duckdb") as store:
        record(store, "job", keys)
        for number, key in enumerate(keys, start=1):
            create(store, number, "job", [key])
    with open_project(tmp_path, load_settings(tmp_path, environ={})) as opened:
        cast(Any, opened)._providers["local"] = cast(Provider, service)
        yield opened


def test_five_batches_are_asked_for_at_a_time_and_shown_in_their_order(project: Project, service: Service) -> None:
    together, inside, most = threading.Barrier(5), threading.Semaphore(5), []

    def answer(batch_id: str) -> RemoteBatch:
        most.append(inside.acquire(blocking=False))
        together.wait(PATIENCE_SECONDS)  # breaks where fewer are asked for at a time
        inside.release()
        return shown(batch_id)

    service.answer = answer
    ids = [f"batch_{number}" for number in range(1, BATCHES + 1)]
    assert [found.remote.id for found in look(project) if found.remote is not None] == ids
    assert sorted(service.asked) == sorted(ids)
    assert all(most), "more than small services queue"


def test_provider_that_cannot_be_reached_is_not_asked_for_every_batch(project: Project, service: Service) -> None:
    def answer(batch_id: str) -> RemoteBatch:
        raise Unreachable("The service cannot be reached.")

    service.answer = answer
    sightings = look(project)
    assert len(sightings) == BATCHES
    assert all(isinstance(found.problem, Unreachable) for found in sightings)
    assert len(service.asked) < BATCHES / 2


def test_batch_that_cannot_be_seen_does_not_hide_the_others(project: Project, service: Service) -> None:
    def answer(batch_id: str) -> RemoteBatch:
        if batch_id == "batch_2":
            raise Uncertain("No usable reply.")
        return shown(batch_id)

    service.answer = answer
    sightings = look(project)
    assert [found.submission.batch_id for found in sightings if found.remote is None] == ["batch_2"]
    assert len(service.asked) == BATCHES
