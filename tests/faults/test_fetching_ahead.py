"""Batches that are downloaded and judged ahead: whatever befalls one of them, each is recorded once and in full."""

from __future__ import annotations

import re
import signal
import threading
from dataclasses import replace

import pytest
from meddler import Call, Reply, meddling
from yard import Yard, codes, job

pytest_plugins = ("yard_fixtures",)
ROWS = 8
BATCHES = 4
PATIENCE_SECONDS = 60


@pytest.fixture
def ended(yard: Yard) -> Yard:
    """Four batches that have ended and are not fetched."""
    yard.write({"jobs/chat.yaml": job(rows=ROWS, batch={"max_requests": ROWS // BATCHES})})
    yard.run("apply", "--auto-approve")
    yard.wait_ended()
    return yard


class Contents:
    """Lets all calls through but those for one of the files that are downloaded, the `nth`."""

    def __init__(self, nth: int) -> None:
        self._nth = nth
        self.asked: list[str] = []

    def __call__(self, call: Call) -> Reply | None:
        found = re.search(r"/files/(.+)/content", call.path)
        if found is None:
            return call.forward()
        if found[1] not in self.asked:
            self.asked.append(found[1])
        return self.reply(call) if self.asked.index(found[1]) == self._nth - 1 else call.forward()

    def reply(self, call: Call) -> Reply | None:
        return call.forward()


class Lost(Contents):
    """Refuses it."""

    def reply(self, call: Call) -> Reply | None:
        return Reply(403, {}, b'{"error": {"message": "Not for you."}}')


class Kept(Contents):
    """Keeps it until the test lets it go."""

    def __init__(self, nth: int) -> None:
        super().__init__(nth)
        self.is_asked, self.may_go = threading.Event(), threading.Event()

    def reply(self, call: Call) -> Reply | None:
        self.is_asked.set()
        assert self.may_go.wait(PATIENCE_SECONDS)
        return call.forward()


class Torn(Contents):
    """Spoils its two lines: the first ends in the middle, the second has another name. The size stays as announced."""

    def reply(self, call: Call) -> Reply | None:
        said = call.forward()
        first, second = said.body.splitlines()
        foreign = re.sub(rb'("custom_id": ?")(.{8})', rb"\1no-row--", second)
        return replace(said, body=b"\n".join((first[:60].ljust(len(first)), foreign, b"")))


def leavings(yard: Yard) -> list[str]:
    return [path.name for path in (yard.root / "state" / "work").iterdir()]


@pytest.mark.parametrize("nth", [1, 2, 4])
def test_a_file_that_is_refused_is_told_and_every_other_batch_is_recorded(ended: Yard, nth: int) -> None:
    with meddling(ended.service.url, Lost(nth)) as url:
        ended.environ["OPENAI_BASE_URL"] = url
        ran = ended.run("wait", "--json", code=1)
    assert codes(ran) == ["batch_not_fetched"]
    seen, fetched = ([line["batch_id"] for line in ran.lines if line["type"] == kind]
                     for kind in ("batch_progress", "batch_fetched"))  # fmt: skip
    assert ended.statuses() == {"succeeded": ROWS - ROWS // BATCHES, "in_flight": ROWS // BATCHES}
    assert fetched == [batch_id for place, batch_id in enumerate(seen, 1) if place != nth]
    assert leavings(ended) == []
    ended.environ["OPENAI_BASE_URL"] = ended.service.url
    ended.converge()
    ended.hold_laws(rows=ROWS)


def test_lines_that_cannot_be_read_are_told_of_where_rows_are_missing(ended: Yard) -> None:
    """The code is result_lines_unread."""
    torn = Torn(2)
    with meddling(ended.service.url, torn) as url:
        ended.environ["OPENAI_BASE_URL"] = url
        ran = ended.run("wait", "--json")
    (told,) = [line["diagnostic"] for line in ran.lines if line["type"] == "diagnostic"]
    (spoilt,) = [batch for batch in ended.batches() if batch["output_file_id"] == torn.asked[1]]
    assert (told["code"], told["severity"], told["address"]) == ("result_lines_unread", "warning", "chat")
    where = f"{spoilt['output_file_id']} of {spoilt['id']} at openai"
    assert told["detail"].startswith(f"2 of them in {where}; 2 rows are in no line, ")
    assert ended.statuses() == {"succeeded": ROWS - 2, "missing": 2}
    ended.environ["OPENAI_BASE_URL"] = ended.service.url
    ended.converge()
    ended.hold_at_most_once()


@pytest.mark.parametrize("nth", [2, 3])
def test_a_signal_leaves_nothing_of_what_was_under_way_and_loses_nothing(ended: Yard, nth: int) -> None:
    kept = Kept(nth)
    with meddling(ended.service.url, kept) as url:
        ended.environ["OPENAI_BASE_URL"] = url
        command = ended.start("wait")
        assert kept.is_asked.wait(PATIENCE_SECONDS)
        command.kill(signal.SIGINT)
        ended.wait_until(lambda: "Ctrl-C again" in command.err)
        kept.may_go.set()
        assert command.wait().code == 130
    assert leavings(ended) == []
    ended.environ["OPENAI_BASE_URL"] = ended.service.url
    ended.converge()
    ended.hold_laws(rows=ROWS)


@pytest.mark.parametrize("step", ["before_judge:2", "before_answers:2", "after_answers:2", "before_download:3"])
def test_a_kill_with_batches_under_way_loses_none_of_them(ended: Yard, step: str) -> None:
    assert ended.crash(step)
    ended.converge()
    assert leavings(ended) == []
    ended.hold_laws(rows=ROWS)
