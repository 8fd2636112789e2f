"""A look at what is open: many batches at a time, and in vain only once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from made_states import create, held, record

from batchops.engine.look import NotShown, look, problems_of
from batchops.engine.operations import wait_for
from batchops.engine.project import Project, open_project
from batchops.plan.events import StopFlag
from batchops.providers.normalise import batch_from
from batchops.providers.provider import Missing, Provider, RemoteBatch, Uncertain, Unreachable
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
    (tmp_path / "batchops.toml").write_text('project = "reviews"\n[poll]\ninitial = "10ms"\n')
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


def test_provider_that_cannot_be_reached_is_told_once_with_the_number_of_its_batches(
    project: Project, service: Service
) -> None:
    def answer(batch_id: str) -> RemoteBatch:
        raise Unreachable("The service cannot be reached.")

    service.answer = answer
    (told,) = problems_of(look(project))
    assert (told.code, told.address) == ("provider_unreachable", "job")
    assert told.detail == f"local about {BATCHES} batches: The service cannot be reached. Shown as last seen."


def test_only_batch_that_could_not_be_asked_for_is_told_by_its_name_and_each_that_is_denied_by_its_own(
    project: Project, service: Service
) -> None:
    def answer(batch_id: str) -> RemoteBatch:
        if batch_id == "batch_2":
            raise Uncertain("No usable reply.")
        if batch_id in {"batch_3", "batch_4"}:
            raise Missing("There is none.", status=404)
        return shown(batch_id)

    service.answer = answer
    told = problems_of(look(project))
    assert [problem.code for problem in told] == ["batch_not_visible", "batch_not_visible", "provider_unreachable"]
    assert [problem.detail.partition(". ")[0] for problem in told] == [
        "local answered 404 for batch_3",
        "local answered 404 for batch_4",
        "local about batch_2: No usable reply",
    ]


def test_a_wait_tells_of_a_provider_once_and_only_of_batches_that_no_look_has_shown(
    project: Project, service: Service
) -> None:
    stop = StopFlag()

    def answer(batch_id: str) -> RemoteBatch:
        if len(service.asked) <= BATCHES or batch_id != "batch_2":
            raise Uncertain("No usable reply.")
        stop.request()
        return shown(batch_id)

    service.answer = answer
    done = wait_for(project, emit=lambda event: None, stop=stop)
    assert [problem.detail.partition(":")[0] for problem in done.diagnostics] == [f"local about {BATCHES - 1} batches"]
    assert len(service.asked) == 2 * BATCHES


def test_what_was_seen_later_is_not_told_in_the_end_unless_it_had_been_denied(
    project: Project, service: Service
) -> None:
    troubles = {"batch_1": Uncertain("No usable reply."), "batch_2": Missing("There is none.", status=404)}

    def answer(batch_id: str) -> RemoteBatch:
        if batch_id in troubles:
            raise troubles[batch_id]
        return shown(batch_id)

    service.answer = answer
    not_shown = NotShown()
    not_shown.note(look(project))
    not_shown.note(look(project))
    assert [problem.code for problem in not_shown.problems()] == ["batch_not_visible", "provider_unreachable"]
    troubles.clear()
    not_shown.note(look(project))
    assert [problem.code for problem in not_shown.problems()] == ["batch_not_visible"]
