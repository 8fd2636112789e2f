"""Downloads: one batch ahead of the one that is judged, and nothing stays of those that nobody took."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from result_files import EMBEDDINGS, completed_batch

from batchops.engine.download import Downloads
from batchops.engine.project import Project
from batchops.providers.provider import RemoteBatch, Uncertain

PATIENCE_SECONDS = 60


class HeldProvider:
    """Writes a file's name into it once the test lets that file go."""

    def __init__(self, *names: str) -> None:
        self.begun = {name: threading.Event() for name in names}
        self.free = {name: threading.Event() for name in names}
        self.problems: dict[str, Exception] = {}

    def download(self, file_id: str, path: Path) -> None:
        self.begun[file_id].set()
        assert self.free[file_id].wait(PATIENCE_SECONDS)
        if file_id in self.problems:
            raise self.problems[file_id]
        path.write_text(file_id)


@pytest.fixture
def provider() -> Iterator[HeldProvider]:
    held = HeldProvider("a", "b", "c")
    yield held
    for gate in held.free.values():
        gate.set()
    for thread in threading.enumerate():
        if thread.name == "batchops-download":
            thread.join(PATIENCE_SECONDS)


def batch(name: str) -> RemoteBatch:
    return completed_batch(f"batch_{name}", EMBEDDINGS, output_file_id=name)


def downloads(provider: HeldProvider, folder: Path, *names: str) -> Downloads:
    known: Any = SimpleNamespace(work_folder=folder, provider=lambda _: provider)
    return Downloads(cast(Project, known), [("p", batch(name)) for name in names])


def taken(files: Downloads, name: str) -> str:
    found, folder = files.take("p", batch(name))
    assert [path.parent for path in found.paths] == [folder]
    return found.paths[0].read_text()


def test_next_batch_is_on_its_way_when_one_is_taken_and_no_sooner(provider: HeldProvider, tmp_path: Path) -> None:
    with closing(downloads(provider, tmp_path, "a", "b", "c")) as files:
        provider.free["a"].set()
        assert taken(files, "a") == "a"
        assert provider.begun["b"].wait(PATIENCE_SECONDS)
        assert not provider.begun["c"].is_set()
        provider.free["b"].set()
        provider.free["c"].set()
        assert [taken(files, name) for name in ("b", "c")] == ["b", "c"]


def test_failed_download_is_told_when_its_batch_is_taken(provider: HeldProvider, tmp_path: Path) -> None:
    provider.problems["b"] = Uncertain("cut")
    for gate in provider.free.values():
        gate.set()
    with closing(downloads(provider, tmp_path, "a", "b", "c")) as files:
        assert taken(files, "a") == "a"
        with pytest.raises(Uncertain, match="cut"):
            files.take("p", batch("b"))
        assert taken(files, "c") == "c"
    assert len(list(tmp_path.iterdir())) == 2, "the folders of a and c are their takers'"


def test_download_that_nobody_takes_is_not_waited_for_and_leaves_nothing(
    provider: HeldProvider, tmp_path: Path
) -> None:
    provider.free["a"].set()
    provider.free["c"].set()
    with closing(downloads(provider, tmp_path, "a", "b")) as files:
        taken(files, "a")
        assert provider.begun["b"].wait(PATIENCE_SECONDS)
        assert taken(files, "c") == "c", "one that was not announced"
    provider.free["b"].set()
    for thread in threading.enumerate():
        if thread.name == "batchops-download":
            thread.join(PATIENCE_SECONDS)
    assert sorted(path.read_text() for path in tmp_path.glob("*/*")) == ["a", "c"]
    assert len(list(tmp_path.iterdir())) == 2
