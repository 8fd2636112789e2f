"""Many clients at once, and a server that is killed under them: no batch is made twice, and no line answered twice."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from pathlib import Path
from random import Random

import openai
import pytest
from batch_desk import Desk, at, chat, jsonl
from openai.types import Batch
from serve_command import started

ASKED = [f"r{number}" for number in range(20)]
LINES = jsonl([chat(custom_id) for custom_id in ASKED])


class Site:
    """Where the server is, whether it is up, and how many batches its clients have made."""

    def __init__(self) -> None:
        self.url = ""
        self.is_up = threading.Event()
        self.made = threading.Semaphore(0)

    @property
    def port(self) -> str:
        return self.url.rpartition(":")[2].removesuffix("/v1") or "0"


class Client(threading.Thread):
    """Makes batches one after the other, each by a name of its own, and never one that is there already."""

    def __init__(self, site: Site, names: list[str]) -> None:
        super().__init__()
        self._site, self._names = site, names
        self.batches: dict[str, str] = {}
        self.lost_replies = 0

    def run(self) -> None:
        with at(self._site.url) as desk:
            for name in self._names:
                self.batches[name] = self._submit(desk, name).id
                self._site.made.release()

    def _submit(self, desk: Desk, name: str) -> Batch:
        is_sure = True
        while True:
            try:
                found = None if is_sure else self._found(desk, name)
                return found or desk.create(desk.upload(LINES, f"{name}.jsonl"), metadata={"name": name})
            except openai.APIConnectionError:
                is_sure = False  # the server was killed, before it made the batch or after
                self.lost_replies += 1
                self._site.is_up.wait()

    @staticmethod
    def _found(desk: Desk, name: str) -> Batch | None:
        return next((seen for seen in desk.sdk.batches.list(limit=100) if seen.metadata == {"name": name}), None)


@pytest.mark.parametrize(
    ("clients", "batches", "kills"), [(4, 40, 2), pytest.param(20, 1000, 8, marks=pytest.mark.full)]
)
def test_killed_server_makes_each_batch_once_and_answers_each_line_once(
    tmp_path: Path, clients: int, batches: int, kills: int
) -> None:
    site, names = Site(), [f"batch-{number}" for number in range(batches)]
    crew = [Client(site, names[number::clients]) for number in range(clients)]
    waits = Random(clients).sample(range(1, batches * 9 // 10), kills)
    for made in _gaps(sorted(waits)):
        with started(tmp_path / "data", "--port", site.port) as server:
            site.url = server.url
            site.is_up.set()
            for client in crew:
                if client.ident is None:
                    client.start()
            for _ in range(made):
                assert site.made.acquire(timeout=120)
            site.is_up.clear()
            server.end(signal.SIGKILL)
    with started(tmp_path / "data", "--port", site.port):
        site.is_up.set()
        for client in crew:
            client.join()
        with at(site.url) as desk:
            _check(desk, {name: made for client in crew for name, made in client.batches.items()}, names)
    print(f"{kills} kills, {sum(client.lost_replies for client in crew)} replies lost")


def _gaps(moments: list[int]) -> list[int]:
    return [moment - before for before, moment in zip([0, *moments], moments, strict=False)]


def _check(desk: Desk, made: dict[str, str], names: list[str]) -> None:
    """What the clients were told, what the server lists, its ledger and its files all say the same."""
    assert sorted(made) == sorted(names)
    ended = [desk.wait(batch_id, timeout=120) for batch_id in made.values()]
    assert {batch.status for batch in ended} == {"completed"}
    assert Counter(batch.id for batch in desk.sdk.batches.list(limit=100)) == Counter(made.values())
    executed = {(row["batch_id"], row["custom_id"]): row["count"] for row in desk.ledger()["executions"]}
    assert executed == {(batch_id, custom_id): 1 for batch_id in made.values() for custom_id in ASKED}
    for batch in ended:
        assert batch.error_file_id is None
        assert sorted(line["custom_id"] for line in desk.lines(batch.output_file_id)) == sorted(ASKED)
