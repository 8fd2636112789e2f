"""The pipeline of fetches: two batches are under way behind the taken one, one is judged, and nothing stays of any."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from result_files import EMBEDDINGS, completed_batch

from batchops.engine.ahead import Ahead, EndedBatch
from batchops.engine.download import ResultFiles
from batchops.engine.ledger import Submission
from batchops.engine.project import Project
from batchops.providers.provider import Uncertain

PATIENCE_SECONDS = 60
NAMES = ("a", "b", "c", "d")


class Gates:
    """Work that tells when it is begun, and ends once the test lets it go on."""

    def __init__(self) -> None:
        self.begun = {name: threading.Event() for name in NAMES}
        self.free = {name: threading.Event() for name in NAMES}
        self.problems: dict[str, Exception] = {}

    def work(self, name: str, is_wanted: Callable[[], bool] = lambda: True) -> None:
        self.begun[name].set()
        while is_wanted() and not self.free[name].wait(0.01):
            pass
        if name in self.problems:
            raise self.problems[name]

    def open(self) -> None:
        for gate in self.free.values():
            gate.set()

    def has_begun(self, name: str) -> bool:
        return self.begun[name].wait(PATIENCE_SECONDS)


class Line:
    """A pipeline whose downloads and judgements the test holds. A judgement is the text of the file, in capitals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.downloads, self.judgements = Gates(), Gates()
        self.judged: list[str] = []
        self.most_judged = 0

    def download(self, file_id: str, path: Path) -> None:
        self.downloads.work(file_id)
        path.write_text(file_id)

    def judge(self, ended: EndedBatch, files: ResultFiles, folder: Path, is_wanted: Callable[[], bool]) -> str:
        name = str(ended.remote.output_file_id)
        self.judged.append(name)
        self.most_judged = max(self.most_judged, len(self.judged))
        try:
            self.judgements.work(name, is_wanted)
            return files.paths[0].read_text().upper()
        finally:
            self.judged.remove(name)

    def ahead(self, *names: str) -> Ahead[str]:
        known: Any = SimpleNamespace(work_folder=self.folder, provider=lambda _: self)
        return Ahead(cast(Project, known), self.judge, [batch(name) for name in names])

    def open(self) -> None:
        self.downloads.open()
        self.judgements.open()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    found = Line(tmp_path)
    yield found
    found.open()
    finish_threads()
    assert list(tmp_path.iterdir()) == [], "a folder was left behind"
    assert found.judged == [], "a judgement was left behind"


def finish_threads() -> None:
    for thread in threading.enumerate():
        if thread.name == "batchops-fetch":
            thread.join(PATIENCE_SECONDS)


def batch(name: str) -> EndedBatch:
    found = Submission(
        NAMES.index(name), UUID(int=0), "job", "p", EMBEDDINGS, "m", "created", 1, 1, 0, None, None, name, {}, None
    )
    return EndedBatch(found, completed_batch(f"batch_{name}", EMBEDDINGS, output_file_id=name), None)


def taken(ahead: Ahead[str], name: str) -> str:
    with ahead.taken(batch(name)) as (files, judgement):
        assert [path.read_text() for path in files.paths] == [name]
        return judgement


def test_while_one_is_taken_the_next_is_judged_and_the_one_behind_it_downloaded(line: Line) -> None:
    with closing(line.ahead(*NAMES)) as ahead:
        line.downloads.open()
        line.judgements.free["a"].set()
        with ahead.taken(batch("a")) as (_, judgement):
            assert judgement == "A"
            assert line.judgements.has_begun("b")
            assert line.downloads.has_begun("c")
            assert not line.judgements.begun["c"].is_set(), "two would be in memory"
            assert not line.downloads.begun["d"].is_set()
            line.judgements.free["b"].set()
            assert line.judgements.has_begun("c"), "nothing of b is in memory any more"
        line.judgements.open()
        assert [taken(ahead, name) for name in "bcd"] == ["B", "C", "D"]
    assert line.most_judged == 1


def test_where_one_could_not_be_downloaded_the_next_still_waits_for_the_one_before_it(line: Line) -> None:
    line.downloads.problems["b"] = Uncertain("cut")
    line.downloads.open()
    with closing(line.ahead(*NAMES)) as ahead:
        line.judgements.free["a"].set()
        assert taken(ahead, "a") == "A"
        line.judgements.open()
        with pytest.raises(Uncertain, match="cut"):
            taken(ahead, "b")
        assert [taken(ahead, name) for name in "cd"] == ["C", "D"]
    assert line.most_judged == 1


def test_files_are_downloaded_one_after_the_other(line: Line) -> None:
    line.judgements.open()
    with closing(line.ahead(*NAMES)) as ahead:
        taking = threading.Thread(target=taken, args=(ahead, "a"))
        taking.start()
        assert line.downloads.has_begun("a")
        assert not line.downloads.begun["b"].is_set()
        line.downloads.open()
        taking.join(PATIENCE_SECONDS)
        assert taken(ahead, "b") == "B"


@pytest.mark.parametrize("stage", ["downloads", "judgements"])
def test_what_went_wrong_ahead_is_told_when_its_batch_is_taken_and_the_others_go_on(line: Line, stage: str) -> None:
    getattr(line, stage).problems["b"] = Uncertain("cut")
    line.open()
    with closing(line.ahead(*NAMES)) as ahead:
        assert taken(ahead, "a") == "A"
        with pytest.raises(Uncertain, match="cut"):
            taken(ahead, "b")
        assert [taken(ahead, name) for name in "cd"] == ["C", "D"]


def test_one_that_was_not_announced_comes_in_between(line: Line) -> None:
    line.open()
    with closing(line.ahead("a", "c")) as ahead:
        assert [taken(ahead, name) for name in "abc"] == ["A", "B", "C"]
    assert line.most_judged == 1


def test_a_batch_that_could_not_be_recorded_is_let_go_with_all_behind_it(line: Line) -> None:
    line.open()
    with suppress(ZeroDivisionError), closing(line.ahead(*NAMES)) as ahead, ahead.taken(batch("a")):
        raise ZeroDivisionError
    assert line.judged == []


def test_the_end_waits_for_a_judge_at_work_who_is_told_and_for_no_download(line: Line) -> None:
    line.judgements.free["a"].set()
    line.downloads.free["a"].set()
    line.downloads.free["b"].set()
    with closing(line.ahead(*NAMES)) as ahead:
        assert taken(ahead, "a") == "A"
        assert line.judgements.has_begun("b")
        assert line.downloads.has_begun("c")
    assert line.judged == [], "the judge of b is still at work"
    assert not line.downloads.free["c"].is_set()
    assert list(line.folder.iterdir()) == []


def test_at_the_end_none_is_judged_for_the_one_before_it_has_ended(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.downloads.open()
    line.judgements.free["a"].set()
    line.judgements.free["c"].set()
    remove = shutil.rmtree

    def removed(folder: Path, *, ignore_errors: bool) -> None:
        finish_threads()  # whatever the others have begun by now, they do
        remove(folder, ignore_errors=ignore_errors)

    with closing(line.ahead(*NAMES)) as ahead:
        assert taken(ahead, "a") == "A"
        assert line.judgements.has_begun("b")
        assert line.downloads.has_begun("c")
        monkeypatch.setattr(shutil, "rmtree", removed)
    assert not line.judgements.begun["c"].is_set()
